//! Fully connected layers and pooling, by whichever code is faster.

use deepsim_aten::{LastWindow, bf16_linear, bf16_max_pool, bf16_wanted, leaky_relu};
use tch::{Kind, Tensor};

use crate::convolution::Rectifier;
use crate::error::Result;
use crate::tables::{Rounding, Window};

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

/// Maximum over windows of `x` `[N,C,H,W]`.
pub(crate) fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    let Window {
        kernel,
        stride,
        rounding,
    } = window;
    // Our kernel knows one kind of window; libtorch takes the others in bf16 too.
    if (kernel, stride) == (3, 2) && x.kind() == Kind::BFloat16 && bf16_wanted(x)? {
        let last = match rounding {
            Rounding::Ceil => LastWindow::Counts,
            Rounding::Floor => LastWindow::Dropped,
        };
        return Ok(bf16_max_pool(x, last)?);
    }
    let ceil = rounding == Rounding::Ceil;
    Ok(x.f_max_pool2d([kernel; 2], [stride; 2], [0, 0], [1, 1], ceil)?)
}
