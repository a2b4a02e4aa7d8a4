//! torchvision's ConvNeXt-T and ConvNeXt-S.

use super::net::{Net, Units};
use crate::layers::blocks::ConvNext;
use crate::layers::op::{FcMap, Op, Row, conv, fc};
use crate::layers::tap::Tap;

const fn norm(key: &'static str, channels: i64) -> Op {
    Op::LayerNorm { key, channels }
}

/// The first convolution, of patches, and its normalisation.
macro_rules! stem {
    () => {
        (
            Tap::Stem,
            Op::Branches(&[&[
                conv("features.0.0", (3, 96), (4, 4, 0), 1),
                norm("features.0.1", 96),
            ]]),
        )
    };
}

/// Between stages: normalisation, and a convolution that halves the size.
macro_rules! down {
    ($tap:literal, $norm:literal, $conv:literal, $input:literal, $output:literal) => {
        (
            Tap::named($tap),
            Op::Branches(&[&[
                norm($norm, $input),
                conv($conv, ($input, $output), (2, 2, 0), 1),
            ]]),
        )
    };
}

/// A block: its tap, its tensors' prefix, channels.
macro_rules! block {
    ($tap:literal, $key:literal, $channels:literal) => {
        (
            Tap::named($tap),
            Op::ConvNext(ConvNext {
                key: $key,
                channels: $channels,
            }),
        )
    };
}

const LAST_NORM: Op = norm("classifier.0", 768);

/// torchvision's ConvNeXt-T (Liu et al. 2022). Sizes are for 224×224 images.
#[rustfmt::skip]
const TINY_TABLE: &[Row] = &[
    stem!(),
    block!("stage1_0", "features.1.0", 96),
    block!("stage1_1", "features.1.1", 96),
    block!("stage1_2", "features.1.2", 96),
    down!("down2", "features.2.0", "features.2.1", 96, 192), // 28
    block!("stage2_0", "features.3.0", 192),
    block!("stage2_1", "features.3.1", 192),
    block!("stage2_2", "features.3.2", 192),
    down!("down3", "features.4.0", "features.4.1", 192, 384), // 14
    block!("stage3_0", "features.5.0", 384),
    block!("stage3_1", "features.5.1", 384),
    block!("stage3_2", "features.5.2", 384),
    block!("stage3_3", "features.5.3", 384),
    block!("stage3_4", "features.5.4", 384),
    block!("stage3_5", "features.5.5", 384),
    block!("stage3_6", "features.5.6", 384),
    block!("stage3_7", "features.5.7", 384),
    block!("stage3_8", "features.5.8", 384),
    down!("down4", "features.6.0", "features.6.1", 384, 768), // 7
    block!("stage4_0", "features.7.0", 768),
    block!("stage4_1", "features.7.1", 768),
    block!("stage4_2", "features.7.2", 768),
    (Tap::Pooled, Op::GlobalAverage),
    (Tap::Norm, LAST_NORM),
    (Tap::Logits, fc("classifier.2", 768, 1000)),
];

/// ConvNeXt-S, whose third stage has 27 blocks.
#[rustfmt::skip]
const SMALL_TABLE: &[Row] = &[
    stem!(),
    block!("stage1_0", "features.1.0", 96),
    block!("stage1_1", "features.1.1", 96),
    block!("stage1_2", "features.1.2", 96),
    down!("down2", "features.2.0", "features.2.1", 96, 192), // 28
    block!("stage2_0", "features.3.0", 192),
    block!("stage2_1", "features.3.1", 192),
    block!("stage2_2", "features.3.2", 192),
    down!("down3", "features.4.0", "features.4.1", 192, 384), // 14
    block!("stage3_0", "features.5.0", 384),
    block!("stage3_1", "features.5.1", 384),
    block!("stage3_2", "features.5.2", 384),
    block!("stage3_3", "features.5.3", 384),
    block!("stage3_4", "features.5.4", 384),
    block!("stage3_5", "features.5.5", 384),
    block!("stage3_6", "features.5.6", 384),
    block!("stage3_7", "features.5.7", 384),
    block!("stage3_8", "features.5.8", 384),
    block!("stage3_9", "features.5.9", 384),
    block!("stage3_10", "features.5.10", 384),
    block!("stage3_11", "features.5.11", 384),
    block!("stage3_12", "features.5.12", 384),
    block!("stage3_13", "features.5.13", 384),
    block!("stage3_14", "features.5.14", 384),
    block!("stage3_15", "features.5.15", 384),
    block!("stage3_16", "features.5.16", 384),
    block!("stage3_17", "features.5.17", 384),
    block!("stage3_18", "features.5.18", 384),
    block!("stage3_19", "features.5.19", 384),
    block!("stage3_20", "features.5.20", 384),
    block!("stage3_21", "features.5.21", 384),
    block!("stage3_22", "features.5.22", 384),
    block!("stage3_23", "features.5.23", 384),
    block!("stage3_24", "features.5.24", 384),
    block!("stage3_25", "features.5.25", 384),
    block!("stage3_26", "features.5.26", 384),
    down!("down4", "features.6.0", "features.6.1", 384, 768), // 7
    block!("stage4_0", "features.7.0", 768),
    block!("stage4_1", "features.7.1", 768),
    block!("stage4_2", "features.7.2", 768),
    (Tap::Pooled, Op::GlobalAverage),
    (Tap::Norm, LAST_NORM),
    (Tap::Logits, fc("classifier.2", 768, 1000)),
];

/// The entry of ConvNeXt-T in the registry.
pub(super) const TINY: Net = Net {
    name: "convnext-tiny",
    label: "torchvision's ConvNeXt-T",
    table: TINY_TABLE,
    fc_map: FcMap::AveragedTo(1), // its tap `pooled`
    units: Units::ImageNet,
    family: "convnext",
    obtain: "ConvNeXt-T: get torchvision's convnext_tiny-983f1562.pth (docs/guide/encoders.md)",
    import: Some(("torchvision", "convnext_tiny-983f1562.pth")),
    aside: &[],
};

/// The entry of ConvNeXt-S in the registry.
pub(super) const SMALL: Net = Net {
    name: "convnext-small",
    label: "torchvision's ConvNeXt-S",
    table: SMALL_TABLE,
    obtain: "ConvNeXt-S: get torchvision's convnext_small-0c510722.pth (docs/guide/encoders.md)",
    import: Some(("torchvision", "convnext_small-0c510722.pth")),
    ..TINY
};
