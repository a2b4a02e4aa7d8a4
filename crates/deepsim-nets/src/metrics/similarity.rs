//! Pixel-wise metrics: SSIM (Wang et al. 2004) and PSNR, of RGB images in 0–255.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::loss::ssim as structural;

/// Range of the values.
const PEAK: f64 = 255.0;

/// Structural similarity of each image of `a` `[N,3,H,W]` to that of the same index in `b`, in
/// [−1,1], 1 for equal ones: an 11×11 Gaussian window of deviation 1.5, whole windows only, K 0.01
/// and 0.03, the mean over positions and channels. Computed in fp64: variances are differences of
/// large squares.
///
/// # Errors
/// Tensors that are not images of one shape, or images smaller than the window.
pub fn ssim(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    super::check_same_images("SSIM", a, b)?;
    let _guard = tch::no_grad_guard();
    let mut out = Vec::new();
    // One image at a time: five maps in fp64 of a whole batch would be large.
    for i in 0..a.size()[0] {
        let one = |x: &Tensor| x.f_narrow(0, i, 1)?.f_to_kind(Kind::Double);
        out.push(structural::ssim(&one(a)?, &one(b)?)?.f_double_value(&[0])?);
    }
    Ok(out)
}

/// Peak signal-to-noise ratio of each image of `a` `[N,3,H,W]` against that of the same index in
/// `b`, decibels: 10·log₁₀(255²/mean squared difference); infinite for equal ones.
///
/// # Errors
/// Tensors that are not images of one shape.
pub fn psnr(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    super::check_same_images("PSNR", a, b)?;
    let _guard = tch::no_grad_guard();
    let error = a
        .f_to_kind(Kind::Double)?
        .f_sub(&b.f_to_kind(Kind::Double)?)?
        .f_square()?
        .f_mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double)?;
    let ratios = error
        .f_reciprocal()?
        .f_mul_scalar(PEAK * PEAK)?
        .f_log10()?
        .f_mul_scalar(10.0)?;
    Ok(Vec::<f64>::try_from(ratios)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn image(seed: u64) -> Tensor {
        let x = crate::layers::init::normal("x", &[2, 3, 24, 31], 40.0, seed).unwrap();
        (x + 128.0).clamp(0.0, 255.0)
    }

    #[test]
    fn equal_images_score_highest_and_noise_lowers_both() {
        let (a, noise) = (image(1), image(2) - 128.0);
        assert!(
            ssim(&a, &a)
                .unwrap()
                .iter()
                .all(|s| (s - 1.0).abs() < 1e-12)
        );
        assert!(psnr(&a, &a).unwrap().iter().all(|p| *p == f64::INFINITY));
        let at = |by: f64| {
            let b = &a + &noise * by;
            (ssim(&a, &b).unwrap()[0], psnr(&a, &b).unwrap()[0])
        };
        let (little, much) = (at(0.1), at(1.0));
        assert!(little.0 < 1.0 && much.0 < little.0, "{little:?} {much:?}");
        // Ten times the noise is 20 decibels.
        assert!(
            (little.1 - much.1 - 20.0).abs() < 1e-4,
            "{little:?} {much:?}"
        );
    }

    #[test]
    fn a_constant_offset_is_the_formula_s() {
        // Without variance only the means' factor is left.
        let a = Tensor::full([1, 3, 11, 11], 100.0, (Kind::Float, Device::Cpu));
        let b = &a + 20.0;
        let c1 = (0.01 * PEAK) * (0.01 * PEAK);
        let want = (2.0 * 100.0 * 120.0 + c1) / (100.0f64.powi(2) + 120.0f64.powi(2) + c1);
        assert!((ssim(&a, &b).unwrap()[0] - want).abs() < 1e-9);
        let want = 10.0 * (PEAK * PEAK / 400.0).log10();
        assert!((psnr(&a, &b).unwrap()[0] - want).abs() < 1e-9);
    }

    #[test]
    fn small_and_different_images_are_refused() {
        let x = |w: i64| Tensor::zeros([1, 3, 12, w], (Kind::Float, Device::Cpu));
        assert!(ssim(&x(10), &x(10)).is_err());
        assert!(ssim(&x(12), &x(13)).is_err());
        assert!(psnr(&x(12), &x(13)).is_err());
    }
}
