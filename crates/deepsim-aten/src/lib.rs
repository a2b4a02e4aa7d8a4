//! A small C ABI over libtorch for what tch lacks: the fused Adam kernel, autocast that works on
//! the CPU, kernels of our own (convolutions, structural similarity and others), groups of
//! processes, and loading the CUDA half of libtorch.
//!
//! This is the only crate of the workspace with `unsafe` code. Every C++ exception is caught in
//! the shim and comes back as [`AtenError`].
#![allow(unsafe_code)]

mod activation;
mod adam;
#[cfg(deepsim_asan)]
mod asan;
mod autocast;
mod bf16;
mod bf16_layers;
mod buckets;
mod capability;
mod cuda;
mod distance;
mod exchange;
mod graph;
mod group;
mod rows;
mod script_output;
mod ssim;
mod turns;
mod winograd;

pub use activation::leaky_relu;
pub use adam::{AdamParameters, fused_adam};
pub use autocast::{AutocastGuard, Precision};
pub use bf16::{
    Bf16Code, Bf16Convolution, Direction, Output, bf16_code, bf16_convolution, bf16_is_fast,
    bf16_wanted, choose_bf16_code,
};
pub use bf16_layers::{LastWindow, bf16_linear, bf16_lrn, bf16_max_pool};
pub use buckets::{BUCKET_BYTES, Buckets, InFlight, Layout};
pub use capability::{CAPABILITY_VARIABLE, Capability, capability, fit_threads};
pub use cuda::{
    CudaLoad, CudnnChoice, Tf32, cuda_peak, forget_cuda_peak, load_cuda, pinned, set_cudnn_choice,
    set_tf32,
};
pub use distance::squared_distance;
pub use exchange::{has_others, leads, over_group, sum_in_order, summed, take_failure};
pub use graph::{RECORDS_CUDA, Recorder, Recording};
pub use group::{GroupError, ProcessGroup, Rendezvous};
pub use rows::{BLOCK, Bf16Columns, Bf16Rows, RowMeasure};
pub use script_output::{ScriptOutput, hear_scripts};
pub use ssim::ssim;
pub use turns::in_turns;
pub use winograd::{Form, allow_winograd, winograd, winograd_pays, without_winograd};

use std::ffi::{CStr, c_char, c_int};

/// An error that libtorch raised inside the shim.
#[derive(Debug, thiserror::Error)]
pub enum AtenError {
    /// libtorch threw; the text is its own.
    #[error("libtorch: {0}")]
    Torch(String),
    /// The parallel lists of an optimiser step differ in length.
    #[error("fused Adam got {params} parameters but {what} has {len} tensors")]
    Lengths {
        /// Number of parameters.
        params: usize,
        /// The list that differs.
        what: &'static str,
        /// Its length.
        len: usize,
    },
    /// Processes that cannot work together.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The instruction set that the environment asks for cannot be used.
    #[error("{0}")]
    Capability(String),
    /// This process has no bf16 code of ours ([`bf16_code`]).
    #[error("no bf16 code for {0} in this process")]
    NoCode(&'static str),
    /// This build has no CUDA graphs ([`RECORDS_CUDA`]).
    #[error("this build records no work of GPUs: build with --features cuda")]
    NoGraphs,
}

unsafe extern "C" {
    fn deepsim_torch_version() -> *const c_char;
    fn deepsim_set_flush_denormal(on: c_int) -> c_int;
    fn deepsim_keep_memory() -> c_int;
}

/// Runs a shim call that writes its error text into a buffer.
fn checked(call: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<(), AtenError> {
    numbered(call).map_err(|(_, text)| AtenError::Torch(text))
}

/// The same for calls whose result says why they failed.
fn numbered(call: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<(), (c_int, String)> {
    let mut buffer = [0 as c_char; 2048];
    let why = call(buffer.as_mut_ptr(), buffer.len());
    if why == 0 {
        return Ok(());
    }
    // SAFETY: the shim always leaves a terminating zero inside the buffer.
    let text = unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy();
    let line = text.lines().next().unwrap_or("unknown error");
    Err((why, line.to_owned()))
}

/// The version of libtorch that this build was compiled against, such as `2.13.0`.
pub fn torch_version() -> String {
    // SAFETY: returns a static, zero-terminated string literal.
    unsafe { CStr::from_ptr(deepsim_torch_version()) }
        .to_string_lossy()
        .into_owned()
}

/// Makes this process treat denormal floats as zero (they slow CPU arithmetic by a factor of
/// a hundred). Returns false where the processor cannot.
pub fn flush_denormals() -> bool {
    // SAFETY: only sets the floating-point mode of libtorch's threads.
    unsafe { deepsim_set_flush_denormal(1) != 0 }
}

/// Makes this process keep freed memory for its next allocations. Every training step frees and
/// allocates the same gigabytes, and each fresh page would cost a page fault and its clearing. Call
/// it once, first thing in `main`. Returns false where the C library has no such setting.
pub fn keep_memory() -> bool {
    // SAFETY: sets parameters of the C library's allocator only.
    unsafe { deepsim_keep_memory() != 0 }
}
