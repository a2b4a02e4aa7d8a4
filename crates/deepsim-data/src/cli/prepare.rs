//! `deepsim-data prepare`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use deepsim_data::prepare::Existing;
use deepsim_data::terminal::tell;
use deepsim_data::{DataError, Event, Flow, Outcome, Prepare, prepare};
use rayon::ThreadPoolBuilder;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::progress::Progress;
use super::{PrepareArgs, say};

/// Duplicates named one by one; more are only counted.
const NAMED: usize = 5;

pub fn run(args: PrepareArgs) -> anyhow::Result<ExitCode> {
    if args.threads == Some(0) {
        anyhow::bail!("--threads must be at least 1");
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
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM] {
        signal_hook::flag::register_usize(number, signal.clone(), number as usize)
            .context("cannot watch for Ctrl-C")?;
    }
    let result = pool.install(|| {
        let mut progress = Progress::new();
        let mut duplicates = 0;
        prepare(&request, &mut |event| {
            show(event, &mut progress, &mut duplicates);
            match signal.load(Ordering::Relaxed) {
                0 => Flow::Continue,
                _ => Flow::Stop,
            }
        })
    });
    match result {
        Err(DataError::Interrupted) => {
            tell(DataError::Interrupted);
            let number = signal.load(Ordering::Relaxed);
            Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(130)))
        }
        Err(error) => Err(error.into()),
        Ok(outcome) => {
            say(&report(&outcome, &request))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show(event: Event, progress: &mut Progress, duplicates: &mut usize) {
    match event {
        Event::Planned { layout, images, resize, window, store, bytes, skipped } => {
            progress.note(&format!("{images} images: {}", layout.describe()));
            if let Some(skipped) = skipped {
                progress.note(&format!("skipped: {skipped}"));
            }
            if let Some(window) = window {
                progress.note(&format!("window {window} (left, top, side) of each"));
            }
            progress.note(&format!(
                "resize {}, store {}: about {}",
                resize.name(),
                store.name(),
                indicatif::DecimalBytes(bytes)
            ));
        }
        Event::Leftover(path) => progress.note(&format!(
            "note: {} is left over from a run that was killed, or belongs to one still at work; if none is, delete it",
            path.display()
        )),
        Event::Progress { done, total } => progress.show(done, total),
        Event::Corrupt(line) => progress.note(&format!("corrupt: {line}")),
        Event::Duplicate { path, of } => {
            *duplicates += 1;
            if *duplicates <= NAMED {
                progress.note(&format!("duplicate: {path} shows the same as {of}; stored once"));
            } else if *duplicates == NAMED + 1 {
                progress.note("more duplicates: the manifest lists them");
            }
        }
    }
}

fn report(outcome: &Outcome, request: &Prepare) -> String {
    let out = request.out.display();
    match *outcome {
        Outcome::UpToDate { images } => format!("up to date: {images} images in {out}"),
        Outcome::Written {
            images,
            test,
            bytes,
            duplicates,
            quarantined,
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
            line
        }
    }
}
