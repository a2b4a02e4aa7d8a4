//! The directory of one run: who may write into it, and from where it goes on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deepsim_data::terminal::{one_line, path as shown};

use crate::checkpoint::{self, Checkpoint, Manifest};
use crate::config::Config;
use crate::contents::{self, CHECKPOINTS, EXPERIMENT, LOCK, Place};
use crate::error::{ExperimentError, Result};
use crate::experiment::Experiment;
use crate::files;
use crate::fixed::Fixed;
use crate::folder;

/// What the user wants done with results that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// No flag: refuse to choose.
    Ask,
    /// `--resume`.
    Resume,
    /// `--fresh`.
    Fresh,
}

/// Where training begins.
#[derive(Debug)]
pub enum Start {
    /// At step 0.
    Zero,
    /// At this checkpoint.
    From(Box<Checkpoint>),
    /// Nowhere: the run is finished.
    Finished(u64),
}

/// Where a run directory is that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Where it was.
    Here,
    /// In another place.
    Moved(PathBuf),
    /// Nowhere: it was removed, or its lock was.
    Gone,
}

/// A run directory that this process may write to, until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Checkpoints that were not removed because something else is in them.
    kept: RefCell<BTreeSet<u64>>,
    // Held for its lock: the kernel frees it when the process ends, however it ends. There is none where nothing can be
    // written.
    lock: Option<File>,
}

impl RunDir {
    /// Opens or creates the directory for an experiment and decides where training begins: [`RunDir::claim`],
    /// [`RunDir::check_space`] and [`RunDir::begin`] at once.
    ///
    /// # Errors
    /// Theirs.
    pub fn open(
        path: &Path,
        experiment: &Experiment,
        intent: Intent,
        checkpoint_bytes: u64,
    ) -> Result<(RunDir, Start)> {
        let (run, start) = RunDir::claim(path, experiment, intent)?;
        if !matches!(start, Start::Finished(_)) {
            run.check_space(experiment, checkpoint_bytes)?;
            run.begin(experiment, intent)?;
        }
        Ok((run, start))
    }

    /// Takes the directory for this process and decides where training begins. Nothing is removed but what a killed
    /// process left half written; what `--fresh` removes goes in [`RunDir::begin`].
    ///
    /// Training begins at step 0 where the directory holds only what is written before the first due checkpoint.
    ///
    /// # Errors
    /// A directory that is not a run's; something else where its files go; another writer; another experiment;
    /// checkpoints and no flag; checkpoints or an `experiment.toml` that should be there and are not.
    pub fn claim(path: &Path, experiment: &Experiment, intent: Intent) -> Result<(RunDir, Start)> {
        if !contents::is_ours(path)? {
            return Err(ExperimentError::NotARun {
                path: path.to_owned(),
            });
        }
        let mut obstacles = contents::in_the_way(path).into_iter();
        let stops = |name: &str| name == LOCK || intent != Intent::Fresh;
        if let Some((name, what)) = obstacles.find(|(name, _)| stops(name)) {
            return Err(ExperimentError::InTheWay {
                path: path.join(name),
                what,
            });
        }
        if path.is_symlink() && !path.exists() {
            return Err(ExperimentError::InTheWay {
                path: path.to_owned(),
                what: "a link to what is not there",
            });
        }
        fs::create_dir_all(path).map_err(ExperimentError::io(path))?;
        let run = |lock| RunDir {
            path: path.to_owned(),
            kept: RefCell::default(),
            lock,
        };
        let run = match lock(path) {
            Ok(lock) => run(Some(lock)),
            Err(error) => {
                // A finished run says so from a disk that cannot be written to.
                if error.is_read_only() && intent != Intent::Fresh {
                    let run = run(None);
                    if let done @ Start::Finished(_) = run.start(experiment, intent)? {
                        return Ok((run, done));
                    }
                }
                return Err(error);
            }
        };
        contents::own_linked(path)?;
        // First: on a disk that is nearly full it makes the room that is asked for.
        run.mend()?;
        let start = match intent {
            Intent::Fresh => Start::Zero,
            Intent::Ask | Intent::Resume => run.start(experiment, intent)?,
        };
        Ok((run, start))
    }

    /// Makes the directory this experiment's: with `--fresh` everything that an earlier run left is removed, told by
    /// name and content, and what stays is named. Then `experiment.toml` is written.
    ///
    /// # Errors
    /// What cannot be removed or written.
    pub fn begin(&self, experiment: &Experiment, intent: Intent) -> Result<()> {
        if intent == Intent::Fresh {
            if let Place::Dangling(target) = contents::place(&self.path)? {
                let target = self.path.join(target);
                fs::create_dir_all(&target).map_err(ExperimentError::io(&target))?;
            }
            let left = contents::clear(&self.path)?;
            if !left.is_empty() {
                tracing::warn!(
                    "{}: left as it is, since this program did not write it: {}",
                    shown(&self.path),
                    one_line(&left.join(", "))
                );
            }
        }
        let file = self.path.join(EXPERIMENT);
        files::replace_synced(&file, experiment.to_toml()?.as_bytes())
            .map_err(ExperimentError::io(&file))
    }

    fn start(&self, experiment: &Experiment, intent: Intent) -> Result<Start> {
        reachable(&self.path)?;
        let folder = self.checkpoints();
        let visible = !checkpoint::steps(&folder)?.is_empty();
        if visible && !self.path.join(EXPERIMENT).exists() {
            return Err(ExperimentError::ExperimentMissing {
                path: self.path.clone(),
            });
        }
        let there = read_config(&self.path)?;
        let newest = Checkpoint::newest(&folder)?;
        let (Some(there), Some(newest)) = (&there, newest) else {
            let every = there.map_or(experiment.config.train.checkpoint_every, |config| {
                config.train.checkpoint_every
            });
            if let Some(step @ 1..) = without_checkpoint(&self.path, every)? {
                tracing::warn!(
                    "{} holds no checkpoint of the steps in its log (up to {step}): training begins again at step 1",
                    shown(&self.path)
                );
            }
            return Ok(Start::Zero);
        };
        is_as_trained(&self.path, there, &newest.manifest)?;
        let differences = experiment.differences(there);
        if !differences.is_empty() {
            return Err(ExperimentError::AnotherExperiment {
                path: self.path.clone(),
                differences,
            });
        }
        let step = newest.manifest.step;
        if step >= experiment.config.train.steps {
            return Ok(Start::Finished(step));
        }
        match intent {
            Intent::Ask => Err(ExperimentError::RunExists {
                path: self.path.clone(),
                step,
            }),
            Intent::Resume | Intent::Fresh => Ok(Start::From(Box::new(newest))),
        }
    }

    /// Checks that there is room for the checkpoints that this run will keep.
    ///
    /// # Errors
    /// [`ExperimentError::DiskFull`].
    pub fn check_space(&self, experiment: &Experiment, checkpoint_bytes: u64) -> Result<()> {
        const MB: u64 = 1_000_000;
        // Checkpoints may be on another disk.
        let place = match contents::place(&self.path)? {
            Place::Folder => self.checkpoints(),
            Place::Nothing | Place::Dangling(_) | Place::NoFolder => self.path.clone(),
        };
        let available = fs4::available_space(&place).map_err(ExperimentError::io(&place))?;
        let train = &experiment.config.train;
        // A run cannot keep more than it writes, however many it was told to.
        let kept =
            (train.keep_checkpoints as u64).min(train.steps.div_ceil(train.checkpoint_every));
        // One more while the next is written and the oldest not yet removed, and 10 MB of reports.
        let there = checkpoint::steps(&self.checkpoints())?.len() as u64;
        let new = kept.saturating_add(1).saturating_sub(there).max(1);
        let needed = checkpoint_bytes.saturating_mul(new).saturating_add(10 * MB);
        if available < needed {
            return Err(ExperimentError::DiskFull {
                path: self.path.clone(),
                needed: needed.div_ceil(MB),
                available: available / MB,
            });
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory is still where it was when it was opened, told by its lock.
    pub fn whereabouts(&self) -> Whereabouts {
        let Some(lock) = &self.lock else {
            return Whereabouts::Here;
        };
        let id = |m: fs::Metadata| (m.dev(), m.ino());
        let there = fs::symlink_metadata(self.path.join(LOCK)).map(id).ok();
        if there.is_some() && there == lock.metadata().map(id).ok() {
            return Whereabouts::Here;
        }
        let now = fs::read_link(format!("/proc/self/fd/{}", lock.as_raw_fd())).unwrap_or_default();
        // The system's word for a file without a name.
        let is_gone = now.as_os_str().as_bytes().ends_with(b" (deleted)");
        match now.parent() {
            Some(parent) if !is_gone => Whereabouts::Moved(parent.to_owned()),
            _ => Whereabouts::Gone,
        }
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// Removes all checkpoints up to `step` but the newest `keep`. Those of later steps neither
    /// go nor count: a run that went on from an older checkpoint did so because they are damaged. Nor does one go that
    /// holds what this program did not write.
    ///
    /// # Errors
    /// A directory that cannot be removed.
    pub fn retain(&self, keep: usize, step: u64) -> Result<()> {
        let parent = self.checkpoints();
        let steps = checkpoint::steps(&parent)?;
        for step in steps.iter().rev().filter(|s| **s <= step).skip(keep.max(1)) {
            let path = parent.join(checkpoint::directory_name(*step));
            if checkpoint::is_ours(&path) {
                checkpoint::remove(&path)?;
            } else if self.kept.borrow_mut().insert(*step) {
                tracing::warn!(
                    "{} is kept: it holds what this program did not write",
                    shown(path)
                );
            }
        }
        Ok(())
    }

    /// Removes what a killed process left half written. Of checkpoints, a whole one that is newer than every visible one that is whole becomes visible: the process was killed before it could rename it, it was being
    /// replaced on a file system that cannot exchange names, or the visible one is damaged.
    fn mend(&self) -> Result<()> {
        contents::sweep(&self.path)?;
        let parent = self.checkpoints();
        // What replaces before what is replaced: the one's name begins the other's.
        for name in folder::names(&parent).unwrap_or_default() {
            let path = parent.join(&name);
            if !name.starts_with(".partial-") || !checkpoint::is_ours(&path) {
                continue;
            }
            match Checkpoint::open(&path) {
                Ok(whole) if newest_whole(&parent)? < Some(whole.manifest.step) => {
                    reveal(&path, &whole)?
                }
                _ => checkpoint::discard(&path)?,
            }
        }
        Ok(())
    }
}

/// The newest step of which the visible checkpoint can be read.
fn newest_whole(parent: &Path) -> Result<Option<u64>> {
    let mut steps = checkpoint::steps(parent)?.into_iter().rev();
    let open = |step: u64| Checkpoint::open(&parent.join(checkpoint::directory_name(step)));
    Ok(steps.find(|&step| open(step).is_ok()))
}

fn missing(path: &Path, reason: String) -> ExperimentError {
    ExperimentError::CheckpointsMissing {
        path: path.to_owned(),
        reason,
    }
}

/// Whether a run's checkpoints can be looked for.
fn reachable(run: &Path) -> Result<()> {
    match contents::place(run)? {
        Place::Dangling(target) => Err(missing(
            run,
            format!(
                "{CHECKPOINTS} is a link to {}, which is not there (a disk that is not mounted?)",
                shown(target)
            ),
        )),
        Place::NoFolder => Err(missing(
            run,
            format!("{CHECKPOINTS} is a file, not a folder"),
        )),
        Place::Nothing | Place::Folder => Ok(()),
    }
}

/// Gives a hidden checkpoint its own name; a damaged one of that name is kept under another.
fn reveal(hidden: &Path, whole: &Checkpoint) -> Result<()> {
    let parent = hidden.parent().unwrap_or(Path::new("."));
    // It may have been private yet, as temporary directories are.
    let mode = fs::metadata(parent)
        .map_err(ExperimentError::io(parent))?
        .permissions();
    fs::set_permissions(hidden, mode).map_err(ExperimentError::io(hidden))?;
    let name = checkpoint::directory_name(whole.manifest.step);
    let target = parent.join(&name);
    if fs::symlink_metadata(&target).is_ok() {
        let kept = checkpoint::set_aside(&target, &name)?;
        tracing::warn!(
            "{} is damaged, and a whole one of the same step was hidden beside it: the damaged one is kept as {}",
            shown(&target),
            shown(kept)
        );
    }
    fs::rename(hidden, &target).map_err(ExperimentError::io(&target))?;
    checkpoint::sync_dir(parent)
}

/// Holds an experiment file of a run against what its checkpoint says that it was trained with. Formats 1 and 2 say
/// nothing of it.
///
/// # Errors
/// [`ExperimentError::ExperimentEdited`] with each key and both values.
pub fn is_as_trained(run: &Path, file: &Config, manifest: &Manifest) -> Result<()> {
    let Some(trained) = &manifest.experiment else {
        return Ok(());
    };
    let differences = match Fixed::of(file) {
        Ok(file) => file.differences(trained),
        Err(e) => vec![format!("it cannot be compared: {e}")],
    };
    if differences.is_empty() {
        Ok(())
    } else {
        Err(ExperimentError::ExperimentEdited {
            path: run.to_owned(),
            differences,
        })
    }
}

/// A run's experiment and its newest checkpoint, held against each other.
///
/// # Errors
/// No experiment or checkpoint there; damaged files; an experiment that the checkpoint was not trained with.
pub fn read(path: &Path) -> Result<(Experiment, Checkpoint)> {
    let (experiment, checkpoint) = read_any(path)?;
    let checkpoint = checkpoint.ok_or_else(|| ExperimentError::NoCheckpoint {
        path: path.to_owned(),
    })?;
    Ok((experiment, checkpoint))
}

/// As [`read`], of a run that may not have saved anything yet.
///
/// # Errors
/// As [`read`].
pub fn read_any(path: &Path) -> Result<(Experiment, Option<Checkpoint>)> {
    reachable(path)?;
    let folder = path.join(CHECKPOINTS);
    if !path.join(EXPERIMENT).exists() && !checkpoint::steps(&folder)?.is_empty() {
        return Err(ExperimentError::ExperimentMissing {
            path: path.to_owned(),
        });
    }
    let experiment = Experiment::load(&path.join(EXPERIMENT), &[])?;
    let newest = Checkpoint::newest(&folder)?;
    if let Some(newest) = &newest {
        is_as_trained(path, &experiment.config, &newest.manifest)?;
    }
    Ok((experiment, newest))
}

/// What a run is that has no visible checkpoint and saves every so many steps. One that never reached a checkpoint holds
/// nothing to lose, and binds nobody: then this is the last step that its log or its sheets name, where there is one.
///
/// # Errors
/// [`ExperimentError::CheckpointsMissing`] where there were checkpoints; a log or a folder that cannot be read.
pub fn without_checkpoint(run: &Path, every: u64) -> Result<Option<u64>> {
    let folder = run.join(CHECKPOINTS);
    let strange = misplaced(&folder)?;
    let reached = contents::reached(run)?;
    match reached {
        Some(step) if step >= every => {
            let instead = if strange.is_empty() {
                String::new()
            } else {
                format!("; there is {}", strange.join(", "))
            };
            let reason = format!(
                "the run has reached step {step} and saved every {every} steps, but {} holds none{instead}",
                shown(folder)
            );
            Err(missing(run, reason))
        }
        reached if strange.is_empty() => Ok(reached),
        _ => {
            let there = strange.join(", ");
            let reason = format!("{} holds no checkpoint, but {there}", shown(folder));
            Err(missing(run, reason))
        }
    }
}

/// What stands among the checkpoints and is none: one that was renamed, or lacks its manifest.
fn misplaced(checkpoints: &Path) -> Result<Vec<String>> {
    let mut there = checkpoint::strange(checkpoints)?;
    let others = folder::names(checkpoints)?;
    let seen = |name: &String| {
        name.starts_with('.') || name.starts_with("kept-") || name.starts_with("step-")
    };
    there.extend(others.into_iter().filter(|name| !seen(name)));
    Ok(there
        .iter()
        .map(|name| one_line(name).into_owned())
        .collect())
}

/// Who only asks whether a run is in use holds its lock no longer than this.
const LOOK: Duration = Duration::from_millis(200);

fn lock(path: &Path) -> Result<File> {
    let file = path.join(LOCK);
    let mut lock = files::own(&file).map_err(ExperimentError::io(&file))?;
    let begun = Instant::now();
    let tried = loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOOK => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => break other,
        }
    };
    match tried {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(ExperimentError::Locked {
                path: path.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(e)) => return Err(ExperimentError::io(&file)(e)),
    }
    let write = |lock: &mut File| -> std::io::Result<()> {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())
    };
    write(&mut lock).map_err(ExperimentError::io(&file))?;
    Ok(lock)
}

/// The experiment that a run directory holds, if it holds one.
///
/// # Errors
/// An unreadable or malformed `experiment.toml`.
pub fn read_config(path: &Path) -> Result<Option<Config>> {
    let file = path.join(EXPERIMENT);
    if !file.exists() {
        return Ok(None);
    }
    Ok(Some(Experiment::load(&file, &[])?.config))
}

/// The run whose own file an experiment is (or a link to it), and its newest checkpoint.
///
/// # Errors
/// A folder of checkpoints that cannot be read.
pub fn of_file(experiment: &Path) -> Result<Option<(PathBuf, Checkpoint)>> {
    let target = experiment
        .is_symlink()
        .then(|| experiment.canonicalize().ok())
        .flatten();
    let experiment = target.as_deref().unwrap_or(experiment);
    let own = |_: &&Path| {
        experiment
            .file_name()
            .is_some_and(|name| name == EXPERIMENT)
    };
    let Some(run) = experiment.parent().filter(own) else {
        return Ok(None);
    };
    let newest = Checkpoint::newest(&run.join(CHECKPOINTS))?;
    Ok(newest.map(|newest| (run.to_owned(), newest)))
}

/// The run directories below `parent` (or `parent` itself), sorted by name. An `experiment.toml` without checkpoints
/// hides none that are below it.
///
/// # Errors
/// A folder that cannot be read.
pub fn find_runs(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    if is_run(parent) {
        runs.push(parent.to_owned());
    }
    if has_checkpoints(parent) {
        return Ok(runs);
    }
    for entry in fs::read_dir(parent).map_err(ExperimentError::io(parent))? {
        let path = entry.map_err(ExperimentError::io(parent))?.path();
        if is_run(&path) {
            runs.push(path);
        }
    }
    runs.sort();
    Ok(runs)
}

/// Whether a directory is a run, or what is left of one: to be named even where it cannot be read.
fn is_run(path: &Path) -> bool {
    fs::symlink_metadata(path.join(EXPERIMENT)).is_ok() || has_checkpoints(path)
}

fn has_checkpoints(path: &Path) -> bool {
    checkpoint::steps(&path.join(CHECKPOINTS)).is_ok_and(|steps| !steps.is_empty())
}
