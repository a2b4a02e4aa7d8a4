//! Loading the CUDA half of libtorch.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

unsafe extern "C" {
    fn deepsim_set_tf32(on: c_int, err: *mut c_char, len: usize) -> c_int;
    fn deepsim_set_repeatable(on: c_int, err: *mut c_char, len: usize) -> c_int;
    fn deepsim_pin_memory(
        x: *mut c_void,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_cuda_peak(
        index: i64,
        reset: c_int,
        bytes: *mut u64,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

/// Whether GPUs may multiply fp32 numbers with ten bits of mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tf32 {
    /// They may.
    Allowed,
    /// They may not. libtorch's default forbids it for cuBLAS only and allows it for cuDNN.
    Forbidden,
}

/// Sets TF32 for this process, in matrix products and convolutions alike. Nothing changes on a CPU.
///
/// # Errors
/// What libtorch refuses.
pub fn set_tf32(tf32: Tf32) -> Result<(), AtenError> {
    // SAFETY: sets two flags of libtorch's global context; the shim catches exceptions.
    checked(|err, len| unsafe { deepsim_set_tf32(c_int::from(tf32 == Tf32::Allowed), err, len) })
}

/// How convolutions on a GPU choose their algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudnnChoice {
    /// The fastest for each shape, found by a trial when the shape is first met. The order of their sums,
    /// and so the last bits of a result, may differ from call to call and from process to process.
    Fastest,
    /// Always the same ones, whose sums have one order.
    Repeatable,
}

/// Sets cuDNN's choice for this process. Nothing changes on a CPU.
///
/// # Errors
/// What libtorch refuses.
pub fn set_cudnn_choice(choice: CudnnChoice) -> Result<(), AtenError> {
    let repeatable = c_int::from(choice == CudnnChoice::Repeatable);
    // SAFETY: sets two flags of libtorch's global context; the shim catches exceptions.
    checked(|err, len| unsafe { deepsim_set_repeatable(repeatable, err, len) })
}

/// A copy of a CPU tensor from which a GPU may be filled while both go on with other things. Needs a GPU.
///
/// # Errors
/// No GPU, or no memory.
pub fn pinned(x: &Tensor) -> Result<Tensor, AtenError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: a live `at::Tensor*`; the shim catches exceptions and writes `out` only when it succeeds.
    checked(|err, len| unsafe {
        deepsim_pin_memory(x.as_ptr().cast::<c_void>().cast_mut(), &mut out, err, len)
    })?;
    // SAFETY: a new `at::Tensor` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Most bytes that this process's tensors held at once on GPU `index` since its start or the last
/// [`forget_cuda_peak`].
///
/// # Errors
/// A libtorch without CUDA, or no such GPU.
pub fn cuda_peak(index: usize) -> Result<u64, AtenError> {
    peak(index, false)
}

/// Resets the peak that [`cuda_peak`] reports.
///
/// # Errors
/// As for [`cuda_peak`].
pub fn forget_cuda_peak(index: usize) -> Result<(), AtenError> {
    peak(index, true).map(drop)
}

fn peak(index: usize, reset: bool) -> Result<u64, AtenError> {
    let mut bytes = 0;
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    // SAFETY: plain integers and a place for one; the shim catches exceptions.
    checked(|err, len| unsafe {
        deepsim_cuda_peak(index, c_int::from(reset), &mut bytes, err, len)
    })?;
    Ok(bytes)
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;

/// What [`load_cuda`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaLoad {
    /// The library is loaded; `tch::Cuda::is_available()` now tells about devices.
    Loaded,
    /// This libtorch has no CUDA half, or its parts do not fit: the loader's own words.
    Absent(String),
}

/// Loads `libtorch_cuda.so` when it is installed.
///
/// Linkers run with `--as-needed` drop the library because no symbol of it is named; without
/// this call CUDA would silently read as absent.
pub fn load_cuda() -> CudaLoad {
    let mut last = String::from("libtorch_cuda.so was not found");
    for candidate in ["libtorch_cuda.so", &beside_libtorch()] {
        if candidate.is_empty() {
            continue;
        }
        let Ok(name) = CString::new(candidate) else {
            continue;
        };
        // SAFETY: a zero-terminated name; loading runs libtorch's own static initialisers only.
        let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
        if !handle.is_null() {
            return CudaLoad::Loaded;
        }
        // SAFETY: after a failed dlopen, dlerror returns a zero-terminated text or null.
        let text = unsafe { dlerror() };
        if !text.is_null() {
            // SAFETY: not null, checked above.
            last = unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned();
        }
    }
    CudaLoad::Absent(last)
}

/// The full path beside the libtorch_cpu.so that this process has loaded, or nothing.
fn beside_libtorch() -> String {
    std::fs::read_to_string("/proc/self/maps")
        .ok()
        .and_then(|maps| {
            let line = maps.lines().find(|l| l.ends_with("/libtorch_cpu.so"))?;
            let path = line.get(line.find('/')?..)?;
            Some(
                Path::new(path)
                    .parent()?
                    .join("libtorch_cuda.so")
                    .to_str()?
                    .to_owned(),
            )
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_the_peak_is_an_error_and_the_choices_are_harmless() {
        set_cudnn_choice(CudnnChoice::Repeatable).unwrap();
        set_cudnn_choice(CudnnChoice::Fastest).unwrap();
        set_tf32(Tf32::Forbidden).unwrap();
        // A number that no machine has, whether or not there are GPUs here.
        assert!(cuda_peak(1 << 20).is_err());
    }
}
