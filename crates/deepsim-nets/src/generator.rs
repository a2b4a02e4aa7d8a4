//! The DeePSiM generator: from features back to pictures.

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::convolution::{Geometry, Rectifier, convolution, to_pictures};
use crate::error::{NetError, Result};
use crate::init::{he_deviation, normal, zeros};
use crate::layers::linear;
use crate::params::{Param, Params};
use crate::tables::FeatureShape;

/// Slope of the leaky ReLUs.
pub const SLOPE: f64 = 0.3;
/// Largest crop: six doublings from 4×4 give 256×256.
pub const MAX_CROP: i64 = 256;

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
    /// Side of the pictures that come out, pixels.
    pub crop: i64,
    /// Multiplies the channels of every hidden layer; 1 is the paper's.
    pub width: f64,
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
    /// Transposed convolution 4×4, stride 2, padding 1: doubles the size.
    Double,
    /// Transposed convolution 3×3, stride 1, padding 1: keeps the size. The released weights
    /// are stored `[in,out,k,k]` for these too.
    Keep,
}

impl LayerOp {
    /// Kernel, padding.
    fn geometry(self) -> (i64, i64) {
        match self {
            LayerOp::Fc => (1, 0),
            LayerOp::Conv { kernel, pad } => (kernel, pad),
            LayerOp::Double => (4, 1),
            LayerOp::Keep => (3, 1),
        }
    }
}

/// The trunk from 4×4 on: (name, output channels) of the doubling, then of the layer that keeps
/// the size, where there is one. `deconv0` (3 channels, linear) ends it.
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

    /// The layers from features to pictures.
    ///
    /// # Errors
    /// [`NetError::Spec`] for sizes that no generator can be built for.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        if !(8..=MAX_CROP).contains(&self.crop) {
            return Err(NetError::Spec(format!(
                "a generator makes crops of 8 to {MAX_CROP} pixels, not {}",
                self.crop
            )));
        }
        if !(self.width > 0.0 && self.width <= 4.0) {
            return Err(NetError::Spec(format!(
                "generator width must be above 0 and at most 4, not {}",
                self.width
            )));
        }
        let mut layers = Vec::new();
        let (mut channels, enters) = match self.input {
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
        for ((double, out), keep) in &TRUNK[enters..doublings - 1] {
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
            push(*double, *out, LayerOp::Double);
            if let Some((name, out)) = keep {
                push(*name, *out, LayerOp::Keep);
            }
        }
        layers.push(Layer {
            name: "deconv0",
            input: channels,
            output: 3,
            op: LayerOp::Double,
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
    fn weight_shape(&self) -> Vec<i64> {
        match self.op {
            LayerOp::Fc => vec![self.output, self.input],
            LayerOp::Conv { kernel, .. } => vec![self.output, self.input, kernel, kernel],
            LayerOp::Double => vec![self.input, self.output, 4, 4],
            LayerOp::Keep => vec![self.input, self.output, 3, 3],
        }
    }

    /// Deviation of the authors' initialisation: c·√(2/fan_in).
    fn deviation(&self) -> f64 {
        let (kernel, _) = self.op.geometry();
        match self.op {
            LayerOp::Fc => he_deviation(self.input),
            LayerOp::Conv { .. } => he_deviation(self.input * kernel * kernel),
            // Caffe reads the fan-in of a transposed convolution as out·k².
            LayerOp::Double => 1.8 * he_deviation(self.output * kernel * kernel),
            LayerOp::Keep => 0.9 * he_deviation(self.output * kernel * kernel),
        }
    }

    /// The released models give the trunk's biases a learning rate of zero.
    fn bias_trains(&self) -> bool {
        matches!(self.op, LayerOp::Fc | LayerOp::Conv { .. })
    }
}

/// A generator with its weights.
#[derive(Debug)]
pub struct Generator {
    spec: GeneratorSpec,
    layers: Vec<Layer>,
    params: Params,
}

impl Generator {
    /// The authors' initialisation: N(0, c²·2/fan_in) with c = 1.8 for doubling layers, 0.9 for
    /// 3×3 trunk layers, 1 otherwise; biases zero.
    ///
    /// # Errors
    /// A spec that cannot be built.
    pub fn new(spec: GeneratorSpec, seed: u64, device: Device) -> Result<Generator> {
        let layers = spec.layers()?;
        let mut params = Params::default();
        for layer in &layers {
            let weight_name = format!("{}.weight", layer.name);
            let shape = layer.weight_shape();
            let weight = normal(
                &format!("generator.{weight_name}"),
                &shape,
                layer.deviation(),
                seed,
            )?;
            // Weight decay: the released solver has it on Rconv6–8's weights alone.
            let decays = matches!(layer.op, LayerOp::Conv { .. });
            params.push(Param {
                name: weight_name,
                tensor: weight.f_to_device(device)?.f_set_requires_grad(true)?,
                trains: true,
                decays,
            });
            let trains = layer.bias_trains();
            params.push(Param {
                name: format!("{}.bias", layer.name),
                tensor: zeros(&[layer.output])?
                    .f_to_device(device)?
                    .f_set_requires_grad(trains)?,
                trains,
                decays: false,
            });
        }
        Ok(Generator {
            spec,
            layers,
            params,
        })
    }

    /// What it was built from.
    pub fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// Its weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Its weights, to load values into.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Features `[N,C,H,W]` or `[N,length]` (raw activations) → pictures `[N,3,crop,crop]` in
    /// Caffe units, linear, not clipped.
    ///
    /// # Errors
    /// Features of another shape than the spec says.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let expected = match self.spec.input {
            FeatureShape::Map { channels, size } => vec![channels, size, size],
            FeatureShape::Vector(n) => vec![n],
        };
        if features.size().get(1..) != Some(expected.as_slice()) {
            return Err(NetError::InputShape {
                what: "the generator".to_owned(),
                expected: format!(
                    "features [N,{}]",
                    expected
                        .iter()
                        .map(i64::to_string)
                        .collect::<Vec<_>>()
                        .join(",")
                ),
                got: features.size(),
            });
        }
        let mut x = features.shallow_clone();
        let last = self.layers.len() - 1;
        for (i, (layer, pair)) in self.layers.iter().zip(self.params_by_layer()).enumerate() {
            let (weight, bias) = pair;
            let (_, pad) = layer.op.geometry();
            let geometry = match layer.op {
                LayerOp::Fc => {
                    x = linear(&x, weight, bias, Rectifier::Leaky(SLOPE))?;
                    continue;
                }
                LayerOp::Conv { .. } => Geometry::Convolution {
                    stride: 1,
                    padding: pad,
                    groups: 1,
                },
                LayerOp::Double => Geometry::Double,
                LayerOp::Keep => Geometry::Keep,
            };
            if x.dim() == 2 {
                // [N, 16·C] → [N,C,4,4]
                x = x.f_view([-1, layer.input, 4, 4])?;
            }
            x = if i == last {
                to_pictures(&x, weight, bias, self.spec.crop)?
            } else {
                convolution(&x, weight, bias, geometry, Rectifier::Leaky(SLOPE))?
            };
        }
        Ok(x)
    }

    /// (weight, bias) of each layer, in order.
    fn params_by_layer(&self) -> impl Iterator<Item = (&Tensor, &Tensor)> {
        let mut entries = self.params.iter();
        std::iter::from_fn(move || Some((&entries.next()?.tensor, &entries.next()?.tensor)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(input: FeatureShape, crop: i64) -> GeneratorSpec {
        GeneratorSpec {
            input,
            crop,
            width: 1.0,
        }
    }

    fn millions(spec: &GeneratorSpec) -> f64 {
        let layers = spec.layers().unwrap();
        let n: i64 = layers
            .iter()
            .map(|l| l.weight_shape().iter().product::<i64>() + l.output)
            .sum();
        (n as f64 / 1e4).round() / 100.0
    }

    #[test]
    fn parameter_counts_are_those_of_the_released_models() {
        assert_eq!(millions(&spec(FeatureShape::Vector(4096), 227)), 56.10);
        assert_eq!(millions(&spec(FeatureShape::Vector(1000), 227)), 43.42);
        assert_eq!(
            millions(&spec(
                FeatureShape::Map {
                    channels: 256,
                    size: 6
                },
                227
            )),
            12.70
        );
    }

    #[test]
    fn front_ends_fit_their_maps() {
        for (size, kernel, pad) in [(6, 3, 0), (3, 2, 1), (5, 2, 0), (7, 2, 1), (13, 2, 2)] {
            let layers = spec(
                FeatureShape::Map {
                    channels: 256,
                    size,
                },
                227,
            )
            .layers()
            .unwrap();
            let rconv8 = layers.iter().find(|l| l.name == "Rconv8").unwrap();
            assert_eq!(rconv8.op, LayerOp::Conv { kernel, pad }, "map of {size}");
        }
    }

    #[test]
    fn smaller_crops_drop_the_end_of_the_trunk() {
        let names = |crop| -> Vec<_> {
            spec(FeatureShape::Vector(10), crop)
                .layers()
                .unwrap()
                .iter()
                .skip(3)
                .map(|l| l.name)
                .collect()
        };
        assert_eq!(
            names(128),
            [
                "deconv5", "conv5_1", "deconv4", "conv4_1", "deconv3", "conv3_1", "deconv2",
                "deconv0"
            ]
        );
        assert_eq!(
            names(64),
            [
                "deconv5", "conv5_1", "deconv4", "conv4_1", "deconv3", "conv3_1", "deconv0"
            ]
        );
        assert_eq!(spec(FeatureShape::Vector(10), 100).uncropped(), 128);
    }

    #[test]
    fn every_legal_size_gives_pictures_of_the_crop() {
        for (input, crop) in [
            (
                FeatureShape::Map {
                    channels: 5,
                    size: 1,
                },
                16,
            ),
            (
                FeatureShape::Map {
                    channels: 5,
                    size: 7,
                },
                100,
            ),
            (
                FeatureShape::Map {
                    channels: 5,
                    size: 15,
                },
                64,
            ),
            (FeatureShape::Vector(3), 33),
        ] {
            let g = Generator::new(
                GeneratorSpec {
                    input,
                    crop,
                    width: 0.05,
                },
                1,
                Device::Cpu,
            )
            .unwrap();
            let mut shape = vec![2];
            match input {
                FeatureShape::Map { channels, size } => shape.extend([channels, size, size]),
                FeatureShape::Vector(n) => shape.push(n),
            }
            let x = Tensor::ones(shape, (tch::Kind::Float, Device::Cpu));
            assert_eq!(g.forward(&x).unwrap().size(), [2, 3, crop, crop]);
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(spec(FeatureShape::Vector(0), 64).layers().is_err());
        assert!(spec(FeatureShape::Vector(9), 300).layers().is_err());
        assert!(
            spec(
                FeatureShape::Map {
                    channels: 3,
                    size: 63
                },
                64
            )
            .layers()
            .is_err()
        );
        let wide = GeneratorSpec {
            width: f64::NAN,
            ..spec(FeatureShape::Vector(9), 64)
        };
        assert!(wide.layers().is_err());
    }
}
