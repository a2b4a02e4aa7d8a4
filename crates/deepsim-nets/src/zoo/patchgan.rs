//! The discriminator of patches: Isola et al., "Image-to-image translation with conditional adversarial networks" (2017),
//! §3.2.2, as `NLayerDiscriminator` of pix2pix's and VQGAN's released code: a logit for each of many overlapping patches, of
//! 70×70 pixels with three layers.
//!
//! It sees images as RGB in −1…1; outside it is Caffe units, as everywhere. Biases begin at zero and gains at one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{NetError, Result};
use crate::layers::op::Op;
use crate::layers::shape::Extent;
use crate::layers::trained::{Decays, Initial};
use crate::zoo::scaled;

/// Places of the released code's sequence: convolution, then normalisation (which may be none) and rectifier; the first
/// convolution is not normalised, and nothing follows the last.
const MAIN: [&str; 18] = [
    "main.0", "main.1", "main.2", "main.3", "main.4", "main.5", "main.6", "main.7", "main.8",
    "main.9", "main.10", "main.11", "main.12", "main.13", "main.14", "main.15", "main.16",
    "main.17",
];
/// Most layers that [`MAIN`] has places for.
const MOST: u8 = 5;
/// Channels of the first layer (width 1); each next one has twice as many, up to eight times.
const CHANNELS: i64 = 64;
const KERNEL: i64 = 4;
const SLOPE: f64 = 0.2;
/// Added to variances (PyTorch's default).
const EPSILON: f64 = 1e-5;
/// Standard deviation of filters before training.
const DEVIATION: f64 = 0.02;

/// How a discriminator of patches is normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PatchNorm {
    /// Batch normalisation behind all convolutions but the first and the last, as published.
    #[default]
    Batch,
    /// Nothing; all convolutions have biases.
    None,
    /// The weights of all convolutions are divided by their largest singular values; all have biases.
    Spectral,
}

/// Images of `crop` pixels → logits `[N,1,h,w]`.
///
/// # Errors
/// A number of layers or a width that it is not made for; [`NetError::TooSmall`].
pub(crate) fn discriminator(crop: i64, layers: u8, width: f64, norm: PatchNorm) -> Result<Vec<Op>> {
    if !(1..=MOST).contains(&layers) {
        return Err(NetError::Spec(format!(
            "the discriminator of patches has 1 to {MOST} layers, not {layers}"
        )));
    }
    if !(width > 0.0 && width <= 4.0) {
        return Err(NetError::Spec(format!(
            "a width must be above 0 and at most 4, not {width}"
        )));
    }
    let last = usize::from(layers);
    let mut ops = Vec::new();
    let mut channels = 3;
    for layer in 0..=last {
        let at = if layer == 0 { 0 } else { 3 * layer - 1 };
        let output = scaled(CHANNELS << layer.min(3), width);
        let stride = if layer == last { 1 } else { 2 };
        let normalised = norm == PatchNorm::Batch && layer > 0;
        ops.push(conv(
            MAIN[at],
            (channels, output),
            stride,
            norm,
            !normalised,
        ));
        if normalised {
            ops.push(Op::BatchNorm {
                key: MAIN[at + 1],
                channels: output,
                epsilon: EPSILON,
            });
        }
        ops.push(Op::LeakyRelu(SLOPE));
        channels = output;
    }
    ops.push(conv(MAIN[3 * last + 2], (channels, 1), 1, norm, true));
    let mut x = Extent::image(crop, crop);
    for op in &ops {
        x = op.output(x).ok_or_else(|| NetError::TooSmall {
            what: "the discriminator of patches".to_owned(),
            height: crop,
            width: crop,
            layer: op.key().unwrap_or(MAIN[0]).to_owned(),
        })?;
    }
    Ok(ops)
}

fn conv(
    key: &'static str,
    (input, output): (i64, i64),
    stride: i64,
    norm: PatchNorm,
    bias: bool,
) -> Op {
    if norm == PatchNorm::Spectral {
        return Op::SpectralConv {
            key,
            input,
            output,
            kernel: KERNEL,
            stride,
            pad: 1,
        };
    }
    Op::Conv {
        key,
        input,
        output,
        kernel: KERNEL,
        stride,
        pad: 1,
        groups: 1,
        bias,
    }
}

/// The released code's: filters N(0, 0.02²). Weights and biases decay.
pub(crate) fn initial(_: &Op) -> Initial {
    Initial {
        deviation: DEVIATION,
        bias_learns: true,
        decays: Decays::WeightAndBias,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::trained::shapes;

    fn parameters(norm: PatchNorm) -> i64 {
        let ops = discriminator(256, 3, 1.0, norm).unwrap();
        ops.iter().map(Op::parameters).sum()
    }

    #[test]
    fn layers_and_parameters_are_the_released_code_s() {
        // pix2pix's sees two images, six channels, and has 2.769 million.
        assert_eq!(parameters(PatchNorm::Batch) + 3 * 64 * 16, 2_768_705);
        let names = |norm| -> Vec<String> {
            let ops = discriminator(64, 3, 1.0, norm).unwrap();
            let all = shapes(&ops).into_iter().map(|(name, _)| name);
            all.filter(|name| name.contains("weight")).collect()
        };
        let batch = names(PatchNorm::Batch);
        let expected = [0, 2, 3, 5, 6, 8, 9, 11].map(|at| format!("main.{at}.weight"));
        assert_eq!(batch, expected);
        assert_eq!(
            names(PatchNorm::Spectral)[..3],
            ["main.0.weight_orig", "main.0.weight_u", "main.0.weight_v"]
        );
        assert_eq!(names(PatchNorm::None)[1], "main.2.weight");
    }

    #[test]
    fn maps_are_as_large_as_published() {
        let map = |crop, layers| {
            let ops = discriminator(crop, layers, 0.5, PatchNorm::None).unwrap();
            let x = Extent::image(crop, crop);
            let y = ops.iter().try_fold(x, |x, op| op.output(x)).unwrap();
            (y.channels, y.height, y.width)
        };
        assert_eq!(map(256, 3), (1, 30, 30));
        assert_eq!(map(64, 3), (1, 6, 6));
        assert!(discriminator(8, 3, 1.0, PatchNorm::None).is_err());
        assert!(discriminator(64, 0, 1.0, PatchNorm::None).is_err());
        assert!(discriminator(64, 6, 1.0, PatchNorm::None).is_err());
        assert!(discriminator(64, 3, f64::NAN, PatchNorm::None).is_err());
    }
}
