//! `[discriminator]`.

use deepsim_nets::{Architecture, DiscriminatorSpec, FeatureBranch, FeatureShape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, complain};

/// `[discriminator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discriminator {
    /// Whether it also sees the inverted features (as the released training; not in the paper).
    pub features: bool,
    /// "deepsim" (if left out), or "larsen": that of Larsen et al., with batch normalisation.
    #[serde(default, skip_serializing_if = "DiscriminatorKind::is_deepsim")]
    pub architecture: DiscriminatorKind,
    /// "larsen": multiplies its hidden channels; 1 (if left out) is that of Larsen et al.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
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
        Ok(())
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
            },
        }
    }
}
