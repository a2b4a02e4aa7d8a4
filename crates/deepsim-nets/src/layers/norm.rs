//! Layer normalisation (Ba et al. 2016).

use tch::Tensor;

use crate::error::Result;
use crate::precision::widened;

/// `x` minus its mean over its last dimension, divided by √(variance + `epsilon`), times a weight plus a bias where
/// there are some; in fp32 at least.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn layer_norm(
    x: &Tensor,
    affine: Option<(&Tensor, &Tensor)>,
    epsilon: f64,
) -> Result<Tensor> {
    let channels = x.size().last().copied().unwrap_or_default();
    let (weight, bias) = affine.unzip();
    Ok(widened(x)?.f_layer_norm([channels], weight, bias, epsilon, true)?)
}

/// The same over channels of maps `[N,C,H,W]` or vectors `[N,C]`, at each position.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn channel_norm(
    x: &Tensor,
    affine: Option<(&Tensor, &Tensor)>,
    epsilon: f64,
) -> Result<Tensor> {
    if x.dim() != 4 {
        return layer_norm(x, affine, epsilon);
    }
    let last = x.f_permute([0, 2, 3, 1])?;
    Ok(layer_norm(&last, affine, epsilon)?.f_permute([0, 3, 1, 2])?)
}
