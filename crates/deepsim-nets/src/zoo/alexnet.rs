//! torchvision's AlexNet.

use super::net::{Net, Units};
use crate::layers::op::{FcMap, Op, Rounding, Row, conv, fc, max_pool};
use crate::layers::tap::Tap;

const POOL: Op = max_pool(3, 2, Rounding::Floor);

/// torchvision's AlexNet ("One weird trick", Krizhevsky 2014). Sizes are for 224×224 images.
const TABLE: &[Row] = &[
    (Tap::Conv1, conv("features.0", (3, 64), (11, 4, 2), 1)), // 55
    (Tap::Relu1, Op::Relu),
    (Tap::Pool1, POOL),                                        // 27
    (Tap::Conv2, conv("features.3", (64, 192), (5, 1, 2), 1)), // 27
    (Tap::Relu2, Op::Relu),
    (Tap::Pool2, POOL),                                         // 13
    (Tap::Conv3, conv("features.6", (192, 384), (3, 1, 1), 1)), // 13
    (Tap::Relu3, Op::Relu),
    (Tap::Conv4, conv("features.8", (384, 256), (3, 1, 1), 1)), // 13
    (Tap::Relu4, Op::Relu),
    (Tap::Conv5, conv("features.10", (256, 256), (3, 1, 1), 1)), // 13
    (Tap::Relu5, Op::Relu),
    (Tap::Pool5, POOL), // 6
    (Tap::Fc6, fc("classifier.1", 9216, 4096)),
    (Tap::Relu6, Op::Relu),
    (Tap::Fc7, fc("classifier.4", 4096, 4096)),
    (Tap::Relu7, Op::Relu),
    (Tap::Fc8, fc("classifier.6", 4096, 1000)),
];

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "alexnet",
    label: "torchvision's AlexNet",
    table: TABLE,
    fc_map: FcMap::AveragedTo(6),
    units: Units::ImageNet,
    family: "alexnet",
    obtain: "AlexNet's convolutions: `cargo xtask setup` fetches and imports them",
    import: None,
    aside: &[],
};
