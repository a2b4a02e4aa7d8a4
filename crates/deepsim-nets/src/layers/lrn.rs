//! Local response normalisation across channels, which tch lacks.

use deepsim_aten::{bf16_lrn, bf16_wanted};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::precision::widened;
use crate::{AutocastGuard, Precision};

/// Channels that take part in one sum.
pub const SIZE: i64 = 5;
/// Caffe's α; Caffe divides it by the number of channels in the sum.
pub const ALPHA: f64 = 1e-4;

/// The banded matrix that sums squares over neighbouring channels, as a 1×1 convolution
/// `[C,C,1,1]`; already multiplied by α/n.
///
/// # Errors
/// What libtorch refuses.
pub fn band(channels: i64, device: Device) -> Result<Tensor> {
    banded(channels, Kind::Float, device)
}

fn banded(channels: i64, kind: Kind, device: Device) -> Result<Tensor> {
    let ones = Tensor::f_ones([channels, channels], (kind, device))?;
    let band = ones.f_triu(-(SIZE - 1) / 2)?.f_tril(SIZE / 2)?;
    Ok(band
        .f_mul_scalar(ALPHA / SIZE as f64)?
        .f_view([channels, channels, 1, 1])?)
}

/// x · (1 + α/n · Σ x²)^-0.75 over windows of five channels, as Caffe's `LRN` layer with its
/// default `ACROSS_CHANNELS`. `x` is `[N,C,H,W]`; the denominator is computed in fp32 whatever
/// the precision of `x` (in fp64 for an fp64 `x`).
///
/// The sum is a 1×1 convolution with a banded matrix, and the power is
/// `rsqrt(s)·√rsqrt(s)`: both several times faster than pooling over a fifth dimension and
/// `pow`, forward and backward.
///
/// # Errors
/// What libtorch refuses.
pub fn lrn(x: &Tensor, band: &Tensor) -> Result<Tensor> {
    if x.kind() == Kind::BFloat16 && bf16_wanted(x)? {
        return Ok(bf16_lrn(x, ALPHA)?);
    }
    let _fp32 = AutocastGuard::new(x.device(), Precision::Fp32)?;
    let x = widened(x)?;
    // In fp64 the band's own rounding would show.
    let exact;
    let band = match x.kind() {
        Kind::Double => {
            exact = banded(x.size()[1], Kind::Double, x.device())?;
            &exact
        }
        _ => band,
    };
    let sum = x
        .f_square()?
        .f_conv2d::<Tensor>(band, None, [1, 1], [0, 0], [1, 1], 1)?;
    let root = sum.f_add_scalar(1.0)?.f_rsqrt()?;
    Ok(x.f_mul(&root.f_sqrt()?)?.f_mul(&root)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch's own composition, which divides α by n as Caffe does.
    fn reference(x: &Tensor) -> Tensor {
        let pooled = x
            .square()
            .unsqueeze(1)
            .constant_pad_nd([0, 0, 0, 0, SIZE / 2, (SIZE - 1) / 2])
            .avg_pool3d([SIZE, 1, 1], [1, 1, 1], [0, 0, 0], false, true, None)
            .squeeze_dim(1);
        x / (pooled * ALPHA + 1.0).pow_tensor_scalar(0.75)
    }

    #[test]
    fn equals_the_pooling_composition() {
        tch::manual_seed(1);
        let x = crate::layers::init::normal("x", &[2, 16, 5, 7], 300.0, 1).unwrap();
        let got = lrn(&x, &band(16, Device::Cpu).unwrap()).unwrap();
        let want = reference(&x);
        let relative = ((&got - &want).norm() / want.norm()).double_value(&[]);
        assert!(relative < 1e-6, "{relative}");
    }
}
