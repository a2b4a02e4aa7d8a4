//! Work that is shown while it goes on, and its summary.

use std::process::ExitCode;

use deepsim_data::terminal::{one_line, path as shown};
use deepsim_data::{DataError, Event, Flow, Orientation, Outcome};

use super::output::{Failed, say};
use super::progress::Progress;
use super::stop::Stop;

/// Duplicates named one by one; more are only counted.
const NAMED: usize = 5;

/// Work that has ended, and what its events said.
pub struct Ended {
    result: Result<Outcome, DataError>,
    log: EventLog,
}

/// Does work and shows how it goes on, until it is done or a signal comes.
pub fn watched(
    stop: &Stop,
    work: impl FnOnce(&mut dyn FnMut(Event) -> Flow) -> Result<Outcome, DataError>,
) -> Ended {
    let mut log = EventLog::default();
    let result = work(&mut |event: Event| {
        log.show(event, stop);
        match stop.signal() {
            0 => Flow::Continue,
            _ => Flow::Stop,
        }
    });
    drop(log.progress.take());
    Ended { result, log }
}

impl Ended {
    /// Says how the work ended; `what` was made. Tells whether it is done, or gives the exit code of an interrupted
    /// program.
    pub fn report(self, what: &str, stop: &Stop) -> anyhow::Result<Result<(), ExitCode>> {
        let log = self.log;
        match self.result {
            Err(DataError::Interrupted) => {
                tracing::info!("{}", DataError::Interrupted);
                Ok(Err(stop.exit_code()))
            }
            Err(error) if log.started => Err(Failed(error.into()).into()),
            Err(error) => Err(error.into()),
            Ok(outcome) => {
                for line in &log.corrupt {
                    tracing::info!("corrupt, left out: {line}");
                }
                say(&summary(&outcome, what, log.orientation))?;
                Ok(Ok(()))
            }
        }
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
                part,
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
                if let Some((part, own)) = part {
                    note(&format!("part {part}: {own} of these images"));
                }
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

fn summary(outcome: &Outcome, what: &str, orientation: Orientation) -> String {
    match *outcome {
        Outcome::UpToDate { images, turned } => {
            let mut line = format!("up to date: {images} images in {what}");
            if turned > 0 {
                line += &format!(", {turned} turned by their EXIF orientation");
            }
            line
        }
        Outcome::Written {
            images,
            val,
            test,
            bytes,
            duplicates,
            quarantined,
            oriented,
        } => {
            let size = indicatif::DecimalBytes(bytes);
            let mut line = format!("done: {images} images in {what}, {size}");
            // a split without test images is refused; a part of one may be without
            if test > 0 {
                line += &format!(", {} in train", images - test - val);
                if val > 0 {
                    line += &format!(", {val} in val");
                }
                line += &format!(", {test} in test");
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
