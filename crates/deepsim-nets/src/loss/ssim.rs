//! Structural similarity at one scale and at several, as losses and as metrics.
//!
//! SSIM (Wang et al. 2004): 11×11 Gaussian windows of deviation 1.5, whole windows only, K 0.01 and
//! 0.03, the mean over positions and channels. MS-SSIM (Wang et al. 2003): five scales, each the mean of
//! 2×2 of the last; contrast and structure from all of them, luminance from the coarsest; the product
//! over scales of each channel's powers, then the mean over channels, as pytorch-msssim computes it
//! (torchmetrics differs by design, in borders and in the order of means).
//!
//! Images are RGB, 0–255. On the CPU, in fp32, a kernel of `deepsim-aten` does the work; libtorch's
//! operations do it elsewhere and are the kernel's oracle.

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};

/// Range of the values.
const PEAK: f64 = 255.0;
/// Side of the Gaussian window.
pub const WINDOW: i64 = 11;
/// Deviation of the Gaussian window, pixels.
const SIGMA: f64 = 1.5;
const C1: f64 = (0.01 * PEAK) * (0.01 * PEAK);
const C2: f64 = (0.03 * PEAK) * (0.03 * PEAK);
/// Weight of each scale, the finest first.
const WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// Structural similarity of each image of `a` `[N,C,H,W]` to that of the same index in `b`: `[N]`,
/// from −1 to 1, 1 for equal ones. Differentiable once with regard to both; fp64 stays fp64, anything
/// else is computed in fp32.
///
/// # Errors
/// Tensors that are not images of one shape, or images smaller than the window.
pub fn ssim(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = checked("SSIM", a, b)?;
    let both = means(&a, &b)?;
    Ok(both.f_select(0, 0)?.f_mean_dim(1i64, false, both.kind())?)
}

/// What [`ms_ssim`] found.
#[derive(Debug)]
pub struct MultiScale {
    /// Similarity of each image, `[N]`, from 0 to 1.
    pub similarity: Tensor,
    /// Scales that it was measured at: five above 160 pixels, fewer below.
    pub scales: usize,
}

/// Scales that images of this size allow: the coarsest must be as large as the window. None below
/// 11 pixels.
pub fn scales(height: i64, width: i64) -> usize {
    let side = height.min(width);
    (0..WEIGHTS.len())
        .take_while(|k| side > (WINDOW - 1) << k)
        .count()
}

/// Structural similarity over several scales of each image of `a` `[N,C,H,W]` to that of the same
/// index in `b`. Five scales need more than 160 pixels; smaller images are compared at fewer, the
/// weights of those scaled to the same sum. Differentiable once with regard to both.
///
/// Where a channel's structure is opposite at some scale, its product and its gradient are 0. They
/// are never NaN, not even for flat, negative or identical images.
///
/// # Errors
/// Tensors that are not images of one shape, or images smaller than the window.
pub fn ms_ssim(a: &Tensor, b: &Tensor) -> Result<MultiScale> {
    let (mut a, mut b) = checked("MS-SSIM", a, b)?;
    let size = a.size();
    let scales = scales(size[2], size[3]);
    let weights = WEIGHTS.iter().take(scales);
    let sum: f64 = weights.clone().sum();
    // Renormalised only where scales are missing: all five do not sum to exactly 1, and the
    // published ones are used as they are.
    let unit = if scales == WEIGHTS.len() { 1.0 } else { sum };
    let mut product: Option<Tensor> = None;
    for (scale, weight) in weights.enumerate() {
        let both = means(&a, &b)?;
        let last = scale + 1 == scales;
        let factor = power(&both.f_select(0, if last { 0 } else { 1 })?, weight / unit)?;
        product = Some(match product {
            None => factor,
            Some(so_far) => so_far.f_mul(&factor)?,
        });
        if !last {
            (a, b) = (halved(&a)?, halved(&b)?);
        }
    }
    let product = product.ok_or_else(|| too_small("MS-SSIM", &size))?;
    let kind = product.kind();
    Ok(MultiScale {
        similarity: product.f_mean_dim(1i64, false, kind)?,
        scales,
    })
}

/// max(x, 0)^weight whose gradient is 0, not NaN, where x is not above 0.
fn power(x: &Tensor, weight: f64) -> Result<Tensor> {
    let above = x.f_gt(0.0)?;
    let safe = x.f_where_self(&above, &x.f_ones_like()?)?;
    Ok(safe
        .f_pow_tensor_scalar(weight)?
        .f_where_self(&above, &x.f_zeros_like()?)?)
}

/// Means of 2×2; odd sides get a row of zeros on both sides, as pytorch-msssim does.
fn halved(x: &Tensor) -> Result<Tensor> {
    let size = x.size();
    let padding = [size[2] % 2, size[3] % 2];
    Ok(x.f_avg_pool2d([2, 2], [2, 2], padding, false, true, None::<i64>)?)
}

fn checked(what: &str, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    crate::metrics::check_same_images(what, a, b)?;
    let size = a.size();
    if size[2] < WINDOW || size[3] < WINDOW {
        return Err(too_small(what, &size));
    }
    let kind = match (a.kind(), b.kind()) {
        (Kind::Double, Kind::Double) => Kind::Double,
        _ => Kind::Float,
    };
    Ok((a.f_to_kind(kind)?, b.f_to_kind(kind)?))
}

fn too_small(what: &str, size: &[i64]) -> NetError {
    NetError::TooSmall {
        what: what.to_owned(),
        height: size[2],
        width: size[3],
        layer: format!("{WINDOW}x{WINDOW} window"),
    }
}

/// Means over positions of the similarity and of its contrast-structure part, `[2,N,C]`.
fn means(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.device(), a.kind()) {
        (Device::Cpu, Kind::Float) => Ok(deepsim_aten::ssim(a, b, C1, C2)?),
        _ => means_by_libtorch(a, b),
    }
}

fn means_by_libtorch(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (n, c) = (a.size()[0], a.size()[1]);
    // Channels become a batch: each is filtered alone.
    let alone = |x: &Tensor| x.f_flatten(0, 1)?.f_unsqueeze(1);
    let (a, b) = (alone(a)?, alone(b)?);
    let kind = a.kind();
    let (ma, mb) = (blur(&a)?, blur(&b)?);
    let (ma2, mb2, mab) = (ma.f_square()?, mb.f_square()?, ma.f_mul(&mb)?);
    let va = blur(&a.f_square()?)?.f_sub(&ma2)?;
    let vb = blur(&b.f_square()?)?.f_sub(&mb2)?;
    let covariance = blur(&a.f_mul(&b)?)?.f_sub(&mab)?;
    let twice_plus = |x: &Tensor, c: f64| x.f_mul_scalar(2.0)?.f_add_scalar(c);
    // Rounding may make a variance of huge values negative.
    let spread = va.f_add(&vb)?.f_clamp_min(0.0)?.f_add_scalar(C2)?;
    let cs = twice_plus(&covariance, C2)?.f_div(&spread)?;
    let luminance = twice_plus(&mab, C1)?.f_div(&ma2.f_add(&mb2)?.f_add_scalar(C1)?)?;
    let mean = |x: &Tensor| -> Result<Tensor> {
        Ok(x.f_mean_dim([1i64, 2, 3].as_slice(), false, kind)?
            .f_view([n, c])?)
    };
    Ok(Tensor::f_stack(
        &[mean(&luminance.f_mul(&cs)?)?, mean(&cs)?],
        0,
    )?)
}

/// Gaussian means of whole windows of `x` `[C,1,H,W]`: first along rows, then along columns.
fn blur(x: &Tensor) -> Result<Tensor> {
    let options = (Kind::Double, x.device());
    let offsets = Tensor::f_arange(WINDOW, options)?.f_add_scalar(-((WINDOW / 2) as f64))?;
    let line = offsets
        .f_square()?
        .f_mul_scalar(-0.5 / (SIGMA * SIGMA))?
        .f_exp()?;
    let line = line
        .f_div(&line.f_sum(Kind::Double)?)?
        .f_to_kind(x.kind())?;
    let along = |x: &Tensor, shape: [i64; 4]| -> Result<Tensor> {
        let kernel = line.f_view(shape)?;
        Ok(x.f_conv2d::<Tensor>(&kernel, None, [1, 1], [0, 0], [1, 1], 1)?)
    };
    along(&along(x, [1, 1, 1, WINDOW])?, [1, 1, WINDOW, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(seed: u64, side: i64) -> Tensor {
        let x = crate::layers::init::normal("x", &[2, 3, side, side + 3], 40.0, seed).unwrap();
        (x + 128.0).clamp(0.0, 255.0)
    }

    #[test]
    fn the_kernel_is_libtorch_s_composition_in_fp64() {
        let up = crate::layers::init::normal("up", &[2, 2, 3], 1.0, 9).unwrap();
        // Widths below, at and above the kernel's lanes.
        for (height, width) in [(11, 11), (12, 40), (61, 26), (33, 227)] {
            let draw = |seed| {
                let x =
                    crate::layers::init::normal("x", &[2, 3, height, width], 60.0, seed).unwrap();
                x + 100.0
            };
            let a = draw(1);
            let b = &a * 0.7 + draw(2) * 0.4;
            let leaves = [&a, &b].map(|t| t.detach().set_requires_grad(true));
            let doubles =
                [&a, &b].map(|t| t.detach().to_kind(Kind::Double).set_requires_grad(true));
            let got = means(&leaves[0], &leaves[1]).unwrap();
            let want = means_by_libtorch(&doubles[0], &doubles[1]).unwrap();
            let off = |x: &Tensor, y: &Tensor| {
                ((x.to_kind(Kind::Double) - y).norm() / y.norm()).double_value(&[])
            };
            assert!(off(&got, &want) < 1e-5, "{height}x{width}: value");
            let back = Tensor::run_backward(&[got * &up], &leaves, false, false);
            let wanted = Tensor::run_backward(&[want * &up], &doubles, false, false);
            for (x, y) in back.iter().zip(&wanted) {
                let off = off(x, y);
                assert!(off < 1e-4, "{height}x{width}: gradient off by {off}");
            }
        }
    }

    #[test]
    fn scales_follow_the_smaller_side() {
        let at = |side| scales(side, 1000);
        assert_eq!(
            [10, 11, 20, 21, 80, 81, 160, 161, 20_000].map(at),
            [0, 1, 1, 2, 3, 4, 4, 5, 5]
        );
        let x = image(3, 64);
        let found = ms_ssim(&x, &x).unwrap();
        assert_eq!(found.scales, 3);
        let error = ms_ssim(&image(1, 9), &image(2, 9)).unwrap_err().to_string();
        assert!(error.contains("11x11 window"), "{error}");
    }

    #[test]
    fn odd_images_leave_value_and_gradient_finite() {
        let flat = Tensor::full([2, 3, 170, 173], 255.0, (Kind::Float, Device::Cpu));
        let (a, b) = (image(1, 170), image(2, 170));
        let cases = [
            ("identical", a.shallow_clone(), a.shallow_clone()),
            ("both flat", flat.shallow_clone(), &flat * 0.0),
            ("one flat", a.shallow_clone(), flat.shallow_clone()),
            ("negative", &a - 400.0, &b - 100.0),
            ("opposite", a.shallow_clone(), 255.0 - &a),
            ("huge", &a * 1e6, &b * 1e6),
        ];
        for (what, a, b) in cases {
            for loss in [ssim, |a: &Tensor, b: &Tensor| {
                ms_ssim(a, b).map(|m| m.similarity)
            }] {
                let leaf = a.detach().set_requires_grad(true);
                let value = loss(&leaf, &b).unwrap().sum(Kind::Float);
                value.backward();
                for t in [&value, &leaf.grad()] {
                    assert!(bool::try_from(t.isfinite().all()).unwrap(), "{what}");
                }
            }
        }
    }

    #[test]
    fn equal_images_are_1_with_nothing_to_learn() {
        let a = image(4, 170).set_requires_grad(true);
        let value = ms_ssim(&a, &a.detach()).unwrap().similarity;
        assert!(bool::try_from(value.isclose(&value.ones_like(), 1e-6, 0.0, false).all()).unwrap());
        value.sum(Kind::Float).backward();
        assert!(a.grad().abs().max().double_value(&[]) < 1e-6);
    }
}
