//! Features of real images: what is inverted, and what generated images are to be like.

use deepsim_nets::loss::Terms;
use deepsim_nets::{Mode, Posterior};
use tch::Tensor;
use tracing::trace_span;

use crate::error::Result;
use crate::method::comparison::in_networks;
use crate::method::gradients::with_grad;
use crate::method::micro_batch::MicroBatch;
use crate::state::State;

/// Features of real images.
#[derive(Debug)]
pub(super) struct Features {
    /// Their codes' distribution, of an encoder that learns.
    pub(super) posterior: Option<Posterior>,
    /// What is inverted.
    pub(super) inverted: Tensor,
    /// Their features in comparators that are networks of their own, by feature term. The discriminator, where it is a
    /// comparator, is asked when it has been updated.
    pub(super) targets: Terms<Vec<Tensor>>,
}

/// The features of a micro-batch's images. The codes of an encoder that learns are those of the draws.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn encode(state: &State, batch: &MicroBatch<'_>) -> Result<Features> {
    let _phase = trace_span!("features").entered();
    let (perception, plan, x) = (batch.perception, batch.plan, &batch.x);
    let compared = in_networks(perception, plan.weights(state.step));
    if let Some(encoder) = state.learned() {
        let (posterior, inverted) = with_grad(state.gate.train_g, || {
            let posterior = {
                let _autocast = plan.region(x.device())?;
                encoder.posterior_in(Mode::Training, x)?
            };
            let codes = posterior.at(batch.draws.codes.as_ref())?;
            Ok((posterior, codes))
        })?;
        let targets = with_grad(false, || {
            let _autocast = plan.region(x.device())?;
            let targets = compared.then(|| perception.compare(x)).transpose()?;
            Ok(targets.unwrap_or_default())
        })?;
        return Ok(Features {
            posterior: Some(posterior),
            inverted,
            targets,
        });
    }
    let _autocast = plan.region(x.device())?;
    let _guard = tch::no_grad_guard();
    let (inverted, targets) = match (&batch.recorded, compared) {
        (Some(features), true) => (features.shallow_clone(), perception.compare(x)?),
        (Some(features), false) => (features.shallow_clone(), Terms::default()),
        (None, true) => {
            let both = perception.both(x)?;
            (both.encoder, both.comparators)
        }
        (None, false) => (perception.encode(x)?, Terms::default()),
    };
    Ok(Features {
        posterior: None,
        inverted,
        targets,
    })
}
