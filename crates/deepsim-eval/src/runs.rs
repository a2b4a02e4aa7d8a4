//! Which runs a command works on.

use std::path::{Path, PathBuf};

use deepsim_experiment::ExperimentError;
use deepsim_experiment::run_dir::find_runs;
use tch::Device;

use crate::error::{EvalError, Result};
use crate::loaded::Loaded;

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
    let alone = paths.len() == 1;
    let mut worked = 0;
    for path in paths {
        match Loaded::open(&path, device) {
            Ok(run) => match work(&run) {
                Ok(()) => worked += 1,
                // What needs an encoder is not asked of it; the other runs are.
                Err(error @ EvalError::Experiment(ExperimentError::NoEncoder { .. })) if !alone => {
                    warn(format!("{} left out: {error}", path.display()));
                }
                Err(error) => return Err(error),
            },
            // The only one: its own error says more than that nothing was found.
            Err(error) if alone => return Err(error),
            Err(error) => warn(format!("{} left out: {error}", path.display())),
        }
    }
    if worked == 0 {
        return Err(EvalError::NoRunIn { path: parent });
    }
    Ok(())
}

/// Name of a run for files and labels: its folder's.
pub fn name(path: &Path) -> String {
    let last = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    last.file_name()
        .map_or("run".to_owned(), |n| n.to_string_lossy().into_owned())
}
