//! Signals that the operating system would treat otherwise than a person expects.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// A file that reaches the limit of its size (`ulimit -f`) fails the write with an error, instead of ending the process
/// without a word.
///
/// # Errors
/// A system that takes no handlers.
pub fn fail_at_the_file_limit() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Ctrl-C, SIGTERM and a closed terminal end this process even if it is the first one of a container. For such a
/// process the kernel ignores signals without a handler.
///
/// # Errors
/// As for [`fail_at_the_file_limit`].
pub fn end_as_first_process() -> io::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}
