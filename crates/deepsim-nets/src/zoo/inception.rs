//! The Inception network of FID: Inception-v3 with the weights of 2015-12-05, 1,008 classes and TensorFlow's pools, as
//! pytorch-fid has it, with torchvision's names of tensors.

use super::net::{Net, Units};
use crate::layers::blocks::{After, ConvNorm, Padding, TENSORFLOW_EPSILON};
use crate::layers::op::{FcMap, Op, Rounding, Row, Window, fc, max_pool};
use crate::layers::tap::Tap;

const POOL: Op = max_pool(3, 2, Rounding::Floor);

/// The largest of the 3×3 values around each position.
const MAXIMUM_AROUND: Op = Op::MaxPool(Window {
    kernel: 3,
    stride: 1,
    rounding: Rounding::Floor,
    pad: 1,
});

/// torchvision's `BasicConv2d`: a convolution without bias, batch normalisation, ReLU.
const fn basic(
    (conv, norm): (&'static str, &'static str),
    (input, output): (i64, i64),
    kernel: [i64; 2],
    stride: i64,
    zeros: [i64; 2],
) -> Op {
    Op::ConvNorm(ConvNorm {
        conv,
        norm,
        input,
        output,
        kernel,
        stride,
        padding: Padding::Zeros(zeros),
        after: After::Relu,
        epsilon: TENSORFLOW_EPSILON,
    })
}

/// 1×1.
const fn one(names: (&'static str, &'static str), channels: (i64, i64)) -> Op {
    basic(names, channels, [1, 1], 1, [0, 0])
}

/// Square of an odd side, which keeps the size.
const fn square(names: (&'static str, &'static str), channels: (i64, i64), side: i64) -> Op {
    basic(names, channels, [side, side], 1, [side / 2, side / 2])
}

/// 3×3 with stride 2 and no border.
const fn halving(names: (&'static str, &'static str), channels: (i64, i64)) -> Op {
    basic(names, channels, [3, 3], 2, [0, 0])
}

/// A row of this many, which keeps the size.
const fn row(names: (&'static str, &'static str), channels: (i64, i64), length: i64) -> Op {
    basic(names, channels, [1, length], 1, [0, length / 2])
}

/// A column of this many, which keeps the size.
const fn column(names: (&'static str, &'static str), channels: (i64, i64), length: i64) -> Op {
    basic(names, channels, [length, 1], 1, [length / 2, 0])
}

/// The names of a convolution's tensors and of its normalisation's.
macro_rules! named {
    ($block:literal, $branch:literal) => {
        (
            concat!($block, $branch, ".conv"),
            concat!($block, $branch, ".bn"),
        )
    };
}

/// torchvision's `InceptionA` with TensorFlow's average pool.
macro_rules! inception_a {
    ($tap:literal, $name:literal, $input:literal, $pooled:literal) => {
        (
            Tap::named($tap),
            Op::Branches(&[
                &[one(named!($name, ".branch1x1"), ($input, 64))],
                &[
                    one(named!($name, ".branch5x5_1"), ($input, 48)),
                    square(named!($name, ".branch5x5_2"), (48, 64), 5),
                ],
                &[
                    one(named!($name, ".branch3x3dbl_1"), ($input, 64)),
                    square(named!($name, ".branch3x3dbl_2"), (64, 96), 3),
                    square(named!($name, ".branch3x3dbl_3"), (96, 96), 3),
                ],
                &[
                    Op::MeanAround,
                    one(named!($name, ".branch_pool"), ($input, $pooled)),
                ],
            ]),
        )
    };
}

/// torchvision's `InceptionC` with TensorFlow's average pool.
macro_rules! inception_c {
    ($tap:literal, $name:literal, $inside:literal) => {
        (
            Tap::named($tap),
            Op::Branches(&[
                &[one(named!($name, ".branch1x1"), (768, 192))],
                &[
                    one(named!($name, ".branch7x7_1"), (768, $inside)),
                    row(named!($name, ".branch7x7_2"), ($inside, $inside), 7),
                    column(named!($name, ".branch7x7_3"), ($inside, 192), 7),
                ],
                &[
                    one(named!($name, ".branch7x7dbl_1"), (768, $inside)),
                    column(named!($name, ".branch7x7dbl_2"), ($inside, $inside), 7),
                    row(named!($name, ".branch7x7dbl_3"), ($inside, $inside), 7),
                    column(named!($name, ".branch7x7dbl_4"), ($inside, $inside), 7),
                    row(named!($name, ".branch7x7dbl_5"), ($inside, 192), 7),
                ],
                &[
                    Op::MeanAround,
                    one(named!($name, ".branch_pool"), (768, 192)),
                ],
            ]),
        )
    };
}

/// torchvision's `InceptionE` with a pool of TensorFlow's graph in front of its last branch.
macro_rules! inception_e {
    ($tap:literal, $name:literal, $input:literal, $pool:expr) => {
        (
            Tap::named($tap),
            Op::Branches(&[
                &[one(named!($name, ".branch1x1"), ($input, 320))],
                &[
                    one(named!($name, ".branch3x3_1"), ($input, 384)),
                    Op::Branches(&[
                        &[row(named!($name, ".branch3x3_2a"), (384, 384), 3)],
                        &[column(named!($name, ".branch3x3_2b"), (384, 384), 3)],
                    ]),
                ],
                &[
                    one(named!($name, ".branch3x3dbl_1"), ($input, 448)),
                    square(named!($name, ".branch3x3dbl_2"), (448, 384), 3),
                    Op::Branches(&[
                        &[row(named!($name, ".branch3x3dbl_3a"), (384, 384), 3)],
                        &[column(named!($name, ".branch3x3dbl_3b"), (384, 384), 3)],
                    ]),
                ],
                &[$pool, one(named!($name, ".branch_pool"), ($input, 192))],
            ]),
        )
    };
}

/// Szegedy et al. 2015 ("Rethinking the Inception architecture"). Sizes are for 299×299 images. The last block has a
/// maximum where the others have means, as the network that FID is measured with.
const TABLE: &[Row] = &[
    (
        Tap::named("conv1a"),
        halving(named!("Conv2d_1a_3x3", ""), (3, 32)),
    ), // 149
    (
        Tap::named("conv2a"),
        basic(named!("Conv2d_2a_3x3", ""), (32, 32), [3, 3], 1, [0, 0]),
    ), // 147
    (
        Tap::named("conv2b"),
        square(named!("Conv2d_2b_3x3", ""), (32, 64), 3),
    ),
    (Tap::Pool1, POOL), // 73
    (
        Tap::named("conv3b"),
        one(named!("Conv2d_3b_1x1", ""), (64, 80)),
    ),
    (
        Tap::named("conv4a"),
        basic(named!("Conv2d_4a_3x3", ""), (80, 192), [3, 3], 1, [0, 0]),
    ), // 71
    (Tap::Pool2, POOL), // 35
    inception_a!("mixed_5b", "Mixed_5b", 192, 32),
    inception_a!("mixed_5c", "Mixed_5c", 256, 64),
    inception_a!("mixed_5d", "Mixed_5d", 288, 64),
    (
        Tap::named("mixed_6a"),
        Op::Branches(&[
            &[halving(named!("Mixed_6a", ".branch3x3"), (288, 384))],
            &[
                one(named!("Mixed_6a", ".branch3x3dbl_1"), (288, 64)),
                square(named!("Mixed_6a", ".branch3x3dbl_2"), (64, 96), 3),
                halving(named!("Mixed_6a", ".branch3x3dbl_3"), (96, 96)),
            ],
            &[POOL],
        ]),
    ), // 17
    inception_c!("mixed_6b", "Mixed_6b", 128),
    inception_c!("mixed_6c", "Mixed_6c", 160),
    inception_c!("mixed_6d", "Mixed_6d", 160),
    inception_c!("mixed_6e", "Mixed_6e", 192),
    (
        Tap::named("mixed_7a"),
        Op::Branches(&[
            &[
                one(named!("Mixed_7a", ".branch3x3_1"), (768, 192)),
                halving(named!("Mixed_7a", ".branch3x3_2"), (192, 320)),
            ],
            &[
                one(named!("Mixed_7a", ".branch7x7x3_1"), (768, 192)),
                row(named!("Mixed_7a", ".branch7x7x3_2"), (192, 192), 7),
                column(named!("Mixed_7a", ".branch7x7x3_3"), (192, 192), 7),
                halving(named!("Mixed_7a", ".branch7x7x3_4"), (192, 192)),
            ],
            &[POOL],
        ]),
    ), // 8
    inception_e!("mixed_7b", "Mixed_7b", 1280, Op::MeanAround),
    inception_e!("mixed_7c", "Mixed_7c", 2048, MAXIMUM_AROUND),
    (Tap::Pooled, Op::GlobalAverage),
    (Tap::Logits, fc("fc", 2048, 1008)),
];

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "inception-fid",
    label: "FID's Inception",
    table: TABLE,
    fc_map: FcMap::AveragedTo(1), // its tap `pooled`
    units: Units::MinusOneToOne,
    family: "inception",
    obtain: "FID's Inception: download pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid",
    import: Some(("torchvision", "pt_inception-2015-12-05-6726825d.pth")),
    aside: &[],
};

#[cfg(test)]
mod tests {
    use crate::zoo::NetKind::InceptionFid;

    use super::*;

    #[test]
    fn weights_are_as_many_as_published() {
        // torchvision's network without its auxiliary classifier, with 1,008 classes instead of 1,000.
        let values: i64 = TABLE.iter().map(|(_, op)| op.parameters()).sum();
        assert_eq!(values, 27_161_264 - 3_326_696 + 8 * 2049);
        let shapes = crate::zoo::NetKind::weight_shapes(TABLE);
        // 94 convolutions with four tensors of their normalisation each.
        assert_eq!(shapes.len(), 94 * 5 + 2);
        let named = |name: &str| shapes.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert_eq!(named("Conv2d_1a_3x3.conv.weight"), [32, 3, 3, 3]);
        assert_eq!(named("Mixed_6b.branch7x7_2.conv.weight"), [128, 128, 1, 7]);
        assert_eq!(named("Mixed_7c.branch3x3dbl_3b.bn.running_var"), [384]);
    }

    #[test]
    fn sizes_at_299_are_those_of_the_paper() {
        let size = |tap| InceptionFid.shape_at(Tap::named(tap), 299, 299).unwrap();
        assert_eq!(size("pool1"), [64, 73, 73]);
        assert_eq!(size("pool2"), [192, 35, 35]);
        assert_eq!(size("mixed_5b"), [256, 35, 35]);
        assert_eq!(size("mixed_5d"), [288, 35, 35]);
        assert_eq!(size("mixed_6e"), [768, 17, 17]);
        assert_eq!(size("mixed_7a"), [1280, 8, 8]);
        assert_eq!(size("mixed_7c"), [2048, 8, 8]);
        assert_eq!(size("pooled"), [2048]);
        assert!(InceptionFid.shape_at(Tap::Pooled, 74, 299).is_err());
    }
}
