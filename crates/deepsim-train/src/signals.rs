//! Ctrl-C, SIGTERM and SIGUSR1 (batch systems send it before time is up): finish the iteration, save,
//! exit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

/// Remembers the first signal; a second one ends the process at once.
#[derive(Clone, Debug)]
pub struct Stop {
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// Starts listening.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn listen() -> std::io::Result<Stop> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM] {
            // Order matters: the shutdown is armed only by an earlier signal.
            let armed = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register_conditional_shutdown(number, 128 + number, armed.clone())?;
            signal_hook::flag::register(number, armed)?;
            let value = usize::try_from(number).unwrap_or(0);
            signal_hook::flag::register_usize(number, signal.clone(), value)?;
        }
        // A warning may come more than once: it never ends the process at once.
        let value = usize::try_from(SIGUSR1).unwrap_or(0);
        signal_hook::flag::register_usize(SIGUSR1, signal.clone(), value)?;
        Ok(Stop { signal })
    }

    /// The exit code of the signal that asked to stop (130 for Ctrl-C, 143 for SIGTERM, 138 for
    /// SIGUSR1).
    pub fn asked(&self) -> Option<u8> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            n => u8::try_from(128 + n).ok(),
        }
    }
}
