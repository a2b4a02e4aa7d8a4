//! Everything that determines a discriminator.

use serde::{Deserialize, Serialize};

use super::heads;
use crate::error::{NetError, Result};
use crate::layers::op::Op;
use crate::layers::shape::{FeatureShape, MAX_FEATURES};
use crate::layers::tap::Tap;
use crate::layers::trained::{self, Initial};
pub use crate::zoo::patchgan::PatchNorm;
use crate::zoo::{DiscriminatorParts, NetKind, deepsim, patchgan, vaegan};

/// Begins the names of the tensors of the frozen network that heads stand on.
pub(super) const NETWORK: &str = "net.";

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
    /// That of patches, a logit for each.
    PatchGan {
        /// Layers before the last two; 3 see patches of 70×70 pixels.
        layers: u8,
        /// Multiplies its channels; 1 is 64 to 512.
        width: f64,
        /// How it is normalised.
        norm: PatchNorm,
    },
    /// Small heads on maps of a frozen network, a logit for each position.
    Heads {
        /// The network.
        net: NetKind,
        /// Where a head each stands.
        taps: Taps,
    },
}

/// Most heads.
const MOST_TAPS: usize = 5;

/// Layers of a frozen network that a discriminator's heads stand on: 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Tap>", into = "Vec<Tap>")]
pub struct Taps([Option<Tap>; MOST_TAPS]);

impl Taps {
    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Tap> {
        self.0.iter().flatten().copied()
    }

    /// The one that lies deepest in a network's table.
    ///
    /// # Errors
    /// [`NetError::NoSuchTap`].
    pub fn deepest(&self, net: NetKind) -> Result<Tap> {
        let mut deepest = None;
        for tap in self.iter() {
            let rows = net.rows_to(tap)?.len();
            if deepest.is_none_or(|(_, most)| rows > most) {
                deepest = Some((tap, rows));
            }
        }
        let deepest = deepest.map(|(tap, _)| tap);
        deepest.ok_or_else(|| NetError::Spec("a discriminator of heads needs a tap".into()))
    }
}

impl TryFrom<Vec<Tap>> for Taps {
    type Error = String;

    fn try_from(all: Vec<Tap>) -> std::result::Result<Taps, String> {
        if !(1..=MOST_TAPS).contains(&all.len()) {
            return Err(format!(
                "1 to {MOST_TAPS} taps are possible, not {}",
                all.len()
            ));
        }
        let mut taps = [None; MOST_TAPS];
        for (place, tap) in taps.iter_mut().zip(all) {
            *place = Some(tap);
        }
        Ok(Taps(taps))
    }
}

impl From<Taps> for Vec<Tap> {
    fn from(taps: Taps) -> Vec<Tap> {
        taps.iter().collect()
    }
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
            (
                Architecture::PatchGan {
                    layers,
                    width,
                    norm,
                },
                FeatureBranch::Off,
            ) => Ok(DiscriminatorParts {
                trunk: patchgan::discriminator(self.crop, layers, width, norm)?,
                branch: Vec::new(),
                head: Vec::new(),
            }),
            (Architecture::Heads { .. }, FeatureBranch::Off) => {
                self.heads()?;
                Ok(DiscriminatorParts {
                    trunk: Vec::new(),
                    branch: Vec::new(),
                    head: Vec::new(),
                })
            }
            (Architecture::Heads { .. }, FeatureBranch::Features(_)) => Err(NetError::Spec(
                "a discriminator of heads has no feature branch".into(),
            )),
            (Architecture::VaeGan { .. }, FeatureBranch::Features(_)) => Err(NetError::Spec(
                "the discriminator of Larsen et al. has no feature branch".into(),
            )),
            (Architecture::PatchGan { .. }, FeatureBranch::Features(_)) => Err(NetError::Spec(
                "the discriminator of patches has no feature branch".into(),
            )),
        }
    }

    /// Channels of the maps that its heads stand on; none where it has no heads.
    ///
    /// # Errors
    /// A layer that the network does not have, that is no map, or one of too few positions.
    pub(super) fn heads(&self) -> Result<Vec<i64>> {
        let Architecture::Heads { net, taps } = self.architecture else {
            return Ok(Vec::new());
        };
        let channels = |tap: Tap| match net.feature_shape(tap, self.crop)? {
            FeatureShape::Map { channels, size } if size * size >= heads::KERNEL => Ok(channels),
            other => Err(NetError::Spec(format!(
                "no head of a discriminator can stand on {net}:{tap}, {other} for crops of {}: it needs a map of at least \
                 {} positions",
                self.crop,
                heads::KERNEL
            ))),
        };
        taps.iter().map(channels).collect()
    }

    /// How the weights of a layer begin, and what training does to them.
    pub(super) fn initial(&self, op: &Op) -> Initial {
        match self.architecture {
            // Heads have no operations of the tables' own.
            Architecture::DeePSiM | Architecture::Heads { .. } => {
                deepsim::discriminator_initial(op)
            }
            Architecture::VaeGan { .. } => vaegan::initial(op),
            Architecture::PatchGan { .. } => patchgan::initial(op),
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
        let mut all = trained::shapes(&self.layers()?);
        for (head, channels) in self.heads()?.into_iter().enumerate() {
            all.extend(heads::shapes(head, channels));
        }
        if let Architecture::Heads { net, taps } = self.architecture {
            let rows = net.rows_to(taps.deepest(net)?)?;
            let of_network = NetKind::weight_shapes(rows).into_iter();
            all.extend(of_network.map(|(name, shape)| (format!("{NETWORK}{name}"), shape)));
        }
        Ok(all)
    }

    /// Checks that a discriminator of this size has a layer: small crops leave out Dconv5, then
    /// Dconv3.
    ///
    /// # Errors
    /// [`NetError::Spec`] with the layers that it has, or [`NetError::TooSmall`].
    pub fn has(&self, tap: DiscriminatorTap) -> Result<()> {
        if let Architecture::PatchGan { .. } | Architecture::Heads { .. } = self.architecture {
            return Err(NetError::Spec(format!(
                "this discriminator has no `{tap}`: images cannot be compared in it"
            )));
        }
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
