//! `deepsim-data prepare`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use deepsim_data::prepare::Existing;
use deepsim_data::terminal::{one_line, path as shown};
use deepsim_data::{DataError, Event, Flow, Orientation, Outcome, Prepare, prepare};
use rayon::ThreadPoolBuilder;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::args::PrepareArgs;
use super::output::{Failed, say};
use super::progress::Progress;

/// Duplicates named one by one; more are only counted.
const NAMED: usize = 5;
/// Time that the work has to stop by itself after a signal. It may need more: one large image takes longer to decode,
/// and a network disk may not answer at all.
const GRACE: Duration = Duration::from_secs(3);

/// Most threads. More than a machine can use would only cost memory, and time to stop.
const MOST_THREADS: usize = 1024;

pub fn run(args: PrepareArgs) -> anyhow::Result<ExitCode> {
    if args
        .threads
        .is_some_and(|n| !(1..=MOST_THREADS).contains(&n))
    {
        anyhow::bail!("--threads must be 1 to {MOST_THREADS}");
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(args.threads.unwrap_or(0))
        .build()
        .map_err(|error| DataError::Threads {
            reason: error.to_string(),
        })?;
    let request = Prepare {
        source: args.source,
        out: args.out,
        size: args.size,
        resize: args.resize.map(Into::into),
        orientation: args.orientation.map(Into::into),
        window: args.window,
        store: args.store.map(Into::into),
        holdout: args.holdout,
        seed: args.seed,
        quarantine: args.quarantine,
        existing: if args.force {
            Existing::Replace
        } else {
            Existing::Keep
        },
    };
    let stop = Stop::watch().context("cannot watch for Ctrl-C")?;
    let (result, log) = pool.install(|| {
        let mut log = EventLog::default();
        let result = prepare(&request, &mut |event| {
            log.show(event, &stop);
            match stop.signal() {
                0 => Flow::Continue,
                _ => Flow::Stop,
            }
        });
        drop(log.progress.take());
        (result, log)
    });
    match result {
        Err(DataError::Interrupted) => {
            tracing::info!("{}", DataError::Interrupted);
            Ok(exit(stop.signal()))
        }
        Err(error) if log.started => Err(Failed(error.into()).into()),
        Err(error) => Err(error.into()),
        Ok(outcome) => {
            for line in &log.corrupt {
                tracing::info!("corrupt, left out: {line}");
            }
            say(&report(&outcome, &request, log.orientation))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// The exit code after a signal.
fn exit(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(130))
}

/// What a signal ends.
#[derive(Clone, Default)]
struct Stop {
    signal: Arc<AtomicI32>,
    /// The unfinished dataset, which has to go.
    stage: Arc<Mutex<Option<PathBuf>>>,
}

impl Stop {
    /// Waits for signals from here on. A signal asks the work to stop. If the work does not stop in time, the
    /// program exits anyway.
    fn watch() -> std::io::Result<Self> {
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

    fn signal(&self) -> i32 {
        self.signal.load(Ordering::Relaxed)
    }

    fn set_stage(&self, stage: Option<PathBuf>) {
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

/// What the events of a preparation said, and the progress bar that shows them.
struct EventLog {
    progress: Option<Progress>,
    duplicates: usize,
    corrupt: Vec<String>,
    orientation: Orientation,
    started: bool,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            progress: Some(Progress::new()),
            duplicates: 0,
            corrupt: Vec::new(),
            orientation: Orientation::Ignore,
            started: false,
        }
    }
}

impl EventLog {
    fn show(&mut self, event: Event, stop: &Stop) {
        let note = |line: &str| {
            if let Some(progress) = &self.progress {
                progress.note(line);
            }
        };
        match event {
            Event::Listing { found } => {
                if let Some(progress) = &mut self.progress {
                    progress.listing(found);
                }
            }
            Event::Planned {
                layout,
                images,
                resize,
                window,
                store,
                bytes,
                orientation,
                skipped,
                not_ilsvrc,
            } => {
                self.orientation = orientation;
                note(&format!("{images} images: {}", layout.describe()));
                if let Some(reason) = not_ilsvrc {
                    note(&format!("note: {reason}"));
                }
                if let Some(skipped) = skipped {
                    note(&format!("skipped: {skipped}"));
                }
                if let Some(window) = window {
                    note(&format!("window {window} (left, top, side) of each"));
                }
                note(&format!(
                    "resize {}, store {}: about {}",
                    resize.name(),
                    store.name(),
                    indicatif::DecimalBytes(bytes)
                ));
            }
            Event::Leftover(path) => note(&format!(
                "note: {} is left over from a run that was killed, or belongs to one still at work; if none is, delete it",
                shown(path)
            )),
            Event::Started(stage) => {
                self.started = true;
                if let Some(progress) = &mut self.progress {
                    progress.begin();
                }
                stop.set_stage(Some(stage));
            }
            Event::Publishing => stop.set_stage(None),
            Event::Progress { done, total } => {
                if let Some(progress) = &mut self.progress {
                    progress.show(done, total);
                }
            }
            // named once: at the end, or by the error that ends the work
            Event::Corrupt(line) => self.corrupt.push(line),
            Event::Duplicate { path, of } => {
                self.duplicates += 1;
                if self.duplicates <= NAMED {
                    note(&format!(
                        "duplicate: {} shows the same as {}; stored once",
                        one_line(&path),
                        one_line(&of)
                    ));
                } else if self.duplicates == NAMED + 1 {
                    note("more duplicates: the manifest lists them");
                }
            }
        }
    }
}

fn report(outcome: &Outcome, request: &Prepare, orientation: Orientation) -> String {
    let out = shown(&request.out);
    match *outcome {
        Outcome::UpToDate { images, turned } => {
            let mut line = format!("up to date: {images} images in {out}");
            if turned > 0 {
                line += &format!(", {turned} turned by their EXIF orientation");
            }
            line
        }
        Outcome::Written {
            images,
            test,
            bytes,
            duplicates,
            quarantined,
            oriented,
        } => {
            let size = indicatif::DecimalBytes(bytes);
            let mut line = format!("done: {images} images in {out}, {size}");
            if request.holdout.is_some() {
                line += &format!(", {} in train, {test} in test", images - test);
            }
            if duplicates > 0 {
                line += &format!(", {duplicates} duplicates left out");
            }
            if quarantined > 0 {
                line += &format!(", {quarantined} corrupt photos left out");
            }
            match (oriented, orientation) {
                (0, _) => {}
                (n, Orientation::Apply) => {
                    line += &format!(", {n} turned by their EXIF orientation");
                }
                (n, Orientation::Ignore) => {
                    line += &format!(
                        ", {n} with an EXIF orientation that was ignored (--orientation apply turns them)"
                    );
                }
            }
            line
        }
    }
}
