//! The diversity term: it rewards differences between images of the same features.

use tch::Tensor;

use crate::error::{NetError, Result};
use crate::kinks::magnitude;
use crate::loss::Reduction;
use crate::precision::at_least_fp32;

/// The diversity of images `a` and `b` `[N,…]` that were made from the same features and two draws of noise. For
/// each pair it is the mean absolute difference of the images, divided by that of their noises, and at most
/// `limit` (in the images' units). The term is minus its mean over the batch (sum for [`Reduction::Paper`]). After
/// Yang et al., "Diversity-sensitive conditional generative adversarial networks" (ICLR 2019), Eq. 2.
///
/// # Errors
/// Images or noises of different shapes.
pub fn diversity(
    [a, b]: [&Tensor; 2],
    [noise_a, noise_b]: [&Tensor; 2],
    limit: f64,
    reduction: Reduction,
) -> Result<Tensor> {
    let kind = at_least_fp32(a);
    let between = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        if a.size() != b.size() || a.dim() < 2 {
            return Err(NetError::InputShape {
                what: "the diversity of two batches".to_owned(),
                expected: format!("two tensors of one shape; the first has {:?}", a.size()),
                got: b.size(),
            });
        }
        let apart = magnitude(&a.f_to_kind(kind)?.f_sub(&b.f_to_kind(kind)?)?)?;
        Ok(apart.f_flatten(1, -1)?.f_mean_dim(1i64, false, kind)?)
    };
    let apart = between(noise_a, noise_b)?.f_clamp_min(SAME_NOISE)?;
    let each = between(a, b)?.f_div(&apart)?.f_clamp_max(limit)?.f_neg()?;
    Ok(match reduction {
        Reduction::Paper => each.f_sum(at_least_fp32(&each))?,
        Reduction::Caffe | Reduction::Mean => each.f_mean(at_least_fp32(&each))?,
    })
}

/// Mean absolute difference below which two draws of noise count as one.
const SAME_NOISE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn diversity_is_relative_to_the_noise_and_ends_at_its_limit() {
        let options = (Kind::Float, Device::Cpu);
        let flat = |values: [f64; 2], shape: [i64; 3]| {
            let all = values.map(|v| Tensor::full(shape, v, options));
            Tensor::stack(&all, 0)
        };
        // First pair: 6 grey levels by 2; second: 30 by 1.
        let (a, b) = (flat([1.0, 7.0], [3, 2, 2]), flat([7.0, -23.0], [3, 2, 2]));
        let (za, zb) = (flat([0.0, 0.0], [5, 1, 1]), flat([2.0, -1.0], [5, 1, 1]));
        let value = |limit, reduction| {
            let term = diversity([&a, &b], [&za, &zb], limit, reduction).unwrap();
            term.double_value(&[])
        };
        assert_eq!(value(100.0, Reduction::Caffe), -16.5);
        assert_eq!(value(10.0, Reduction::Mean), -6.5);
        assert_eq!(value(1.0, Reduction::Paper), -2.0);
        // The same noise twice: a number, whatever the images.
        let same = diversity([&a, &a], [&za, &za], 9.0, Reduction::Mean).unwrap();
        assert_eq!(same.double_value(&[]), 0.0);
        assert!(diversity([&a, &za], [&za, &zb], 1.0, Reduction::Mean).is_err());
    }
}
