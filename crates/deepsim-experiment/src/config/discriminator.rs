//! `[discriminator]`.

use std::path::PathBuf;

use deepsim_nets::{
    Architecture, DiscriminatorSpec, FeatureBranch, FeatureShape, NetKind, PatchNorm, Taps,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, complain};

/// `[discriminator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discriminator {
    /// Whether it also sees the inverted features (as the released training; not in the paper).
    pub features: bool,
    /// "deepsim" (if left out); "larsen": that of Larsen et al., with batch normalisation; "patchgan": that of patches
    /// (Isola et al. 2017, `NLayerDiscriminator`), with a logit for each patch; or "heads": small heads on maps of a frozen
    /// network, with a logit for each position (the form of StyleGAN-T's discriminator).
    #[serde(default, skip_serializing_if = "DiscriminatorKind::is_deepsim")]
    pub architecture: DiscriminatorKind,
    /// "larsen" and "patchgan": multiplies its hidden channels; 1 (if left out) is as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// "patchgan": layers before the last two; 3 (if left out) see patches of 70×70 pixels, 1 to 5 are possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u8>,
    /// "patchgan": "batch" (batch normalisation, as published; if left out), "none", or "spectral": the weights of all
    /// convolutions are divided by their largest singular values, with one step of the power iteration in each of the
    /// discriminator's updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<PatchNorm>,
    /// "heads": the frozen network, as in `[encoder]`. Images are shown to it at their own size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub network: Option<NetKind>,
    /// "heads": its weights, a safetensors file or `random:SEED`. Checkpoints hold them with the discriminator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_weights: Option<String>,
    /// "heads": the layers of it that a head each stands on, 1 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    pub taps: Option<Taps>,
    /// Weights to begin with, instead of random ones: a safetensors file, or the directory of a run, or of one of its
    /// checkpoints. Names and shapes must be this discriminator's. A run that goes on does not look at them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

/// Which discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiscriminatorKind {
    /// DeePSiM's.
    #[default]
    DeePSiM,
    /// That of Larsen et al.
    #[serde(rename = "larsen")]
    VaeGan,
    /// That of patches.
    PatchGan,
    /// Heads on a frozen network.
    Heads,
}

impl DiscriminatorKind {
    fn is_deepsim(&self) -> bool {
        *self == DiscriminatorKind::DeePSiM
    }
}

impl Discriminator {
    pub(super) fn check(&self) -> Checked {
        if self.width.is_some() && self.architecture == DiscriminatorKind::DeePSiM {
            let reason = "means nothing for the discriminator deepsim; remove it";
            return complain("discriminator.width", reason);
        }
        let heads = self.architecture == DiscriminatorKind::Heads;
        if self.width.is_some() && heads {
            let reason = "means nothing for the discriminator heads; remove it";
            return complain("discriminator.width", reason);
        }
        for (key, is_there) in [
            ("discriminator.network", self.network.is_some()),
            (
                "discriminator.network_weights",
                self.network_weights.is_some(),
            ),
            ("discriminator.taps", self.taps.is_some()),
        ] {
            if is_there && !heads {
                let reason = "means something for the discriminator heads alone; remove it";
                return complain(key, reason);
            }
            if heads && !is_there {
                let reason =
                    "is missing: the discriminator heads stands on layers of a frozen network";
                return complain(key, reason);
            }
        }
        if let Some(net) = self.network.filter(|net| !net.can_learn()) {
            let reason = format!(
                "cannot be {net}: its batch normalisation is folded into its convolutions, so that checkpoints could not hold \
                 its weights"
            );
            return complain("discriminator.network", reason);
        }
        let patches = self.architecture == DiscriminatorKind::PatchGan;
        for (key, is_there) in [
            ("discriminator.layers", self.layers.is_some()),
            ("discriminator.norm", self.norm.is_some()),
        ] {
            if is_there && !patches {
                return complain(
                    key,
                    "means something for the discriminator patchgan alone; remove it",
                );
            }
        }
        Ok(())
    }

    /// Whether it normalises batches.
    pub(super) fn normalises_batches(&self) -> bool {
        match self.architecture {
            DiscriminatorKind::DeePSiM | DiscriminatorKind::Heads => false,
            DiscriminatorKind::VaeGan => true,
            DiscriminatorKind::PatchGan => self.norm.unwrap_or_default() == PatchNorm::Batch,
        }
    }

    /// Whether it has power iterations.
    pub(super) fn iterates(&self) -> bool {
        self.norm == Some(PatchNorm::Spectral) || self.architecture == DiscriminatorKind::Heads
    }

    /// Whether an image has several logits.
    pub(super) fn has_several_logits(&self) -> bool {
        matches!(
            self.architecture,
            DiscriminatorKind::PatchGan | DiscriminatorKind::Heads
        )
    }

    /// The discriminator for crops of a size and features of a shape.
    pub(crate) fn spec(&self, crop: i64, features: FeatureShape) -> DiscriminatorSpec {
        DiscriminatorSpec {
            crop,
            features: if self.features {
                FeatureBranch::Features(features.len())
            } else {
                FeatureBranch::Off
            },
            architecture: match self.architecture {
                DiscriminatorKind::DeePSiM => Architecture::DeePSiM,
                DiscriminatorKind::VaeGan => Architecture::VaeGan {
                    width: self.width.unwrap_or(1.0),
                },
                DiscriminatorKind::PatchGan => Architecture::PatchGan {
                    layers: self.layers.unwrap_or(3),
                    width: self.width.unwrap_or(1.0),
                    norm: self.norm.unwrap_or_default(),
                },
                DiscriminatorKind::Heads => match (self.network, self.taps) {
                    (Some(net), Some(taps)) => Architecture::Heads { net, taps },
                    // The check has refused it.
                    _ => Architecture::default(),
                },
            },
        }
    }
}
