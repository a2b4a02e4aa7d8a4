//! Which runs a command works on.

use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_data::terminal::{self, one_line};
use deepsim_experiment::run_dir::find_runs;
use deepsim_experiment::{Consent, suggest};
use tch::Device;

use crate::catalog;
use crate::error::{EvalError, Result};
use crate::loaded::Loaded;

/// Runs that an error lists.
const LISTED: usize = 12;

/// The folder that was asked for, or `runs` where it exists.
///
/// # Errors
/// A folder that was asked for and is not there.
pub fn folder(asked: Option<PathBuf>) -> Result<Option<PathBuf>> {
    match asked {
        Some(path) if !path.is_dir() => Err(EvalError::NoRuns { path }),
        Some(path) => Ok(Some(path)),
        None => Ok(Some(PathBuf::from("runs")).filter(|p| p.is_dir())),
    }
}

/// Does something with each run of a folder (or the one run that it is), one at a time in
/// memory. Runs that cannot be opened are told through `warn` and left out.
///
/// # Errors
/// No folder, no run that opens, or the first error of `work`.
pub fn each(
    asked: Option<PathBuf>,
    consent: &Consent,
    device: Device,
    mut warn: impl FnMut(String),
    mut work: impl FnMut(&Loaded) -> Result<()>,
) -> Result<()> {
    let Some(parent) = folder(asked)? else {
        return Err(EvalError::NoRuns {
            path: "runs".into(),
        });
    };
    let paths = find_runs(&parent)?;
    let (count, alone) = (paths.len(), paths.len() == 1);
    let mut worked = 0;
    for path in paths {
        match Loaded::open(&path, consent, device).and_then(|run| work(&run)) {
            Ok(()) => worked += 1,
            // The only one: its own error says more than that nothing was found.
            Err(error) if alone => return Err(error),
            // What cannot be used, or not for this, is left out; a failure of the work itself is one.
            Err(error) if error.is_running() && error.exit_code() == 1 => return Err(error),
            Err(error) => warn(format!("{} left out: {error}", shown(path))),
        }
    }
    match (count, worked) {
        (0, _) => Err(EvalError::NoRunIn { path: parent }),
        (_, 0) => Err(EvalError::NoneUsable {
            path: parent,
            count,
            why: Vec::new(),
        }),
        _ => Ok(()),
    }
}

/// Fails where a run was named that is not there, and says which there are.
///
/// # Errors
/// A folder without an experiment.
pub fn check(path: &Path) -> Result<()> {
    // A run whose experiment file is gone is told as that when it is read.
    if path.join("experiment.toml").exists() || path.join("checkpoints").is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let mut there: Vec<String> = find_runs(parent)
        .unwrap_or_default()
        .iter()
        .map(|run| name(run))
        .collect();
    let folder = terminal::path(parent);
    let name = name(path);
    if let Some(at) = suggest::closest(&name, there.iter().map(String::as_str)) {
        let likely = at.to_owned();
        there.retain(|other| *other != likely);
        there.insert(0, likely);
    }
    let more = there.len().saturating_sub(LISTED);
    there.truncate(LISTED);
    let there = match (there.is_empty(), more) {
        (true, _) => format!("there is none in {folder}"),
        (false, 0) => format!("there are: {}", one_line(&there.join(", "))),
        (false, more) => format!("there are: {} and {more} more", one_line(&there.join(", "))),
    };
    let own = catalog::experiments(Path::new("experiments"))
        .into_iter()
        .find(|e| e.raw.name == name);
    let advice = match own {
        Some(e) => format!(
            "train it by `cargo run -p deepsim-train -- {}`",
            terminal::quote(&e.path)
        ),
        None => "`cargo run -p deepsim-train -- EXPERIMENT.toml` trains one".to_owned(),
    };
    Err(EvalError::NoRun {
        path: path.to_owned(),
        there,
        advice,
    })
}

/// Name of a run for files and labels: its folder's.
pub fn name(path: &Path) -> String {
    let last = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    last.file_name()
        .map_or("run".to_owned(), |n| n.to_string_lossy().into_owned())
}
