//! Fully connected layers and pooling, by whichever code is faster.

use deepsim_aten::{LastWindow, bf16_linear, bf16_max_pool, bf16_wanted, leaky_relu};
use tch::{Kind, Tensor};

use crate::convolution::Rectifier;
use crate::error::Result;
use crate::tables::Rounding;

/// `x` `[N,in]` through weights `[out,in]`, and the rectifier behind it.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    rectifier: Rectifier,
) -> Result<Tensor> {
    if bf16_wanted(x)? {
        return Ok(bf16_linear(x, weight, Some(bias), rectifier.slope())?);
    }
    let y = x.f_linear(weight, Some(bias))?;
    Ok(match rectifier {
        Rectifier::None => y,
        Rectifier::Leaky(slope) => leaky_relu(y, slope)?,
    })
}

/// Maximum over windows of 3×3 at a stride of 2 of `x` `[N,C,H,W]`.
pub(crate) fn max_pool(x: &Tensor, rounding: Rounding) -> Result<Tensor> {
    if x.kind() == Kind::BFloat16 && bf16_wanted(x)? {
        let last = match rounding {
            Rounding::Ceil => LastWindow::Counts,
            Rounding::Floor => LastWindow::Dropped,
        };
        return Ok(bf16_max_pool(x, last)?);
    }
    let ceil = rounding == Rounding::Ceil;
    Ok(x.f_max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], ceil)?)
}
