//! Fully connected layers, by whichever code is faster.

use deepsim_aten::{bf16_linear, bf16_wanted};
use tch::Tensor;

use crate::error::Result;
use crate::kinks::note_rectified;
use crate::layers::geometry::Rectifier;

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
