//! Pools, by whichever code is faster.

use deepsim_aten::{AutocastGuard, LastWindow, Precision, bf16_max_pool, bf16_wanted};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::kinks::{self, note_pooled};
use crate::layers::op::{Rounding, Window};
use crate::precision::widened;

/// Added to the mean of squares before its root is taken, so that the root has a slope at 0.
const L2_EPSILON: f64 = 1e-12;

/// Maximum over windows of `x` `[N,C,H,W]`.
pub(crate) fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    let Window {
        kernel,
        stride,
        rounding,
        pad,
    } = window;
    // Our kernel knows one kind of window; libtorch takes the others in bf16 too.
    if (kernel, stride, pad) == (3, 2, 0) && x.kind() == Kind::BFloat16 && bf16_wanted(x)? {
        let last = match rounding {
            Rounding::Ceil => LastWindow::Counts,
            Rounding::Floor => LastWindow::Dropped,
        };
        let y = bf16_max_pool(x, last)?;
        note_pooled(x, window)?;
        return Ok(y);
    }
    kinks::max_pool(x, window)
}

/// Mean of the 3×3 values around each position of `x` `[N,C,H,W]`; values outside of it do not count.
pub(crate) fn mean_around(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None::<i64>)?)
}

/// Roots of weighted means of squares of `x` `[N,C,H,W]`: 3×3 windows with stride 2 and a border of zeros, weights
/// 1, 2, 1 along either side. Hénaff & Simoncelli, "Geodesics of learned representations" (2016), as DISTS uses it. In
/// fp32 at least.
pub(crate) fn l2_pool(x: &Tensor) -> Result<Tensor> {
    let _exact = AutocastGuard::new(x.device(), Precision::Fp32)?;
    let x = widened(x)?;
    let channels = x.size()[1];
    let line = Tensor::f_from_slice(&[0.25f64, 0.5, 0.25])?;
    let window = line
        .f_outer(&line)?
        .f_to_device(x.device())?
        .f_to_kind(x.kind())?
        .f_repeat([channels, 1, 1, 1])?;
    let means =
        x.f_square()?
            .f_conv2d::<Tensor>(&window, None, [2, 2], [1, 1], [1, 1], channels)?;
    Ok(means.f_add_scalar(L2_EPSILON)?.f_sqrt()?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn what_lies_outside_does_not_count() {
        let x = Tensor::from_slice(&[-1.0f32, -2.0, -3.0, -8.0]).view([1, 1, 2, 2]);
        let values = |y: Tensor| Vec::<f32>::try_from(y.view([4])).unwrap();
        assert_eq!(values(mean_around(&x).unwrap()), [-3.5; 4]);
        let around = Window {
            kernel: 3,
            stride: 1,
            rounding: Rounding::Floor,
            pad: 1,
        };
        assert_eq!(values(max_pool(&x, around).unwrap()), [-1.0; 4]);
    }

    #[test]
    fn l2_pool_of_a_constant_is_the_constant_where_the_window_is_whole() {
        let x = Tensor::full([1, 2, 5, 6], -3.0, (Kind::Double, Device::Cpu));
        let y = l2_pool(&x).unwrap();
        assert_eq!(y.size(), [1, 2, 3, 3]);
        assert!((y.double_value(&[0, 1, 1, 1]) - 3.0).abs() < 1e-9);
        // At the corner three of four quarters of the weights are left along either side.
        assert!((y.double_value(&[0, 0, 0, 0]) - 3.0 * 0.75).abs() < 1e-9);
    }
}
