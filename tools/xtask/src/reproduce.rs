//! The sample experiments in order, and the committed records of what they gave.
//!
//! A record is `docs/results/NAME.json`; the tables of `docs/results.md` are made from the records
//! alone, so a page never says more than was run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::refuse;
use crate::programs::Programs;
use crate::setup::{self, Wishes};
use crate::stages::{Stages, note, seconds};
use crate::training::{self, Outcome, Training};
use crate::workspace::Workspace;
use crate::{landing, photos, programs, quickstart};

/// The page whose tables are made from the records.
pub const PAGE: &str = "docs/results.md";
const RECORDS: &str = "docs/results";
const BEGIN: &str = "<!-- begin generated: cargo xtask reproduce -->\n";
const END: &str = "<!-- end generated -->";

/// One experiment that `reproduce` runs.
struct Experiment {
    /// Names the record; `--only` matches it.
    name: &'static str,
    file: &'static str,
    shows: &'static str,
}

/// In the order of what a reader wants to see first.
const EXPERIMENTS: [Experiment; 3] = [
    Experiment {
        name: "quickstart",
        file: "experiments/quickstart.toml",
        shows: "full loss from pool2",
    },
    Experiment {
        name: "quickstart-image-loss",
        file: "experiments/quickstart-image-loss.toml",
        shows: "image loss alone, as many steps",
    },
    Experiment {
        name: "sample-pool5",
        file: "experiments/sample/pool5.toml",
        shows: "full loss from pool5, the paper's layer",
    },
];

/// What is kept of one experiment.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: String,
    command: String,
    /// Training time over all interruptions.
    seconds: Option<f64>,
    /// The commit the evaluation ran at, with `+changes` for an unclean tree.
    commit: Option<String>,
    step: Option<u64>,
    /// Checksums of data and weights, as the checkpoint's manifest names them.
    hashes: Map<String, Value>,
    /// Rows of `deepsim-eval table2 --format json` that belong to this run.
    metrics: Vec<Map<String, Value>>,
}

/// Runs what is not finished, within `minutes`, and writes records and page.
///
/// # Errors
/// A refusal when `only` matches nothing; a failed set-up, training or evaluation.
pub fn run(ws: &Workspace, only: Option<&str>, minutes: Option<f64>) -> Result<()> {
    // "nothing" regenerates the page alone; any other word that matches nothing is a typing error.
    let chosen: Vec<_> = EXPERIMENTS
        .iter()
        .filter(|experiment| only.is_none_or(|only| experiment.name.contains(only)))
        .collect();
    if chosen.is_empty() && only != Some("nothing") {
        let names: Vec<_> = EXPERIMENTS
            .iter()
            .map(|experiment| experiment.name)
            .collect();
        return Err(refuse(format!(
            "--only {}: no such experiment; there are {}",
            only.unwrap_or_default(),
            names.join(", ")
        )));
    }
    if !chosen.is_empty() {
        train_and_record(ws, &chosen, minutes)?;
    }
    if let Some(page) = results_page(ws)? {
        landing::write(&ws.path(PAGE), page.as_bytes())?;
        note(format_args!("written: {PAGE}"));
    }
    Ok(())
}

fn train_and_record(ws: &Workspace, chosen: &[&Experiment], minutes: Option<f64>) -> Result<()> {
    let start = Instant::now();
    let deadline = minutes.map(|minutes| start + Duration::from_secs_f64(60.0 * minutes));
    let again = "cargo xtask reproduce";
    let mut stages = Stages::new(setup::STAGES + 2 + chosen.len());
    // The records are about the sample photos, whatever the quickstart was told last.
    let choice = photos::choice(ws, None)?;
    let wishes = Wishes::default();
    if choice != photos::Choice::Sample {
        return Err(refuse(
            "the records are about the sample photos, but this workspace uses photos of yours: \
             go back with `cargo xtask setup --photos sample`, then run this again",
        ));
    }
    let ready = setup::run(ws, &wishes, &setup::ALL, &programs::ALL, &mut stages)?;
    stages.next("building");
    let programs = Programs::build(ws, &programs::ALL)?;
    stages.next("preparing the sample photos");
    quickstart::prepare_sample(
        ws,
        &programs,
        &ready.photos.context("set-up gave no photos")?,
        again,
    )?;

    for experiment in chosen {
        stages.next(&format!("{}: {}", experiment.name, experiment.shows));
        if !ws.path(experiment.file).is_file() {
            note(format_args!("{} is missing: left out", experiment.file));
            continue;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            note("out of time: not run");
            continue;
        }
        let run = run_directory(ws, experiment)?;
        let training = Training {
            experiment: experiment.file.to_owned(),
            run: run.clone(),
            extra: Vec::new(),
            again: again.to_owned(),
        };
        if training.run(ws, &programs, deadline)? == Outcome::OutOfTime {
            note(format_args!(
                "out of time: saved, no record; go on with `{again}`"
            ));
            continue;
        }
        let record = record(ws, &programs, experiment, &run)?;
        let mut json = serde_json::to_vec_pretty(&record).context("writing a record")?;
        json.push(b'\n');
        landing::write(&record_file(ws, experiment), &json)?;
        note(format_args!("written: {RECORDS}/{}.json", experiment.name));
    }
    note(format_args!("reproduced in {}", seconds(stages.elapsed())));
    Ok(())
}

fn record_file(ws: &Workspace, experiment: &Experiment) -> PathBuf {
    ws.path(RECORDS).join(format!("{}.json", experiment.name))
}

/// Where the trainer puts the experiment by itself: `runs/NAME`, the name out of its file.
fn run_directory(ws: &Workspace, experiment: &Experiment) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let text = fs::read_to_string(ws.path(experiment.file))
        .with_context(|| format!("reading {}", experiment.file))?;
    let Named { name } =
        toml::from_str(&text).with_context(|| format!("in {}", experiment.file))?;
    Ok(Path::new("runs").join(name))
}

fn record(
    ws: &Workspace,
    programs: &Programs,
    experiment: &Experiment,
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
    let checkpoint = training::newest_checkpoint(&ws.path(run))
        .with_context(|| format!("{} has no checkpoint", run.display()))?;
    let manifest = fs::read(checkpoint.join("manifest.json")).context("reading the checkpoint")?;
    let manifest: Value = serde_json::from_slice(&manifest).context("reading the checkpoint")?;
    Ok(Record {
        name: experiment.name.to_owned(),
        command: format!("cargo run -p deepsim-train -- {}", experiment.file),
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

fn commit(ws: &Workspace) -> Option<String> {
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
    let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    Some(format!(
        "{}{}",
        commit.trim(),
        if clean { "" } else { "+changes" }
    ))
}

/// The page as the records give it; the text around its tables is kept. None without page.
///
/// # Errors
/// An unreadable record, or a page without the marks around its tables.
pub fn results_page(ws: &Workspace) -> Result<Option<String>> {
    let Ok(page) = fs::read_to_string(ws.path(PAGE)) else {
        return Ok(None);
    };
    let marks = page.find(BEGIN).zip(page.find(END));
    let Some((begin, end)) = marks.filter(|(begin, end)| begin < end) else {
        return Err(refuse(format!(
            "{PAGE} has lost its marks {} and {END}",
            BEGIN.trim()
        )));
    };
    let mut tables = String::new();
    tables.push_str("| experiment | shows | image error | feature error | gradient energy | n | step | training |\n");
    tables.push_str("|---|---|---|---|---|---|---|---|\n");
    for experiment in &EXPERIMENTS {
        let record = match fs::read(record_file(ws, experiment)) {
            Ok(json) => Some(
                serde_json::from_slice::<Record>(&json)
                    .with_context(|| format!("in {RECORDS}/{}.json", experiment.name))?,
            ),
            Err(_) => None,
        };
        tables.push_str(&row(experiment, record.as_ref()));
    }
    Ok(Some(format!(
        "{}{BEGIN}{tables}{}",
        &page[..begin],
        &page[end..]
    )))
}

fn row(experiment: &Experiment, record: Option<&Record>) -> String {
    let head = format!(
        "| [`{}`](../{}) | {} |",
        experiment.name, experiment.file, experiment.shows
    );
    let Some(record) = record else {
        return format!("{head} not run | not run | not run | | | |\n");
    };
    let metrics = record.metrics.first();
    let number = |key: &str, unit: &str, digits: usize| {
        let value = metrics
            .and_then(|metrics| metrics.get(key))
            .and_then(Value::as_f64);
        value.map_or_else(
            || "not run".to_owned(),
            |value| format!("{value:.digits$}{unit}"),
        )
    };
    let time = record.seconds.map_or_else(
        || "not timed".to_owned(),
        |time| seconds(Duration::from_secs_f64(time.max(0.0))),
    );
    format!(
        "{head} {} | {} | {} | {} | {} | {time} |\n",
        number("image_error", " %", 1),
        number("feature_error", " %", 1),
        number("gradient_energy", "", 2),
        number("n", "", 0),
        record
            .step
            .map_or_else(String::new, |step| step.to_string()),
    )
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

    #[test]
    fn the_page_keeps_its_text_and_says_what_was_not_run() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("tools/xtask")).unwrap();
        fs::create_dir_all(tmp.path().join(RECORDS)).unwrap();
        let ws = Workspace::find(Some(tmp.path())).unwrap();
        assert_eq!(results_page(&ws).unwrap(), None);

        fs::write(ws.path(PAGE), format!("# Results\n{BEGIN}old{END}\ntail\n")).unwrap();
        let record = json!({
            "name": "quickstart", "command": "", "seconds": 480.0, "commit": null, "step": 3655,
            "hashes": {}, "metrics": [{ "image_error": 35.12, "feature_error": 50.1, "gradient_energy": 0.94, "n": 38 }],
        });
        fs::write(record_file(&ws, &EXPERIMENTS[0]), record.to_string()).unwrap();
        let page = results_page(&ws).unwrap().unwrap();
        assert!(
            page.starts_with("# Results\n") && page.ends_with("\ntail\n"),
            "{page}"
        );
        assert!(
            page.contains("| 35.1 % | 50.1 % | 0.94 | 38 | 3655 | 8m00s |"),
            "{page}"
        );
        assert_eq!(
            page.matches("not run | not run").count(),
            EXPERIMENTS.len() - 1
        );
        assert!(!page.contains("old"));

        fs::write(ws.path(PAGE), "no marks").unwrap();
        assert!(results_page(&ws).is_err());
    }
}
