//! Features of unit length.

use tch::Tensor;

use crate::error::Result;

/// Added to the length of each position's features before they are divided by it.
pub(crate) const EPSILON: f64 = 1e-10;

/// Features `[N,C,…]`, each position's channels divided by their length (plus [`EPSILON`]).
pub(crate) fn unit_lengths(x: &Tensor) -> Result<Tensor> {
    let squares = x
        .f_square()?
        .f_sum_dim_intlist([1i64].as_slice(), true, x.kind())?;
    // The root's slope is infinite where all channels are 0; no value changes by this.
    let length = squares.f_clamp_min(EPSILON * EPSILON)?.f_sqrt()?;
    Ok(x.f_div(&length.f_add_scalar(EPSILON)?)?)
}
