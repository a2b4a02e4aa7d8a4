//! What TorchScript modules print.

use std::ffi::{c_char, c_int};
use std::panic::catch_unwind;
use std::sync::OnceLock;

unsafe extern "C" {
    fn deepsim_hear_scripts(hear: extern "C" fn(c_int, *const c_char, usize));
}

/// What libtorch would have written to the process's streams by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptOutput<'a> {
    /// A module's `print`; libtorch's own place for it is stdout.
    Printed(&'a str),
    /// A module's `warnings.warn`, or a warning of libtorch; its own place is stderr.
    Warned(&'a str),
}

static HEAR: OnceLock<fn(ScriptOutput<'_>)> = OnceLock::new();

/// From now on `hear` receives what modules print on any thread, and the warnings of this thread. A later call cannot
/// replace the first function.
pub fn hear_scripts(hear: fn(ScriptOutput<'_>)) {
    HEAR.get_or_init(|| hear);
    // SAFETY: sets two function pointers that live as long as the process.
    unsafe { deepsim_hear_scripts(pass) };
}

extern "C" fn pass(warning: c_int, text: *const c_char, len: usize) {
    let Some(hear) = HEAR.get() else { return };
    // SAFETY: the shim's string lives until this function returns.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\n');
    // Nothing may unwind into C++; a line that was not shown is no reason to end.
    let _ = catch_unwind(|| {
        hear(if warning == 0 {
            ScriptOutput::Printed(text)
        } else {
            ScriptOutput::Warned(text)
        });
    });
}
