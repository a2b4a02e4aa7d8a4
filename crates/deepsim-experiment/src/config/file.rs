//! The experiment file as a whole.

use deepsim_nets::{LatentSpec, Trunk};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, complain};
use super::comparators::Comparators;
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
    /// The network in whose feature space images are compared, where a feature term is above 0; or several, as
    /// `[comparator.NAME]`, each with a weight of its own, `loss.feat.NAME`.
    #[serde(default, skip_serializing_if = "Comparators::is_empty")]
    pub comparator: Comparators,
    /// The generator.
    pub generator: Generator,
    /// The discriminator, where `loss.adv` is above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discriminator: Option<Discriminator>,
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
    /// When each network pauses, where `loss.adv` is above 0; with `[vaegan]` it may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
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
        self.comparator.check()?;
        self.discriminator
            .as_ref()
            .map_or(Ok(()), Discriminator::check)?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.gate.as_ref().map_or(Ok(()), Gate::check)?;
        self.vaegan.as_ref().map_or(Ok(()), VaeGan::check)?;
        self.diversity.as_ref().map_or(Ok(()), Diversity::check)
    }

    /// Whether one of its networks normalises batches: then a pass alone changes it, before any weight is updated.
    #[must_use]
    pub fn normalises_batches(&self) -> bool {
        let discriminator = self.discriminator.as_ref();
        discriminator.is_some_and(|d| d.architecture == DiscriminatorKind::VaeGan)
            || self.generator.trunk == Trunk::VaeGan
            || self.encoder.net == SourceKind::VaeGan
    }
}
