//! Images made of features, and of noise where the generator takes some.

use deepsim_nets::Mode;
use deepsim_nets::loss::diversity;
use tch::Tensor;
use tracing::trace_span;

use crate::error::Result;
use crate::method::gradients::with_grad;
use crate::method::micro_batch::MicroBatch;
use crate::state::State;

/// Images made of features.
#[derive(Debug)]
pub(super) struct Generated {
    /// Images `[len,3,crop,crop]` in Caffe units.
    pub(super) images: Tensor,
    /// The term of diversity over the micro-batch, where a second draw was made.
    pub(super) diversity: Option<Tensor>,
}

/// Images of the features `inverted` `[len,…]`, disturbed by noise where the plan says so. With diversity the generator makes a second image of each, of other
/// noise.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn generate(
    state: &State,
    inverted: &Tensor,
    batch: &MicroBatch<'_>,
) -> Result<Generated> {
    let _phase = trace_span!("generate").entered();
    let (plan, draws, device) = (batch.plan, &batch.draws, inverted.device());
    let noise = draws.noise.as_ref();
    let other = match (noise, &draws.other_noise, plan.diversity) {
        (Some(noise), Some(other), Some(rule)) => Some((noise, other, rule)),
        _ => None,
    };
    with_grad(state.gate.train_g, || {
        let _autocast = plan.region(device)?;
        let inverted = &match &draws.disturbed {
            Some(noise) => inverted.f_add(&noise.f_to_kind(inverted.kind())?)?,
            None => inverted.shallow_clone(),
        };
        let make = |features: &Tensor, noise: Option<&Tensor>| {
            state.generator.forward_in(Mode::Training, features, noise)
        };
        let Some((noise, other, rule)) = other else {
            return Ok(Generated {
                images: make(inverted, noise)?,
                diversity: None,
            });
        };
        let n = batch.slice.len;
        let twice = Tensor::f_cat(&[inverted, inverted], 0)?;
        let made = make(&twice, Some(&Tensor::f_cat(&[noise, other], 0)?))?;
        let (first, second) = (made.f_narrow(0, 0, n)?, made.f_narrow(0, n, n)?);
        let apart = diversity(
            [&first, &second],
            [noise, other],
            rule.limit,
            plan.reduction,
        )?;
        Ok(Generated {
            images: first,
            diversity: Some(apart),
        })
    })
}
