//! What experiments on the sample photos need before they train, and what is kept of them.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::refuse;
use crate::programs::Programs;
use crate::setup::{self, Wishes};
use crate::stages::{Stages, note};
use crate::workspace::Workspace;
use crate::{landing, photos, programs, quickstart, training};

/// Where records are kept.
pub const RECORDS: &str = "docs/results";

/// Stages that [`ready`] announces at most, without faces.
pub const STAGES: usize = setup::STAGES + 2;

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
}

/// Set-up, the programs, and the sample photos as the quickstart prepares them; the faces where `faces` asks
/// for them. `again` is the command that goes on after a failure.
///
/// # Errors
/// A refusal where the workspace uses other photos; a failed set-up or build.
pub fn ready(
    ws: &Workspace,
    stages: &mut Stages,
    faces: bool,
    again: &'static str,
) -> Result<Programs> {
    // The records are about the sample photos, whatever the quickstart was told last.
    if photos::choice(ws, None)? != photos::Choice::Sample {
        return Err(refuse(
            "the records are about the sample photos, but this workspace uses photos of yours: \
             go back with `cargo xtask setup --photos sample`, then run this again",
        ));
    }
    let wishes = Wishes::default();
    let mut parts = setup::ALL.to_vec();
    if faces {
        parts.push(setup::Part::Faces);
    }
    let ready = setup::run(ws, &wishes, &parts, &programs::ALL, stages)?;
    stages.next("building");
    let programs = Programs::build(ws, &programs::ALL)?;
    stages.next("preparing the sample photos");
    let source = ready.photos.context("set-up gave no photos")?;
    quickstart::prepare_sample(ws, &programs, &source, again)?;
    Ok(programs)
}

/// Writes a record as `docs/results/NAME.json`.
///
/// # Errors
/// A full or unwritable disk.
pub fn write(ws: &Workspace, name: &str, record: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(record).context("writing a record")?;
    json.push(b'\n');
    landing::write(&ws.path(RECORDS).join(format!("{name}.json")), &json)?;
    note(format_args!("written: {RECORDS}/{name}.json"));
    Ok(())
}

/// Judges the newest checkpoint of `run` on the held-out photos.
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
fn hashes(manifest: &Value) -> Map<String, Value> {
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
const BUT_RECORDS: [&str; 4] = [
    ".",
    ":(exclude)docs/results",
    ":(exclude)docs/pictures",
    ":(exclude)docs/reproduction.md",
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
