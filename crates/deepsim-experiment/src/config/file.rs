//! The experiment file as a whole.

use deepsim_nets::{LatentSpec, Trunk};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, complain};
use super::data::Data;
use super::discriminator::{Discriminator, DiscriminatorKind};
use super::diversity::Diversity;
use super::gate::Gate;
use super::generator::Generator;
use super::loss::{Loss, Pixels};
use super::network::{Network, SourceKind};
use super::optimizer::{Optimizers, Schedule};
use super::train::Train;
use super::vaegan::VaeGan;

/// An experiment file, section by section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the run: `runs/NAME` unless `--out` says otherwise.
    pub name: String,
    /// The images.
    pub data: Data,
    /// The network whose features are inverted.
    pub encoder: Network,
    /// Makes an autoencoder of it: the encoder learns, and its codes are these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent: Option<LatentSpec>,
    /// The network in whose feature space images are compared.
    pub comparator: Network,
    /// The generator.
    pub generator: Generator,
    /// The discriminator.
    pub discriminator: Discriminator,
    /// Makes a VAE/GAN of it (Larsen et al.): their iteration instead of the paper's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vaegan: Option<VaeGan>,
    /// Rewards images of the same features for being different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity: Option<Diversity>,
    /// Weights of the loss terms.
    pub loss: Loss,
    /// How the image loss compares pixels.
    #[serde(default, skip_serializing_if = "Pixels::is_paper_s")]
    pub pixels: Pixels,
    /// Adam (or RMSProp), per network.
    pub optimizer: Optimizers,
    /// Learning-rate schedule.
    pub schedule: Schedule,
    /// When each network pauses.
    pub gate: Gate,
    /// The run itself.
    pub train: Train,
}

impl Config {
    /// Checks each section by itself.
    pub(super) fn check(&self) -> Checked {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return complain("name", "must be letters, digits, '-', '_' and '.'");
        }
        self.train.check()?;
        self.data.check()?;
        if let Err(e) = toml::Table::try_from(self) {
            let reason = format!(
                "cannot be written again: {e}; no number may be above {}",
                i64::MAX
            );
            return complain("one of the values", reason);
        }
        self.loss.check()?;
        self.discriminator.check()?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.gate.check()?;
        self.vaegan.as_ref().map_or(Ok(()), VaeGan::check)?;
        self.diversity.as_ref().map_or(Ok(()), Diversity::check)
    }

    /// Whether one of its networks normalises batches: then a pass alone changes it, before any weight is updated.
    #[must_use]
    pub fn normalises_batches(&self) -> bool {
        self.discriminator.architecture == DiscriminatorKind::VaeGan
            || self.generator.trunk == Trunk::VaeGan
            || self.encoder.net == SourceKind::VaeGan
    }
}
