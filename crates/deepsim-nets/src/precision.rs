//! fp32 at least, whatever the precision of what came before; fp64 stays fp64, so that a whole iteration
//! can be computed in it.

use tch::{Kind, Tensor};

use crate::error::Result;

/// fp64 for an fp64 tensor, else fp32.
pub fn at_least_fp32(x: &Tensor) -> Kind {
    match x.kind() {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    }
}

/// `x` in [`at_least_fp32`].
///
/// # Errors
/// What libtorch refuses.
pub fn widened(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_to_kind(at_least_fp32(x))?)
}
