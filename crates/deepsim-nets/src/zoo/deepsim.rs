//! The trained networks of DeePSiM (Dosovitskiy & Brox, NIPS 2016): the generators of its Table 1 and the
//! discriminator of its §3.3, with the sizes of the released models where the paper gives none.

use crate::error::{NetError, Result};
use crate::layers::init::he_deviation;
use crate::layers::op::{Op, conv, fc};
use crate::layers::shape::{Extent, FeatureShape};
use crate::layers::trained::{Decays, Initial};
use crate::zoo::{DiscriminatorParts, scaled};

/// A trunk of doubling layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trunk {
    /// Kernel side of the doubling layers.
    pub kernel: i64,
    /// Slope of the leaky ReLUs.
    pub slope: f64,
    /// Whether layers that keep the size stand between the first doubling ones.
    pub keeps: bool,
}

/// The trunk from 4×4 on: (name, output channels) of the doubling layer, then of the layer that keeps the size, where
/// there is one. The comment beside a row is the side of its map. `deconv0` (3 channels, linear) ends it.
type Stage = ((&'static str, i64), Option<(&'static str, i64)>);
const TRUNK: [Stage; 5] = [
    (("deconv5", 256), Some(("conv5_1", 512))), // 8
    (("deconv4", 256), Some(("conv4_1", 256))), // 16
    (("deconv3", 128), Some(("conv3_1", 128))), // 32
    (("deconv2", 64), None),                    // 64
    (("deconv1", 32), None),                    // 128
];
/// Channels of the 4×4 map that the fully connected front end makes.
const FC_CHANNELS: i64 = 256;
/// Channels of the convolutional front end that enters at 4, 8, 16, 32, 64 pixels: what the
/// trunk carries there.
const FRONT_CHANNELS: [i64; 5] = [512, 512, 256, 128, 64];

/// Number of doublings from 4 pixels on: the smallest that reaches the crop.
pub(crate) fn doublings(crop: i64) -> usize {
    let mut n = 1;
    while 4 << n < crop {
        n += 1;
    }
    n
}

/// Features of shape `input`, and `noise` random numbers (or maps of them) beside them → images of `crop` pixels.
/// The sizes are checked: [`crate::GeneratorSpec::layers`].
///
/// # Errors
/// [`NetError::Spec`] for features that are too large for the crop.
pub(crate) fn generator(
    input: FeatureShape,
    noise: i64,
    crop: i64,
    width: f64,
    trunk: Trunk,
) -> Result<Vec<Op>> {
    let leaky = Op::LeakyRelu(trunk.slope);
    let mut ops = Vec::new();
    let (mut channels, enters) = match input {
        FeatureShape::Vector(length) => (vector_front(length + noise, width, leaky, &mut ops), 0),
        FeatureShape::Map { channels, size } => {
            let enters = stage_of(size);
            let front = FRONT_CHANNELS.get(enters).map(|&c| scaled(c, width));
            let front = front.ok_or_else(|| {
                NetError::Spec(format!("features of {input} are too large to invert"))
            })?;
            let into = 4i64 << enters;
            map_front(channels + noise, size, (front, into), leaky, &mut ops);
            (front, enters)
        }
    };
    let doublings = doublings(crop);
    if enters >= doublings {
        return Err(NetError::Spec(format!(
            "features of {input} are too large for a generator of {crop}-pixel crops: use a larger crop or a later tap"
        )));
    }
    let double = |key, input, output| Op::Double {
        key,
        input,
        output,
        kernel: trunk.kernel,
        bias: true,
    };
    for ((key, output), keep) in &TRUNK[enters..doublings - 1] {
        let output = scaled(*output, width);
        ops.extend([double(key, channels, output), leaky]);
        channels = output;
        if let (Some((key, output)), true) = (keep, trunk.keeps) {
            let output = scaled(*output, width);
            ops.extend([
                Op::Keep {
                    key,
                    input: channels,
                    output,
                },
                leaky,
            ]);
            channels = output;
        }
    }
    ops.extend([double("deconv0", channels, 3), Op::Crop(crop)]);
    Ok(ops)
}

/// Three fully connected layers, whose values are a map of 4×4. Returns its channels.
fn vector_front(length: i64, width: f64, leaky: Op, ops: &mut Vec<Op>) -> i64 {
    let channels = scaled(FC_CHANNELS, width);
    let mut input = length;
    for key in ["defc7", "defc6", "defc5"] {
        ops.extend([fc(key, input, channels * 16), leaky]);
        input = channels * 16;
    }
    channels
}

/// How many doublings of the trunk a map of this side leaves out. It enters at 4 pixels up to a side of 6, else at the
/// next power of two.
fn stage_of(size: i64) -> usize {
    let mut enters = 0;
    if size > 6 {
        while 4 << enters < size {
            enters += 1;
        }
    }
    enters
}

/// Three convolutions, from maps of side `size` to `front` maps of side `into`, which the last one's kernel and padding
/// reach.
fn map_front(channels: i64, size: i64, (front, into): (i64, i64), leaky: Op, ops: &mut Vec<Op>) {
    // size + 2·pad − kernel + 1 = into, with the smallest kernel from 2 on that gives a
    // whole padding: 6→4 is 3×3 without padding, as published.
    let (kernel, pad) = (2..)
        .map(|k| (k, into - size + k - 1))
        .find(|(_, twice)| *twice >= 0 && twice % 2 == 0)
        .map_or((3, 1), |(k, twice)| (k, twice / 2));
    ops.extend([
        conv("Rconv6", (channels, front), (3, 1, 1), 1),
        leaky,
        conv("Rconv7", (front, front), (3, 1, 1), 1),
        leaky,
        conv("Rconv8", (front, front), (kernel, 1, pad), 1),
        leaky,
    ]);
}

/// The authors' initialisation of generators: N(0, c²·2/fan_in) with c = 1.8 for doubling layers, 0.9 for layers that
/// keep the size, 1 otherwise. The released models give the trunk's biases a learning rate of zero
/// (`trunk_biases` false), and weight decay to the weights of Rconv6–8 alone.
pub(crate) fn generator_initial(op: &Op, trunk_biases: bool) -> Initial {
    // Caffe reads the fan-in of a transposed convolution as out·k².
    let (deviation, front, decays) = match *op {
        Op::Double { output, kernel, .. } => (
            1.8 * he_deviation(output * kernel * kernel),
            false,
            Decays::Nothing,
        ),
        Op::Keep { output, .. } => (0.9 * he_deviation(output * 9), false, Decays::Nothing),
        Op::Conv { input, kernel, .. } => {
            (he_deviation(input * kernel * kernel), true, Decays::Weight)
        }
        Op::Fc { input, .. } => (he_deviation(input), true, Decays::Nothing),
        _ => (0.0, false, Decays::Nothing),
    };
    Initial {
        deviation,
        bias_learns: front || trunk_biases,
        decays,
    }
}

/// The last map of the discriminator must be at least this large: an average over less is no local statistic.
const MIN_MAP: i64 = 3;
/// Probability of dropping a value before each fully connected layer.
const DROPOUT: f64 = 0.5;

/// The convolutions of the discriminator: name, output channels, kernel, stride. Sizes are for 227×227 images. Every
/// convolution is followed by a ReLU.
const CONVOLUTIONS: [(&str, i64, i64, i64); 5] = [
    ("Dconv1", 32, 7, 4),  // 56
    ("Dconv2", 64, 5, 1),  // 52
    ("Dconv3", 128, 3, 2), // 25
    ("Dconv4", 256, 3, 1), // 23
    ("Dconv5", 256, 3, 2), // 11, then the average over all positions
];

/// The discriminator of images of `crop` pixels, and of features of this length beside them. Small crops leave out
/// Dconv5, then Dconv3.
///
/// # Errors
/// [`NetError::TooSmall`].
pub(crate) fn discriminator(crop: i64, features: Option<i64>) -> Result<DiscriminatorParts> {
    let (mut trunk, averages) = [&[][..], &["Dconv5"], &["Dconv5", "Dconv3"]]
        .into_iter()
        .find_map(|dropped| convolutions(crop, dropped))
        .ok_or_else(|| NetError::TooSmall {
            what: "the discriminator".to_owned(),
            height: crop,
            width: crop,
            layer: "Dpool5".to_owned(),
        })?;
    trunk.push(Op::GlobalAverage);
    let (branch, values) = match features {
        None => (Vec::new(), averages),
        Some(length) => (
            vec![
                fc("Dfeat1", length, 1024),
                Op::Relu,
                fc("Dfeat2", 1024, 512),
                Op::Relu,
            ],
            averages + 512,
        ),
    };
    let head = vec![
        Op::Dropout(DROPOUT),
        fc("Dfc6", values, 512),
        Op::Relu,
        Op::Dropout(DROPOUT),
        fc("Dfc7", 512, 2),
    ];
    Ok(DiscriminatorParts {
        trunk,
        branch,
        head,
    })
}

/// The convolutions without those that are `dropped`, and the channels of the last one; none if the last map is too
/// small.
fn convolutions(crop: i64, dropped: &[&str]) -> Option<(Vec<Op>, i64)> {
    let mut ops = Vec::new();
    let mut x = Extent::image(crop, crop);
    for (key, output, kernel, stride) in CONVOLUTIONS {
        if dropped.contains(&key) {
            continue;
        }
        let op = conv(key, (x.channels, output), (kernel, stride, 0), 1);
        x = op.output(x)?;
        ops.extend([op, Op::Relu]);
    }
    (x.height >= MIN_MAP).then_some((ops, x.channels))
}

/// The authors' initialisation of the discriminator: N(0, c²·2/fan_in), c = 0.1 for Dconv1, Dfc6 and Dfc7, else 1. All
/// weights and biases decay.
pub(crate) fn discriminator_initial(op: &Op) -> Initial {
    let deviation = op.affine().map_or(0.0, |affine| {
        let c = match affine.key {
            "Dconv1" | "Dfc6" | "Dfc7" => 0.1,
            _ => 1.0,
        };
        c * he_deviation(affine.weight[1..].iter().product())
    });
    Initial {
        deviation,
        bias_learns: true,
        decays: Decays::WeightAndBias,
    }
}
