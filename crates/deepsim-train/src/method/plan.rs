//! What an iteration needs besides the state, the networks and the images.

use deepsim_experiment::Experiment;
use deepsim_experiment::config;
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
    pub gate: config::Gate,
    /// Arithmetic.
    pub precision: Precision,
    /// Passes of the discriminator over generated images.
    pub passes: config::DiscriminatorPasses,
    /// The iteration of VAE/GAN instead of the paper's.
    pub vaegan: Option<config::VaeGan>,
    /// Reward for images of the same features that differ.
    pub diversity: Option<config::Diversity>,
}

impl Plan {
    /// What an experiment says of it.
    pub fn of(experiment: &Experiment) -> Plan {
        let config = &experiment.config;
        Plan {
            weights: experiment.weights(),
            reduction: config.loss.reduction,
            pixels: config.pixels.distance,
            gate: config.gate.unwrap_or(config::Gate::OPEN),
            precision: match config.train.precision {
                config::Precision::Fp32 => Precision::Fp32,
                config::Precision::Bf16 => Precision::Bf16,
            },
            passes: config.train.discriminator_passes,
            vaegan: config.vaegan,
            diversity: config.diversity,
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
