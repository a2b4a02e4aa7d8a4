//! Everything in a network that has a kink: rectifiers, pools, magnitudes.

use deepsim_aten::leaky_relu;
use tch::Tensor;

use crate::error::Result;
use crate::layers::op::{Rounding, Window};
use crate::sides;

/// max(y, 0) + slope · min(y, 0). `y` is overwritten: nothing may need it any more.
pub(crate) fn rectified(mut y: Tensor, slope: f64) -> Result<Tensor> {
    if let Some(above) = sides::next()? {
        return chosen(&y, &above, slope);
    }
    let y = if slope == 0.0 {
        y.f_relu_()?
    } else {
        leaky_relu(y, slope)?
    };
    note_rectified(&y)?;
    Ok(y)
}

/// max(x, 0), with `x` left as it is.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    if let Some(above) = sides::next()? {
        return chosen(x, &above, 0.0);
    }
    let y = x.f_relu()?;
    note_rectified(&y)?;
    Ok(y)
}

/// Records the sides of values that a kernel has already rectified: a rectifier keeps a value's
/// sign.
pub(crate) fn note_rectified(y: &Tensor) -> Result<()> {
    sides::note(|| y.f_detach()?.f_gt(0.0))
}

fn chosen(x: &Tensor, above: &Tensor, slope: f64) -> Result<Tensor> {
    let factor = above.f_to_kind(x.kind())?;
    Ok(x.f_mul(&factor.f_mul_scalar(1.0 - slope)?.f_add_scalar(slope)?)?)
}

/// min(max(y, 0), 6).
pub(crate) fn relu6(y: &Tensor) -> Result<Tensor> {
    if let Some(above) = sides::next()? {
        let beyond = sides::next()?.map_or_else(|| above.f_zeros_like(), Ok)?;
        let (above, beyond) = (above.f_to_kind(y.kind())?, beyond.f_to_kind(y.kind())?);
        let inside = above.f_sub(&beyond)?;
        return Ok(y.f_mul(&inside)?.f_add(&beyond.f_mul_scalar(6.0)?)?);
    }
    let x = y.f_relu6()?;
    sides::note(|| y.f_detach()?.f_gt(0.0))?;
    sides::note(|| y.f_detach()?.f_ge(6.0))?;
    Ok(x)
}

/// Maximum over windows of `x` `[N,C,H,W]`.
pub(crate) fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    if let Some(places) = sides::next()? {
        let found = x
            .f_flatten(2, -1)?
            .f_gather(2, &places.f_flatten(2, -1)?, false)?;
        return Ok(found.f_reshape(places.size())?);
    }
    let (kernel, stride, pad) = ([window.kernel; 2], [window.stride; 2], [window.pad; 2]);
    let ceil = window.rounding == Rounding::Ceil;
    let y = x.f_max_pool2d(kernel, stride, pad, [1, 1], ceil)?;
    note_pooled(x, window)?;
    Ok(y)
}

/// Notes the places of the maxima, whatever kernel has found them.
pub(crate) fn note_pooled(x: &Tensor, window: Window) -> Result<()> {
    let (kernel, stride, pad) = ([window.kernel; 2], [window.stride; 2], [window.pad; 2]);
    let ceil = window.rounding == Rounding::Ceil;
    sides::note(|| {
        let x = x.f_detach()?.f_contiguous()?;
        let found = x.f_max_pool2d_with_indices(kernel, stride, pad, [1, 1], ceil)?;
        Ok(found.1)
    })
}

/// |x|.
pub(crate) fn magnitude(x: &Tensor) -> Result<Tensor> {
    if let Some(sign) = sides::next()? {
        return Ok(x.f_mul(&sign.f_to_kind(x.kind())?)?);
    }
    let y = x.f_abs()?;
    sides::note(|| x.f_detach()?.f_sign())?;
    Ok(y)
}
