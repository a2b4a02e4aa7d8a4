//! torchvision's VGG19.

use super::net::{Net, Units};
use crate::layers::op::{FcMap, Op, Rounding, Row, conv, fc, max_pool};
use crate::layers::tap::Tap;

const POOL: Op = max_pool(2, 2, Rounding::Floor);

/// torchvision's VGG19 (Simonyan & Zisserman 2014, configuration E). Sizes are for 224×224 images.
const TABLE: &[Row] = &[
    (Tap::Conv1_1, conv("features.0", (3, 64), (3, 1, 1), 1)),
    (Tap::Relu1_1, Op::Relu),
    (Tap::Conv1_2, conv("features.2", (64, 64), (3, 1, 1), 1)),
    (Tap::Relu1_2, Op::Relu),
    (Tap::Pool1, POOL), // 112
    (Tap::Conv2_1, conv("features.5", (64, 128), (3, 1, 1), 1)),
    (Tap::Relu2_1, Op::Relu),
    (Tap::Conv2_2, conv("features.7", (128, 128), (3, 1, 1), 1)),
    (Tap::Relu2_2, Op::Relu),
    (Tap::Pool2, POOL), // 56
    (Tap::Conv3_1, conv("features.10", (128, 256), (3, 1, 1), 1)),
    (Tap::Relu3_1, Op::Relu),
    (Tap::Conv3_2, conv("features.12", (256, 256), (3, 1, 1), 1)),
    (Tap::Relu3_2, Op::Relu),
    (Tap::Conv3_3, conv("features.14", (256, 256), (3, 1, 1), 1)),
    (Tap::Relu3_3, Op::Relu),
    (
        Tap::named("conv3_4"),
        conv("features.16", (256, 256), (3, 1, 1), 1),
    ),
    (Tap::named("relu3_4"), Op::Relu),
    (Tap::Pool3, POOL), // 28
    (Tap::Conv4_1, conv("features.19", (256, 512), (3, 1, 1), 1)),
    (Tap::Relu4_1, Op::Relu),
    (Tap::Conv4_2, conv("features.21", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu4_2, Op::Relu),
    (Tap::Conv4_3, conv("features.23", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu4_3, Op::Relu),
    (
        Tap::named("conv4_4"),
        conv("features.25", (512, 512), (3, 1, 1), 1),
    ),
    (Tap::named("relu4_4"), Op::Relu),
    (Tap::Pool4, POOL), // 14
    (Tap::Conv5_1, conv("features.28", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu5_1, Op::Relu),
    (Tap::Conv5_2, conv("features.30", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu5_2, Op::Relu),
    (Tap::Conv5_3, conv("features.32", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu5_3, Op::Relu),
    (
        Tap::named("conv5_4"),
        conv("features.34", (512, 512), (3, 1, 1), 1),
    ),
    (Tap::named("relu5_4"), Op::Relu),
    (Tap::Pool5, POOL), // 7
    (Tap::Fc6, fc("classifier.0", 25088, 4096)),
    (Tap::Relu6, Op::Relu),
    (Tap::Fc7, fc("classifier.3", 4096, 4096)),
    (Tap::Relu7, Op::Relu),
    (Tap::Fc8, fc("classifier.6", 4096, 1000)),
];

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "vgg19",
    label: "torchvision's VGG19",
    table: TABLE,
    fc_map: FcMap::AveragedTo(7),
    units: Units::ImageNet,
    family: "vgg",
    obtain: "VGG19: get torchvision's vgg19-dcbb9e9d.pth (docs/guide/encoders.md)",
    import: Some(("torchvision", "vgg19-dcbb9e9d.pth")),
    aside: &[],
};
