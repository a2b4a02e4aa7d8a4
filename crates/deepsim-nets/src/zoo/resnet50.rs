//! torchvision's ResNet-50.

use super::net::{Net, Units};
use crate::layers::blocks::{After, Bottleneck, ConvNorm, Padding, TORCHVISION_EPSILON};
use crate::layers::op::{FcMap, Op, Rounding, Row, Window, fc};
use crate::layers::tap::Tap;

/// A block: its tap, its tensors' prefix, input channels, channels inside, stride.
macro_rules! block {
    ($tap:literal, $key:literal, $input:literal, $inside:literal, $stride:literal) => {
        (
            Tap::named($tap),
            Op::Bottleneck(Bottleneck {
                key: $key,
                input: $input,
                inside: $inside,
                stride: $stride,
            }),
        )
    };
}

/// torchvision's ResNet-50 (He et al. 2016, with the stride in the 3×3 convolutions). Sizes are for 224×224 images.
const TABLE: &[Row] = &[
    (
        Tap::Stem,
        Op::ConvNorm(ConvNorm {
            conv: "conv1",
            norm: "bn1",
            input: 3,
            output: 64,
            kernel: [7, 7],
            stride: 2,
            padding: Padding::Zeros([3, 3]),
            after: After::Relu,
            epsilon: TORCHVISION_EPSILON,
        }),
    ), // 112
    (
        Tap::Pool1,
        Op::MaxPool(Window {
            kernel: 3,
            stride: 2,
            rounding: Rounding::Floor,
            pad: 1,
        }),
    ), // 56
    block!("layer1_0", "layer1.0", 64, 64, 1), // 56
    block!("layer1_1", "layer1.1", 256, 64, 1),
    block!("layer1_2", "layer1.2", 256, 64, 1),
    block!("layer2_0", "layer2.0", 256, 128, 2), // 28
    block!("layer2_1", "layer2.1", 512, 128, 1),
    block!("layer2_2", "layer2.2", 512, 128, 1),
    block!("layer2_3", "layer2.3", 512, 128, 1),
    block!("layer3_0", "layer3.0", 512, 256, 2), // 14
    block!("layer3_1", "layer3.1", 1024, 256, 1),
    block!("layer3_2", "layer3.2", 1024, 256, 1),
    block!("layer3_3", "layer3.3", 1024, 256, 1),
    block!("layer3_4", "layer3.4", 1024, 256, 1),
    block!("layer3_5", "layer3.5", 1024, 256, 1),
    block!("layer4_0", "layer4.0", 1024, 512, 2), // 7
    block!("layer4_1", "layer4.1", 2048, 512, 1),
    block!("layer4_2", "layer4.2", 2048, 512, 1),
    (Tap::Pooled, Op::GlobalAverage),
    (Tap::Logits, fc("fc", 2048, 1000)),
];

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "resnet50",
    label: "torchvision's ResNet-50",
    table: TABLE,
    fc_map: FcMap::AveragedTo(1), // its tap `pooled`
    units: Units::ImageNet,
    family: "resnet",
    obtain: "ResNet-50: get torchvision's resnet50-0676ba61.pth (docs/guide/encoders.md)",
    import: Some(("torchvision", "resnet50-0676ba61.pth")),
    // Batches that were seen in training.
    aside: &["*.num_batches_tracked"],
};
