//! A flag for the whole process: a signal has asked it to stop. Long work checks it between two parts. Only the trainer
//! sets it; other programs are ended by the operating system.

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
