//! Structural similarity by a kernel of our own.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_ssim(
        x: *mut c_void,
        y: *mut c_void,
        c1: f64,
        c2: f64,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

/// The structural similarity of two fp32 CPU tensors `[N,C,H,W]` of one shape, at least 11×11, and
/// its contrast-structure part, as `[2,N,C]`. Both are means over all whole windows (11×11, Gaussian
/// of deviation 1.5). `c1` and `c2` are the formula's constants, (K·range)². Differentiable once
/// with regard to both. The forward pass applies five filters, and the backward pass three, where
/// autograd would apply ten.
///
/// # Errors
/// Other shapes, other types, another device.
pub fn ssim(x: &Tensor, y: &Tensor, c1: f64, c2: f64) -> Result<Tensor, AtenError> {
    let raw = |t: &Tensor| t.as_ptr().cast::<c_void>().cast_mut();
    let mut out = std::ptr::null_mut();
    // SAFETY: live `at::Tensor*` of the borrowed tensors; the shim catches exceptions.
    checked(|err, len| unsafe { deepsim_ssim(raw(x), raw(y), c1, c2, &mut out, err, len) })?;
    // SAFETY: the call succeeded: a new `at::Tensor*` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}
