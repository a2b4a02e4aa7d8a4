//! Whether a signal has asked this process to stop. Signals are the process's, and so is this: what takes long asks it
//! between two pieces of its work. A program that saves something first tells it; in all others the operating system
//! ends the process, and nothing here ever says so.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{ExperimentError, Result};

static ASKED: AtomicBool = AtomicBool::new(false);

/// A signal has come.
pub fn ask() {
    ASKED.store(true, Ordering::Relaxed);
}

/// Ends a long piece of work, if a signal has come.
///
/// # Errors
/// [`ExperimentError::Interrupted`].
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::Relaxed) {
        Err(ExperimentError::Interrupted)
    } else {
        Ok(())
    }
}
