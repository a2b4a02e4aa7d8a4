//! What an iteration needs besides the state, the networks and the images.

use deepsim_experiment::Experiment;
use deepsim_experiment::config;
use deepsim_nets::loss::{PixelDistance, TermKind, Terms};
use deepsim_nets::{AdversarialLoss, AutocastGuard, Precision, Reduction};
use tch::Device;

use crate::error::Result;

/// What an experiment says of its iterations.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Weights of the terms, until the first of the stages.
    pub weights: Terms<f64>,
    /// Weights of further stages, with the steps after which they begin, in their order.
    pub stages: Vec<(u64, Terms<f64>)>,
    /// How sums over a batch become numbers.
    pub reduction: Reduction,
    /// How the image loss compares pixels.
    pub pixels: PixelDistance,
    /// How generator and discriminator play.
    pub adversary: config::Adversary,
    /// Thresholds of the gate, for the paper's adversarial loss alone.
    pub gate: config::Gate,
    /// Arithmetic.
    pub precision: Precision,
    /// Passes of the discriminator over generated images.
    pub passes: config::DiscriminatorPasses,
    /// The iteration of VAE/GAN instead of the paper's.
    pub vaegan: Option<config::VaeGan>,
    /// Largest deviation of the noise that is added to features in front of the generator; 0 for none.
    pub feature_noise: f64,
    /// Reward for images of the same features that differ.
    pub diversity: Option<config::Diversity>,
    /// Micro-batches that an iteration's images are split into, where there are no shards.
    pub micro_batches: i64,
    /// Shards that the global batch is split into, in whose order everything is added.
    pub shards: Option<i64>,
    /// Whether a network that learns normalises batches, so that shards need each other's statistics.
    pub normalises: bool,
}

impl Plan {
    /// What an experiment says of it.
    pub fn of(experiment: &Experiment) -> Plan {
        let config = &experiment.config;
        Plan {
            weights: experiment.weights(),
            stages: experiment.stages(),
            reduction: config.loss.reduction,
            pixels: config.pixels.distance,
            adversary: config.adversary,
            gate: config.gate.unwrap_or(config::Gate::OPEN),
            precision: match config.train.precision {
                // A training settles it before it plans (`crate::precision`).
                config::Precision::Fp32 | config::Precision::Auto => Precision::Fp32,
                config::Precision::Bf16 => Precision::Bf16,
            },
            passes: config.train.discriminator_passes,
            vaegan: config.vaegan,
            feature_noise: config.generator.feature_noise,
            diversity: config.diversity,
            micro_batches: config.train.accumulate as i64,
            shards: config.train.shards().map(|shards| shards as i64),
            normalises: config.normalises_batches(),
        }
    }

    /// The weights of the terms in the iteration after `step`.
    pub fn weights(&self, step: u64) -> &Terms<f64> {
        let mut latest_first = self.stages.iter().rev();
        let stage = latest_first.find(|(from, _)| *from <= step);
        stage.map_or(&self.weights, |(_, weights)| weights)
    }

    /// Whether the discriminator passes and learns in the paper's iteration after `step`.
    pub fn discriminator_plays(&self, step: u64) -> bool {
        self.weights(step).weight(TermKind::Adversarial) > 0.0
            && step >= self.adversary.discriminator_from
    }

    /// Whether the generator follows it.
    pub fn generator_follows(&self, step: u64) -> bool {
        self.discriminator_plays(step) && step >= self.adversary.generator_from
    }

    /// Weight of the discriminator's own loss: the adversarial term's with the paper's loss, else 1, as published.
    pub fn discriminator_weight(&self, step: u64) -> f64 {
        if self.adversary.loss.is_paper_s() {
            self.weights(step).weight(TermKind::Adversarial)
        } else {
            1.0
        }
    }

    /// Whether losses at chance level are those of a discriminator that is dead. At VAE/GAN's equilibrium they are near them,
    /// and those of other adversaries than these two are no chances.
    pub(crate) fn dies_at_chance(&self) -> bool {
        let chances = [
            AdversarialLoss::CrossEntropy,
            AdversarialLoss::NonSaturating,
        ];
        self.vaegan.is_none() && chances.contains(&self.adversary.loss)
    }

    /// Whether the iteration of VAE/GAN after `step` reconstructs images; otherwise it is that of a GAN.
    pub fn reconstructs(&self, step: u64) -> bool {
        let weights = self.weights(step);
        [TermKind::Feature, TermKind::Image]
            .into_iter()
            .any(|kind| weights.any(kind))
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
