//! The architectures, one a file, as tables that read like the papers'; and the registry of the feature networks.
//!
//! A new feature network is a file with its [`Net`], a variant of [`NetKind`] and a line in [`NETS`].

mod alexnet;
mod caffenet;
mod efficientnet;
pub(crate) mod vaegan;
mod vgg16;
mod videonet;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::{NetError, Result};
use crate::layers::op::{FcMap, Op, Part, Row};
use crate::layers::shape::FeatureShape;
use crate::layers::tap::Tap;
use crate::pictures;

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

/// Units of the images that a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// BGR 0–255 minus Caffe's mean.
    Caffe,
    /// BGR 0–255 minus VideoNet's mean.
    VideoNet,
    /// RGB 0–1 minus ImageNet's mean, divided by its deviation.
    ImageNet,
    /// RGB 0–255 as (x − 127)/128.
    EfficientNet,
}

impl Units {
    /// Images `[N,3,H,W]` in Caffe units, in these.
    ///
    /// # Errors
    /// A tensor that is not `[N,3,H,W]`.
    pub fn of_caffe(self, caffe: &Tensor) -> Result<Tensor> {
        match self {
            Units::Caffe => Ok(caffe.shallow_clone()),
            Units::VideoNet => pictures::caffe_to_videonet(caffe),
            Units::ImageNet => pictures::caffe_to_torchvision(caffe),
            Units::EfficientNet => pictures::caffe_to_efficientnet(caffe),
        }
    }
}

/// Networks that see alike: a metric made of one is no independent judgement of what another trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AlexNet's layers, whatever they were trained for.
    AlexNet,
    /// VGG.
    Vgg,
    /// EfficientNet.
    EfficientNet,
}

/// All that is known of a feature network.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Which.
    pub kind: NetKind,
    /// In experiment files.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// The whole architecture.
    pub table: &'static [Row],
    /// What the first fully connected layer makes of the map below it.
    pub fc_map: FcMap,
    /// Units of its images.
    pub units: Units,
    /// Its kin.
    pub family: Family,
    /// Where its weights are from.
    pub obtain: &'static str,
    /// The kind of import of `deepsim-weights`, and the file to import; none where set-up does it.
    pub import: Option<(&'static str, &'static str)>,
}

/// The registry, in the order of [`NetKind`].
pub const NETS: [&Net; 5] = [
    &caffenet::NET,
    &alexnet::NET,
    &videonet::NET,
    &vgg16::NET,
    &efficientnet::NET,
];

impl std::fmt::Display for NetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().name)
    }
}

impl NetKind {
    /// Its entry in the registry.
    pub fn info(self) -> &'static Net {
        NETS[self as usize]
    }

    /// The whole architecture.
    pub fn table(self) -> &'static [Row] {
        self.info().table
    }

    /// What the first fully connected layer makes of the map below it.
    pub fn fc_map(self) -> FcMap {
        self.info().fc_map
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
                net: self.to_string(),
                tap: tap.to_string(),
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
                            net: self.to_string(),
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
    fn the_registry_is_in_the_order_of_its_kinds_and_names_are_those_of_files() {
        for (i, net) in NETS.iter().enumerate() {
            assert_eq!(net.kind as usize, i);
            let name = serde_json::to_value(net.kind).unwrap();
            assert_eq!(name, net.name);
        }
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
