//! The first pass of an iteration, and what its phases hand to each other.

use tch::Tensor;

use super::features::{self, Features};
use super::generated::{self, Generated};
use crate::error::Result;
use crate::method::adversarial::Adversarial;
use crate::method::micro_batch::MicroBatch;
use crate::state::State;

/// What the first pass of a micro-batch makes.
#[derive(Debug)]
pub struct Forward {
    pub(super) features: Features,
    pub(super) generated: Generated,
}

/// What the discriminator's step tells the generator of a micro-batch.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Its part of the loss; none without an adversarial term.
    pub(super) adversarial: Option<Adversarial>,
    /// Input of the feature branch, where the discriminator has one.
    pub(super) shown: Option<Tensor>,
}

/// Features of a micro-batch's images, and images made of them.
///
/// # Errors
/// What libtorch refuses.
pub fn forward(state: &State, batch: &MicroBatch<'_>) -> Result<Forward> {
    let features = features::encode(state, batch)?;
    let generated = generated::generate(state, &features.inverted, batch)?;
    Ok(Forward {
        features,
        generated,
    })
}
