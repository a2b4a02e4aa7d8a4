//! The weight of the adversarial term by the gradients of the last layer (VQGAN).
//!
//! Gradients are linear in a term's weight. So the other terms' and the adversarial term's are found apart, added up over
//! micro-batches, shards and processes each, and added to each other last: the weight is that of the whole batch.

use deepsim_experiment::config;
use deepsim_nets::NetError;
use deepsim_nets::loss::TermKind;
use deepsim_nets::loss::penalties::balance;

use crate::error::Result;
use crate::method::gradients::{Gradients, Player};
use crate::method::sums::Sums;
use crate::state::State;

/// Adds the gradients of the adversarial term to the others, by `weight` (`loss.adv`) and by the weight that the norms
/// give. It is among the terms then. Where no gradients are of the adversarial term, nothing changes.
///
/// # Errors
/// A generator without weights; gradients of other networks than the others'.
pub(super) fn weighed(
    state: &State,
    found: Sums,
    rule: config::Adaptive,
    weight: f64,
) -> Result<Sums> {
    let mut sums = found;
    let all = std::mem::take(&mut sums.gradients);
    let (adversarial, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(|g| g.adversarial);
    if adversarial.is_empty() {
        sums.gradients = others;
        return Ok(sums);
    }
    let _guard = tch::no_grad_guard();
    let last = state
        .generator
        .params()
        .trained()
        .iter()
        .rposition(|param| param.tensor.dim() > 1);
    // In one memory order: a norm adds up along memory, and must not depend on who has added up the gradient.
    let of_last = |all: &[Gradients]| -> Result<tch::Tensor> {
        let of_generator = all.iter().find(|g| g.player == Player::Generator);
        match of_generator.and_then(|g| g.tensors.get(last?)) {
            Some(gradient) => Ok(gradient.f_contiguous()?),
            None => {
                let reason = "the generator has no last layer to weigh terms by";
                Err(NetError::Spec(reason.into()).into())
            }
        }
    };
    let balance = balance(
        &of_last(&others)?,
        &of_last(&adversarial)?,
        rule.epsilon,
        rule.limit,
    )?;
    for of_network in &adversarial {
        let same = others.iter_mut().find(|g| g.player == of_network.player);
        let Some(sum) = same.filter(|sum| sum.tensors.len() == of_network.tensors.len()) else {
            let name = of_network.player.name();
            return Err(NetError::Spec(format!("{name} has gradients of one term alone")).into());
        };
        for (sum, gradient) in sum.tensors.iter_mut().zip(&of_network.tensors) {
            let weighed = gradient.f_mul(&balance)?.f_mul_scalar(weight)?;
            let _ = sum.f_add_(&weighed)?;
        }
    }
    sums.gradients = others;
    sums.terms.set(TermKind::AdversarialWeight, balance);
    Ok(sums)
}
