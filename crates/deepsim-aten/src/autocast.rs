//! Mixed precision for a region of code.

use std::ffi::{c_char, c_int};
use std::marker::PhantomData;

use tch::Device;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_autocast_get(
        cuda: c_int,
        enabled: *mut c_int,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_autocast_set(cuda: c_int, enabled: c_int, err: *mut c_char, len: usize) -> c_int;
}

/// Arithmetic of convolutions and matrix products. Weights, losses and optimiser state are
/// fp32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision throughout.
    Fp32,
    /// bfloat16 inputs to convolutions and matrix products (AMX or tensor cores where there are any).
    Bf16,
}

/// Autocast for the current thread until dropped; the earlier state comes back then, also when
/// a panic unwinds.
#[derive(Debug)]
pub struct AutocastGuard {
    cuda: c_int,
    before: c_int,
    // Autocast is state of one thread: the guard must be dropped where it was made.
    not_send: PhantomData<*const ()>,
}

impl AutocastGuard {
    /// Switches autocast on (`Bf16`) or off (`Fp32`) for `device`'s kind in this thread.
    ///
    /// # Errors
    /// What libtorch refuses, such as autocast for a device it was built without.
    pub fn new(device: Device, precision: Precision) -> Result<AutocastGuard, AtenError> {
        let cuda = c_int::from(device.is_cuda());
        let mut before = 0;
        // SAFETY: plain integers; the shim catches exceptions.
        checked(|err, len| unsafe { deepsim_autocast_get(cuda, &mut before, err, len) })?;
        let on = c_int::from(precision == Precision::Bf16);
        // SAFETY: as above.
        checked(|err, len| unsafe { deepsim_autocast_set(cuda, on, err, len) })?;
        Ok(AutocastGuard {
            cuda,
            before,
            not_send: PhantomData,
        })
    }
}

impl Drop for AutocastGuard {
    fn drop(&mut self) {
        // SAFETY: as in `new`. Setting back a state that was valid cannot fail.
        let _ =
            checked(|err, len| unsafe { deepsim_autocast_set(self.cuda, self.before, err, len) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn matmul_is_bf16_inside_and_fp32_outside() {
        let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        assert_eq!(a.matmul(&a).kind(), Kind::Float);
        {
            let _guard = AutocastGuard::new(Device::Cpu, Precision::Bf16).unwrap();
            assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
            {
                let _inner = AutocastGuard::new(Device::Cpu, Precision::Fp32).unwrap();
                assert_eq!(a.matmul(&a).kind(), Kind::Float);
            }
            assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
        }
        assert_eq!(a.matmul(&a).kind(), Kind::Float);
    }

    #[test]
    fn weight_gradients_stay_fp32() {
        let w = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = Tensor::ones([2, 4], (Kind::Float, Device::Cpu));
        let _guard = AutocastGuard::new(Device::Cpu, Precision::Bf16).unwrap();
        let loss = x.matmul(&w).to_kind(Kind::Float).sum(Kind::Float);
        loss.backward();
        assert_eq!(w.grad().kind(), Kind::Float);
    }
}
