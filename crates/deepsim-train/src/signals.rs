//! Ctrl-C, SIGTERM, SIGHUP (a terminal that was closed) and SIGUSR1 (batch systems send it before time is up): finish
//! the iteration, save, exit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deepsim_data::terminal::tell;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

/// Signals within this time after the first count as the same request. `timeout` and some batch systems signal the
/// process and then its group, and a script may pass on a Ctrl-C that the terminal has sent to all.
const ONE_WISH: Duration = Duration::from_millis(100);

/// What a signal does. While there is nothing to save, the first one ends the process at once. Later the first one is
/// remembered, and a second Ctrl-C or SIGTERM ends the process at once (not a SIGTERM under torchrun or SLURM).
#[derive(Clone, Debug)]
pub struct Stop {
    signal: Arc<AtomicUsize>,
    unsaved: Arc<AtomicBool>,
    cleared: Arc<AtomicBool>,
}

impl Stop {
    /// Starts listening, on a thread of its own.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn listen() -> std::io::Result<Stop> {
        let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1];
        // `nohup` has asked that it be ignored.
        if !hangup_is_ignored() {
            wanted.push(SIGHUP);
        }
        let mut signals = Signals::new(wanted)?;
        let signal = Arc::new(AtomicUsize::new(0));
        let unsaved = Arc::new(AtomicBool::new(false));
        let cleared = Arc::new(AtomicBool::new(false));
        let stop = Stop {
            signal: Arc::clone(&signal),
            unsaved: Arc::clone(&unsaved),
            cleared: Arc::clone(&cleared),
        };
        // An agent and a scheduler both send them, and not at the same moment.
        let scheduled = ["TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut asked: Option<Instant> = None;
                for number in signals.forever() {
                    if !unsaved.load(Ordering::Relaxed) {
                        tell(if cleared.load(Ordering::Relaxed) {
                            "stopped before a step was done; the earlier results are removed, as --fresh asked"
                        } else {
                            "stopped before a step was done: nothing is lost; the same command begins again"
                        });
                        low_level::exit(128 + number);
                    }
                    // These may come more than once and never end it at once.
                    if !(matches!(number, SIGUSR1 | SIGHUP) || scheduled && number == SIGTERM) {
                        let first = *asked.get_or_insert_with(Instant::now);
                        if first.elapsed() > ONE_WISH {
                            low_level::exit(128 + number);
                        }
                    }
                    let value = usize::try_from(number).unwrap_or(0);
                    let _ = signal.compare_exchange(0, value, Ordering::SeqCst, Ordering::SeqCst);
                    deepsim_experiment::interrupt::ask();
                }
            })?;
        Ok(stop)
    }

    /// From now on a signal ends the process at once, whatever it is doing: reading, hashing, decoding.
    pub fn nothing_to_save(&self) {
        self.unsaved.store(false, Ordering::Relaxed);
    }

    /// What an earlier run left is gone.
    pub fn cleared(&self) {
        self.cleared.store(true, Ordering::Relaxed);
    }

    /// From now on a signal lets the step be finished and saved.
    pub fn something_to_save(&self) {
        self.unsaved.store(true, Ordering::Relaxed);
    }

    /// The exit code of the signal that asked to stop (130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 138 for
    /// SIGUSR1).
    pub fn asked(&self) -> Option<u8> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            n => u8::try_from(128 + n).ok(),
        }
    }
}

/// Read from /proc on Linux; elsewhere the answer is no.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}
