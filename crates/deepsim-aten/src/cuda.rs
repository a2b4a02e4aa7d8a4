//! Loading the CUDA half of libtorch.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

unsafe extern "C" {
    fn deepsim_set_tf32(on: c_int, err: *mut c_char, len: usize) -> c_int;
}

/// Whether GPUs may multiply fp32 numbers with ten bits of mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tf32 {
    /// They may.
    Allowed,
    /// They may not. libtorch's own default forbids it to cuBLAS and allows it to cuDNN.
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
