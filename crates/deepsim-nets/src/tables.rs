//! The architectures of the feature networks, as tables that read like the papers'.

mod caffe;
mod shape;
mod taps;
mod torchvision;

use serde::{Deserialize, Serialize};

pub use caffe::{CAFFENET, VIDEONET};
pub use shape::{FeatureShape, MAX_FEATURES};
pub use taps::Tap;
pub use torchvision::{ALEXNET, VGG16};

use crate::efficientnet::{ConvNorm, EFFICIENTNET_LITE0, MbConv, Part};
use crate::error::{NetError, Result};

/// A network that turns pictures into features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetKind {
    /// BVLC reference CaffeNet: grouped convolutions, pool before LRN, ceil-mode pooling,
    /// BGR 0–255 minus the mean. The network that the DeePSiM paper calls AlexNet.
    CaffeNet,
    /// torchvision's AlexNet: no groups, no LRN, floor-mode pooling, RGB in ImageNet mean/std
    /// units. Another network than CaffeNet; numbers of the two do not compare.
    AlexNet,
    /// Wang & Gupta's VideoNet: CaffeNet's layers up to pool5, fc7 of 1024, no classes; learnt
    /// from videos without labels. BGR 0–255 minus a mean of its own.
    VideoNet,
    /// torchvision's VGG16, RGB in ImageNet mean/std units.
    Vgg16,
    /// EfficientNet-Lite0, RGB 0–255 as (x − 127)/128.
    #[serde(rename = "efficientnet-lite0")]
    EfficientNetLite0,
}

impl std::fmt::Display for NetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NetKind::CaffeNet => "caffenet",
            NetKind::AlexNet => "alexnet",
            NetKind::VideoNet => "videonet",
            NetKind::Vgg16 => "vgg16",
            NetKind::EfficientNetLite0 => "efficientnet-lite0",
        })
    }
}

/// How a pooling layer rounds its output size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Caffe: a last, partial window counts.
    Ceil,
    /// PyTorch's default: it does not.
    Floor,
}

/// Windows of a pooling layer, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side.
    pub kernel: i64,
    /// Step from one to the next.
    pub stride: i64,
    /// Whether a last, partial one counts.
    pub rounding: Rounding,
}

impl Window {
    /// Output size for an input of `size` ≥ `kernel`.
    fn count(self, size: i64) -> i64 {
        let room = size - self.kernel;
        match self.rounding {
            Rounding::Floor => room / self.stride + 1,
            Rounding::Ceil => (room + self.stride - 1) / self.stride + 1,
        }
    }
}

/// What the first fully connected layer makes of the map below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FcMap {
    /// It takes a map of this side and no other.
    Exactly(i64),
    /// Any map is averaged to this side first (torchvision's adaptive pooling).
    AveragedTo(i64),
}

/// One operation of a feature network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Convolution: tensor prefix, input and output channels, kernel, stride, padding, groups.
    Conv {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Input channels.
        input: i64,
        /// Output channels.
        output: i64,
        /// Kernel side.
        kernel: i64,
        /// Stride.
        stride: i64,
        /// Padding on each side.
        pad: i64,
        /// Groups.
        groups: i64,
    },
    /// max(x, 0).
    Relu,
    /// Maximum over square windows.
    MaxPool(Window),
    /// Local response normalisation across 5 channels, α = 1e-4 divided by 5, β = 0.75, k = 1.
    Lrn,
    /// Fully connected layer: tensor prefix, inputs, outputs.
    Fc {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Inputs.
        input: i64,
        /// Outputs.
        output: i64,
    },
    /// Convolution with batch normalisation and ReLU6.
    ConvNorm(ConvNorm),
    /// Inverted residual block.
    MbConv(MbConv),
    /// Mean over all positions: a map becomes a vector.
    GlobalAverage,
}

impl Op {
    /// The convolutions with batch normalisation in this operation.
    pub(crate) fn parts(&self) -> Vec<Part> {
        match self {
            Op::ConvNorm(layer) => vec![layer.part()],
            Op::MbConv(block) => block.parts(),
            _ => Vec::new(),
        }
    }
}

/// A row of a table: where it can be tapped, and what it does.
pub type Row = (Tap, Op);

const fn conv(key: &'static str, channels: (i64, i64), k_s_p: (i64, i64, i64), groups: i64) -> Op {
    let (input, output) = channels;
    let (kernel, stride, pad) = k_s_p;
    Op::Conv {
        key,
        input,
        output,
        kernel,
        stride,
        pad,
        groups,
    }
}

const fn max_pool(kernel: i64, stride: i64, rounding: Rounding) -> Op {
    Op::MaxPool(Window {
        kernel,
        stride,
        rounding,
    })
}

pub(crate) const fn fc(key: &'static str, input: i64, output: i64) -> Op {
    Op::Fc { key, input, output }
}

impl NetKind {
    /// The whole architecture.
    pub fn table(self) -> &'static [Row] {
        match self {
            NetKind::CaffeNet => CAFFENET,
            NetKind::AlexNet => ALEXNET,
            NetKind::VideoNet => VIDEONET,
            NetKind::Vgg16 => VGG16,
            NetKind::EfficientNetLite0 => EFFICIENTNET_LITE0,
        }
    }

    /// What the first fully connected layer makes of the map below it.
    pub fn fc_map(self) -> FcMap {
        match self {
            NetKind::CaffeNet | NetKind::VideoNet => FcMap::Exactly(6),
            NetKind::AlexNet => FcMap::AveragedTo(6),
            NetKind::Vgg16 => FcMap::AveragedTo(7),
            NetKind::EfficientNetLite0 => FcMap::AveragedTo(1), // its tap `pooled`
        }
    }

    /// The rows up to and including `tap`.
    ///
    /// # Errors
    /// [`NetError::NoSuchTap`], such as `norm1` of torchvision's AlexNet.
    pub fn rows_to(self, tap: Tap) -> Result<&'static [Row]> {
        let table = self.table();
        match table.iter().position(|(t, _)| *t == tap) {
            Some(i) => Ok(&table[..=i]),
            None => Err(NetError::NoSuchTap {
                net: self,
                tap,
                known: table.iter().map(|(t, _)| t.name()).collect(),
            }),
        }
    }

    /// Shape of the features `[channels, height, width]` (or `[length]`) at `tap` for pictures
    /// of `height`×`width` pixels.
    ///
    /// # Errors
    /// An unknown tap, or pictures too small (or, at fully connected layers of CaffeNet and VideoNet, of
    /// another size than the layer takes).
    pub fn shape_at(self, tap: Tap, height: i64, width: i64) -> Result<Vec<i64>> {
        let (mut c, mut h, mut w) = (3, height, width);
        let mut flat = false;
        for (at, op) in self.rows_to(tap)? {
            let small = || NetError::TooSmall {
                what: format!("{self} up to `{tap}`"),
                height,
                width,
                layer: at.name().to_owned(),
            };
            match *op {
                Op::Conv {
                    output,
                    kernel,
                    stride,
                    pad,
                    ..
                } => {
                    if h + 2 * pad < kernel || w + 2 * pad < kernel {
                        return Err(small());
                    }
                    h = (h + 2 * pad - kernel) / stride + 1;
                    w = (w + 2 * pad - kernel) / stride + 1;
                    c = output;
                }
                Op::MaxPool(window) => {
                    if h < window.kernel || w < window.kernel {
                        return Err(small());
                    }
                    (h, w) = (window.count(h), window.count(w));
                }
                Op::Fc { output, .. } => {
                    if let FcMap::Exactly(side) = self.fc_map()
                        && !flat
                        && (h, w) != (side, side)
                    {
                        return Err(NetError::FcSize {
                            net: self,
                            layer: at.name(),
                            height,
                            width,
                            got_h: h,
                            got_w: w,
                        });
                    }
                    flat = true;
                    c = output;
                }
                Op::ConvNorm(_) | Op::MbConv(_) => {
                    for part in op.parts() {
                        // SAME padding gives an output to any size; one that a stride steps over
                        // whole would be made of padding more than of the picture.
                        if h < part.stride || w < part.stride {
                            return Err(small());
                        }
                        h = (h + part.stride - 1) / part.stride;
                        w = (w + part.stride - 1) / part.stride;
                        c = part.output;
                    }
                }
                Op::GlobalAverage => flat = true,
                Op::Relu | Op::Lrn => {}
            }
        }
        Ok(if flat { vec![c] } else { vec![c, h, w] })
    }

    /// Shape of the features at `tap` for square crops.
    ///
    /// # Errors
    /// As [`NetKind::shape_at`].
    pub fn feature_shape(self, tap: Tap, crop: i64) -> Result<FeatureShape> {
        Ok(match self.shape_at(tap, crop, crop)?.as_slice() {
            [c, h, _] => FeatureShape::Map {
                channels: *c,
                size: *h,
            },
            other => FeatureShape::Vector(other.iter().product()),
        })
    }

    /// Names and shapes of the weights of the given rows.
    pub fn weight_shapes(rows: &[Row]) -> Vec<(String, Vec<i64>)> {
        let mut out = Vec::new();
        for (_, op) in rows {
            let (key, shape) = match *op {
                Op::Conv {
                    key,
                    input,
                    output,
                    kernel,
                    groups,
                    ..
                } => (key, vec![output, input / groups, kernel, kernel]),
                Op::Fc { key, input, output } => (key, vec![output, input]),
                Op::ConvNorm(_) | Op::MbConv(_) => {
                    out.extend(op.parts().iter().flat_map(Part::shapes));
                    continue;
                }
                Op::Relu | Op::MaxPool(_) | Op::Lrn | Op::GlobalAverage => continue,
            };
            out.push((format!("{key}.bias"), vec![shape[0]]));
            out.push((format!("{key}.weight"), shape));
        }
        out
    }

    /// The rows below the fully connected layers (up to pool5, or EfficientNet's `pooled`), whose
    /// weights may come without the others.
    pub fn convolutional_rows(self) -> &'static [Row] {
        let table = self.table();
        let end = table
            .iter()
            .position(|(_, op)| matches!(op, Op::Fc { .. }))
            .unwrap_or(table.len());
        &table[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(net: NetKind) -> i64 {
        NetKind::weight_shapes(net.table())
            .iter()
            .map(|(_, s)| s.iter().product::<i64>())
            .sum()
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        assert_eq!(parameters(NetKind::CaffeNet), 60_965_224);
        assert_eq!(parameters(NetKind::AlexNet), 61_100_840);
        assert_eq!(parameters(NetKind::Vgg16), 138_357_544);
        // CaffeNet's without fc8, and with 1024 instead of 4096 outputs of fc7.
        assert_eq!(
            parameters(NetKind::VideoNet),
            60_965_224 - 4_097_000 - 4097 * 3072
        );
        // 4.65 million that learn, and two statistics for each normalised channel.
        assert_eq!(parameters(NetKind::EfficientNetLite0), 4_652_008 + 42_016);
    }

    #[test]
    fn sizes_at_227_are_the_paper_s() {
        let size = |tap| NetKind::CaffeNet.shape_at(tap, 227, 227).unwrap();
        assert_eq!(size(Tap::Conv1), [96, 55, 55]);
        assert_eq!(size(Tap::Pool1), [96, 27, 27]);
        assert_eq!(size(Tap::Pool2), [256, 13, 13]);
        assert_eq!(size(Tap::Pool5), [256, 6, 6]);
        assert_eq!(size(Tap::Relu6), [4096]);
        assert_eq!(size(Tap::Fc8), [1000]);
    }

    #[test]
    fn sizes_at_224_are_those_of_vgg16_and_efficientnet() {
        let size = |net: NetKind, tap| net.shape_at(tap, 224, 224).unwrap();
        assert_eq!(size(NetKind::Vgg16, Tap::Pool3), [256, 28, 28]);
        assert_eq!(size(NetKind::Vgg16, Tap::Pool5), [512, 7, 7]);
        assert_eq!(size(NetKind::Vgg16, Tap::Relu7), [4096]);
        let lite = NetKind::EfficientNetLite0;
        assert_eq!(size(lite, Tap::Stem), [32, 112, 112]);
        assert_eq!(size(lite, Tap::Block4), [40, 28, 28]);
        assert_eq!(size(lite, Tap::Head), [1280, 7, 7]);
        assert_eq!(size(lite, Tap::Pooled), [1280]);
        assert_eq!(size(lite, Tap::Logits), [1000]);
        assert_eq!(lite.shape_at(Tap::Head, 17, 33).unwrap(), [1280, 1, 2]);
        let error = lite.shape_at(Tap::Logits, 16, 64).unwrap_err().to_string();
        assert!(error.contains("layer `block11`"), "{error}");
    }

    #[test]
    fn names_are_those_of_experiment_files() {
        for net in [
            NetKind::CaffeNet,
            NetKind::AlexNet,
            NetKind::VideoNet,
            NetKind::Vgg16,
            NetKind::EfficientNetLite0,
        ] {
            let name = serde_json::to_value(net).unwrap();
            assert_eq!(name, serde_json::json!(net.to_string()));
            for (tap, _) in net.table() {
                assert_eq!(serde_json::to_value(tap).unwrap(), tap.name());
            }
        }
    }

    #[test]
    fn ceil_and_floor_pooling_differ_at_224() {
        assert_eq!(
            NetKind::CaffeNet.shape_at(Tap::Pool1, 224, 224).unwrap(),
            [96, 27, 27]
        );
        assert_eq!(
            NetKind::CaffeNet.shape_at(Tap::Pool1, 200, 200).unwrap(),
            [96, 24, 24]
        );
        assert_eq!(
            NetKind::AlexNet.shape_at(Tap::Pool1, 200, 200).unwrap(),
            [64, 24, 24]
        );
    }

    #[test]
    fn illegal_sizes_and_taps_are_told() {
        assert!(matches!(
            NetKind::AlexNet.shape_at(Tap::Norm1, 227, 227),
            Err(NetError::NoSuchTap { .. })
        ));
        assert!(matches!(
            NetKind::CaffeNet.shape_at(Tap::Pool5, 40, 40),
            Err(NetError::TooSmall { .. })
        ));
        assert!(matches!(
            NetKind::CaffeNet.shape_at(Tap::Fc6, 128, 128),
            Err(NetError::FcSize { .. })
        ));
        assert!(NetKind::AlexNet.shape_at(Tap::Fc6, 128, 128).is_ok());
    }
}
