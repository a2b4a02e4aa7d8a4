//! Fully connected layers and pooling, by whichever code is faster.

use deepsim_aten::{LastWindow, bf16_linear, bf16_max_pool, bf16_wanted};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::kinks::{self, note_pooled, note_rectified};
use crate::layers::convolution::Rectifier;
use crate::layers::op::{Rounding, Window};

/// `x` `[N,in]` through weights `[out,in]`, and the rectifier behind it.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    rectifier: Rectifier,
) -> Result<Tensor> {
    if bf16_wanted(x)? {
        let y = bf16_linear(x, weight, bias, rectifier.slope())?;
        if rectifier != Rectifier::None {
            note_rectified(&y)?;
        }
        return Ok(y);
    }
    rectifier.apply(x.f_linear(weight, bias)?)
}

/// Maximum over windows of `x` `[N,C,H,W]`.
pub(crate) fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    let Window {
        kernel,
        stride,
        rounding,
    } = window;
    let ceil = rounding == Rounding::Ceil;
    // Our kernel knows one kind of window; libtorch takes the others in bf16 too.
    if (kernel, stride) == (3, 2) && x.kind() == Kind::BFloat16 && bf16_wanted(x)? {
        let last = match rounding {
            Rounding::Ceil => LastWindow::Counts,
            Rounding::Floor => LastWindow::Dropped,
        };
        let y = bf16_max_pool(x, last)?;
        note_pooled(x, kernel, stride, ceil)?;
        return Ok(y);
    }
    kinks::max_pool(x, kernel, stride, ceil)
}
