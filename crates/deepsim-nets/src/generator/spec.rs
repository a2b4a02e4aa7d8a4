//! Everything that determines a generator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{NetError, Result};
use crate::layers::op::Op;
use crate::layers::shape::{FeatureShape, MAX_CROP, MAX_FEATURES};
use crate::layers::trained::{self, Initial};
use crate::zoo::{deepsim, mae, vaegan};

/// Slope of the leaky ReLUs in the paper's generators.
pub const SLOPE: f64 = 0.3;
/// Most random numbers beside the features.
const MAX_NOISE: i64 = 4096;

/// Everything that determines a generator's architecture.
///
/// With `width` 1 and crop 227 these are the paper's generators: FC6 (input vector of 4096),
/// FC7, FC8 (vector of 1000) and CONV5 (256×6×6). Smaller crops drop doublings from the end of
/// the trunk; larger feature maps enter the trunk later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorSpec {
    /// Features that go in.
    pub input: FeatureShape,
    /// Side of the images that come out, pixels.
    pub crop: i64,
    /// Multiplies the channels of every hidden layer; 1 is the paper's.
    pub width: f64,
    /// The trunk. Checkpoints from before there was a choice have the paper's.
    #[serde(default = "Trunk::deepsim", skip_serializing_if = "Trunk::is_deepsim")]
    pub trunk: Trunk,
    /// Random numbers that enter beside the features: appended to a vector, as maps more at a map. 0 is the
    /// paper's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub noise: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Which generator's trunk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Trunk {
    /// DeePSiM's (Dosovitskiy & Brox, NIPS 2016): doubling 4×4 layers with 3×3 layers between the first
    /// three, slope 0.3, biases fixed at zero.
    DeePSiM,
    /// That of Dosovitskiy & Brox, CVPR 2016 ("D&B" in the paper's Table 2): doubling layers alone,
    /// with biases that learn. Kernel and slope are from memory of the published models.
    Db {
        /// Kernel side of the doubling layers, 4 or 5 (theirs).
        kernel: i64,
        /// Slope of the leaky ReLUs (theirs: 0.2).
        slope: f64,
    },
    /// The decoder of Larsen et al. (VAE/GAN): one fully connected layer, three doubling 5×5 ones with batch
    /// normalisation, and a last one that ends in a hyperbolic tangent. It takes codes.
    #[serde(rename = "larsen")]
    VaeGan,
    /// That of representation autoencoders (Zheng et al. 2025): the decoder of a masked autoencoder, a vision transformer that
    /// makes one patch of the image of each position of a map of features. The side of the map divides the crop. `width`
    /// multiplies `channels` and `mlp`. RAE's sizes: 768, 12, 12, 3072 (B); 1024, 24, 16, 4096 (L); 1152, 28, 16, 4096 (XL).
    Vit {
        /// Channels of a token.
        channels: i64,
        /// Blocks.
        blocks: i64,
        /// Heads of attention; they divide `channels`.
        heads: i64,
        /// Channels inside a block's perceptron.
        mlp: i64,
    },
}

impl Trunk {
    /// The paper's own.
    pub fn deepsim() -> Trunk {
        Trunk::DeePSiM
    }

    /// Whether it is the paper's own.
    pub fn is_deepsim(&self) -> bool {
        *self == Trunk::DeePSiM
    }
}

impl GeneratorSpec {
    /// Side of the map before the final crop: 256 for the paper's 227.
    pub fn uncropped(&self) -> i64 {
        4 << deepsim::doublings(self.crop)
    }

    /// What enters the first layer: the features, and the noise behind them.
    pub fn entering(&self) -> FeatureShape {
        match self.input {
            FeatureShape::Vector(length) => FeatureShape::Vector(length + self.noise),
            FeatureShape::Map { channels, size } => FeatureShape::Map {
                channels: channels + self.noise,
                size,
            },
        }
    }

    /// Whether its features are few enough to calculate with.
    fn bounded(&self) -> Result<()> {
        let values = match self.input {
            FeatureShape::Vector(length) => Some(length),
            FeatureShape::Map { channels, size } if channels > 0 && size > 0 => size
                .checked_mul(size)
                .and_then(|positions| positions.checked_mul(channels)),
            FeatureShape::Map { .. } => None,
        };
        if values.is_some_and(|n| (1..=MAX_FEATURES).contains(&n)) {
            Ok(())
        } else {
            Err(NetError::Spec(format!(
                "a generator takes 1 to {MAX_FEATURES} features, not {}",
                self.input
            )))
        }
    }

    /// Whether crop, noise, width and features are those that a generator is made for.
    fn in_range(&self) -> Result<()> {
        if !(8..=MAX_CROP).contains(&self.crop) {
            return Err(NetError::Spec(format!(
                "a generator makes crops of 8 to {MAX_CROP} pixels, not {}",
                self.crop
            )));
        }
        if !(0..=MAX_NOISE).contains(&self.noise) {
            return Err(NetError::Spec(format!(
                "a generator takes 0 to {MAX_NOISE} random numbers, not {}",
                self.noise
            )));
        }
        if !(self.width > 0.0 && self.width <= 4.0) {
            return Err(NetError::Spec(format!(
                "generator width must be above 0 and at most 4, not {}",
                self.width
            )));
        }
        self.bounded()
    }

    /// Names and shapes of its weights, running statistics among them, without building it.
    ///
    /// # Errors
    /// As [`GeneratorSpec::layers`].
    pub fn shapes(&self) -> Result<Vec<(String, Vec<i64>)>> {
        Ok(trained::shapes(&self.layers()?))
    }

    /// Checks that a generator of this spec can be built.
    ///
    /// # Errors
    /// As [`GeneratorSpec::layers`].
    pub fn validate(&self) -> Result<()> {
        self.layers().map(drop)
    }

    /// The layers from features to images.
    ///
    /// # Errors
    /// [`NetError::Spec`] for sizes that no generator can be built for.
    pub fn layers(&self) -> Result<Vec<Op>> {
        let trunk = match (self.trunk, self.input) {
            (
                Trunk::Vit {
                    channels,
                    blocks,
                    heads,
                    mlp,
                },
                _,
            ) => {
                self.in_range()?;
                let sizes = mae::Sizes {
                    channels,
                    blocks,
                    heads,
                    mlp,
                };
                return mae::decoder(self.entering(), self.crop, self.width, sizes);
            }
            (Trunk::VaeGan, _) if self.noise != 0 => {
                return Err(NetError::Spec(
                    "the trunk `larsen` takes no noise beside its codes".into(),
                ));
            }
            (Trunk::VaeGan, FeatureShape::Vector(length)) if length > 0 => {
                self.bounded()?;
                return vaegan::decoder(length, self.crop, self.width);
            }
            (Trunk::VaeGan, other) => {
                return Err(NetError::Spec(format!(
                    "the trunk `larsen` takes codes, vectors, not features of {other}"
                )));
            }
            (Trunk::DeePSiM, _) => deepsim::Trunk {
                kernel: 4,
                slope: SLOPE,
                keeps: true,
            },
            (Trunk::Db { kernel, slope }, _) => deepsim::Trunk {
                kernel,
                slope,
                keeps: false,
            },
        };
        self.in_range()?;
        let deepsim::Trunk { kernel, slope, .. } = trunk;
        if !(matches!(kernel, 4 | 5) && (0.0..1.0).contains(&slope)) {
            return Err(NetError::Spec(format!(
                "the trunk `db` takes a kernel of 4 or 5 and a slope from 0 to below 1, not {kernel} and {slope}"
            )));
        }
        deepsim::generator(self.input, self.noise, self.crop, self.width, trunk)
    }

    /// How the weights of a layer begin, and what training does to them.
    pub(super) fn initial(&self, op: &Op) -> Initial {
        match self.trunk {
            Trunk::VaeGan => vaegan::initial(op),
            Trunk::Vit { .. } => mae::initial(),
            Trunk::DeePSiM => deepsim::generator_initial(op, false),
            Trunk::Db { .. } => deepsim::generator_initial(op, true),
        }
    }
}
