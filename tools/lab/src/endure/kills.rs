//! kill -9 at many moments of one training: the newest visible checkpoint must verify each time, and
//! what comes out in the end must be what an undisturbed training gives, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::small::{arguments, clear, random, ready};
use crate::samples;
use deepsim_tools::files;
use deepsim_tools::stages::note;
use deepsim_tools::training::newest_checkpoint;
use deepsim_tools::workspace::Workspace;

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask kills                 100 kills: docs/results/kills.json
  cargo xtask kills --times 5       a trial, printed only";

const NAME: &str = "kills";
/// A trial with fewer leaves no record.
const WHOLE: u32 = 100;
/// Longest that a training may go without a new checkpoint.
const PATIENCE: Duration = Duration::from_secs(120);

/// A training that does not outlive a trial that failed.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often the training is killed
    #[arg(long, value_name = "N", default_value_t = WHOLE, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,
    /// Seed of the moments
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Evidence {
    name: &'static str,
    command: String,
    commit: Option<String>,
    kills: u32,
    /// Kills that left a half-written checkpoint or removal behind: moments inside the protocol.
    amid_a_commit: u32,
    /// Newest checkpoints that verified after a kill.
    verified: u32,
    steps: u64,
    /// Files of the last checkpoint that equal the undisturbed run's.
    equal_files: usize,
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let (programs, mut stages) = ready(ws)?;
    let commit = samples::commit(ws);
    let [whole, cut] = ["kills-whole", "kills-cut"].map(|name| Path::new("runs").join(name));
    for run in [&whole, &cut] {
        clear(&ws.path(run))?;
    }
    // A checkpoint each step: most moments fall into a commit.
    let steps = u64::from(args.times) * 3 + 10;
    let often = vec![
        format!("train.steps={steps}"),
        "train.log_every=1".to_owned(),
        "train.checkpoint_every=1".to_owned(),
        "train.sample_every=10".to_owned(),
        "train.eval_every=0".to_owned(),
    ];
    stages.next("training undisturbed");
    programs
        .get(ws, "the training", "deepsim-train")?
        .args(arguments(&whole, &often))
        .run()?;
    stages.next(&format!("killing {} times", args.times));
    let executable = programs.path("deepsim-train")?;
    let (mut amid, mut verified) = (0, 0);
    let mut random = random(args.seed);
    for kill in 1..=args.times {
        let before = newest_checkpoint(&ws.path(&cut));
        let mut child = Killed(
            Command::new(&executable)
                .current_dir(ws.root())
                .args(arguments(&cut, &often))
                .arg("--resume")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("starting the training")?,
        );
        let begun = Instant::now();
        // After its first checkpoint of this life, at a moment within the next steps.
        while newest_checkpoint(&ws.path(&cut)) == before {
            ensure!(
                child.0.try_wait().context("waiting")?.is_none(),
                "kill {kill}: the training ended before it was killed"
            );
            ensure!(
                begun.elapsed() < PATIENCE,
                "kill {kill}: no checkpoint came"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random(90_000)));
        ensure!(
            child.0.try_wait().context("waiting")?.is_none(),
            "kill {kill}: the training ended before it was killed"
        );
        child.0.kill().context("killing")?;
        child.0.wait().context("waiting")?;
        amid += u32::from(has_partial(&ws.path(&cut))?);
        let newest = newest_checkpoint(&ws.path(&cut)).context("no checkpoint is visible")?;
        verify(&newest).with_context(|| format!("after kill {kill}"))?;
        verified += 1;
    }
    stages.next("going on to the end");
    programs
        .get(ws, "the training", "deepsim-train")?
        .args(arguments(&cut, &often))
        .args(["--resume"])
        .run()?;
    let [whole, cut] = [&whole, &cut].map(|run| newest_checkpoint(&ws.path(run)));
    let (whole, cut) = (
        whole.context("no checkpoint")?,
        cut.context("no checkpoint")?,
    );
    let (a, b) = (hashes(&whole)?, hashes(&cut)?);
    if a != b {
        bail!(
            "{} and {} differ: {a:?}, {b:?}",
            whole.display(),
            cut.display()
        );
    }
    println!(
        "{} kills, {amid} amid a commit; {verified} newest checkpoints verified; after the last, {} files equal \
         those of the undisturbed run, byte for byte",
        args.times,
        a.len()
    );
    if args.times < WHOLE {
        note(format_args!("no record: it takes {WHOLE} kills"));
        return Ok(());
    }
    let evidence = Evidence {
        name: NAME,
        command: format!(
            "cargo xtask kills --times {} --seed {}",
            args.times, args.seed
        ),
        commit,
        kills: args.times,
        amid_a_commit: amid,
        verified,
        steps,
        equal_files: a.len(),
    };
    samples::write(ws, NAME, &evidence)
}

fn has_partial(run: &Path) -> Result<bool> {
    let folder = run.join("checkpoints");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    Ok(entries
        .flatten()
        .any(|e| e.file_name().to_string_lossy().starts_with(".partial-")))
}

/// blake3 of each file as the manifest says.
pub(super) fn hashes(checkpoint: &Path) -> Result<BTreeMap<String, String>> {
    let file = checkpoint.join("manifest.json");
    let manifest: Value = files::json(&file)?;
    let files = manifest["files"]
        .as_object()
        .context("a manifest without files")?;
    files
        .iter()
        .map(|(name, entry)| {
            let hash = entry["blake3"].as_str().context("a file without hash")?;
            Ok((name.clone(), hash.to_owned()))
        })
        .collect()
}

/// The files are there and are those of the manifest.
pub(super) fn verify(checkpoint: &Path) -> Result<()> {
    for (name, hash) in hashes(checkpoint)? {
        let file = checkpoint.join(&name);
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        ensure!(
            blake3::hash(&bytes).to_hex().as_str() == hash,
            "{} is not what the manifest says",
            file.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("generator.safetensors");
        fs::write(&file, b"weights").unwrap();
        let manifest = serde_json::json!({
            "files": { "generator.safetensors": { "bytes": 7, "blake3": blake3::hash(b"weights").to_hex().as_str() } }
        });
        fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
        verify(folder.path()).unwrap();
        fs::write(&file, b"weighty").unwrap();
        assert!(verify(folder.path()).is_err());
        fs::remove_file(&file).unwrap();
        assert!(verify(folder.path()).is_err());
    }
}
