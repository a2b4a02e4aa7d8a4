//! Trains one experiment to its end or to a deadline.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;

use crate::failure::ChildFailed;
use crate::files;
use crate::programs::Programs;
use crate::workspace::Workspace;

/// One experiment and where it goes.
#[derive(Debug, Clone)]
pub struct Training {
    /// The experiment's file, relative to the workspace.
    pub experiment: String,
    /// The run directory, relative to the workspace.
    pub run: PathBuf,
    /// Further arguments of deepsim-train.
    pub extra: Vec<OsString>,
    /// The command that goes on after an interruption.
    pub again: String,
}

/// How training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The deadline passed; a checkpoint holds what was reached.
    OutOfTime,
}

impl Training {
    /// The trainer's arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut args = vec![OsString::from(&self.experiment), "--resume".into()];
        args.extend(["--out".into(), self.run.clone().into_os_string()]);
        args.extend(self.extra.iter().cloned());
        args
    }

    /// Trains; a finished run returns at once, a cut one goes on from its checkpoint.
    ///
    /// # Errors
    /// [`ChildFailed`] with the trainer's exit code, and how to go on.
    pub fn run(
        &self,
        ws: &Workspace,
        programs: &Programs,
        deadline: Option<Instant>,
    ) -> Result<Outcome> {
        let result = programs
            .get(ws, "training", "deepsim-train")?
            .args(self.arguments())
            .hint(format!(
                "Its checkpoints are kept; go on with: {}",
                self.again
            ))
            .until(deadline)
            .run();
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match result {
            Ok(()) => Ok(Outcome::Finished),
            Err(error) => match error.downcast_ref::<ChildFailed>() {
                Some(failed) if late && failed.ending.code() == 143 => Ok(Outcome::OutOfTime),
                _ => Err(error),
            },
        }
    }
}

/// The newest whole checkpoint of a run directory.
pub fn newest_checkpoint(run: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).ok()?;
    let whole = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("step-") && path.join("manifest.json").is_file()
    });
    whole.max()
}

/// What the newest whole checkpoint of a run directory says of itself; none before the first.
///
/// # Errors
/// A manifest that cannot be read.
pub fn newest_manifest(run: &Path) -> Result<Option<Value>> {
    let Some(checkpoint) = newest_checkpoint(run) else {
        return Ok(None);
    };
    files::json(&checkpoint.join("manifest.json")).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_checkpoints_do_not_count() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(newest_checkpoint(tmp.path()), None);
        for (name, whole) in [
            ("step-000000100", true),
            ("step-000000200", true),
            ("step-000000300", false),
            (".tmp", true),
        ] {
            let folder = tmp.path().join("checkpoints").join(name);
            fs::create_dir_all(&folder).unwrap();
            if whole {
                fs::write(folder.join("manifest.json"), "{}").unwrap();
            }
        }
        assert!(
            newest_checkpoint(tmp.path())
                .unwrap()
                .ends_with("step-000000200")
        );
    }
}
