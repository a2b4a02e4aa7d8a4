//! Leaky ReLU with any slope.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_leaky_relu_(x: *mut c_void, slope: f64, err: *mut c_char, len: usize) -> c_int;
}

/// max(x, 0) + slope · min(x, 0). Takes `x` by value because it is overwritten: a convolution's
/// backward pass does not need its output, so nothing is lost and no second map is stored.
///
/// # Errors
/// A leaf that requires a gradient, or whatever else libtorch refuses to overwrite.
pub fn leaky_relu(x: Tensor, slope: f64) -> Result<Tensor, AtenError> {
    let pointer = x.as_ptr().cast::<c_void>().cast_mut();
    // SAFETY: a live `at::Tensor*` owned by `x`; the shim catches exceptions.
    checked(|err, len| unsafe { deepsim_leaky_relu_(pointer, slope, err, len) })?;
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn value_and_gradient_follow_the_slope() {
        let x = Tensor::from_slice(&[-2f32, 3.0]).set_requires_grad(true);
        let y = leaky_relu(&x * 1.0, 0.3).unwrap();
        assert_eq!(Vec::<f32>::try_from(&y).unwrap(), [-0.6, 3.0]);
        y.sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [0.3, 1.0]);
    }

    #[test]
    fn a_leaf_that_learns_is_refused() {
        let x = Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        assert!(leaky_relu(x, 0.3).is_err());
    }
}
