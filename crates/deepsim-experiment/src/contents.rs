//! What is in a run directory: which of it this program wrote, told by name and content, and the removal of that alone.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{ExperimentError, Result};
use crate::folder::names;
use crate::{checkpoint, files};

/// Folder of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The resolved experiment.
pub const EXPERIMENT: &str = "experiment.toml";
/// The log.
pub const METRICS: &str = "metrics.jsonl";
pub(crate) const LOCK: &str = "lock";
const SAMPLES: &str = "samples";
const EVENTS: &str = "tensorboard";
/// A resolved experiment that earlier versions were writing when they were killed.
const PARTIAL: &str = "experiment.partial";
/// Says of checkpoints that a link leads to which run's they are.
const OWNER: &str = ".run";
/// How a PNG begins.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// How the resolved experiment begins.
pub(crate) const RESOLVED: &str = "# Resolved from ";

/// A lock holds the number of a process.
const LOCK_BYTES: u64 = 32;
/// Lines of metrics are a thousand bytes long; what is longer is something else.
const LINE_BYTES: u64 = 1 << 20;

/// Where checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere yet.
    Nothing,
    /// In a folder of the run, or in one that a link leads to.
    Folder,
    /// A link to what is not there.
    Dangling(PathBuf),
    /// A file, or a link to one.
    NoFolder,
}

/// Where a run's checkpoints are.
///
/// # Errors
/// What cannot be looked at.
pub fn place(run: &Path) -> Result<Place> {
    let path = run.join(CHECKPOINTS);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Place::Nothing),
        Err(e) => return Err(ExperimentError::io(&path)(e)),
    };
    match fs::metadata(&path) {
        Ok(followed) if followed.is_dir() => Ok(Place::Folder),
        Ok(_) => Ok(Place::NoFolder),
        Err(_) if metadata.is_symlink() => {
            let target = fs::read_link(&path).map_err(ExperimentError::io(&path))?;
            Ok(Place::Dangling(target))
        }
        Err(e) => Err(ExperimentError::io(&path)(e)),
    }
}

/// Takes checkpoints that a link leads to for this run. A copy of a run has the same link: were both to write there, each
/// would remove what the other has saved.
///
/// # Errors
/// [`ExperimentError::SharedCheckpoints`]; a folder that cannot be read or written.
pub(crate) fn own_linked(run: &Path) -> Result<()> {
    let link = run.join(CHECKPOINTS);
    if !link.is_symlink() || place(run)? != Place::Folder {
        return Ok(());
    }
    let whole = |path: &Path| path.canonicalize().map_err(ExperimentError::io(path));
    let (folder, run) = (whole(&link)?, whole(run)?);
    let file = folder.join(OWNER);
    let owner = match files::read(&file) {
        Ok(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => PathBuf::new(),
        Err(e) => return Err(ExperimentError::io(&file)(e)),
    };
    if owner == run {
        return Ok(());
    }
    // A run that was moved is not there any more.
    let is_there = whole(&owner.join(CHECKPOINTS)).is_ok_and(|place| place == folder);
    if !owner.as_os_str().is_empty() && is_there {
        return Err(ExperimentError::SharedCheckpoints {
            path: link,
            other: owner,
        });
    }
    files::replace(&file, run.as_os_str().as_bytes()).map_err(ExperimentError::io(&file))
}

fn is_known(name: &str) -> bool {
    [LOCK, EXPERIMENT, METRICS, CHECKPOINTS, SAMPLES, EVENTS].contains(&name)
}

/// A lock of ours holds the number of a process, or nothing yet.
fn is_our_lock(run: &Path) -> bool {
    let path = run.join(LOCK);
    let small = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= LOCK_BYTES);
    small && files::read(&path).is_ok_and(|text| text.trim_ascii().iter().all(u8::is_ascii_digit))
}

/// Whether a file begins with these bytes, or is cut within them.
fn begins(path: &Path, with: &[u8]) -> bool {
    let mut start = Vec::new();
    let file = fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    file && files::open(path)
        .and_then(|f| f.take(with.len() as u64).read_to_end(&mut start))
        .is_ok()
        && with.starts_with(&start)
}

/// Whether a resolved experiment, as this program writes it, is there.
fn is_resolved(run: &Path) -> bool {
    let path = run.join(EXPERIMENT);
    fs::metadata(&path).is_ok_and(|m| m.len() >= RESOLVED.len() as u64)
        && begins(&path, RESOLVED.as_bytes())
}

/// A file that was being written when a process was killed.
fn is_our_partial(path: &Path, name: &str) -> bool {
    if name.starts_with(files::BESIDE) {
        return begins(path, RESOLVED.as_bytes()) || begins(path, PNG);
    }
    name == PARTIAL && begins(path, RESOLVED.as_bytes())
}

/// Something in the way of what this program writes: its name, and what it is.
type InTheWay = (&'static str, &'static str);

/// What stands where this program writes its own and is not of that kind. `--fresh` puts it aside, but for the lock: it
/// must be taken first.
pub(crate) fn in_the_way(run: &Path) -> Vec<InTheWay> {
    let kind = |name: &str| fs::symlink_metadata(run.join(name)).ok();
    let mut found = Vec::new();
    if kind(LOCK).is_some() && !is_our_lock(run) {
        found.push((LOCK, "not the lock of this program"));
    }
    if kind(METRICS).is_some_and(|m| !m.is_file()) {
        found.push((METRICS, "not a regular file"));
    }
    for folder in [SAMPLES, EVENTS] {
        if kind(folder).is_some() && !run.join(folder).is_dir() {
            found.push((folder, "neither a folder nor a link to one"));
        }
    }
    found
}

/// Whether a run may be in this directory: nothing is there, or what this program leaves. A file called `lock`, an
/// `experiment.toml` or a folder `samples` may be anybody's.
///
/// # Errors
/// A directory that cannot be read.
pub(crate) fn is_ours(run: &Path) -> Result<bool> {
    let all = names(run)?;
    if all.is_empty() {
        return Ok(true);
    }
    // A run that was copied may have left its lock behind, and one that was tidied its experiment.
    if place(run)? == Place::Folder && !checkpoint::steps(&run.join(CHECKPOINTS))?.is_empty() {
        return Ok(is_our_lock(run) || run.join(EXPERIMENT).exists() || foreign(run)?.is_empty());
    }
    // Folders (or links to some) that hold nothing else are there for a run to come.
    if all
        .iter()
        .all(|n| [CHECKPOINTS, SAMPLES, EVENTS].contains(&n.as_str()))
    {
        return Ok(foreign(run)?.is_empty());
    }
    if !is_our_lock(run) || !is_our_log(&run.join(METRICS)) {
        return Ok(false);
    }
    Ok(is_resolved(run) || foreign(run)?.is_empty())
}

/// A log of ours is lines of JSON with a step (the last may be cut), or not there.
fn is_our_log(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return false,
        Err(_) => return true,
    }
    let Ok(file) = files::open(path) else {
        return false;
    };
    let mut line = Vec::new();
    let read = BufReader::new(file)
        .take(LINE_BYTES)
        .read_until(b'\n', &mut line);
    read.is_ok()
        && (!line.ends_with(b"\n") && line.len() < LINE_BYTES as usize || step_of(&line).is_some())
}

fn step_of(line: &[u8]) -> Option<u64> {
    let value: Value = serde_json::from_slice(line).ok()?;
    value.get("step")?.as_u64()
}

/// The last step that a run has logged or shown, if any.
///
/// # Errors
/// A log that cannot be read.
pub(crate) fn reached(run: &Path) -> Result<Option<u64>> {
    let mut last = None;
    let path = run.join(METRICS);
    match files::open(&path) {
        Ok(file) => {
            let mut lines = BufReader::new(file);
            let mut line = Vec::new();
            loop {
                line.clear();
                let bytes = (&mut lines)
                    .take(LINE_BYTES)
                    .read_until(b'\n', &mut line)
                    .map_err(ExperimentError::io(&path))?;
                if bytes == 0 {
                    break;
                }
                last = last.max(step_of(&line));
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(ExperimentError::io(&path)(e)),
    }
    let samples = run.join(SAMPLES);
    // What a link leads to may be of several runs.
    let sheets = if samples.is_symlink() {
        Vec::new()
    } else {
        names(&samples)?
    };
    let steps = sheets.iter().filter(|n| is_our_sheet(&samples.join(n), n));
    Ok(steps.filter_map(|n| sheet(n)).max().max(last))
}

/// Step of a sample sheet by its name.
fn sheet(name: &str) -> Option<u64> {
    checkpoint::step_of(name.strip_suffix(".png")?)
}

/// A sample sheet of ours.
fn is_our_sheet(path: &Path, name: &str) -> bool {
    sheet(name).is_some() && begins(path, PNG)
}

/// Event files that this program writes: `events.out.tfevents.SECONDS.deepsim.PID`.
fn is_our_events(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("events.out.tfevents.")
        .and_then(|rest| rest.split_once(".deepsim."))
        .is_some_and(|(seconds, process)| digits(seconds) && digits(process))
}

/// What in a run directory this program did not write, relative to it.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn foreign(run: &Path) -> Result<Vec<String>> {
    let ours = |name: &String| is_known(name) || is_our_partial(&run.join(name), name);
    let mut strange: Vec<String> = names(run)?.into_iter().filter(|n| !ours(n)).collect();
    let log = run.join(METRICS);
    if !is_our_log(&log) {
        strange.push(METRICS.to_owned());
    }
    type Ours<'a> = &'a dyn Fn(&Path, &str) -> bool;
    let folders: [(&str, Ours<'_>); 3] = [
        (SAMPLES, &|path, name| {
            is_our_sheet(path, name) || is_our_partial(path, name)
        }),
        (EVENTS, &|_, name| is_our_events(name)),
        (CHECKPOINTS, &|path, name| {
            name == OWNER || checkpoint::is_ours(path)
        }),
    ];
    for (folder, is_ours) in folders {
        let at = run.join(folder);
        if fs::symlink_metadata(&at).is_ok() && !at.is_dir() {
            // A link to a disk that is not there is the run's; a file is not.
            if !at.is_symlink() {
                strange.push(folder.to_owned());
            }
            continue;
        }
        for name in names(&at)? {
            if !is_ours(&at.join(&name), &name) {
                strange.push(format!("{folder}/{name}"));
            }
        }
    }
    Ok(strange)
}

fn gone(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(ExperimentError::io(path)(e)),
        _ => Ok(()),
    }
}

/// Removes files that were being written when a process was killed.
///
/// # Errors
/// What cannot be removed.
pub(crate) fn sweep(run: &Path) -> Result<()> {
    for folder in [run, &run.join(SAMPLES)] {
        // What is no folder is told of elsewhere.
        for name in names(folder).unwrap_or_default() {
            let path = folder.join(&name);
            if is_our_partial(&path, &name) {
                gone(&path)?;
            }
        }
    }
    Ok(())
}

/// Removes what a run leaves, told by name and content, and returns what stays. What stands in the way of the new run
/// is renamed first. The log goes next and checkpoints last: whatever ends this on the way, what is left is a run.
///
/// # Errors
/// What cannot be renamed or removed.
pub(crate) fn clear(run: &Path) -> Result<Vec<String>> {
    for (name, _) in in_the_way(run) {
        checkpoint::set_aside(&run.join(name), name)?;
    }
    if place(run)? == Place::NoFolder {
        checkpoint::set_aside(&run.join(CHECKPOINTS), CHECKPOINTS)?;
    }
    let log = run.join(METRICS);
    if is_our_log(&log) {
        gone(&log)?;
    } else {
        checkpoint::set_aside(&log, METRICS)?;
    }
    type Ours<'a> = &'a dyn Fn(&Path, &str) -> bool;
    let folders: [(&Path, Ours<'_>); 2] = [
        (&run.join(SAMPLES), &is_our_sheet),
        (&run.join(EVENTS), &|_, name| is_our_events(name)),
    ];
    for (folder, is_ours) in folders {
        // What a link leads to may be of other runs as well.
        if folder.is_symlink() {
            continue;
        }
        for name in names(folder)? {
            let path = folder.join(&name);
            if is_ours(&path, &name) {
                gone(&path)?;
            }
        }
    }
    if place(run)? == Place::Folder {
        let folder = run.join(CHECKPOINTS);
        for name in names(&folder)? {
            let path = folder.join(&name);
            if checkpoint::is_ours(&path) {
                checkpoint::remove(&path)?;
            } else if checkpoint::is_visible(&path) {
                // Whatever the user has put there stays, but the new run must not go on from it.
                checkpoint::set_aside(&path, &name)?;
            }
        }
    }
    let left = foreign(run)?;
    let experiment = run.join(EXPERIMENT);
    if is_resolved(run) || fs::symlink_metadata(&experiment).is_err() {
        gone(&experiment)?;
    } else {
        // Somebody's own file, though this run takes its name.
        checkpoint::set_aside(&experiment, EXPERIMENT)?;
    }
    Ok(left)
}
