//! Convolutions with the rectifier that follows them, by whichever algorithm is faster.

use deepsim_aten::{Output, bf16_convolution, bf16_wanted, winograd, winograd_pays};
use tch::Tensor;

use super::geometry::{Geometry, Rectifier};
use super::thin;
use crate::error::Result;
use crate::kinks::note_rectified;
use crate::sides;

/// Doubling transposed convolution of `x` `[N,C,H,W]` to images, of which the central `crop` pixels
/// are kept. Where our own kernels compute it, the result is fp32 whatever the precision of `x`,
/// because grey levels need more than bf16's eight bits.
pub(crate) fn to_images(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    kernel: i64,
    crop: i64,
) -> Result<Tensor> {
    let offset = (2 * x.size()[2] - crop) / 2; // 14 of 256 for 227
    let geometry = Geometry::Double { kernel };
    if bf16_wanted(x)? {
        let start = offset + geometry.surplus();
        let output = Output::Fp32Window {
            top: start,
            left: start,
            height: crop,
            width: crop,
        };
        let with = geometry.bf16(Rectifier::None, output);
        return Ok(bf16_convolution(x, weight, bias, with)?);
    }
    let whole = convolution(x, weight, bias, geometry, Rectifier::None)?;
    window(&whole, offset, crop)
}

/// A square window of maps `[N,C,H,W]`.
pub(crate) fn window(x: &Tensor, offset: i64, side: i64) -> Result<Tensor> {
    Ok(x.f_narrow(2, offset, side)?.f_narrow(3, offset, side)?)
}

/// Convolution of `x` `[N,C,H,W]`, with or without a bias, and the rectifier behind it.
pub(crate) fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: Geometry,
    rectifier: Rectifier,
) -> Result<Tensor> {
    if bf16_wanted(x)? {
        let with = geometry.bf16(rectifier, Output::Bf16);
        let y = bf16_convolution(x, weight, bias, with)?;
        let y = match geometry.surplus() {
            0 => y,
            surplus => window(&y, surplus, 2 * x.size()[2])?,
        };
        noted(&y, rectifier)?;
        return Ok(y);
    }
    if let Some(form) = geometry.winograd()
        && !sides::are_imposed()
        && winograd_pays(x, weight, form, 1.0)?
    {
        let y = winograd(x, weight, bias, form, rectifier.slope())?;
        noted(&y, rectifier)?;
        return Ok(y);
    }
    if !sides::are_imposed()
        && let Some(y) = thin::convolution(x, weight, bias, geometry, rectifier.slope())?
    {
        noted(&y, rectifier)?;
        return Ok(y);
    }
    let y = match geometry {
        Geometry::Convolution {
            stride,
            padding,
            groups,
        } => x.f_conv2d(
            weight,
            bias,
            [stride, stride],
            [padding, padding],
            [1, 1],
            groups,
        )?,
        Geometry::Keep => transposed(x, weight, bias, [1, 1, 0])?,
        Geometry::Double { kernel: 5 } => transposed(x, weight, bias, [2, 2, 1])?,
        Geometry::Double { .. } => transposed(x, weight, bias, [2, 1, 0])?,
    };
    // In place: no convolution needs its output for its backward pass.
    rectifier.apply(y)
}

fn noted(y: &Tensor, rectifier: Rectifier) -> Result<()> {
    match rectifier {
        Rectifier::None => Ok(()),
        Rectifier::Leaky(_) => note_rectified(y),
    }
}

fn transposed(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [stride, padding, surplus]: [i64; 3],
) -> Result<Tensor> {
    let (strides, paddings, surpluses) = ([stride, stride], [padding, padding], [surplus, surplus]);
    Ok(x.f_conv_transpose2d(weight, bias, strides, paddings, surpluses, 1, [1, 1])?)
}
