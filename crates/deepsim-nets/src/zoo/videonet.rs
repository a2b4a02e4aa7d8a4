//! VideoNet, trained with Caffe on videos without labels.

use super::net::{Net, Units};
use crate::layers::op::{FcMap, Op, Rounding, Row, conv, fc, max_pool};
use crate::layers::tap::Tap;

const POOL: Op = max_pool(3, 2, Rounding::Ceil);

/// VideoNet (Wang & Gupta 2015, unsupervised from tracked patches): CaffeNet's layers up to pool5,
/// a narrower fc7, and no classes. Sizes are for 227×227 images.
const TABLE: &[Row] = &[
    (Tap::Conv1, conv("conv1", (3, 96), (11, 4, 0), 1)), // 55
    (Tap::Relu1, Op::Relu),
    (Tap::Pool1, POOL), // 27
    (Tap::Norm1, Op::Lrn),
    (Tap::Conv2, conv("conv2", (96, 256), (5, 1, 2), 2)), // 27
    (Tap::Relu2, Op::Relu),
    (Tap::Pool2, POOL), // 13
    (Tap::Norm2, Op::Lrn),
    (Tap::Conv3, conv("conv3", (256, 384), (3, 1, 1), 1)), // 13
    (Tap::Relu3, Op::Relu),
    (Tap::Conv4, conv("conv4", (384, 384), (3, 1, 1), 2)), // 13
    (Tap::Relu4, Op::Relu),
    (Tap::Conv5, conv("conv5", (384, 256), (3, 1, 1), 2)), // 13
    (Tap::Relu5, Op::Relu),
    (Tap::Pool5, POOL), // 6
    (Tap::Fc6, fc("fc6", 9216, 4096)),
    (Tap::Relu6, Op::Relu),
    (Tap::Fc7, fc("fc7", 4096, 1024)),
    (Tap::Relu7, Op::Relu),
];

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "videonet",
    label: "VideoNet",
    table: TABLE,
    fc_map: FcMap::Exactly(6),
    units: Units::VideoNet,
    family: "alexnet",
    obtain: "VideoNet: get Wang & Gupta's caffemodel (\"Unsupervised Learning of Visual \
             Representations using Videos\")",
    import: Some(("caffemodel", "VIDEONET.caffemodel")),
    aside: &[],
};
