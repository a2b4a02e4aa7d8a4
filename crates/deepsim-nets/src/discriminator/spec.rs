//! Everything that determines a discriminator.

use serde::{Deserialize, Serialize};

use crate::error::{NetError, Result};
use crate::layers::op::Op;
use crate::layers::shape::MAX_FEATURES;
use crate::layers::trained::{self, Initial};
use crate::zoo::{DiscriminatorParts, deepsim, vaegan};

/// Which discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// DeePSiM's.
    #[default]
    DeePSiM,
    /// VAE/GAN's, with batch normalisation.
    #[serde(rename = "larsen")]
    VaeGan {
        /// Multiplies its hidden channels; 1 is theirs.
        width: f64,
    },
}

impl Architecture {
    fn is_deepsim(&self) -> bool {
        *self == Architecture::DeePSiM
    }
}

/// Whether the discriminator also sees the features that are inverted (the released training
/// does, the paper's text does not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureBranch {
    /// The image alone, as the paper says.
    Off,
    /// Features of this length go through fc 1024 and fc 512 and join the pooled image.
    Features(i64),
}

/// Everything that determines a discriminator's architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscriminatorSpec {
    /// Side of the images, pixels.
    pub crop: i64,
    /// The feature branch (DeePSiM's alone).
    pub features: FeatureBranch,
    /// Which one. Checkpoints from before there was a choice have DeePSiM's.
    #[serde(default, skip_serializing_if = "Architecture::is_deepsim")]
    pub architecture: Architecture,
}

/// A layer of the discriminator whose output can be taken as features. DeePSiM's: a convolution after its
/// rectifier, or the average over all positions. VAE/GAN's: a convolution, before normalisation and
/// rectifier, as the authors compare images (Dconv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DiscriminatorTap {
    Dconv1,
    Dconv2,
    Dconv3,
    Dconv4,
    Dconv5,
    Dpool5,
}

impl DiscriminatorTap {
    /// The name as in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            DiscriminatorTap::Dconv1 => "Dconv1",
            DiscriminatorTap::Dconv2 => "Dconv2",
            DiscriminatorTap::Dconv3 => "Dconv3",
            DiscriminatorTap::Dconv4 => "Dconv4",
            DiscriminatorTap::Dconv5 => "Dconv5",
            DiscriminatorTap::Dpool5 => "Dpool5",
        }
    }
}

impl std::fmt::Display for DiscriminatorTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl DiscriminatorSpec {
    /// Checks that a discriminator of this size can be built.
    ///
    /// # Errors
    /// [`NetError::TooSmall`] or [`NetError::Spec`].
    pub fn validate(&self) -> Result<()> {
        self.parts().map(drop)
    }

    /// Its layers, in three parts.
    pub(super) fn parts(&self) -> Result<DiscriminatorParts> {
        if let FeatureBranch::Features(n) = self.features
            && !(1..=MAX_FEATURES).contains(&n)
        {
            return Err(NetError::Spec(format!(
                "the discriminator's feature branch takes 1 to {MAX_FEATURES} features, not {n}"
            )));
        }
        match (self.architecture, self.features) {
            (Architecture::DeePSiM, FeatureBranch::Off) => deepsim::discriminator(self.crop, None),
            (Architecture::DeePSiM, FeatureBranch::Features(length)) => {
                deepsim::discriminator(self.crop, Some(length))
            }
            (Architecture::VaeGan { width }, FeatureBranch::Off) => Ok(DiscriminatorParts {
                trunk: vaegan::discriminator(self.crop, width)?,
                branch: Vec::new(),
                head: Vec::new(),
            }),
            (Architecture::VaeGan { .. }, FeatureBranch::Features(_)) => Err(NetError::Spec(
                "the discriminator of Larsen et al. has no feature branch".into(),
            )),
        }
    }

    /// How the weights of a layer begin, and what training does to them.
    pub(super) fn initial(&self, op: &Op) -> Initial {
        match self.architecture {
            Architecture::DeePSiM => deepsim::discriminator_initial(op),
            Architecture::VaeGan { .. } => vaegan::initial(op),
        }
    }

    /// Its layers: those that images go through, then those that features go through, then those that both do.
    ///
    /// # Errors
    /// As [`DiscriminatorSpec::validate`].
    pub fn layers(&self) -> Result<Vec<Op>> {
        let parts = self.parts()?;
        Ok([parts.trunk, parts.branch, parts.head].concat())
    }

    /// Names and shapes of its weights, running statistics among them, without building it.
    ///
    /// # Errors
    /// As [`DiscriminatorSpec::validate`].
    pub fn shapes(&self) -> Result<Vec<(String, Vec<i64>)>> {
        Ok(trained::shapes(&self.layers()?))
    }

    /// Checks that a discriminator of this size has a layer: small crops leave out Dconv5, then
    /// Dconv3.
    ///
    /// # Errors
    /// [`NetError::Spec`] with the layers that it has, or [`NetError::TooSmall`].
    pub fn has(&self, tap: DiscriminatorTap) -> Result<()> {
        if let Architecture::VaeGan { .. } = self.architecture {
            return match tap {
                DiscriminatorTap::Dconv5 | DiscriminatorTap::Dpool5 => {
                    Err(NetError::Spec(format!(
                        "the discriminator of Larsen et al. has no `{tap}`; it has Dconv1 to Dconv4"
                    )))
                }
                _ => Ok(()),
            };
        }
        let names: Vec<&str> = self.parts()?.trunk.iter().filter_map(Op::key).collect();
        if tap == DiscriminatorTap::Dpool5 || names.contains(&tap.name()) {
            return Ok(());
        }
        Err(NetError::Spec(format!(
            "the discriminator of {}-pixel crops has no `{tap}`; it has {} and Dpool5",
            self.crop,
            names.join(", ")
        )))
    }
}
