//! The directory of one run: who may write into it, and from where it goes on.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Checkpoint};
use crate::config::{Experiment, Raw};
use crate::error::{ExperimentError, Result};

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

/// A run directory that this process may write to, until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    // Held for its lock: the kernel frees it when the process ends, however it ends.
    _lock: File,
}

impl RunDir {
    /// Opens or creates the directory for an experiment and decides where training begins.
    ///
    /// # Errors
    /// Another writer; another experiment; checkpoints and no flag; too little disk space for
    /// `checkpoint_bytes` times the checkpoints kept.
    pub fn open(
        path: &Path,
        experiment: &Experiment,
        intent: Intent,
        checkpoint_bytes: u64,
    ) -> Result<(RunDir, Start)> {
        if !is_ours(path)? {
            return Err(ExperimentError::NotARun {
                path: path.to_owned(),
            });
        }
        fs::create_dir_all(path).map_err(ExperimentError::io(path))?;
        let run = RunDir {
            path: path.to_owned(),
            _lock: lock(path)?,
        };
        // First: on a disk that is nearly full it makes the room that is asked for.
        run.mend()?;
        if intent == Intent::Fresh {
            // Before anything is deleted for a run that cannot begin.
            run.check_space(experiment, checkpoint_bytes)?;
            run.clear()?;
        }
        let start = run.start(experiment, intent)?;
        if !matches!(start, Start::Finished(_)) {
            run.check_space(experiment, checkpoint_bytes)?;
            if matches!(start, Start::Zero) {
                run.clear()?;
            }
            let file = run.path.join("experiment.toml");
            write_replacing(&file, experiment.to_toml()?.as_bytes())?;
        }
        Ok((run, start))
    }

    fn start(&self, experiment: &Experiment, intent: Intent) -> Result<Start> {
        if let Some(there) = read_raw(&self.path)? {
            let differences = experiment.differences(&there);
            // A run that never reached a checkpoint holds nothing to lose.
            if !differences.is_empty() && !checkpoint::steps(&self.checkpoints())?.is_empty() {
                return Err(ExperimentError::AnotherExperiment {
                    path: self.path.clone(),
                    differences,
                });
            }
        }
        let Some(newest) = Checkpoint::newest(&self.checkpoints())? else {
            return Ok(Start::Zero);
        };
        let step = newest.manifest.step;
        if step >= experiment.raw.train.steps {
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

    fn check_space(&self, experiment: &Experiment, checkpoint_bytes: u64) -> Result<()> {
        const MB: u64 = 1_000_000;
        let available =
            fs4::available_space(&self.path).map_err(ExperimentError::io(&self.path))?;
        let train = &experiment.raw.train;
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

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Removes all checkpoints up to `step` but the newest `keep`. Those of later steps neither
    /// go nor count: a run that went on from an older checkpoint did so because they are damaged.
    ///
    /// # Errors
    /// A directory that cannot be removed.
    pub fn retain(&self, keep: usize, step: u64) -> Result<()> {
        let parent = self.checkpoints();
        let steps = checkpoint::steps(&parent)?;
        for step in steps.iter().rev().filter(|s| **s <= step).skip(keep.max(1)) {
            let path = parent.join(checkpoint::directory_name(*step));
            checkpoint::remove(&path)?;
        }
        Ok(())
    }

    /// Removes what a run leaves, and nothing else.
    fn clear(&self) -> Result<()> {
        for name in ["checkpoints", "samples", "tensorboard"] {
            let path = self.path.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).map_err(ExperimentError::io(&path))?;
            }
        }
        for name in [
            "metrics.jsonl",
            "metrics.partial",
            "experiment.partial",
            "experiment.toml",
        ] {
            let path = self.path.join(name);
            if path.exists() {
                fs::remove_file(&path).map_err(ExperimentError::io(&path))?;
            }
        }
        Ok(())
    }

    /// Removes checkpoints that a killed process left half written. Where no checkpoint is visible, a whole one among
    /// them becomes visible: it was being replaced on a file system that cannot exchange names.
    fn mend(&self) -> Result<()> {
        let parent = self.checkpoints();
        let Ok(entries) = fs::read_dir(&parent) else {
            return Ok(());
        };
        let hidden = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(".partial-")
        };
        let mut left: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(hidden).collect();
        // What replaces before what is replaced: the one's name begins the other's.
        left.sort();
        for path in left {
            if checkpoint::steps(&parent)?.is_empty()
                && let Ok(whole) = Checkpoint::open(&path)
            {
                // It may have been private yet, as temporary directories are.
                let mode = fs::metadata(&parent)
                    .map_err(ExperimentError::io(&parent))?
                    .permissions();
                fs::set_permissions(&path, mode).map_err(ExperimentError::io(&path))?;
                let target = parent.join(checkpoint::directory_name(whole.manifest.step));
                fs::rename(&path, &target).map_err(ExperimentError::io(&target))?;
                checkpoint::sync_dir(&parent)?;
            } else {
                fs::remove_dir_all(&path).map_err(ExperimentError::io(&path))?;
            }
        }
        Ok(())
    }
}

/// Whether a run may be in this directory: nothing is there, or what only we leave. An `experiment.toml` alone, or a
/// folder `samples`, may be anybody's.
fn is_ours(path: &Path) -> Result<bool> {
    let empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(ExperimentError::io(path)(e)),
    };
    // A run that was copied may have left its lock behind.
    let run = path.join("experiment.toml").exists()
        && !checkpoint::steps(&path.join("checkpoints"))?.is_empty();
    Ok(empty || run || path.join("lock").is_file())
}

fn lock(path: &Path) -> Result<File> {
    let file = path.join("lock");
    let options = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file);
    let mut lock = options.map_err(ExperimentError::io(&file))?;
    match lock.try_lock() {
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
pub fn read_raw(path: &Path) -> Result<Option<Raw>> {
    let file = path.join("experiment.toml");
    if !file.exists() {
        return Ok(None);
    }
    Ok(Some(Experiment::load(&file, &[])?.raw))
}

/// Writes a file beside and renames it into place.
///
/// # Errors
/// Anything that cannot be written; the old file is untouched then.
pub fn write_replacing(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let beside = path.with_extension("partial");
    let mut file = File::create(&beside).map_err(ExperimentError::io(&beside))?;
    file.write_all(bytes)
        .map_err(ExperimentError::io(&beside))?;
    file.sync_all().map_err(ExperimentError::io(&beside))?;
    fs::rename(&beside, path).map_err(ExperimentError::io(path))?;
    checkpoint::sync_dir(parent)
}

/// The run directories below `parent` (or `parent` itself), sorted by name.
///
/// # Errors
/// A folder that cannot be read.
pub fn find_runs(parent: &Path) -> Result<Vec<PathBuf>> {
    if parent.join("experiment.toml").exists() {
        return Ok(vec![parent.to_owned()]);
    }
    let mut runs = Vec::new();
    for entry in fs::read_dir(parent).map_err(ExperimentError::io(parent))? {
        let path = entry.map_err(ExperimentError::io(parent))?.path();
        if path.join("experiment.toml").exists() {
            runs.push(path);
        }
    }
    runs.sort();
    Ok(runs)
}
