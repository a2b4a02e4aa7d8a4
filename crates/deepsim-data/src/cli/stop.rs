//! Signals, and what they end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deepsim_data::DataError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Time that the work has to stop by itself after a signal. It may need more: one large image takes longer to decode,
/// and a network disk may not answer at all.
const GRACE: Duration = Duration::from_secs(3);

/// What a signal ends.
#[derive(Clone, Default)]
pub struct Stop {
    signal: Arc<AtomicI32>,
    /// The unfinished dataset, which has to go.
    stage: Arc<Mutex<Option<PathBuf>>>,
}

impl Stop {
    /// Waits for signals from here on. A signal asks the work to stop. If the work does not stop in time, the
    /// program exits anyway.
    pub fn watch() -> std::io::Result<Self> {
        let stop = Self::default();
        let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1];
        // `nohup` has asked that it be ignored
        if !hangup_is_ignored() {
            wanted.push(SIGHUP);
        }
        let mut signals = Signals::new(wanted)?;
        let shared = stop.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    shared.signal.store(signal, Ordering::Relaxed);
                    std::thread::sleep(GRACE);
                    shared.end(signal);
                }
            })?;
        Ok(stop)
    }

    /// The signal that came, or 0.
    pub fn signal(&self) -> i32 {
        self.signal.load(Ordering::Relaxed)
    }

    /// The exit code after it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(u8::try_from(128 + self.signal()).unwrap_or(130))
    }

    /// Says which directory has to go if the work does not stop in time.
    pub fn set_stage(&self, stage: Option<PathBuf>) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Exits although the work has not stopped.
    fn end(&self, signal: i32) {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = stage.as_ref() {
            // threads may still be writing there: the second pass removes what they add after the first
            for _ in 0..2 {
                let _ = std::fs::remove_dir_all(stage);
            }
        }
        tracing::info!("{}", DataError::Interrupted);
        std::process::exit(128 + signal);
    }
}

fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
