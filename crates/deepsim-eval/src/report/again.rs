//! The commands that make again what a page shows. They are built of values that were read, each quoted for the shell: a
//! run's files may be anybody's.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use deepsim_data::terminal;
use deepsim_experiment::Experiment;

use crate::analysis::mv;

/// Bytes of an experiment's head that are read.
const HEAD: u64 = 1 << 16;

/// A command of a program of ours.
pub fn command<W: Into<OsString>>(program: &str, words: impl IntoIterator<Item = W>) -> String {
    let start = ["cargo", "run", "-p", program, "--"].map(OsString::from);
    terminal::command(start.into_iter().chain(words.into_iter().map(Into::into)))
}

/// A command of `deepsim-eval` on a run or a folder of runs; those that it takes by itself need not be named.
pub fn evaluate<W: Into<OsString>>(words: impl IntoIterator<Item = W>, runs: &Path) -> String {
    let mut words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    if runs != Path::new("runs") {
        words.extend(["--runs".into(), runs.into()]);
    }
    command("deepsim-eval", words)
}

/// Trains a run again, into its own folder.
pub(super) fn train(run: &Path, experiment: &Experiment) -> String {
    let mut words = source(&run.join("experiment.toml"), experiment);
    if run != Path::new("runs").join(&experiment.config.name) {
        words.extend(["--out".into(), run.into()]);
    }
    command("deepsim-train", words)
}

/// Makes a record of Mahendran & Vedaldi's method again.
pub(super) fn record(record: &mv::Record) -> String {
    let mut words: Vec<OsString> = vec!["baseline".into(), "mv".into()];
    words.extend(source(&record.experiment.path, &record.experiment));
    let settings = &record.manifest.settings;
    let options = [
        ("--images", record.manifest.photos.len().to_string()),
        ("--tv", settings.lambda_tv.to_string()),
        ("--seed", settings.seed.to_string()),
    ];
    for (name, value) in options {
        words.extend([name.into(), value.into()]);
    }
    words.extend(["--out".into(), record.path.as_os_str().to_owned()]);
    command("deepsim-eval", words)
}

/// The words that name an experiment: the file that it was resolved from and what was set besides, where those still
/// give it; else the resolved file, which is complete.
fn source(resolved: &Path, experiment: &Experiment) -> Vec<OsString> {
    let Some((file, sets)) = head(resolved) else {
        return vec![resolved.into()];
    };
    match Experiment::load(&file, &sets) {
        Ok(found) if found.config == experiment.config => {}
        _ => return vec![resolved.into()],
    }
    let mut words = vec![file.into_os_string()];
    for set in sets {
        match set.strip_prefix("train.steps=").map(str::parse::<u64>) {
            Some(Ok(steps)) => words.extend(["--steps".into(), steps.to_string().into()]),
            _ => words.extend(["--set".into(), set.into()]),
        }
    }
    words
}

/// What the head of a resolved file says: which file it was resolved from, and what was set.
fn head(resolved: &Path) -> Option<(PathBuf, Vec<String>)> {
    let mut lines = BufReader::new(File::open(resolved).ok()?.take(HEAD)).lines();
    let first = lines.next()?.ok()?;
    let file = first.strip_prefix("# Resolved from ")?.trim();
    if file.is_empty() {
        return None;
    }
    let mut sets = Vec::new();
    for line in lines.map_while(Result::ok) {
        match line.strip_prefix("# with --set ") {
            Some(set) => sets.push(set.to_owned()),
            None => break,
        }
    }
    Some((file.into(), sets))
}
