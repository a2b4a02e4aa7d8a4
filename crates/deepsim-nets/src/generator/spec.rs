//! Architectures of generators, written once: from features to layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{NetError, Result};
use crate::layers::init::he_deviation;
use crate::layers::shape::{FeatureShape, MAX_CROP, MAX_FEATURES};
use crate::layers::stack;
use crate::zoo::vaegan;

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

    /// Kernel side of the doubling layers.
    pub(super) fn kernel(self) -> i64 {
        match self {
            Trunk::DeePSiM => 4,
            Trunk::Db { kernel, .. } => kernel,
            Trunk::VaeGan => 5,
        }
    }

    /// Slope of the leaky ReLUs.
    pub(super) fn slope(self) -> f64 {
        match self {
            Trunk::DeePSiM => SLOPE,
            Trunk::Db { slope, .. } => slope,
            Trunk::VaeGan => 0.0,
        }
    }
}

/// One layer of a generator. All but the last are followed by a leaky ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Prefix of the tensors' names, as in the released Caffe models.
    pub name: &'static str,
    /// Input channels.
    pub input: i64,
    /// Output channels.
    pub output: i64,
    /// What it does.
    pub op: LayerOp,
}

/// The operation of a generator's layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerOp {
    /// Fully connected.
    Fc,
    /// Convolution with this kernel and padding (CONV5's front end).
    Conv {
        /// Kernel side.
        kernel: i64,
        /// Padding on each side.
        pad: i64,
    },
    /// Transposed convolution, stride 2, that doubles the size.
    Double {
        /// Kernel side: 4 (padding 1), or 5 (padding 2, and one row and column more at the end).
        kernel: i64,
    },
    /// Transposed convolution 3×3, stride 1, padding 1: keeps the size. The released weights
    /// are stored `[in,out,k,k]` for these too.
    Keep,
}

impl LayerOp {
    /// Kernel side.
    pub(super) fn kernel(self) -> i64 {
        match self {
            LayerOp::Fc => 1,
            LayerOp::Conv { kernel, .. } | LayerOp::Double { kernel } => kernel,
            LayerOp::Keep => 3,
        }
    }
}

/// The trunk from 4×4 on (Table 1 of the paper): (name, output channels) of the doubling layer, then of the layer that keeps
/// the size, where there is one. The comment beside a row is the side of its map. `deconv0` (3 channels, linear) ends it.
type Stage = ((&'static str, i64), Option<(&'static str, i64)>);
const TRUNK: [Stage; 5] = [
    (("deconv5", 256), Some(("conv5_1", 512))), // 8
    (("deconv4", 256), Some(("conv4_1", 256))), // 16
    (("deconv3", 128), Some(("conv3_1", 128))), // 32
    (("deconv2", 64), None),                    // 64
    (("deconv1", 32), None),                    // 128
];
/// Channels of the 4×4 map that the fully connected front end makes.
const FC_CHANNELS: i64 = 256;
/// Channels of the convolutional front end that enters at 4, 8, 16, 32, 64 pixels: what the
/// trunk carries there.
const FRONT_CHANNELS: [i64; 5] = [512, 512, 256, 128, 64];

impl GeneratorSpec {
    fn scaled(&self, channels: i64) -> i64 {
        // Multiples of 8 keep matrix kernels on their fast paths.
        let scaled = (channels as f64 * self.width / 8.0).round() as i64 * 8;
        scaled.max(8)
    }

    /// Number of doublings of the whole trunk: the smallest that reaches the crop.
    fn doublings(&self) -> usize {
        let mut n = 1;
        while 4 << n < self.crop {
            n += 1;
        }
        n
    }

    /// Side of the map before the final crop: 256 for the paper's 227.
    pub fn uncropped(&self) -> i64 {
        4 << self.doublings()
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

    /// The layers of VAE/GAN's decoder, if this is the trunk.
    pub(super) fn vae_gan_layers(&self) -> Result<Option<Vec<stack::Layer>>> {
        match (self.trunk, self.input) {
            (Trunk::VaeGan, _) if self.noise != 0 => Err(NetError::Spec(
                "the trunk `larsen` takes no noise beside its codes".into(),
            )),
            (Trunk::VaeGan, FeatureShape::Vector(length)) if length > 0 => {
                self.bounded()?;
                vaegan::decoder(length, self.crop, self.width).map(Some)
            }
            (Trunk::VaeGan, other) => Err(NetError::Spec(format!(
                "the trunk `larsen` takes codes, vectors, not features of {other}"
            ))),
            _ => Ok(None),
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

    /// Names and shapes of its weights, running statistics among them, without building it.
    ///
    /// # Errors
    /// As [`GeneratorSpec::validate`].
    pub fn shapes(&self) -> Result<Vec<(String, Vec<i64>)>> {
        if let Some(layers) = self.vae_gan_layers()? {
            return Ok(stack::shapes(&layers));
        }
        let of = |layer: Layer| {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", layer.name));
            [(weight, layer.weight_shape()), (bias, vec![layer.output])]
        };
        Ok(self.layers()?.into_iter().flat_map(of).collect())
    }

    /// Checks that a generator of this spec can be built.
    ///
    /// # Errors
    /// [`NetError::Spec`] for sizes that no generator can be built for.
    pub fn validate(&self) -> Result<()> {
        match self.vae_gan_layers()? {
            Some(_) => Ok(()),
            None => self.layers().map(drop),
        }
    }

    /// The layers from features to images, of the trunks without batch normalisation.
    ///
    /// # Errors
    /// [`NetError::Spec`] for sizes that no generator can be built for, and for the trunk `larsen`.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        if self.trunk == Trunk::VaeGan {
            return Err(NetError::Spec(
                "the trunk `larsen` has layers of its own kind".into(),
            ));
        }
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
        if let Trunk::Db { kernel, slope } = self.trunk
            && !(matches!(kernel, 4 | 5) && (0.0..1.0).contains(&slope))
        {
            return Err(NetError::Spec(format!(
                "the trunk `db` takes a kernel of 4 or 5 and a slope from 0 to below 1, not {kernel} and {slope}"
            )));
        }
        self.bounded()?;
        let double = LayerOp::Double {
            kernel: self.trunk.kernel(),
        };
        let mut layers = Vec::new();
        let (mut channels, enters) = match self.entering() {
            FeatureShape::Vector(length) => self.vector_front(length, &mut layers)?,
            FeatureShape::Map { channels, size } => self.map_front(channels, size, &mut layers)?,
        };
        let doublings = self.doublings();
        if enters >= doublings {
            return Err(NetError::Spec(format!(
                "features of {} are too large for a generator of {}-pixel crops: \
                 use a larger crop or a later tap",
                self.input, self.crop
            )));
        }
        for ((doubling, out), keep) in &TRUNK[enters..doublings - 1] {
            let mut push = |name, output, op| {
                let output = self.scaled(output);
                layers.push(Layer {
                    name,
                    input: channels,
                    output,
                    op,
                });
                channels = output;
            };
            push(*doubling, *out, double);
            if let (Some((name, out)), true) = (keep, self.trunk.is_deepsim()) {
                push(*name, *out, LayerOp::Keep);
            }
        }
        layers.push(Layer {
            name: "deconv0",
            input: channels,
            output: 3,
            op: double,
        });
        Ok(layers)
    }

    /// Three fully connected layers, reshaped to a 4×4 map. Returns its channels and the
    /// number of doublings skipped (none).
    fn vector_front(&self, length: i64, layers: &mut Vec<Layer>) -> Result<(i64, usize)> {
        if length < 1 {
            return Err(NetError::Spec(
                "a generator needs features of at least one value".into(),
            ));
        }
        let channels = self.scaled(FC_CHANNELS);
        let mut input = length;
        for name in ["defc7", "defc6", "defc5"] {
            let output = channels * 16;
            layers.push(Layer {
                name,
                input,
                output,
                op: LayerOp::Fc,
            });
            input = output;
        }
        Ok((channels, 0))
    }

    /// Three convolutions; the last one's kernel and padding bring the map to a size of the
    /// trunk: 4 for maps up to 6, else the next power of two.
    fn map_front(&self, channels: i64, size: i64, layers: &mut Vec<Layer>) -> Result<(i64, usize)> {
        if channels < 1 || size < 1 {
            return Err(NetError::Spec(format!(
                "no generator takes features of {}",
                self.input
            )));
        }
        let mut enters = 0;
        if size > 6 {
            while 4 << enters < size {
                enters += 1;
            }
        }
        let Some(&front) = FRONT_CHANNELS.get(enters) else {
            return Err(NetError::Spec(format!(
                "features of {} are too large to invert",
                self.input
            )));
        };
        let front = self.scaled(front);
        let target = 4i64 << enters;
        // size + 2·pad − kernel + 1 = target, with the smallest kernel from 2 on that gives a
        // whole padding: 6→4 is 3×3 without padding, as published.
        let (kernel, pad) = (2..)
            .map(|k| (k, target - size + k - 1))
            .find(|(_, twice)| *twice >= 0 && twice % 2 == 0)
            .map_or((3, 1), |(k, twice)| (k, twice / 2));
        let same = LayerOp::Conv { kernel: 3, pad: 1 };
        layers.push(Layer {
            name: "Rconv6",
            input: channels,
            output: front,
            op: same,
        });
        layers.push(Layer {
            name: "Rconv7",
            input: front,
            output: front,
            op: same,
        });
        let fit = LayerOp::Conv { kernel, pad };
        layers.push(Layer {
            name: "Rconv8",
            input: front,
            output: front,
            op: fit,
        });
        Ok((front, enters))
    }
}

impl Layer {
    /// Shape of the weight tensor.
    pub(super) fn weight_shape(&self) -> Vec<i64> {
        match self.op {
            LayerOp::Fc => vec![self.output, self.input],
            LayerOp::Conv { kernel, .. } => vec![self.output, self.input, kernel, kernel],
            LayerOp::Double { kernel } => vec![self.input, self.output, kernel, kernel],
            LayerOp::Keep => vec![self.input, self.output, 3, 3],
        }
    }

    /// Deviation of the authors' initialisation: c·√(2/fan_in).
    pub(super) fn deviation(&self) -> f64 {
        let kernel = self.op.kernel();
        match self.op {
            LayerOp::Fc => he_deviation(self.input),
            LayerOp::Conv { .. } => he_deviation(self.input * kernel * kernel),
            // Caffe reads the fan-in of a transposed convolution as out·k².
            LayerOp::Double { .. } => 1.8 * he_deviation(self.output * kernel * kernel),
            LayerOp::Keep => 0.9 * he_deviation(self.output * kernel * kernel),
        }
    }

    /// The released models give the trunk's biases a learning rate of zero.
    pub(super) fn bias_trains(&self, trunk: Trunk) -> bool {
        !trunk.is_deepsim() || matches!(self.op, LayerOp::Fc | LayerOp::Conv { .. })
    }
}
