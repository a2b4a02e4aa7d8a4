//! The networks of VAE/GAN: Larsen et al., "Autoencoding beyond pixels using a learned similarity
//! metric" (2016), as the authors' released code has them for 64×64 faces. Other sizes have as many
//! layers, and maps an eighth as wide as the images at the end.
//!
//! They see images as RGB in −1…1; outside it is Caffe units, as everywhere.

use crate::error::{NetError, Result};
use crate::layers::op::{Op, fc};
use crate::layers::shape::MAX_CROP;
use crate::layers::trained::{Decays, Initial};
use crate::zoo::scaled;

/// Halvings and doublings of the three networks.
const SHRINK: i64 = 8;
/// Values behind the encoder's fully connected layer (width 1).
const ENCODED: i64 = 1024;
/// Values behind the discriminator's.
const WIDEST: i64 = 512;
/// Side of every kernel.
const KERNEL: i64 = 5;
/// Added to variances (the authors' 1e-6).
const EPSILON: f64 = 1e-6;

/// Side of the smallest map.
///
/// # Errors
/// Sizes and widths that these networks are not made for.
fn base(crop: i64, width: f64) -> Result<i64> {
    if crop % SHRINK != 0 || !(2 * SHRINK..=MAX_CROP).contains(&crop) {
        return Err(NetError::Spec(format!(
            "the networks of Larsen et al. take crops of 16 to {MAX_CROP} pixels that are multiples of 8, \
             not {crop}"
        )));
    }
    if !(width > 0.0 && width <= 4.0) {
        return Err(NetError::Spec(format!(
            "a width must be above 0 and at most 4, not {width}"
        )));
    }
    Ok(crop / SHRINK)
}

/// Convolution 5×5 with padding 2.
fn conv(key: &'static str, input: i64, output: i64, stride: i64, bias: bool) -> Op {
    Op::Conv {
        key,
        input,
        output,
        kernel: KERNEL,
        stride,
        pad: KERNEL / 2,
        groups: 1,
        bias,
    }
}

fn halve(key: &'static str, input: i64, output: i64) -> Op {
    conv(key, input, output, 2, false)
}

fn double(key: &'static str, input: i64, output: i64) -> Op {
    Op::Double {
        key,
        input,
        output,
        kernel: KERNEL,
        bias: false,
    }
}

fn dense(key: &'static str, input: i64, output: i64) -> Op {
    Op::Fc {
        key,
        input,
        output,
        bias: false,
    }
}

/// A layer without bias, batch normalisation named `norm`, and a ReLU.
fn norm_relu(layer: Op, norm: &'static str) -> [Op; 3] {
    let channels = layer.channels(0);
    [
        layer,
        Op::BatchNorm {
            key: norm,
            channels,
            epsilon: EPSILON,
        },
        Op::Relu,
    ]
}

/// Images → values for the heads.
pub(crate) fn encoder(crop: i64, width: f64) -> Result<Vec<Op>> {
    let base = base(crop, width)?;
    let w = |channels| scaled(channels, width);
    Ok([
        norm_relu(halve("Econv1", 3, w(64)), "Econv1.norm"),
        norm_relu(halve("Econv2", w(64), w(128)), "Econv2.norm"),
        norm_relu(halve("Econv3", w(128), w(256)), "Econv3.norm"),
        norm_relu(dense("Efc4", w(256) * base * base, w(ENCODED)), "Efc4.norm"),
    ]
    .concat())
}

/// Codes → images.
pub(crate) fn decoder(latent: i64, crop: i64, width: f64) -> Result<Vec<Op>> {
    let base = base(crop, width)?;
    let w = |channels| scaled(channels, width);
    let mut ops = [
        norm_relu(dense("Gfc", latent, w(256) * base * base), "Gfc.norm"),
        norm_relu(double("Gup1", w(256), w(256)), "Gup1.norm"),
        norm_relu(double("Gup2", w(256), w(128)), "Gup2.norm"),
        norm_relu(double("Gup3", w(128), w(32)), "Gup3.norm"),
    ]
    .concat();
    ops.extend([conv("Gconv4", w(32), 3, 1, true), Op::Tanh]);
    Ok(ops)
}

/// Images → the logit of "real".
pub(crate) fn discriminator(crop: i64, width: f64) -> Result<Vec<Op>> {
    let base = base(crop, width)?;
    let w = |channels| scaled(channels, width);
    let mut ops = vec![conv("Dconv1", 3, w(32), 1, true), Op::Relu];
    ops.extend(
        [
            norm_relu(halve("Dconv2", w(32), w(128)), "Dconv2.norm"),
            norm_relu(halve("Dconv3", w(128), w(256)), "Dconv3.norm"),
            norm_relu(halve("Dconv4", w(256), w(256)), "Dconv4.norm"),
            norm_relu(dense("Dfc5", w(256) * base * base, w(WIDEST)), "Dfc5.norm"),
        ]
        .concat(),
    );
    ops.push(fc("Dfc6", w(WIDEST), 1));
    Ok(ops)
}

/// Keeps the variance of activations. The authors fill weights in the same manner. The scale of
/// weights before batch normalisation has no effect. Weights of layers decay, nothing else does.
pub(crate) fn initial(op: &Op) -> Initial {
    let area = (KERNEL * KERNEL) as f64;
    let (input, taps) = match *op {
        Op::Fc { input, .. } => (input, 1.0),
        Op::Conv { input, .. } => (input, area),
        // At stride 2 a quarter of the kernel meets each pixel.
        Op::Double { input, .. } => (input, area / 4.0),
        _ => (1, 1.0),
    };
    // Every layer but the last is followed by a ReLU.
    let last = op
        .affine()
        .is_some_and(|a| ["Gconv4", "Dfc6"].contains(&a.key));
    let gain = if last { 1.0 } else { 2.0 };
    Initial {
        deviation: (gain / (input as f64 * taps)).sqrt(),
        bias_learns: true,
        decays: Decays::Weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::trained::build;
    use tch::Device;

    #[test]
    fn parameters_are_the_authors() {
        // At 64 pixels and width 1, by hand; running statistics are no parameters.
        let trained = |ops: Vec<Op>| -> usize {
            let (_, params) = build("net", &ops, initial, 1, Device::Cpu).unwrap();
            params.trained().iter().map(|p| p.tensor.numel()).sum()
        };
        let norms = |channels: usize| 2 * channels;
        assert_eq!(
            trained(encoder(64, 1.0).unwrap()),
            25 * (3 * 64 + 64 * 128 + 128 * 256) + 256 * 64 * 1024 + norms(64 + 128 + 256 + 1024)
        );
        assert_eq!(
            trained(decoder(128, 64, 1.0).unwrap()),
            128 * 16384
                + 25 * (256 * 256 + 256 * 128 + 128 * 32 + 32 * 3)
                + 3
                + norms(16384 + 256 + 128 + 32)
        );
        assert_eq!(
            trained(discriminator(64, 1.0).unwrap()),
            25 * (3 * 32 + 32 * 128 + 128 * 256 + 256 * 256)
                + 32
                + 16384 * 512
                + 512
                + 1
                + norms(128 + 256 + 256 + 512)
        );
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (crop, width) in [(8, 1.0), (60, 1.0), (264, 1.0), (64, 0.0), (64, f64::NAN)] {
            assert!(encoder(crop, width).is_err(), "{crop} {width}");
        }
        assert_eq!(decoder(5, 32, 0.1).unwrap()[0].channels(5), 24 * 16);
    }
}
