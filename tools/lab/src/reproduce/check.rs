//! `reproduce --check`: the recorded numbers beside those of the runs that are here. Nothing is written.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::{Experiment, reconstructs, run_directory};
use crate::samples::{self, RECORDS, Record};
use deepsim_tools::failure::refuse;
use deepsim_tools::files;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::training;
use deepsim_tools::workspace::Workspace;

/// What is compared, and how far two trainings of one experiment may be apart: by a share of the recorded value, and
/// by an amount where that is more. Trainings that differ in the seed alone, or in the processor, differ by so much.
const COMPARED: [(&str, f64, f64, usize); 3] = [
    ("image_error", 0.1, 2.0, 1),
    ("feature_error", 0.1, 2.0, 1),
    ("gradient_energy", 0.25, 0.05, 2),
];

/// What is said of runs on other photos than the record's.
const OTHER_PHOTOS: &str = "not held against the record: other photos";

/// Prints the recorded numbers of the chosen experiments beside those of their runs. Runs on other photos than the record's
/// may differ by as much as they like; the last line names them.
///
/// # Errors
/// A refusal where no run can be compared; a failed evaluation; numbers that are too far apart.
pub fn check(ws: &Workspace, chosen: &[&Experiment]) -> Result<()> {
    let mut found = Vec::new();
    let mut absent = 0;
    // Errors of an encoder that did not learn mean nothing.
    for experiment in chosen.iter().filter(|e| reconstructs(e.name)) {
        let Some(record) = read(ws, experiment)? else {
            continue;
        };
        let run = run_directory(ws, experiment)?;
        let Some(manifest) = training::newest_manifest(&ws.path(&run))? else {
            absent += 1;
            continue;
        };
        let step = manifest["step"].as_u64();
        if step != record.step {
            note(format_args!(
                "{}: at step {} of {}, not compared; `cargo xtask reproduce --only {}` goes on",
                run.display(),
                step.unwrap_or(0),
                record.step.unwrap_or(0),
                experiment.name
            ));
            continue;
        }
        found.push((*experiment, record, run, manifest));
    }
    if found.is_empty() {
        return Err(refuse(
            "no finished run of a recorded experiment is in runs/: `cargo xtask quickstart` trains one, \
             `cargo xtask reproduce --only NAME` another",
        ));
    }
    let programs = Programs::build(ws, &["deepsim-eval"])?;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<27} {:<15} {:>9} {:>9} {:>8} {:>8}",
        "run", "", "recorded", "here", "differ", "allowed"
    );
    let (mut beyond, mut elsewhere) = (Vec::new(), Vec::new());
    for (experiment, record, run, manifest) in &found {
        let here = samples::evaluate(ws, &programs, run)?;
        let (Some(here), Some(recorded)) = (here.first(), record.metrics.first()) else {
            bail!("docs/results/{}.json has no metrics", experiment.name);
        };
        let others = others(record, manifest);
        for other in &others {
            note(format_args!("{}: not the record's {other}", run.display()));
        }
        let held = !others.iter().any(|other| DATA.contains(&other.as_str()));
        if !held {
            elsewhere.push(experiment.name);
        }
        for line in lines(experiment.name, recorded, here, held) {
            text.push_str(&line.text);
            if !line.within {
                beyond.push(experiment.name);
            }
        }
    }
    print!("{text}");
    if absent > 0 {
        note(format_args!(
            "{absent} recorded experiments have no run here: not compared"
        ));
    }
    if !elsewhere.is_empty() {
        println!("{}: {OTHER_PHOTOS}", elsewhere.join(", "));
    }
    beyond.dedup();
    if beyond.is_empty() {
        Ok(())
    } else {
        bail!(
            "further from the record than allowed: {}",
            beyond.join(", ")
        )
    }
}

fn read(ws: &Workspace, experiment: &Experiment) -> Result<Option<Record>> {
    let file = Path::new(RECORDS).join(format!("{}.json", experiment.name));
    let file = ws.path(file);
    file.exists().then(|| files::json(&file)).transpose()
}

/// How [`others`] names the images.
const DATA: [&str; 2] = ["train data", "test data"];

/// Data and weights by the record's names whose checksums are others here.
fn others(record: &Record, manifest: &Value) -> Vec<String> {
    let here = samples::hashes(manifest);
    let named = record.hashes.iter().filter(|(key, hash)| {
        // `digest` is the checkpoint's own: no two trainings have the same.
        *key != "digest" && here.get(*key).is_some_and(|found| found != *hash)
    });
    named.map(|(key, _)| key.replace('_', " ")).collect()
}

struct Line {
    text: String,
    within: bool,
}

/// A line for each number. Where it is not `held` against the record, any number will do.
fn lines(
    name: &str,
    recorded: &Map<String, Value>,
    here: &Map<String, Value>,
    held: bool,
) -> Vec<Line> {
    let mut all = Vec::new();
    for (key, share, least, digits) in COMPARED {
        let value = |row: &Map<String, Value>| row.get(key).and_then(Value::as_f64);
        let Some(a) = value(recorded) else { continue };
        let label = if all.is_empty() { name } else { "" };
        let key = key.replace('_', " ");
        let allowed = (share * a.abs()).max(least);
        let (text, within) = match value(here) {
            Some(b) => {
                // What is not a number is within nothing.
                let within = (b - a).abs() <= allowed || (!held && b.is_finite());
                let mark = if within { "" } else { "  <- beyond" };
                let text = format!(
                    "{label:<27} {key:<15} {a:>9.digits$} {b:>9.digits$} {:>+8.digits$} {allowed:>8.digits$}{mark}\n",
                    b - a
                );
                (text, within)
            }
            None => (
                format!(
                    "{label:<27} {key:<15} {a:>9.digits$} {:>9}  <- none here\n",
                    "-"
                ),
                false,
            ),
        };
        all.push(Line { text, within });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn another_draw_is_within_and_another_result_is_beyond() {
        let row = |image: f64, feature: f64, energy: f64| {
            let row = json!({ "image_error": image, "feature_error": feature, "gradient_energy": energy });
            row.as_object().unwrap().clone()
        };
        let within = |here| {
            let all = lines("quickstart", &row(39.4, 57.1, 0.93), &here, true);
            all.iter().map(|line| line.within).collect::<Vec<_>>()
        };
        // A training on another processor.
        assert_eq!(within(row(38.3, 58.1, 0.78)), [true; 3]);
        // The same experiment with the image loss alone.
        assert_eq!(within(row(32.1, 70.7, 0.12)), [false; 3]);
        assert_eq!(within(row(f64::NAN, 57.1, 0.93)), [false, true, true]);
        let none = lines("quickstart", &row(39.4, 57.1, 0.93), &Map::new(), true);
        assert!(none.iter().all(|line| !line.within));
        // On other photos.
        let other = lines(
            "quickstart",
            &row(39.4, 57.1, 0.93),
            &row(32.1, f64::NAN, 0.12),
            false,
        );
        let within: Vec<bool> = other.iter().map(|line| line.within).collect();
        assert_eq!(within, [true, false, true]);
        assert!(!other[0].text.contains("beyond"), "{}", other[0].text);
    }

    #[test]
    fn other_data_than_the_records_are_named_but_not_another_checkpoint() {
        let record: Record = serde_json::from_value(json!({
            "name": "x", "command": "", "seconds": null, "commit": null, "step": 1, "metrics": [],
            "hashes": { "digest": "a".repeat(64), "test_data": "b".repeat(64), "train_data": "c".repeat(64) },
        }))
        .unwrap();
        let manifest = json!({ "digest": "d".repeat(64), "test_data": "e".repeat(64), "train_data": "c".repeat(64) });
        let found = others(&record, &manifest);
        assert_eq!(found, ["test data"]);
        assert!(DATA.contains(&found[0].as_str()));
    }
}
