//! What experiments on the sample photos need before they train, and what is kept of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::experiment_file;
use deepsim_tools::child::Child;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::{Stages, note};
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{files, machine, programs, training};

/// Where records are kept.
pub const RECORDS: &str = "docs/results";

/// Stages that [`ready`] announces.
pub const STAGES: usize = 2;

/// What is kept of one experiment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Names the record.
    pub name: String,
    /// Gives the run again.
    pub command: String,
    /// Training time over all interruptions.
    pub seconds: Option<f64>,
    /// The commit the evaluation ran at, with `+changes` for an unclean tree.
    pub commit: Option<String>,
    /// Iterations of its checkpoint.
    pub step: Option<u64>,
    /// Checksums of data and weights, as the checkpoint's manifest names them.
    pub hashes: Map<String, Value>,
    /// Rows of `deepsim-eval table2 --format json` that belong to this run.
    pub metrics: Vec<Map<String, Value>>,
    /// The processor of the machine that the record was made on. Older records lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// Settings of the run that change its numbers: seed, arithmetic, threads. Older records lack them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// How often each network was updated. Older records lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Updates>,
    /// What other commands of `deepsim-eval` say of the run, by their names. Older records lack them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub studies: BTreeMap<String, Rows>,
}

/// Settings of a run that change its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `train.seed`.
    pub seed: u64,
    /// `train.precision`.
    pub precision: String,
    /// `train.threads`; 0: as many as there are processors.
    pub threads: u64,
}

/// Updates of the two networks over all steps: the gate leaves some out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Updates {
    /// Of the generator.
    pub generator: u64,
    /// Of the discriminator.
    pub discriminator: u64,
}

/// What one command printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Prints it again.
    pub command: String,
    /// Its rows.
    pub rows: Vec<Map<String, Value>>,
}

/// Settings out of an experiment file, a run's or a committed one.
///
/// # Errors
/// A file that cannot be read or lacks them.
pub fn settings(file: &Path) -> Result<Settings> {
    #[derive(Deserialize)]
    struct File {
        train: Settings,
    }
    let File { train } = experiment_file::read(file)?;
    Ok(train)
}

/// Counts of the last line of a run's `metrics.jsonl` that has them; none without.
fn updates(run: &Path) -> Option<Updates> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).ok()?;
    text.lines().rev().find_map(|line| {
        let json: Value = serde_json::from_str(line).ok()?;
        Some(Updates {
            generator: json["updates.g"].as_u64()?,
            discriminator: json["updates.d"].as_u64()?,
        })
    })
}

/// Runs parts of set-up, as `cargo xtask setup --only` does.
///
/// # Errors
/// What set-up refuses, or its failure.
pub fn set_up(ws: &Workspace, parts: &[&str], more: &[&str]) -> Result<()> {
    Child::cargo("set-up", ws.root())
        .args(["run", "--quiet", "--package", "xtask", "--", "--root"])
        .args([ws.root()])
        .args(["setup", "--only", &parts.join(",")])
        .args(more)
        .run()
}

/// Set-up, the programs, and the sample photos prepared; the faces where `faces` asks for them. Gives the programs and the
/// photos' folder.
///
/// # Errors
/// A refusal where the workspace uses other photos; a failed set-up or build.
pub fn ready(ws: &Workspace, stages: &mut Stages, faces: bool) -> Result<(Programs, PathBuf)> {
    stages.next("set-up");
    let mut parts = vec!["torch", "build", "photos", "weights", "judges", "sample"];
    if faces {
        parts.push("faces");
    }
    set_up(ws, &parts, &[])?;
    stages.next("building");
    Ok((Programs::build(ws, &programs::ALL)?, ws.photos()))
}

/// Where a record is: `docs/results/NAME.json`.
pub fn place(ws: &Workspace, name: &str) -> PathBuf {
    ws.path(RECORDS).join(format!("{name}.json"))
}

/// Writes a record as `docs/results/NAME.json`.
///
/// # Errors
/// A full or unwritable disk.
pub fn write(ws: &Workspace, name: &str, record: &impl Serialize) -> Result<()> {
    files::write_json(&place(ws, name), record)?;
    note(format_args!("written: {RECORDS}/{name}.json"));
    Ok(())
}

/// Rows of `table2` for the newest checkpoint of `run`: its errors on the held-out photos.
///
/// # Errors
/// A failed evaluation; no row for the run.
pub fn evaluate(
    ws: &Workspace,
    programs: &Programs,
    run: &Path,
) -> Result<Vec<Map<String, Value>>> {
    let json = programs
        .get(ws, "evaluating", "deepsim-eval")?
        .args(["table2", "--format", "json", "--runs"])
        .args([run])
        .output()?;
    let rows: Vec<Map<String, Value>> =
        serde_json::from_slice(&json).context("reading deepsim-eval's table2 as JSON")?;
    let metrics: Vec<_> = rows.into_iter().filter(|row| belongs(row, run)).collect();
    if metrics.is_empty() {
        anyhow::bail!("deepsim-eval table2 gave no row for {}", run.display());
    }
    Ok(metrics)
}

/// Evaluates the newest checkpoint of `run` on the held-out photos, and makes its record.
///
/// # Errors
/// A failed evaluation; a run without checkpoint.
pub fn record(
    ws: &Workspace,
    programs: &Programs,
    name: &str,
    command: String,
    run: &Path,
) -> Result<Record> {
    let metrics = evaluate(ws, programs, run)?;
    let manifest = training::newest_manifest(&ws.path(run))?
        .with_context(|| format!("{} has no checkpoint", run.display()))?;
    Ok(Record {
        name: name.to_owned(),
        command,
        seconds: manifest["seconds"].as_f64(),
        commit: commit(ws),
        step: manifest["step"].as_u64(),
        hashes: hashes(&manifest),
        metrics,
        processor: machine::processor(),
        settings: settings(&ws.path(run).join("experiment.toml")).ok(),
        updates: updates(&ws.path(run)),
        studies: BTreeMap::new(),
    })
}

/// Whether a row of the table is about this run, by name or by path.
fn belongs(row: &Map<String, Value>, run: &Path) -> bool {
    let named = row
        .get("run")
        .and_then(Value::as_str)
        .map(|name| name.trim_end_matches('/'));
    let last = run.file_name().and_then(|name| name.to_str());
    named.is_some_and(|name| Path::new(name).file_name().and_then(|n| n.to_str()) == last)
}

/// The checksums of data and weights out of a checkpoint's manifest: every text of 64 hex digits
/// outside the list of the checkpoint's own files, by its dotted key.
pub fn hashes(manifest: &Value) -> Map<String, Value> {
    fn collect(prefix: &str, value: &Value, into: &mut Map<String, Value>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| *key != "files") {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    collect(&format!("{prefix}{dot}{key}"), value, into);
                }
            }
            Value::String(text)
                if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) =>
            {
                into.insert(prefix.to_owned(), value.clone());
            }
            _ => {}
        }
    }
    let mut found = Map::new();
    collect("", manifest, &mut found);
    found
}

/// What records change themselves: it does not make a tree unclean.
const BUT_RECORDS: [&str; 7] = [
    ".",
    ":(exclude)docs/results",
    ":(exclude)docs/pictures",
    ":(exclude)docs/reproduction.md",
    ":(exclude)docs/performance.md",
    ":(exclude)docs/reliability.md",
    ":(exclude)README.md",
];

/// The commit of the workspace, with `+changes` for an unclean tree; none outside git. To be asked before the work
/// begins: later there may be another.
pub fn commit(ws: &Workspace) -> Option<String> {
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git")
            .args(args)
            .current_dir(ws.root())
            .output();
        output
            .ok()
            .filter(|o| o.status.success())
            .and_then(|o| String::from_utf8(o.stdout).ok())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(BUT_RECORDS);
    let clean = git(&status).is_some_and(|changes| changes.is_empty());
    Some(format!(
        "{}{}",
        commit.trim(),
        if clean { "" } else { "+changes" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_find_their_run_by_name_or_path() {
        let row = |run: Value| json!({ "run": run }).as_object().unwrap().clone();
        for run in ["quickstart", "runs/quickstart", "./runs/quickstart/"] {
            assert!(
                belongs(&row(json!(run)), Path::new("runs/quickstart")),
                "{run}"
            );
        }
        for run in [json!("runs/quickstart-own"), json!(null)] {
            assert!(
                !belongs(&row(run.clone()), Path::new("runs/quickstart")),
                "{run}"
            );
        }
    }

    #[test]
    fn records_of_today_and_of_earlier_programs_are_both_read() {
        let old = json!({
            "name": "x", "command": "", "seconds": 1.0, "commit": null, "step": 9, "hashes": {}, "metrics": [],
        });
        let read: Record = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(read.processor, None);
        // Nothing that was not known is written into it.
        assert_eq!(serde_json::to_value(&read).unwrap(), old);
        let mut new = old;
        new["processor"] = json!("2 x A, no AMX");
        new["settings"] = json!({ "seed": 1, "precision": "fp32", "threads": 0 });
        new["updates"] = json!({ "generator": 9, "discriminator": 4 });
        new["studies"] = json!({ "sample": { "command": "c", "rows": [{ "kl": 1.5 }] } });
        let read: Record = serde_json::from_value(new.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), new);
    }

    #[test]
    fn settings_and_updates_come_from_the_run_itself() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("experiment.toml");
        std::fs::write(
            &file,
            "[train]\nseed = 7\nprecision = \"bf16\"\nthreads = 2\nsteps = 9\n",
        )
        .unwrap();
        let read = settings(&file).unwrap();
        assert_eq!(
            (read.seed, read.precision.as_str(), read.threads),
            (7, "bf16", 2)
        );
        assert_eq!(updates(tmp.path()), None);
        let lines = "{\"step\":1,\"updates.g\":1,\"updates.d\":1}\n{\"step\":2,\"updates.g\":2,\"updates.d\":1}\n{\"eval\":1}\n";
        std::fs::write(tmp.path().join("metrics.jsonl"), lines).unwrap();
        let found = updates(tmp.path()).unwrap();
        assert_eq!((found.generator, found.discriminator), (2, 1));
    }

    #[test]
    fn hashes_of_data_and_weights_are_taken_but_not_those_of_the_checkpoint() {
        let hash = "a".repeat(64);
        let manifest = json!({
            "step": 10, "train_data": hash, "encoder_weights": hash, "versions": { "deepsim": "0.1.0" },
            "files": { "generator.safetensors": { "blake3": hash } },
        });
        let found = hashes(&manifest);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            ["encoder_weights", "train_data"]
        );
    }
}
