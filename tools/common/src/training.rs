//! Trains one experiment to its end or to a deadline.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;

use crate::failure::ChildFailed;
use crate::files;
use crate::held_out::EARLIER_SAMPLE;
use crate::programs::Programs;
use crate::stages::note;
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

    /// What keeps a run on the sample photos of an earlier version, if it began with them: a run goes on with the images
    /// that it has, and the experiment names others now.
    fn earlier_images(&self, ws: &Workspace) -> Vec<OsString> {
        let file = ws.path(&self.run).join("experiment.toml");
        let names = |part: &str| format!("data.{part}={EARLIER_SAMPLE}/{part}");
        let chosen = |arg: &OsString| arg.to_string_lossy().starts_with("data.");
        let Ok(experiment) = files::toml::<toml::Table>(&file) else {
            return Vec::new();
        };
        let began_with = |part: &str| {
            let data = experiment.get("data").and_then(|data| data.get(part));
            let wanted = format!("{EARLIER_SAMPLE}/{part}");
            data.and_then(toml::Value::as_str) == Some(wanted.as_str())
                && ws.path(wanted).join("manifest.json").is_file()
        };
        if self.extra.iter().any(chosen) || !["train", "test"].into_iter().all(began_with) {
            return Vec::new();
        }
        note(format_args!(
            "{} began with the photos in {EARLIER_SAMPLE} and goes on with them; delete it to train on all sample photos",
            self.run.display()
        ));
        let sets = ["train", "test"].map(names);
        sets.into_iter()
            .flat_map(|set| ["--set".to_owned(), set])
            .map(OsString::from)
            .collect()
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
            .args(self.earlier_images(ws))
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
    fn a_run_goes_on_with_the_images_that_it_began_with() {
        let (_folder, ws) = crate::testing::workspace();
        let training = |extra: &[&str]| Training {
            experiment: "experiments/quickstart.toml".to_owned(),
            run: "runs/quickstart".into(),
            extra: extra.iter().map(OsString::from).collect(),
            again: String::new(),
        };
        let began_with = |folder: &str| {
            let run = ws.path("runs/quickstart");
            fs::create_dir_all(&run).unwrap();
            let text = format!("[data]\ntrain = \"{folder}/train\"\ntest = \"{folder}/test\"\n");
            fs::write(run.join("experiment.toml"), text).unwrap();
        };
        assert!(training(&[]).earlier_images(&ws).is_empty());
        began_with(EARLIER_SAMPLE);
        // without the images, the trainer says what is missing
        assert!(training(&[]).earlier_images(&ws).is_empty());
        for part in ["train", "test"] {
            let folder = ws.path(EARLIER_SAMPLE).join(part);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("manifest.json"), "{}").unwrap();
        }
        assert_eq!(
            training(&[]).earlier_images(&ws),
            [
                "--set",
                "data.train=data/sample/train",
                "--set",
                "data.test=data/sample/test"
            ]
        );
        let own = training(&["--set", "data.train=data/own/train"]);
        assert!(own.earlier_images(&ws).is_empty());
        began_with("data/debian");
        assert!(training(&[]).earlier_images(&ws).is_empty());
    }

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
