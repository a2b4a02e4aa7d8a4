//! What an iteration needs besides the state, the networks and the images.

use deepsim_experiment::Experiment;
use deepsim_experiment::config::{RawDiversity, RawGate, RawPasses, RawPrecision, RawVaeGan};
use deepsim_nets::loss::{PixelDistance, Terms};
use deepsim_nets::{AutocastGuard, Precision, Reduction};
use tch::Device;

use crate::error::Result;

/// What an experiment says of its iterations.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Weights of the terms.
    pub weights: Terms<f64>,
    /// How sums over a batch become numbers.
    pub reduction: Reduction,
    /// How the image loss compares pixels.
    pub pixels: PixelDistance,
    /// Thresholds of the gate.
    pub gate: RawGate,
    /// Arithmetic.
    pub precision: Precision,
    /// Passes of the discriminator over generated images.
    pub passes: RawPasses,
    /// The iteration of VAE/GAN instead of the paper's.
    pub vaegan: Option<RawVaeGan>,
    /// Reward for images of the same features that differ.
    pub diversity: Option<RawDiversity>,
}

impl Plan {
    /// What an experiment says of it.
    pub fn of(experiment: &Experiment) -> Plan {
        let raw = &experiment.raw;
        Plan {
            weights: experiment.weights(),
            reduction: raw.loss.reduction,
            pixels: raw.pixels.distance,
            gate: raw.gate,
            precision: match raw.train.precision {
                RawPrecision::Fp32 => Precision::Fp32,
                RawPrecision::Bf16 => Precision::Bf16,
            },
            passes: raw.train.discriminator_passes,
            vaegan: raw.vaegan,
            diversity: raw.diversity,
        }
    }

    /// The weights of the terms in the iteration after `step`: the same in all.
    pub fn weights(&self, _step: u64) -> &Terms<f64> {
        &self.weights
    }

    /// Begins a region of its arithmetic. Autocast keeps the bf16 copies of weights until a region ends: each phase has
    /// its own, or an updated network would work with its old weights.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn region(&self, device: Device) -> Result<AutocastGuard> {
        Ok(AutocastGuard::new(device, self.precision)?)
    }
}
