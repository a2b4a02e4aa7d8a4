//! What the decoder makes: reconstructions, and the images that the discriminator is to call generated.

use deepsim_nets::loss::terms::{image_terms, kl_loss};
use deepsim_nets::loss::{TermKind, Terms, feature_distance};
use deepsim_nets::precision::at_least_fp32;
use deepsim_nets::{Discriminator, LearnedEncoder, Mode, NetError};
use tch::Tensor;

use crate::error::Result;
use crate::method::comparison::{feature_terms, in_networks};
use crate::method::micro_batch::MicroBatch;
use crate::state::State;

/// What came of step 1.
pub(super) struct Reconstructed {
    /// Codes of the real images, cut off from the encoder.
    pub(super) codes: Tensor,
    /// Its terms, as parts of those of the global batch.
    pub(super) terms: Terms<Tensor>,
}

/// Step 1: the real images through encoder and decoder, and the terms of what comes out.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn reconstruct(
    state: &State,
    encoder: &LearnedEncoder,
    discriminator: &Discriminator,
    batch: &MicroBatch<'_>,
) -> Result<Reconstructed> {
    let (perception, plan, x) = (batch.perception, batch.plan, &batch.x);
    let _autocast = plan.region(x.device())?;
    let (w, reduction) = (plan.weights(state.step), plan.reduction);
    let posterior = encoder.posterior_in(Mode::Training, x)?;
    let codes = posterior.at(batch.draws.codes.as_ref())?;
    let made = state.generator.forward_in(Mode::Training, &codes, None)?;
    let mut terms = Terms::default();
    if in_networks(perception, w) {
        let targets = {
            let _guard = tch::no_grad_guard();
            perception.compare(x)?
        };
        let found = perception.compare(&made)?;
        feature_terms(&mut terms, perception, &found, &targets, w, reduction)?;
    }
    for (term, tap) in perception.discriminator_taps() {
        if !w.counts(&term) {
            continue;
        }
        let both = Tensor::f_cat(&[&made, x], 0)?;
        let features = discriminator.features(&both, tap, Mode::Aside)?;
        let half = x.size()[0];
        let (made, real) = (
            features.f_narrow(0, 0, half)?,
            features.f_narrow(0, half, half)?,
        );
        let how = perception.distance_of(&term);
        terms.set(term, feature_distance(how, &made, &real, reduction)?);
    }
    image_terms(&mut terms, w, plan.pixels, &made, x, reduction)?;
    terms.set_some(TermKind::Kl, kl_loss(&posterior, reduction)?);
    Ok(Reconstructed {
        codes: codes.f_detach()?,
        terms: batch.slice.parts(&terms, reduction)?,
    })
}

/// Step 2: the images that the discriminator is to call generated.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn decode(
    state: &State,
    reconstructed: Option<&Reconstructed>,
    batch: &MicroBatch<'_>,
) -> Result<Tensor> {
    let _autocast = batch.plan.region(batch.x.device())?;
    // fp64 where the images are.
    let prior =
        batch.draws.prior.as_ref().ok_or_else(|| {
            NetError::Spec("the decoder of VAE/GAN needs draws of the prior".into())
        })?;
    let prior = prior.f_to_kind(at_least_fp32(&batch.x))?;
    let (codes, mode) = match reconstructed {
        // The running statistics are those of codes of real images.
        Some(r) => (Tensor::f_cat(&[&r.codes, &prior], 0)?, Mode::Aside),
        None => (prior, Mode::Training),
    };
    Ok(state.generator.forward_in(mode, &codes, None)?)
}
