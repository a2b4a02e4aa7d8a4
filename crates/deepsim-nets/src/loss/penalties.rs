//! What a discriminator's loss may add to how it tells images apart. Scores are those of [`scores`].

use tch::Tensor;

use crate::error::{NetError, Result};
use crate::kinks;
use crate::loss::Reduction;
use crate::loss::adversarial::{reduced, scores};
use crate::precision::{at_least_fp32, widened};

/// Grey levels of half the range: images in −1…1 times this are images in 0–255.
const HALF_RANGE: f64 = 127.5;

/// R1 (Mescheder, Geiger & Nowozin 2018), without its weight γ: ½ ‖∇‖² of each real image, from the `gradient` `[N,3,H,W]`
/// of the sum of all scores at real images in 0–255 units. ∇ is taken with regard to images in −1…1, so that published
/// weights hold. Averaged over the batch, with [`Reduction::Paper`] summed; fp32 at least.
///
/// # Errors
/// What is no batch of images.
pub fn r1(gradient: &Tensor, reduction: Reduction) -> Result<Tensor> {
    crate::images::check_images("R1", gradient)?;
    let kind = at_least_fp32(gradient);
    let each = widened(gradient)?
        .f_mul_scalar(HALF_RANGE)?
        .f_square()?
        .f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, kind)?
        .f_mul_scalar(0.5)?;
    reduced(&each.f_unsqueeze(1)?, reduction)
}

/// LeCAM (Tseng et al. 2021), without its weight: the mean of max(0, r − a_f)² plus that of max(0, a_r − f)², of scores r of
/// real images and f of generated ones, whose averages over earlier batches are a_r and a_f.
///
/// # Errors
/// Logits of another shape than [`scores`] takes.
pub fn lecam(
    [real, generated]: [&Tensor; 2],
    [of_real, of_generated]: [f64; 2],
    reduction: Reduction,
) -> Result<Tensor> {
    let squares = |beyond: &Tensor| reduced(&kinks::relu(beyond)?.f_square()?, reduction);
    let on_real = squares(&scores(real)?.f_sub_scalar(of_generated)?)?;
    let on_generated = squares(&scores(generated)?.f_neg()?.f_add_scalar(of_real)?)?;
    Ok(on_real.f_add(&on_generated)?)
}

/// The mean of all scores of logits, without their graph; an average of it is what [`lecam`] takes.
///
/// # Errors
/// Logits of another shape than [`scores`] takes.
pub fn mean_score(logits: &Tensor) -> Result<Tensor> {
    let scores = scores(&logits.f_detach()?)?;
    reduced(&scores, Reduction::Mean)
}

/// The weight of Esser et al. 2021 (VQGAN) for the adversarial term, without `loss.adv`: the norm of the other terms'
/// gradient of the last layer by that of the adversarial term's plus `epsilon`, at most `limit`. A number on the device.
///
/// # Errors
/// Gradients of different shapes.
pub fn balance(others: &Tensor, adversarial: &Tensor, epsilon: f64, limit: f64) -> Result<Tensor> {
    if others.size() != adversarial.size() {
        return Err(NetError::InputShape {
            what: "the weight of the adversarial term".to_owned(),
            expected: format!("gradients of one layer, {:?}", others.size()),
            got: adversarial.size(),
        });
    }
    let by = adversarial.f_norm()?.f_add_scalar(epsilon)?;
    Ok(others.f_norm()?.f_div(&by)?.f_clamp(0.0, limit)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn the_gradient_is_that_of_images_from_minus_one_to_one() {
        let gradient = Tensor::zeros([2, 3, 4, 4], (Kind::Double, Device::Cpu));
        let _ = gradient.get(1).get(0).get(2).get(3).fill_(2.0 / 127.5);
        let value = |reduction| r1(&gradient, reduction).unwrap().double_value(&[]);
        assert!((value(Reduction::Caffe) - 1.0).abs() < 1e-12);
        assert!((value(Reduction::Paper) - 2.0).abs() < 1e-12);
        assert!(r1(&gradient.get(0), Reduction::Mean).is_err());
    }

    #[test]
    fn lecam_pulls_scores_to_the_other_side_s_average() {
        let map = |a: f64, b: f64| Tensor::from_slice(&[a, b]).view([1, 1, 1, 2]);
        let (real, generated) = (map(2.0, -1.0), map(0.0, 3.0));
        let found = lecam([&real, &generated], [1.0, -0.5], Reduction::Mean);
        // (2.5² + 0)/2 of the real ones, (1² + 0)/2 of the generated ones.
        assert_eq!(found.unwrap().double_value(&[]), 3.125 + 0.5);
        assert_eq!(mean_score(&real).unwrap().double_value(&[]), 0.5);
    }

    #[test]
    fn a_weight_has_a_limit_and_no_zero_below_it() {
        let tensor = |v: f64| Tensor::from_slice(&[v, 0.0]);
        let weight = |a: f64, b: f64| {
            let found = balance(&tensor(a), &tensor(b), 1e-4, 1e4);
            found.unwrap().double_value(&[])
        };
        assert!((weight(3.0, 2.0) - 3.0 / 2.0001).abs() < 1e-12);
        assert_eq!(weight(3.0, 0.0), 1e4);
        assert_eq!(weight(0.0, 1.0), 0.0);
        assert!(weight(f64::NAN, 1.0).is_nan(), "what is not finite shows");
        assert!(balance(&tensor(1.0), &Tensor::from_slice(&[1.0]), 1e-4, 1e4).is_err());
    }
}
