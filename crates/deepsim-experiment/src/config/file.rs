//! The experiment file as a whole.

use deepsim_nets::{LatentSpec, Trunk};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::adversary::Adversary;
use super::check::{Checked, complain};
use super::comparators::Comparators;
use super::data::Data;
use super::discriminator::Discriminator;
use super::diversity::Diversity;
use super::ema::Ema;
use super::gate::Gate;
use super::generator::Generator;
use super::loss::{Loss, Pixels};
use super::network::{Network, SourceKind};
use super::optimizer::Optimizers;
use super::schedule::Schedule;
use super::stage::{self, Stage};
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
    /// How generator and discriminator play; as in the paper where it is left out.
    #[serde(default, skip_serializing_if = "Adversary::is_paper_s")]
    pub adversary: Adversary,
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
    /// Adam (or AdamW, or RMSProp), per network.
    pub optimizer: Optimizers,
    /// Learning-rate schedule.
    pub schedule: Schedule,
    /// Keeps averages of the weights of the generator, and of an encoder that learns, for evaluation: exponential moving
    /// ones, which follow each update. Training itself does not see them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// When each network pauses, where `loss.adv` is above 0; with `[vaegan]` it may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// The run itself.
    pub train: Train,
    /// Other weights of the loss from some step on, as `[[stage]]` sections in the order of their steps: `from` is the
    /// number of steps after which a stage begins, `loss` a table of the weights that change, by the keys of `[loss]`, such
    /// as `loss = { adv = 0, feat = 0.02 }`. The others stay as they are before. A term that weighs nothing at first needs
    /// its sections (comparator, discriminator) from the beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<Stage>,
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
        self.adversary.check()?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.ema.as_ref().map_or(Ok(()), Ema::check)?;
        stage::check(&self.stage, &self.loss)?;
        self.gate.as_ref().map_or(Ok(()), Gate::check)?;
        self.vaegan.as_ref().map_or(Ok(()), VaeGan::check)?;
        self.diversity.as_ref().map_or(Ok(()), Diversity::check)
    }

    /// The loss of each stage and the steps after which it begins: first that of `[loss]`, then those of `[[stage]]`.
    #[must_use]
    pub fn losses(&self) -> Vec<(u64, Loss)> {
        stage::losses(&self.stage, &self.loss)
    }

    /// The loss with the largest weight that each term ever has: what is above 0 here takes part.
    #[must_use]
    pub fn heaviest_loss(&self) -> Loss {
        stage::heaviest(&self.stage, &self.loss)
    }

    /// Whether one of its networks normalises batches: then a pass alone changes it, before any weight is updated.
    #[must_use]
    pub fn normalises_batches(&self) -> bool {
        let discriminator = self.discriminator.as_ref();
        discriminator.is_some_and(Discriminator::normalises_batches)
            || self.generator.trunk == Trunk::VaeGan
            || self.encoder.net == SourceKind::VaeGan
    }

    /// Whether an iteration changes something before it updates weights: running statistics of batch normalisation, or the
    /// vectors of power iterations.
    #[must_use]
    pub fn changes_before_updates(&self) -> bool {
        let discriminator = self.discriminator.as_ref();
        self.normalises_batches() || discriminator.is_some_and(Discriminator::iterates)
    }
}
