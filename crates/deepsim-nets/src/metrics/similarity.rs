//! Pixel-wise judges: SSIM (Wang et al. 2004) and PSNR, of RGB pictures in 0–255.

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Range of the values.
const PEAK: f64 = 255.0;
/// Side of the Gaussian window.
pub const WINDOW: i64 = 11;
/// Deviation of the Gaussian window, pixels.
const SIGMA: f64 = 1.5;
const C1: f64 = (0.01 * PEAK) * (0.01 * PEAK);
const C2: f64 = (0.03 * PEAK) * (0.03 * PEAK);

/// Structural similarity of each picture of `a` `[N,3,H,W]` to that of the same index in `b`, in
/// [−1,1], 1 for equal ones: an 11×11 Gaussian window of deviation 1.5, whole windows only, K 0.01
/// and 0.03, the mean over positions and channels. Computed in fp64: variances are differences of
/// large squares.
///
/// # Errors
/// Tensors that are not pictures of one shape, or pictures smaller than the window.
pub fn ssim(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    super::check_same_pictures("SSIM", a, b)?;
    let size = a.size();
    if size[2] < WINDOW || size[3] < WINDOW {
        return Err(NetError::TooSmall {
            what: "SSIM".to_owned(),
            height: size[2],
            width: size[3],
            layer: format!("{WINDOW}x{WINDOW} window"),
        });
    }
    let _guard = tch::no_grad_guard();
    let mut out = Vec::new();
    // One picture at a time: five maps in fp64 of a whole batch would be large.
    for i in 0..size[0] {
        // Channels become a batch: each is filtered alone.
        let one = |x: &Tensor| -> Result<Tensor> {
            Ok(x.f_get(i)?.f_to_kind(Kind::Double)?.f_unsqueeze(1)?)
        };
        let (a, b) = (one(a)?, one(b)?);
        let (ma, mb) = (blur(&a)?, blur(&b)?);
        let (ma2, mb2, mab) = (ma.f_square()?, mb.f_square()?, ma.f_mul(&mb)?);
        let va = blur(&a.f_square()?)?.f_sub(&ma2)?;
        let vb = blur(&b.f_square()?)?.f_sub(&mb2)?;
        let covariance = blur(&a.f_mul(&b)?)?.f_sub(&mab)?;
        let twice_plus = |x: &Tensor, c: f64| x.f_mul_scalar(2.0)?.f_add_scalar(c);
        let above = twice_plus(&mab, C1)?.f_mul(&twice_plus(&covariance, C2)?)?;
        let below = ma2
            .f_add(&mb2)?
            .f_add_scalar(C1)?
            .f_mul(&va.f_add(&vb)?.f_add_scalar(C2)?)?;
        out.push(
            above
                .f_div(&below)?
                .f_mean(Kind::Double)?
                .f_double_value(&[])?,
        );
    }
    Ok(out)
}

/// Gaussian means of whole windows of `x` `[C,1,H,W]`: first along rows, then along columns.
fn blur(x: &Tensor) -> Result<Tensor> {
    let options = (Kind::Double, x.device());
    let offsets = Tensor::f_arange(WINDOW, options)?.f_add_scalar(-((WINDOW / 2) as f64))?;
    let line = offsets
        .f_square()?
        .f_mul_scalar(-0.5 / (SIGMA * SIGMA))?
        .f_exp()?;
    let line = line.f_div(&line.f_sum(Kind::Double)?)?;
    let along = |x: &Tensor, shape: [i64; 4]| -> Result<Tensor> {
        let kernel = line.f_view(shape)?;
        Ok(x.f_conv2d::<Tensor>(&kernel, None, [1, 1], [0, 0], [1, 1], 1)?)
    };
    along(&along(x, [1, 1, 1, WINDOW])?, [1, 1, WINDOW, 1])
}

/// Peak signal-to-noise ratio of each picture of `a` `[N,3,H,W]` against that of the same index in
/// `b`, decibels: 10·log₁₀(255²/mean squared difference); infinite for equal ones.
///
/// # Errors
/// Tensors that are not pictures of one shape.
pub fn psnr(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    super::check_same_pictures("PSNR", a, b)?;
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

    fn picture(seed: u64) -> Tensor {
        let x = crate::init::normal("x", &[2, 3, 24, 31], 40.0, seed).unwrap();
        (x + 128.0).clamp(0.0, 255.0)
    }

    #[test]
    fn equal_pictures_score_highest_and_noise_lowers_both() {
        let (a, noise) = (picture(1), picture(2) - 128.0);
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
        let want = (2.0 * 100.0 * 120.0 + C1) / (100.0f64.powi(2) + 120.0f64.powi(2) + C1);
        assert!((ssim(&a, &b).unwrap()[0] - want).abs() < 1e-9);
        let want = 10.0 * (PEAK * PEAK / 400.0).log10();
        assert!((psnr(&a, &b).unwrap()[0] - want).abs() < 1e-9);
    }

    #[test]
    fn small_and_different_pictures_are_refused() {
        let x = |w: i64| Tensor::zeros([1, 3, 12, w], (Kind::Float, Device::Cpu));
        assert!(ssim(&x(10), &x(10)).is_err());
        assert!(ssim(&x(12), &x(13)).is_err());
        assert!(psnr(&x(12), &x(13)).is_err());
    }
}
