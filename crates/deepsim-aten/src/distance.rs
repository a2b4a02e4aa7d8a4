//! Squared distance in one pass.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_squared_distance(
        a: *mut c_void,
        b: *mut c_void,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

/// Σ (a − b)² of two CPU tensors of one shape, fp32 or bf16, as an fp32 scalar: one pass over memory
/// forward and one backward, where libtorch's operations need three and four. Sums of 4096 values
/// are carried over to fp64, in one order whatever the number of threads.
///
/// # Errors
/// Different shapes, other types, another device.
pub fn squared_distance(a: &Tensor, b: &Tensor) -> Result<Tensor, AtenError> {
    let raw = |t: &Tensor| t.as_ptr().cast::<c_void>().cast_mut();
    let mut out = std::ptr::null_mut();
    // SAFETY: live `at::Tensor*` of the borrowed tensors; the shim catches exceptions.
    checked(|err, len| unsafe { deepsim_squared_distance(raw(a), raw(b), &mut out, err, len) })?;
    // SAFETY: the call succeeded: a new `at::Tensor*` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn value_and_gradients_are_libtorch_s() {
        tch::manual_seed(2);
        for (kinds, bound) in [
            ([Kind::Float, Kind::Float], 1e-6),
            ([Kind::BFloat16, Kind::Float], 3e-3),
            ([Kind::BFloat16, Kind::BFloat16], 3e-3),
        ] {
            // More than one piece, with a rest; the second in another order of memory.
            let shape = [2, 5, 31, 37];
            let random = |kind| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
            let a = random(kinds[0]).set_requires_grad(true);
            let b = random(kinds[1])
                .permute([0, 2, 3, 1])
                .contiguous()
                .permute([0, 3, 1, 2]);
            let b = b.set_requires_grad(true);
            let double = [&a, &b].map(|t| t.detach().to_kind(Kind::Double).set_requires_grad(true));
            let got = squared_distance(&a, &b).unwrap();
            let want = (&double[0] - &double[1]).square().sum(Kind::Double);
            let relative = (got.double_value(&[]) / want.double_value(&[]) - 1.0).abs();
            assert!(relative < 1e-6, "{relative}");
            let back = Tensor::run_backward(&[got * 0.3], &[&a, &b], false, false);
            let wanted = Tensor::run_backward(&[want * 0.3], &double, false, false);
            for (got, want) in back.iter().zip(&wanted) {
                let off = (got.to_kind(Kind::Double) - want).norm() / want.norm();
                assert!(off.double_value(&[]) < bound);
            }
            assert_eq!(back[1].size(), b.size());
        }
    }

    #[test]
    fn shapes_and_types_are_checked() {
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let a = zeros(&[2, 3], Kind::Float);
        assert!(squared_distance(&a, &zeros(&[3], Kind::Float)).is_err());
        assert!(squared_distance(&a, &zeros(&[2, 3], Kind::Double)).is_err());
    }
}
