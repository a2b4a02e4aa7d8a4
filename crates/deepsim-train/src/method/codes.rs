//! Draws of codes for a micro-batch.

use deepsim_nets::Posterior;
use deepsim_nets::precision::at_least_fp32;
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::method::slice::Slice;

/// Codes `[len,size]` of images, drawn from their distribution; its means where codes are plain.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn of_images(posterior: &Posterior, slice: Slice) -> Result<Tensor> {
    if slice.is_whole() {
        return Ok(posterior.draw()?);
    }
    // In the other images' places are zeros: noise is drawn for all of the global batch.
    let (before, after) = (slice.from, slice.global - slice.from - slice.len);
    let among = |values: &Tensor| values.f_constant_pad_nd([0, 0, before, after]);
    let all = Posterior {
        mean: among(&posterior.mean)?,
        log_variance: posterior.log_variance.as_ref().map(among).transpose()?,
    };
    slice.of(all.draw()?)
}

/// Codes `[len,size]` drawn from the prior, N(0, 1): fp64 where the images `x` are, otherwise fp32.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn of_prior(size: i64, x: &Tensor, slice: Slice) -> Result<Tensor> {
    let options = (Kind::Float, x.device());
    let drawn = Tensor::f_randn([slice.global, size], options)?;
    Ok(slice.of(drawn)?.f_to_kind(at_least_fp32(x))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_nets::init::seeded;
    use tch::Device;

    #[test]
    fn a_micro_batch_s_codes_are_its_own_of_the_global_batch_s() {
        let options = (Kind::Float, Device::Cpu);
        let posterior = |from: i64, len: i64| {
            let all = Tensor::arange(12i64, options).view([4, 3]);
            let all = all.narrow(0, from, len);
            Posterior {
                log_variance: Some(&all * 0.1),
                mean: all,
            }
        };
        let x = Tensor::zeros([1], options);
        let draw = |slice: Slice| {
            let posterior = posterior(slice.from, slice.len);
            seeded(3, || {
                [
                    of_images(&posterior, slice).unwrap(),
                    of_prior(5, &x, slice).unwrap(),
                ]
            })
        };
        let whole = draw(Slice::whole(4));
        for (from, len) in [(0, 3), (3, 1), (1, 2)] {
            let part = draw(Slice {
                from,
                len,
                global: 4,
            });
            for (part, whole) in part.iter().zip(&whole) {
                assert_eq!(*part, whole.narrow(0, from, len), "{from} {len}");
            }
        }
    }
}
