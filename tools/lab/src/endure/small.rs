//! A small training in a run directory of its own, and what is read of it from outside.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use deepsim_tools::failure::refuse;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::Stages;
use deepsim_tools::workspace::Workspace;
use serde_json::Value;

use crate::samples;

/// The experiment, made small: what is looked at are the program's habits, not its images.
const EXPERIMENT: &str = "experiments/quickstart.toml";
const SMALL: [&str; 7] = [
    "data.crop=64",
    "generator.width=0.125",
    "train.batch_size=4",
    "train.threads=1",
    "train.precision=fp32",
    "train.eval_images=8",
    "train.keep_checkpoints=2",
];

pub(super) fn ready(ws: &Workspace) -> Result<(Programs, Stages)> {
    let mut stages = Stages::new(samples::STAGES + 2);
    let (programs, _) = samples::ready(ws, &mut stages, false)?;
    Ok((programs, stages))
}

/// The trainer's arguments for the small experiment in `run`.
pub(super) fn arguments(run: &Path, more: &[String]) -> Vec<String> {
    let mut all = vec![EXPERIMENT.to_owned(), "--out".to_owned()];
    all.push(run.display().to_string());
    for set in SMALL
        .iter()
        .map(|s| (*s).to_owned())
        .chain(more.iter().cloned())
    {
        all.extend(["--set".to_owned(), set]);
    }
    all
}

/// Numbers below what is asked for. Any will do for moments, but the same for a seed: xorshift.
pub(super) fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut moments = seed;
    move |below| {
        moments = moments.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        moments ^= moments >> 29;
        moments ^= moments << 17;
        moments % below
    }
}

/// The process that writes a run directory, by its lock.
pub(super) fn writer(run: &Path) -> Option<u32> {
    fs::read_to_string(run.join("lock"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The newest line of a run's metrics that has this key.
pub(super) fn newest(run: &Path, key: &str) -> Option<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).ok()?;
    text.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|value| value.get(key)?.as_f64())
}

/// Removes what an earlier trial left.
///
/// # Errors
/// A refusal while somebody trains there.
pub(super) fn clear(run: &Path) -> Result<()> {
    if let Ok(lock) = fs::File::open(run.join("lock"))
        && lock.try_lock().is_err()
    {
        return Err(refuse(format!(
            "{} is in use: wait for the other command, or end it",
            run.display()
        )));
    }
    match fs::remove_dir_all(run) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("removing {}", run.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_somebody_trains_is_not_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("soak");
        fs::create_dir(&run).unwrap();
        let lock = fs::File::create(run.join("lock")).unwrap();
        lock.lock().unwrap();
        let refusal = clear(&run).unwrap_err().to_string();
        assert!(refusal.contains("in use"), "{refusal}");
        assert!(run.join("lock").is_file());
        drop(lock);
        clear(&run).unwrap();
        assert!(!run.exists());
        clear(&run).unwrap();
    }
}
