//! The architectures of the feature networks, as tables that read like the papers'.

use serde::{Deserialize, Serialize};

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
}

impl std::fmt::Display for NetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NetKind::CaffeNet => "caffenet",
            NetKind::AlexNet => "alexnet",
        })
    }
}

macro_rules! taps {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// A layer whose output can be taken as features. "CONV5" of the DeePSiM paper is `pool5`,
        /// "FC6" is `relu6`, "FC7" is `relu7`, "FC8" is `fc8` (logits, before the softmax).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[allow(missing_docs)]
        pub enum Tap { $($variant),* }

        impl Tap {
            /// The name as in experiment files.
            pub fn name(self) -> &'static str {
                match self { $(Tap::$variant => $name),* }
            }
        }
    };
}
taps! {
    Conv1 = "conv1", Relu1 = "relu1", Pool1 = "pool1", Norm1 = "norm1",
    Conv2 = "conv2", Relu2 = "relu2", Pool2 = "pool2", Norm2 = "norm2",
    Conv3 = "conv3", Relu3 = "relu3",
    Conv4 = "conv4", Relu4 = "relu4",
    Conv5 = "conv5", Relu5 = "relu5", Pool5 = "pool5",
    Fc6 = "fc6", Relu6 = "relu6", Fc7 = "fc7", Relu7 = "relu7", Fc8 = "fc8",
}

impl std::fmt::Display for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
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
    /// Maximum over 3×3 windows at stride 2.
    MaxPool(Rounding),
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

const fn fc(key: &'static str, input: i64, output: i64) -> Op {
    Op::Fc { key, input, output }
}

/// CaffeNet (`bvlc_reference_caffenet`, deploy.prototxt). Sizes are for 227×227 pictures.
pub const CAFFENET: &[Row] = &[
    (Tap::Conv1, conv("conv1", (3, 96), (11, 4, 0), 1)), // 55
    (Tap::Relu1, Op::Relu),
    (Tap::Pool1, Op::MaxPool(Rounding::Ceil)), // 27
    (Tap::Norm1, Op::Lrn),
    (Tap::Conv2, conv("conv2", (96, 256), (5, 1, 2), 2)), // 27
    (Tap::Relu2, Op::Relu),
    (Tap::Pool2, Op::MaxPool(Rounding::Ceil)), // 13
    (Tap::Norm2, Op::Lrn),
    (Tap::Conv3, conv("conv3", (256, 384), (3, 1, 1), 1)), // 13
    (Tap::Relu3, Op::Relu),
    (Tap::Conv4, conv("conv4", (384, 384), (3, 1, 1), 2)), // 13
    (Tap::Relu4, Op::Relu),
    (Tap::Conv5, conv("conv5", (384, 256), (3, 1, 1), 2)), // 13
    (Tap::Relu5, Op::Relu),
    (Tap::Pool5, Op::MaxPool(Rounding::Ceil)), // 6
    (Tap::Fc6, fc("fc6", 9216, 4096)),
    (Tap::Relu6, Op::Relu),
    (Tap::Fc7, fc("fc7", 4096, 4096)),
    (Tap::Relu7, Op::Relu),
    (Tap::Fc8, fc("fc8", 4096, 1000)),
];

/// torchvision's AlexNet ("One weird trick", Krizhevsky 2014). Sizes are for 224×224 pictures.
pub const ALEXNET: &[Row] = &[
    (Tap::Conv1, conv("features.0", (3, 64), (11, 4, 2), 1)), // 55
    (Tap::Relu1, Op::Relu),
    (Tap::Pool1, Op::MaxPool(Rounding::Floor)), // 27
    (Tap::Conv2, conv("features.3", (64, 192), (5, 1, 2), 1)), // 27
    (Tap::Relu2, Op::Relu),
    (Tap::Pool2, Op::MaxPool(Rounding::Floor)), // 13
    (Tap::Conv3, conv("features.6", (192, 384), (3, 1, 1), 1)), // 13
    (Tap::Relu3, Op::Relu),
    (Tap::Conv4, conv("features.8", (384, 256), (3, 1, 1), 1)), // 13
    (Tap::Relu4, Op::Relu),
    (Tap::Conv5, conv("features.10", (256, 256), (3, 1, 1), 1)), // 13
    (Tap::Relu5, Op::Relu),
    (Tap::Pool5, Op::MaxPool(Rounding::Floor)), // 6
    (Tap::Fc6, fc("classifier.1", 9216, 4096)),
    (Tap::Relu6, Op::Relu),
    (Tap::Fc7, fc("classifier.4", 4096, 4096)),
    (Tap::Relu7, Op::Relu),
    (Tap::Fc8, fc("classifier.6", 4096, 1000)),
];

/// Side of the map that the first fully connected layer takes.
pub const FC_MAP: i64 = 6;

/// Shape of one picture's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureShape {
    /// A square map: channels and side.
    Map {
        /// Channels.
        channels: i64,
        /// Height and width.
        size: i64,
    },
    /// A vector of this length.
    Vector(i64),
}

impl FeatureShape {
    /// Number of values.
    pub fn len(self) -> i64 {
        match self {
            FeatureShape::Map { channels, size } => channels * size * size,
            FeatureShape::Vector(n) => n,
        }
    }

    /// Whether there are no values at all.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Display for FeatureShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FeatureShape::Map { channels, size } => write!(f, "{channels}x{size}x{size}"),
            FeatureShape::Vector(n) => write!(f, "{n}"),
        }
    }
}

impl NetKind {
    /// The whole architecture.
    pub fn table(self) -> &'static [Row] {
        match self {
            NetKind::CaffeNet => CAFFENET,
            NetKind::AlexNet => ALEXNET,
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
    /// An unknown tap, or pictures too small (or, at fully connected layers of CaffeNet, of
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
                Op::MaxPool(rounding) => {
                    if h < 3 || w < 3 {
                        return Err(small());
                    }
                    let out = |x: i64| match rounding {
                        Rounding::Floor => (x - 3) / 2 + 1,
                        Rounding::Ceil => (x - 3 + 1) / 2 + 1,
                    };
                    (h, w) = (out(h), out(w));
                }
                Op::Fc { output, .. } => {
                    // torchvision's AlexNet averages the map to 6×6 first; CaffeNet cannot.
                    if !flat && self == NetKind::CaffeNet && (h, w) != (FC_MAP, FC_MAP) {
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
                Op::Relu | Op::MaxPool(_) | Op::Lrn => continue,
            };
            out.push((format!("{key}.bias"), vec![shape[0]]));
            out.push((format!("{key}.weight"), shape));
        }
        out
    }

    /// The rows up to pool5, whose weights may come without the fully connected layers.
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
