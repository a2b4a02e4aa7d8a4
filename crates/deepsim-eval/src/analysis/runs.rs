//! All training runs below a folder: how far each of them is, what its log says last, and what it takes on the disk.
//!
//! Only names, sizes and small files are read. No tensor is loaded, and no checkpoint is verified by its hashes: `table2`
//! and a resume do that. Nothing is written into a run.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::{self, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use deepsim_data::terminal::{one_line, path as shown};
use deepsim_experiment::checkpoint::{self, Manifest};
use deepsim_experiment::run_dir::{find_runs, is_as_trained, without_checkpoint};
use deepsim_experiment::{Experiment, ExperimentError, files};
use deepsim_nets::loss::{KINDS, Term, Terms};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::error::Result;
use crate::run::catalog::Loss;

const EXPERIMENT: &str = "experiment.toml";
const CHECKPOINTS: &str = "checkpoints";
const METRICS: &str = "metrics.jsonl";
const LOCK: &str = "lock";
const MANIFEST: &str = "manifest.json";
/// Bytes of the largest manifest: far more than any has.
const MOST: u64 = 16 << 20;
/// How much of the end of a log is read: about a hundred lines.
const TAIL: u64 = 1 << 16;

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A process holds its lock.
    Running,
    /// Its newest checkpoint is of the last step.
    Finished,
    /// It ended earlier, and `--resume` goes on from its newest checkpoint.
    Interrupted,
    /// Nothing is saved yet: `--resume` begins at step 0.
    #[default]
    NoCheckpoint,
    /// It can neither go on nor be evaluated.
    Damaged,
}

/// What is known of a run, but for its losses.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// Run directory.
    pub run: String,
    /// Its experiment's name.
    pub experiment: Option<String>,
    /// As in `table2`: deepsim, db, image-loss or other.
    pub method: Option<&'static str>,
    /// What became of it.
    pub state: State,
    /// Why it is damaged.
    pub reason: Option<String>,
    /// Step of its newest checkpoint.
    pub step: Option<u64>,
    /// Last step in its log.
    pub logged_step: Option<u64>,
    /// Steps that it is to have.
    pub steps: Option<u64>,
    /// When its log or its newest checkpoint was written, whichever is later: RFC 3339, UTC.
    pub last_written: Option<String>,
    /// Seconds since then.
    pub age_seconds: Option<u64>,
    /// Bytes of the files in its directory. Links count as nothing, but the one called `checkpoints` is followed.
    pub disk_bytes: u64,
}

/// Terms of the loss, unweighted, as the last line of a log with losses has them. Every kind of term is there; null is one
/// that was not computed or is not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses(pub Terms<Option<f64>>);

impl Default for Losses {
    fn default() -> Losses {
        let kinds = KINDS.iter();
        Losses(kinds.map(|info| (Term::from(info.kind), None)).collect())
    }
}

impl Serialize for Losses {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(term, value)| (term.key(), value)))
    }
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is known of it.
    #[serde(flatten)]
    pub run: Run,
    /// Its last losses.
    pub losses: Losses,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// By name.
    Name,
    /// What was written to last.
    Age,
    /// What takes most.
    Disk,
}

/// All runs below a folder (or the one that it is), by name. What is left out is told through `warn`, and what cannot be
/// read of a run that is listed.
///
/// # Errors
/// A folder that cannot be read.
pub fn read(parent: &Path, mut warn: impl FnMut(String)) -> Result<Vec<Row>> {
    let runs = find_runs(parent)?;
    if !runs.iter().any(|run| run == parent) {
        for link in dangling(parent) {
            warn(format!(
                "{} left out: a link to what is not there",
                shown(link)
            ));
        }
    }
    let now = SystemTime::now();
    Ok(runs.iter().map(|run| row(run, now, &mut warn)).collect())
}

/// Links in a folder that lead nowhere: to runs on a disk that is not mounted, perhaps.
fn dangling(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.is_symlink() && !path.exists())
        .collect()
}

/// Orders rows that are ordered by name.
pub fn sort(rows: &mut [Row], by: Sort) {
    match by {
        Sort::Name => {}
        Sort::Age => rows.sort_by_key(|row| (row.run.age_seconds.is_none(), row.run.age_seconds)),
        Sort::Disk => rows.sort_by_key(|row| Reverse(row.run.disk_bytes)),
    }
}

fn row(path: &Path, now: SystemTime, warn: &mut dyn FnMut(String)) -> Row {
    let held = is_held(path);
    let log = path.join(METRICS);
    let tail = tail(&log).unwrap_or_else(|e| {
        if e.kind() != ErrorKind::NotFound {
            warn(ExperimentError::io(&log)(e).to_string());
        }
        Tail::default()
    });
    if tail.damaged {
        warn(format!(
            "{}: lines at its end cannot be read; losses are from before",
            shown(&log)
        ));
    }
    let experiment = experiment(path);
    let newest = newest(path, warn);
    let judged = match (&experiment, &newest) {
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
        (Ok(experiment), Ok(Some(newest))) => {
            let finished = newest.step >= experiment.config.train.steps;
            is_as_trained(path, &experiment.config, newest)
                .map(|()| {
                    if finished {
                        State::Finished
                    } else {
                        State::Interrupted
                    }
                })
                .map_err(|error| error.to_string())
        }
        (Ok(experiment), Ok(None)) => {
            let every = experiment.config.train.checkpoint_every;
            // A process that trains removes older checkpoints while they are looked at.
            let nothing = if held {
                Ok(None)
            } else {
                without_checkpoint(path, every)
            };
            nothing
                .map(|_| State::NoCheckpoint)
                .map_err(|error| error.to_string())
        }
    };
    let (state, reason) = match judged {
        Ok(state) => (state, None),
        Err(reason) => (State::Damaged, Some(reason)),
    };
    let newest = newest.ok().flatten();
    let modified = |path: PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    let saved = newest.as_ref().and_then(|manifest| {
        let folder = checkpoint_of(path, manifest.step);
        modified(folder.join(MANIFEST))
    });
    let written = saved.max(modified(log));
    let experiment = experiment.ok();
    let run = Run {
        run: path.display().to_string(),
        experiment: experiment.as_ref().map(|e| e.config.name.clone()),
        method: experiment.as_ref().map(|e| Loss::of(e).method(e)),
        state: if held { State::Running } else { state },
        reason,
        step: newest.map(|manifest| manifest.step),
        logged_step: tail.step,
        steps: experiment.as_ref().map(|e| e.config.train.steps),
        last_written: written.and_then(timestamp),
        // A clock that was set back: as if it were written now.
        age_seconds: written.map(|at| now.duration_since(at).unwrap_or_default().as_secs()),
        disk_bytes: disk(path, warn),
    };
    Row {
        run,
        losses: tail.losses,
    }
}

fn experiment(run: &Path) -> std::result::Result<Experiment, ExperimentError> {
    let file = run.join(EXPERIMENT);
    match fs::symlink_metadata(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(ExperimentError::ExperimentMissing {
            path: run.to_owned(),
        }),
        _ => Experiment::load(&file, &[]),
    }
}

/// Whether a process holds the run's lock. This function takes the lock for a moment, shared with others that ask: the
/// list in `/proc/locks` lacks processes of other containers. A training that begins within that moment waits for its end.
fn is_held(run: &Path) -> bool {
    let path = run.join(LOCK);
    // What a link leads to is no lock of a run.
    if !fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
        return false;
    }
    files::open(&path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn checkpoint_of(run: &Path, step: u64) -> PathBuf {
    run.join(CHECKPOINTS).join(checkpoint::directory_name(step))
}

fn missing(run: &Path, reason: String) -> ExperimentError {
    ExperimentError::CheckpointsMissing {
        path: run.to_owned(),
        reason,
    }
}

/// The newest checkpoint that looks whole. Newer ones that do not are told through `warn`.
fn newest(
    run: &Path,
    warn: &mut dyn FnMut(String),
) -> std::result::Result<Option<Manifest>, ExperimentError> {
    let folder = run.join(CHECKPOINTS);
    if folder.is_symlink() && !folder.exists() {
        let target = fs::read_link(&folder).map_err(ExperimentError::io(&folder))?;
        let reason = format!(
            "{CHECKPOINTS} is a link to {}, which is not there (a disk that is not mounted?)",
            shown(target)
        );
        return Err(missing(run, reason));
    }
    let mut damaged = Vec::new();
    for step in checkpoint::steps(&folder)?.into_iter().rev() {
        let path = checkpoint_of(run, step);
        match look(&path) {
            Ok(manifest) => {
                for reason in damaged {
                    warn(format!("passed over: {reason}"));
                }
                return Ok(Some(manifest));
            }
            // Removed meanwhile by the process that trains.
            Err(_) if fs::symlink_metadata(&path).is_err() => {}
            Err(error) => damaged.push(error.to_string()),
        }
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    Err(ExperimentError::NoWholeCheckpoint {
        path: folder,
        damaged,
    })
}

/// A checkpoint's manifest, where the files that it names are there and have its sizes. Nothing is hashed.
fn look(path: &Path) -> std::result::Result<Manifest, ExperimentError> {
    let bad = |reason: String| ExperimentError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    let file = path.join(MANIFEST);
    let mut bytes = Vec::new();
    files::open(&file)
        .and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes))
        .map_err(ExperimentError::io(&file))?;
    if bytes.len() as u64 > MOST {
        return Err(bad(format!("{MANIFEST}: is too large for one")));
    }
    let manifest =
        Manifest::parse(&bytes).map_err(|reason| bad(format!("{MANIFEST}: {reason}")))?;
    for (name, entry) in &manifest.files {
        if name.contains('/') || name.contains("..") {
            let name = one_line(name);
            return Err(bad(format!(
                "{MANIFEST}: {name} is no file of a checkpoint"
            )));
        }
        let at = path.join(name);
        let name = one_line(name);
        let there = fs::metadata(&at).map_err(ExperimentError::io(&at))?;
        if !there.is_file() {
            return Err(bad(format!("{name} is not a regular file")));
        }
        if there.len() != entry.bytes {
            let (has, says) = (there.len(), entry.bytes);
            return Err(bad(format!(
                "{name} has {has} bytes, the manifest says {says}"
            )));
        }
    }
    Ok(manifest)
}

/// What the end of a log says.
#[derive(Default)]
struct Tail {
    /// Of its last line.
    step: Option<u64>,
    /// Of its last line with losses.
    losses: Losses,
    /// Whether lines behind that one cannot be read.
    damaged: bool,
}

/// Reads the end of a log. What stands behind the last line end was cut, or is being written.
fn tail(path: &Path) -> io::Result<Tail> {
    let mut file = files::open(path)?;
    let from = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    lines.pop();
    if from > 0 && !lines.is_empty() {
        // It begins in the middle.
        lines.remove(0);
    }
    let mut tail = Tail {
        damaged: lines.is_empty() && from > 0,
        ..Tail::default()
    };
    for line in lines.into_iter().rev() {
        let object: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
        let Some(step) = object.get("step").and_then(Value::as_u64) else {
            tail.damaged = true;
            continue;
        };
        tail.step = tail.step.max(Some(step));
        let mut any = false;
        for (key, value) in &object {
            if let Some(term) = key.strip_prefix("loss.").and_then(Term::of_key) {
                tail.losses.0.set(term, value.as_f64());
                any = true;
            }
        }
        if any {
            break;
        }
    }
    Ok(tail)
}

/// Bytes of the files in a run's directory. Folders that cannot be read are told through `warn`.
fn disk(run: &Path, warn: &mut dyn FnMut(String)) -> u64 {
    let mut folders = vec![run.to_owned()];
    // The one link that may lead to what is the run's own.
    folders.extend(Some(run.join(CHECKPOINTS)).filter(|path| leads_elsewhere(run, path)));
    let mut bytes: u64 = 0;
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) => {
                // The process that trains removes older checkpoints.
                if e.kind() != ErrorKind::NotFound {
                    warn(format!("{}: not counted: {e}", shown(folder)));
                }
                continue;
            }
        };
        for entry in entries.flatten() {
            // Of a link it is the link's own.
            match entry.metadata() {
                Ok(there) if there.is_dir() => folders.push(entry.path()),
                Ok(there) if there.is_file() => bytes = bytes.saturating_add(there.len()),
                _ => {}
            }
        }
    }
    bytes
}

/// Whether `path` is a link to a folder that neither lies in the run nor holds it: what does is counted already, or is not the
/// run's.
fn leads_elsewhere(run: &Path, path: &Path) -> bool {
    let (Ok(run), Ok(target)) = (run.canonicalize(), path.canonicalize()) else {
        return false;
    };
    path.is_symlink() && target.is_dir() && !target.starts_with(&run) && !run.starts_with(&target)
}

/// RFC 3339, UTC, whole seconds; none for times that it cannot write.
fn timestamp(at: SystemTime) -> Option<String> {
    let seconds = at.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    let (hour, minute, second) = at.to_hms();
    Some(format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use deepsim_nets::loss::TermKind;

    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        assert_eq!(timestamp(at).unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), None);
    }

    #[test]
    fn the_end_of_a_log_has_its_last_losses() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            fs::write(file.path(), text).unwrap();
            tail(file.path()).unwrap()
        };
        let first = "{\"step\":1,\"loss.feat\":9,\"loss.kl\":8}\n";
        let last = "{\"step\":2,\"loss.feat\":0.5,\"loss.img\":null,\"loss.feat.deep\":3,\"loss.discr\":7}\n";
        let evaluated = "{\"step\":3,\"eval.image_error\":50.5}\n";
        for (behind, damaged) in [("", false), ("{\"step\":4,\"lo", false), ("{\"st\n", true)] {
            let found = read(&format!("{first}{last}{evaluated}{behind}"));
            assert_eq!((found.step, found.damaged), (Some(3), damaged));
            let named = Term::named(TermKind::Feature, "deep");
            assert_eq!(found.losses.0.of(TermKind::Feature), Some(&Some(0.5)));
            assert_eq!(found.losses.0.get(&named), Some(&Some(3.0)));
            for kind in [TermKind::Image, TermKind::Kl, TermKind::Diversity] {
                assert_eq!(found.losses.0.of(kind), Some(&None));
            }
            assert_eq!(found.losses.0.iter().count(), KINDS.len() + 1);
        }
        let empty = read("");
        assert_eq!((empty.step, empty.damaged), (None, false));
        // Longer than what is read of it: the line in which that begins counts for nothing.
        let long = read(&format!("{}{last}", first.repeat(1 << 12)));
        assert_eq!((long.step, long.damaged), (Some(2), false));
        let one_line = read(&"x".repeat(1 << 17));
        assert_eq!((one_line.step, one_line.damaged), (None, true));
    }
}
