//! The architectures, one a file, as tables that read like the papers'; and the registry of the feature networks.
//!
//! A new feature network is a file with its [`Net`], a variant of [`NetKind`] and a line in [`NETS`].

mod alexnet;
mod caffenet;
mod clip;
mod convnext;
pub(crate) mod deepsim;
mod dinov2;
mod efficientnet;
mod inception;
pub(crate) mod mae;
mod net;
pub(crate) mod patchgan;
mod resnet50;
mod siglip;
mod squeezenet;
pub(crate) mod vaegan;
mod vgg16;
mod vgg19;
mod videonet;
pub mod vit;

use std::ops::Deref;
use std::sync::LazyLock;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::net::{Net, Units};
use crate::layers::op::{Op, Row};
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
    /// The Inception network of FID, RGB in −1…1.
    #[serde(rename = "inception-fid")]
    InceptionFid,
    /// torchvision's VGG19, RGB in ImageNet mean/std units.
    Vgg19,
    /// torchvision's ResNet-50, RGB in ImageNet mean/std units.
    ResNet50,
    /// torchvision's ConvNeXt-T, RGB in ImageNet mean/std units.
    #[serde(rename = "convnext-tiny")]
    ConvNextTiny,
    /// torchvision's ConvNeXt-S.
    #[serde(rename = "convnext-small")]
    ConvNextSmall,
    /// DINOv2 ViT-S/14, RGB in ImageNet mean/std units.
    #[serde(rename = "dinov2-small")]
    Dinov2Small,
    /// DINOv2 ViT-B/14.
    #[serde(rename = "dinov2-base")]
    Dinov2Base,
    /// DINOv2 ViT-L/14.
    #[serde(rename = "dinov2-large")]
    Dinov2Large,
    /// DINOv2 ViT-S/14 with four registers.
    #[serde(rename = "dinov2-with-registers-small")]
    Dinov2RegistersSmall,
    /// DINOv2 ViT-B/14 with four registers.
    #[serde(rename = "dinov2-with-registers-base")]
    Dinov2RegistersBase,
    /// DINOv2 ViT-L/14 with four registers.
    #[serde(rename = "dinov2-with-registers-large")]
    Dinov2RegistersLarge,
    /// The image tower of OpenAI's CLIP ViT-B/32, RGB in mean/std units of its own.
    #[serde(rename = "clip-vit-base-patch32")]
    ClipBase32,
    /// The image tower of SigLIP B/16 at 224 pixels, RGB in −1…1.
    #[serde(rename = "siglip-base-patch16-224")]
    SiglipBase16,
}

/// The registry, in the order of [`NetKind`].
pub const NETS: &[&Net] = &[
    &caffenet::NET,
    &alexnet::NET,
    &videonet::NET,
    &vgg16::NET,
    &efficientnet::NET,
    &squeezenet::NET,
    &inception::NET,
    &vgg19::NET,
    &resnet50::NET,
    &convnext::TINY,
    &convnext::SMALL,
    &dinov2::SMALL,
    &dinov2::BASE,
    &dinov2::LARGE,
    &dinov2::REGISTERS_SMALL,
    &dinov2::REGISTERS_BASE,
    &dinov2::REGISTERS_LARGE,
    &clip::NET,
    &siglip::NET,
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
        Tap::parse(&text, &TAPS).map_err(|unknown| D::Error::unknown_variant(&unknown, &TAPS))
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

    /// Names and shapes of the weights of the given rows.
    pub fn weight_shapes(rows: &[Row]) -> Vec<(String, Vec<i64>)> {
        rows.iter().flat_map(|(_, op)| op.tensors()).collect()
    }
}

/// What is known of a network is asked of its entry.
impl Deref for NetKind {
    type Target = Net;

    fn deref(&self) -> &Net {
        self.info()
    }
}

impl From<NetKind> for &'static Net {
    fn from(kind: NetKind) -> &'static Net {
        kind.info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::NetError;

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
        assert_eq!(parameters(NetKind::Vgg19), 143_667_240);
        assert_eq!(parameters(NetKind::ResNet50), 25_557_032 + 2 * 26_560);
        assert_eq!(parameters(NetKind::ConvNextTiny), 28_589_128);
        assert_eq!(parameters(NetKind::ConvNextSmall), 50_223_688);
        // Without the token that masks patches in training.
        assert_eq!(parameters(NetKind::Dinov2Small), 22_056_576 - 384);
        assert_eq!(
            parameters(NetKind::Dinov2RegistersSmall),
            22_056_192 + 4 * 384
        );
    }

    #[test]
    fn sizes_at_224_are_those_of_the_newer_networks() {
        let size = |net: NetKind, tap| net.shape_at(tap, 224, 224).unwrap();
        let named = Tap::named;
        assert_eq!(size(NetKind::ResNet50, Tap::Stem), [64, 112, 112]);
        assert_eq!(size(NetKind::ResNet50, Tap::Pool1), [64, 56, 56]);
        assert_eq!(size(NetKind::ResNet50, named("layer2_0")), [512, 28, 28]);
        assert_eq!(size(NetKind::ResNet50, named("layer4_2")), [2048, 7, 7]);
        assert_eq!(size(NetKind::ConvNextTiny, named("stage4_2")), [768, 7, 7]);
        assert_eq!(
            size(NetKind::ConvNextSmall, named("stage3_26")),
            [384, 14, 14]
        );
        assert_eq!(size(NetKind::Vgg19, Tap::Pool5), [512, 7, 7]);
        assert_eq!(size(NetKind::Dinov2Large, named("block23")), [1024, 16, 16]);
        assert_eq!(size(NetKind::ClipBase32, Tap::Block11), [768, 7, 7]);
        assert_eq!(size(NetKind::ClipBase32, named("projected")), [512]);
        assert_eq!(size(NetKind::SiglipBase16, Tap::Norm), [768, 14, 14]);
        assert_eq!(size(NetKind::SiglipBase16, Tap::Pooled), [768]);
        for net in [NetKind::EfficientNetLite0, NetKind::ResNet50] {
            assert!(!net.can_learn());
        }
        assert!(NetKind::Dinov2Base.can_learn() && NetKind::ConvNextTiny.can_learn());
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
