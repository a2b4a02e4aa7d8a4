//! The architectures, one a file, as tables that read like the papers'; and the registry of the feature networks.
//!
//! A new feature network is a file with its [`Net`], a variant of [`NetKind`] and a line in [`NETS`].

mod alexnet;
mod caffenet;
pub(crate) mod deepsim;
mod efficientnet;
mod net;
mod squeezenet;
pub(crate) mod vaegan;
mod vgg16;
mod videonet;

use std::sync::LazyLock;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::net::{Net, Units};
use crate::error::{NetError, Result};
use crate::layers::op::{FcMap, Op, Row};
use crate::layers::shape::{Extent, FeatureShape};
use crate::layers::tap::Tap;

/// A network that turns images into features.
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
    /// SqueezeNet 1.1 as released for Caffe: fire modules, ceil-mode pooling, no fully connected
    /// layers, BGR 0–255 minus the mean.
    SqueezeNet,
}

/// The registry, in the order of [`NetKind`].
pub const NETS: &[&Net] = &[
    &caffenet::NET,
    &alexnet::NET,
    &videonet::NET,
    &vgg16::NET,
    &efficientnet::NET,
    &squeezenet::NET,
];

/// A discriminator's layers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiscriminatorParts {
    /// What images go through.
    pub trunk: Vec<Op>,
    /// What features go through, if it sees them; their values stand behind the trunk's.
    pub branch: Vec<Op>,
    /// What the values of both go through.
    pub head: Vec<Op>,
}

/// Channels at a width. Multiples of 8 keep matrix kernels on their fast paths.
pub(crate) fn scaled(channels: i64, width: f64) -> i64 {
    let scaled = (channels as f64 * width / 8.0).round() as i64 * 8;
    scaled.max(8)
}

/// The names of all layers of all networks, each once.
static TAPS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let mut names = Vec::new();
    for (tap, _) in NETS.iter().flat_map(|net| net.table) {
        if !names.contains(&tap.name()) {
            names.push(tap.name());
        }
    }
    names
});

impl<'de> Deserialize<'de> for Tap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Tap, D::Error> {
        let text = String::deserialize(from)?;
        match TAPS.iter().find(|name| **name == text) {
            Some(name) => Ok(Tap::named(name)),
            None => Err(D::Error::unknown_variant(&text, &TAPS)),
        }
    }
}

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

    /// Shape of the features `[channels, height, width]` (or `[length]`) at `tap` for images
    /// of `height`×`width` pixels.
    ///
    /// # Errors
    /// An unknown tap, or images too small (or, at fully connected layers of CaffeNet and VideoNet, of
    /// another size than the layer takes).
    pub fn shape_at(self, tap: Tap, height: i64, width: i64) -> Result<Vec<i64>> {
        let mut x = Extent::image(height, width);
        for (at, op) in self.rows_to(tap)? {
            if let (Op::Fc { .. }, FcMap::Exactly(side)) = (op, self.fc_map())
                && !x.flat
                && (x.height, x.width) != (side, side)
            {
                return Err(NetError::FcSize {
                    net: self.to_string(),
                    layer: at.name(),
                    height,
                    width,
                    got_h: x.height,
                    got_w: x.width,
                });
            }
            x = op.output(x).ok_or_else(|| NetError::TooSmall {
                what: format!("{self} up to `{tap}`"),
                height,
                width,
                layer: at.name().to_owned(),
            })?;
        }
        Ok(if x.flat {
            vec![x.channels]
        } else {
            vec![x.channels, x.height, x.width]
        })
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
        rows.iter().flat_map(|(_, op)| op.tensors()).collect()
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
            let kind: NetKind = serde_json::from_value(net.name.into()).unwrap();
            assert_eq!(kind as usize, i);
            assert_eq!(serde_json::to_value(kind).unwrap(), net.name);
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
    fn names_of_taps_are_those_of_experiment_files() {
        for (tap, _) in NETS.iter().flat_map(|net| net.table) {
            let name = serde_json::to_value(tap).unwrap();
            assert_eq!(name, tap.name());
            assert_eq!(serde_json::from_value::<Tap>(name).unwrap(), *tap);
        }
        let error = serde_json::from_value::<Tap>("fc9".into())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("unknown variant `fc9`, expected one of `conv1`, "),
            "{error}"
        );
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
