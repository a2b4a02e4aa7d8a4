//! The networks of VAE/GAN: Larsen et al., "Autoencoding beyond pixels using a learned similarity
//! metric" (2016), as the authors' released code has them for 64×64 faces. Other sizes have as many
//! layers, and maps an eighth as wide as the images at the end.
//!
//! They see images as RGB in −1…1; outside it is Caffe units, as everywhere.

use crate::error::{NetError, Result};
use crate::layers::shape::MAX_CROP;
use crate::layers::stack::{After, Layer, Op};

/// Halvings and doublings of the three networks.
const SHRINK: i64 = 8;
/// Values behind the encoder's fully connected layer (width 1).
const ENCODED: i64 = 1024;
/// Values behind the discriminator's.
const WIDEST: i64 = 512;

/// Channels at a width, as multiples of 8.
fn scaled(channels: i64, width: f64) -> i64 {
    ((channels as f64 * width / 8.0).round() as i64 * 8).max(8)
}

/// Side of the smallest map.
///
/// # Errors
/// Sizes and widths that these networks are not made for.
pub(crate) fn base(crop: i64, width: f64) -> Result<i64> {
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

fn layer(name: &'static str, op: Op, input: i64, output: i64, after: After) -> Layer {
    Layer {
        name,
        op,
        input,
        output,
        after,
    }
}

const HALVE: Op = Op::Convolution { stride: 2 };
const KEEP: Op = Op::Convolution { stride: 1 };

/// Images → values for the heads, of which the last layer says how many.
pub(crate) fn encoder(crop: i64, width: f64) -> Result<Vec<Layer>> {
    let base = base(crop, width)?;
    let w = |channels| scaled(channels, width);
    Ok(vec![
        layer("Econv1", HALVE, 3, w(64), After::NormRelu),
        layer("Econv2", HALVE, w(64), w(128), After::NormRelu),
        layer("Econv3", HALVE, w(128), w(256), After::NormRelu),
        layer(
            "Efc4",
            Op::Fc,
            w(256) * base * base,
            w(ENCODED),
            After::NormRelu,
        ),
    ])
}

/// Codes → images.
pub(crate) fn decoder(latent: i64, crop: i64, width: f64) -> Result<Vec<Layer>> {
    let base = base(crop, width)?;
    let w = |channels| scaled(channels, width);
    Ok(vec![
        layer("Gfc", Op::Fc, latent, w(256) * base * base, After::NormRelu),
        layer("Gup1", Op::Double, w(256), w(256), After::NormRelu),
        layer("Gup2", Op::Double, w(256), w(128), After::NormRelu),
        layer("Gup3", Op::Double, w(128), w(32), After::NormRelu),
        layer("Gconv4", KEEP, w(32), 3, After::Tanh),
    ])
}

/// Images → the logit of "real".
pub(crate) fn discriminator(crop: i64, width: f64) -> Result<Vec<Layer>> {
    let base = base(crop, width)?;
    let w = |channels| scaled(channels, width);
    Ok(vec![
        layer("Dconv1", KEEP, 3, w(32), After::Relu),
        layer("Dconv2", HALVE, w(32), w(128), After::NormRelu),
        layer("Dconv3", HALVE, w(128), w(256), After::NormRelu),
        layer("Dconv4", HALVE, w(256), w(256), After::NormRelu),
        layer(
            "Dfc5",
            Op::Fc,
            w(256) * base * base,
            w(WIDEST),
            After::NormRelu,
        ),
        layer("Dfc6", Op::Fc, w(WIDEST), 1, After::Nothing),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::stack::weights;
    use tch::Device;

    #[test]
    fn parameters_are_the_authors() {
        // At 64 pixels and width 1, by hand; running statistics are no parameters.
        let trained = |layers: Vec<Layer>| -> usize {
            let params = weights("net", &layers, 1, Device::Cpu).unwrap();
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
        assert_eq!(decoder(5, 32, 0.1).unwrap()[0].output, 24 * 16);
    }
}
