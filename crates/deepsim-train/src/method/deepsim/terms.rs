//! What the generator follows: the terms of its loss, and their sum.

use deepsim_nets::Mode;
use deepsim_nets::loss::terms::{adversarial_loss, image_terms, kl_loss};
use deepsim_nets::loss::{TermKind, Terms, feature_distance};
use tch::{Device, Tensor};
use tracing::trace_span;

use crate::error::Result;
use crate::method::adversarial::{Adversarial, discriminator_of, shown, with_gradient};
use crate::method::comparison::feature_terms;
use crate::method::deepsim::forward::{Forward, Verdict};
use crate::method::deepsim::generated::Generated;
use crate::method::gradients::with_grad;
use crate::method::micro_batch::MicroBatch;
use crate::state::State;

/// What the generator follows on a micro-batch.
pub(super) struct Followed {
    /// Its terms, as parts of those of the global batch.
    pub(super) terms: Terms<Tensor>,
    /// What the discriminator's own pass has found of the adversarial one, already weighted; its value says nothing.
    pushed: Option<Tensor>,
}

impl Followed {
    /// Eq. 1: the sum of the terms by their weights.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn loss(&self, weights: &Terms<f64>, device: Device) -> Result<Tensor> {
        let loss = self.terms.weighted_sum(weights, device)?;
        match &self.pushed {
            Some(pushed) => Ok(loss.f_add(pushed)?),
            None => Ok(loss),
        }
    }

    /// The sum of the other terms by their weights, and the adversarial term without its own; none where there is none.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn apart(
        &self,
        weights: &Terms<f64>,
        device: Device,
    ) -> Result<Option<[Tensor; 2]>> {
        let Some(adversarial) = self.terms.of(TermKind::Adversarial) else {
            return Ok(None);
        };
        let mut others = weights.clone();
        others.set(TermKind::Adversarial, 0.0);
        let others = self.terms.weighted_sum(&others, device)?;
        Ok(Some([others, adversarial.shallow_clone()]))
    }
}

/// The adversarial term of a micro-batch, as a part of that of the global batch.
#[derive(Default)]
struct Told {
    term: Option<Tensor>,
    pushed: Option<Tensor>,
}

/// The terms of a micro-batch.
///
/// They are computed in this order, adversarial, feature (networks first, then the discriminator's layers), image,
/// Kullback-Leibler: autograd adds the gradients of terms in the order in which they were computed, and another order
/// would give other last digits.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn followed(
    state: &State,
    batch: &MicroBatch<'_>,
    forward: Forward,
    verdict: &Verdict,
) -> Result<Followed> {
    let (plan, x) = (batch.plan, &batch.x);
    let (weights, reduction) = (plan.weights(state.step), plan.reduction);
    let Forward {
        features,
        generated,
    } = forward;
    let Generated { images, diversity } = generated;
    with_grad(state.gate.train_g, || {
        let _autocast = plan.region(x.device())?;
        let told = adversarial(state, batch, &images, verdict)?;
        let mut terms = Terms::default();
        {
            let _phase = trace_span!("feature_term").entered();
            if !features.targets.is_empty() {
                let (perception, targets) = (batch.perception, &features.targets);
                let found = perception.compare(&images)?;
                feature_terms(&mut terms, perception, &found, targets, weights, reduction)?;
            }
            in_discriminator(&mut terms, state, batch, &images)?;
        }
        {
            let _phase = trace_span!("image_term").entered();
            image_terms(&mut terms, weights, plan.pixels, &images, x, reduction)?;
        }
        if let Some(posterior) = &features.posterior {
            terms.set_some(TermKind::Kl, kl_loss(posterior, reduction)?);
        }
        terms.set_some(TermKind::Diversity, diversity);
        let mut terms = batch.slice.parts(&terms, reduction)?;
        terms.set_some(TermKind::Adversarial, told.term);
        Ok(Followed {
            terms,
            pushed: told.pushed,
        })
    })
}

/// The adversarial term of generated images: of the updated discriminator, or as its own pass has found it.
fn adversarial(
    state: &State,
    batch: &MicroBatch<'_>,
    generated: &Tensor,
    verdict: &Verdict,
) -> Result<Told> {
    let reduction = batch.plan.reduction;
    match &verdict.adversarial {
        None => Ok(Told::default()),
        Some(Adversarial::Later) => {
            let _phase = trace_span!("adversarial_term").entered();
            let features = verdict.shown.as_ref();
            let (masks, d) = (Some(&batch.draws.updated[..]), discriminator_of(state)?);
            let (rules, [_, _, draws]) = (&batch.plan.adversary, &batch.draws.augmented);
            let images = shown(rules, generated, draws)?;
            let logits = d.forward_with(&images, features, Mode::Training, masks)?;
            let loss = adversarial_loss(rules.loss, &logits, reduction)?;
            Ok(Told {
                term: Some(batch.slice.part(loss, reduction)?),
                pushed: None,
            })
        }
        Some(Adversarial::Loss(loss)) => Ok(Told {
            term: Some(loss.shallow_clone()),
            pushed: None,
        }),
        Some(Adversarial::Found { loss, gradient }) => Ok(Told {
            term: Some(loss.shallow_clone()),
            pushed: Some(with_gradient(generated, gradient)?),
        }),
    }
}

/// Sets the feature terms whose comparator is the discriminator as it stands, without dropout.
fn in_discriminator(
    terms: &mut Terms<Tensor>,
    state: &State,
    batch: &MicroBatch<'_>,
    generated: &Tensor,
) -> Result<()> {
    let (plan, mode) = (batch.plan, Mode::Evaluation);
    for (term, tap) in batch.perception.discriminator_taps() {
        if !plan.weights(state.step).counts(&term) {
            continue;
        }
        let d = discriminator_of(state)?;
        let target = with_grad(false, || Ok(d.features(&batch.x, tap, mode)?))?;
        let found = d.features(generated, tap, mode)?;
        let how = batch.perception.distance_of(&term);
        let distance = feature_distance(how, &found, &target, plan.reduction)?;
        terms.set(term, distance);
    }
    Ok(())
}
