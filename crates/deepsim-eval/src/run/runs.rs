//! Which runs a command works on.

use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_experiment::run_dir::find_runs;
use deepsim_experiment::{Consent, Processes};
use tch::Device;

use crate::error::{EvalError, Result};
use crate::run::catalog;
use crate::run::loaded::Loaded;

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

/// The folder that was asked for, or `runs`.
///
/// # Errors
/// A folder that is not there.
pub fn needed(asked: Option<PathBuf>) -> Result<PathBuf> {
    let path = "runs".into();
    folder(asked)?.ok_or(EvalError::NoRuns { path })
}

/// Does something with each run of a folder (or the one run that it is), one at a time in
/// memory. Runs that cannot be opened are told through `warn` and left out. Several processes do it together, run by run:
/// what one leaves out all leave out.
///
/// # Errors
/// No folder, no run that opens, or the first error of `work`.
pub fn each(
    asked: Option<PathBuf>,
    consent: &Consent,
    device: Device,
    processes: &Processes,
    mut warn: impl FnMut(String),
    mut work: impl FnMut(&Loaded) -> Result<()>,
) -> Result<()> {
    let parent = needed(asked)?;
    let paths = find_runs(&parent)?;
    processes.agree::<EvalError>(&catalog::facts(&paths))?;
    let (count, alone) = (paths.len(), paths.len() == 1);
    let mut worked = 0;
    for path in paths {
        let done = Loaded::open(&path, consent, device).and_then(|run| {
            processes.agree::<EvalError>(&run.facts()?)?;
            work(&run)
        });
        let ends = |error: &EvalError| {
            let fails = !error.is_elsewhere() && error.is_running() && error.exit_code() == 1;
            // The only one: its own error says more than that nothing was found.
            // What cannot be used, or not for this, is left out; a failure of the work itself is one.
            alone || error.ends_all() || fails
        };
        match processes.settled(done, ends)? {
            Ok(()) => worked += 1,
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
