//! Distances of features and of pixels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::images;
use crate::kinks::magnitude;
use crate::loss::{Reduction, ssim};
use crate::precision::{at_least_fp32, widened};

/// Squared distance of two tensors `[N,…]` of equal shape, reduced as `reduction` says; fp32.
/// The feature loss (features of the comparator) and the image loss (images in 0–255 units).
///
/// # Errors
/// Tensors of different shapes: nothing is broadcast silently.
pub fn squared_distance(a: &Tensor, b: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let size = a.size();
    if size != b.size() || size.is_empty() {
        return Err(NetError::InputShape {
            what: "the squared distance".to_owned(),
            expected: format!("two tensors of one shape; the first has {size:?}"),
            got: b.size(),
        });
    }
    let in_one_pass = [a, b]
        .iter()
        .all(|t| t.device() == Device::Cpu && matches!(t.kind(), Kind::Float | Kind::BFloat16));
    let sum = if in_one_pass {
        deepsim_aten::squared_distance(a, b)?
    } else {
        let (a, b) = (widened(a)?, widened(b)?);
        a.f_mse_loss(&b, tch::Reduction::Sum)?
    };
    let divisor = match reduction {
        Reduction::Caffe => 2.0 * size[0] as f64,
        Reduction::Paper => 1.0,
        Reduction::Mean => size.iter().product::<i64>() as f64,
    };
    Ok(sum.f_mul_scalar(1.0 / divisor)?)
}

/// How pixels are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PixelDistance {
    /// Squared differences (the paper's image loss).
    #[default]
    Squared,
    /// Absolute differences.
    Absolute,
    /// 1 − SSIM.
    Ssim,
    /// 1 − MS-SSIM (Snell, Ridgeway et al.).
    MsSsim,
}

/// The image loss: images `a` and `b` `[N,3,H,W]` in Caffe units, compared in 0–255 units; fp32.
///
/// Squared: [`squared_distance`]. Absolute: Σ|a−b|, [`Reduction::Caffe`] per image. The similarities:
/// 1 − similarity, averaged over images, or summed with [`Reduction::Paper`].
///
/// # Errors
/// Images of different shapes, or below 11 pixels where similarities are asked for.
pub fn pixel_distance(
    distance: PixelDistance,
    a: &Tensor,
    b: &Tensor,
    reduction: Reduction,
) -> Result<Tensor> {
    let similarity = match distance {
        PixelDistance::Squared => return squared_distance(a, b, reduction),
        PixelDistance::Absolute => return absolute_distance(a, b, reduction),
        PixelDistance::Ssim => ssim::ssim(&images::caffe_to_rgb(a)?, &images::caffe_to_rgb(b)?)?,
        PixelDistance::MsSsim => {
            let (a, b) = (images::caffe_to_rgb(a)?, images::caffe_to_rgb(b)?);
            ssim::ms_ssim(&a, &b)?.similarity
        }
    };
    let each = similarity.f_neg()?.f_add_scalar(1.0)?;
    Ok(match reduction {
        Reduction::Caffe | Reduction::Mean => each.f_mean(at_least_fp32(&each))?,
        Reduction::Paper => each.f_sum(at_least_fp32(&each))?,
    })
}

/// Sum of absolute differences of two batches of images of one shape; per image with [`Reduction::Caffe`].
pub(crate) fn absolute_distance(a: &Tensor, b: &Tensor, reduction: Reduction) -> Result<Tensor> {
    crate::metrics::check_same_images("the absolute distance", a, b)?;
    let each = magnitude(&widened(a)?.f_sub(&widened(b)?)?)?;
    Ok(match reduction {
        Reduction::Caffe => each
            .f_sum(at_least_fp32(&each))?
            .f_div_scalar(a.size()[0] as f64)?,
        Reduction::Paper => each.f_sum(at_least_fp32(&each))?,
        Reduction::Mean => each.f_mean(at_least_fp32(&each))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_differ_by_their_stated_factors() {
        let a = Tensor::ones([4, 3, 2, 2], (Kind::Float, Device::Cpu));
        let b = &a * 3.0; // squared difference 4 at each of 48 elements
        let value = |r| squared_distance(&a, &b, r).unwrap().double_value(&[]);
        assert_eq!(value(Reduction::Paper), 192.0);
        assert_eq!(value(Reduction::Caffe), 24.0);
        assert_eq!(value(Reduction::Mean), 4.0);
    }

    #[test]
    fn shapes_are_never_broadcast() {
        let a = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        let b = Tensor::ones([1, 3], (Kind::Float, Device::Cpu));
        assert!(squared_distance(&a, &b, Reduction::Caffe).is_err());
    }
}
