//! Tables of the documents from the studies in the records of `cargo xtask reproduce`.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::markdown::{cell, markdown, metrics, percent, share};
use super::records::Records;
use crate::reproduce::{EXPERIMENTS, reconstructs};
use crate::samples::RECORDS;

/// What a column shows of a row, by the row's keys.
#[derive(Debug, Clone, Copy)]
enum Show {
    /// A number with so many digits, or a word.
    Plain(&'static str, usize),
    /// The same, of an encoder that learns.
    Learned(&'static str, usize),
    /// A number of percent.
    Percent(&'static str, usize),
    /// The same, of an encoder that learns.
    LearnedPercent(&'static str, usize),
    /// A share, in percent.
    Share(&'static str),
    /// Two shares, before and after.
    Change(&'static str, &'static str),
}
use Show::{Change, Learned, LearnedPercent, Percent, Plain, Share};

impl Show {
    /// The cell of a row of the experiment `name`.
    fn of(self, name: &str, row: &Map<String, Value>) -> String {
        match self {
            Learned(..) | LearnedPercent(..) if !reconstructs(name) => "–".to_owned(),
            Plain(key, digits) | Learned(key, digits) => cell(row, key, digits),
            Percent(key, digits) | LearnedPercent(key, digits) => percent(row, key, digits),
            Share(key) => share(row, key),
            Change(before, after) => format!("{} → {}", share(row, before), share(row, after)),
        }
    }
}

/// Its head, and what it shows.
type Column = (&'static str, Show);

const SAMPLES: [Column; 9] = [
    ("compared in", Plain("comparator", 0)),
    ("KL, nats an image", Learned("kl", 1)),
    ("image error", LearnedPercent("image_error", 1)),
    (
        "sharpness of reconstructions",
        Learned("reconstruction_energy", 2),
    ),
    ("of samples", Plain("sample_energy", 2)),
    ("kernel distance", Plain("kernel_distance", 3)),
    ("of training photos", Plain("kernel_distance_of_photos", 3)),
    ("Fréchet distance", Plain("frechet_distance", 0)),
    ("of training photos", Plain("frechet_distance_of_photos", 0)),
];

const ATTRIBUTES: [Column; 5] = [
    ("attribute", Plain("attribute", 0)),
    ("probe, held out", Share("probe")),
    ("by guessing", Share("guess")),
    ("added", Change("found_before", "found_added")),
    ("taken away", Change("missed_before", "missed_removed")),
];

const PREIMAGES: [Column; 7] = [
    ("spread of images", Percent("spread", 1)),
    ("spread of their features", Percent("feature_spread", 1)),
    ("feature error", Percent("feature_error", 1)),
    ("with noise zero", Percent("feature_error_of_mean", 1)),
    ("image error", Percent("image_error", 1)),
    ("n", Plain("n", 0)),
    ("draws", Plain("draws", 0)),
];

const REENCODE: [Column; 6] = [
    ("iteration", Plain("iteration", 0)),
    ("image error", Percent("image_to_original", 1)),
    ("feature error", Percent("feature_to_original", 1)),
    (
        "image, to the iteration before",
        Percent("image_to_previous", 1),
    ),
    (
        "features, to the iteration before",
        Percent("feature_to_previous", 1),
    ),
    ("n", Plain("n", 0)),
];

const NEIGHBORS: [Column; 8] = [
    ("nearest training photo in", Plain("space", 0)),
    ("image error", Percent("image_error", 1)),
    ("feature error", Percent("feature_error", 1)),
    (
        "reconstruction is nearer: image",
        Share("reconstruction_nearer_image"),
    ),
    ("features", Share("reconstruction_nearer_feature")),
    ("same category", Share("same_category")),
    ("by chance", Share("same_category_by_chance")),
    ("n", Plain("n", 0)),
];

/// Of the one row that [`steps`] makes.
const INTERPOLATE: [Column; 4] = [
    ("frames", Plain("frames", 0)),
    ("mean step, grey levels", Plain("mean", 2)),
    ("largest", Plain("largest", 2)),
    ("largest / mean", Plain("ratio", 2)),
];

const MV: [Column; 6] = [
    ("image error", Percent("image_error", 1)),
    ("feature error", Percent("feature_error", 1)),
    ("gradient energy", Plain("gradient_energy", 2)),
    ("feature term at first", Plain("feature_start", 3)),
    ("in the end", Plain("feature_end", 3)),
    ("n", Plain("n", 0)),
];

const LOSSES: [Column; 9] = [
    ("L1", Plain("l1", 2)),
    ("L2", Plain("l2", 2)),
    ("SSIM", Plain("ssim", 3)),
    ("MS-SSIM", Plain("ms_ssim", 3)),
    ("LPIPS", Plain("lpips", 3)),
    ("sharpness", Plain("gradient_energy", 2)),
    ("category from codes", Share("classified")),
    ("by guessing", Share("classified_by_chance")),
    ("of images", Plain("n_classified", 0)),
];

/// What `table2` gives of the same experiments.
const METRICS: [Column; 5] = [
    ("image error, %", Plain("image_error", 1)),
    ("PSNR, dB", Plain("psnr", 2)),
    ("SSIM", Plain("ssim", 3)),
    ("LPIPS", Plain("lpips", 3)),
    ("sharpness", Plain("gradient_energy", 2)),
];

/// The table of that name, of some experiments; none where there is no such table.
///
/// # Errors
/// No such experiment; a record that it cannot do without.
pub fn table(records: &Records, name: &str, of: &[&str]) -> Result<Option<String>> {
    let (study, first, columns): (_, _, &[Column]) = match name {
        "samples" => ("sample", "run", &SAMPLES),
        "attributes" => ("attributes", "run", &ATTRIBUTES),
        "preimages" => ("preimages", "run", &PREIMAGES),
        "reencode" => ("reencode", "run", &REENCODE),
        "neighbors" => ("neighbors", "run", &NEIGHBORS),
        "interpolate" => ("interpolate", "run", &INTERPOLATE),
        "mv" => ("mv", "layer of", &MV),
        "losses" => return losses(records, of).map(Some),
        _ => return Ok(None),
    };
    if of.is_empty() {
        bail!("the names of experiments are missing");
    }
    let mut rows = Vec::new();
    for name in of {
        shows(name)?;
        let found = records.study(name, study).unwrap_or_default();
        let summary = (study == "interpolate" && !found.is_empty()).then(|| steps(&found));
        for row in summary
            .iter()
            .chain(found.into_iter().filter(|_| summary.is_none()))
        {
            rows.push(line(&[format!("`{name}`")], name, columns, row));
        }
    }
    Ok(Some(if rows.is_empty() {
        // What would make it.
        format!(
            "*Not recorded yet; `cargo xtask reproduce --only {}` writes this table.*\n",
            of.join(",")
        )
    } else {
        markdown(&heads(&[first], columns), &rows)
    }))
}

/// What an experiment shows.
fn shows(name: &str) -> Result<&'static str> {
    match EXPERIMENTS.iter().find(|e| e.name == name) {
        Some(experiment) => Ok(experiment.shows),
        None => bail!("there is no experiment {name}"),
    }
}

fn heads(first: &[&'static str], columns: &[Column]) -> Vec<&'static str> {
    let all = columns.iter().map(|(head, _)| *head);
    first.iter().copied().chain(all).collect()
}

fn line(first: &[String], name: &str, columns: &[Column], row: &Map<String, Value>) -> Vec<String> {
    let cells = columns.iter().map(|(_, show)| show.of(name, row));
    first.iter().cloned().chain(cells).collect()
}

/// A row about the steps between frames of an interpolation.
fn steps(frames: &[&Map<String, Value>]) -> Map<String, Value> {
    let steps: Vec<f64> = frames
        .iter()
        .filter_map(|row| row.get("step")?.as_f64())
        .collect();
    let largest = steps.iter().copied().fold(f64::NAN, f64::max);
    let mean = steps.iter().sum::<f64>() / steps.len() as f64;
    [
        ("frames", json!(frames.len())),
        ("mean", json!(mean)),
        ("largest", json!(largest)),
        ("ratio", json!(largest / mean)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Training losses against metrics: those of the study where it is recorded, else those that `table2` gave.
fn losses(records: &Records, of: &[&str]) -> Result<String> {
    let mut rows = Vec::new();
    let whole = of
        .iter()
        .all(|name| records.study(name, "losses").is_some());
    let columns: &[Column] = if whole { &LOSSES } else { &METRICS };
    for name in of {
        let first = [format!("`{name}`"), shows(name)?.to_owned()];
        let row = if whole {
            let found = records.study(name, "losses").unwrap_or_default();
            let Some(row) = found.first().copied() else {
                continue;
            };
            row
        } else {
            let Some(row) = metrics(records.need(name)?) else {
                bail!("{RECORDS}/{name}.json has no metrics");
            };
            row
        };
        rows.push(line(&first, name, columns, row));
    }
    let mut out = markdown(&heads(&["run", "trained with"], columns), &rows);
    if !whole {
        let _ = write!(
            out,
            "\nL1, L2, MS-SSIM and categories are not recorded yet: `cargo xtask reproduce --only {}` writes them.\n",
            of.join(",")
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(metrics: Value) -> Value {
        json!({ "step": 1200, "seconds": 480.0, "metrics": [metrics] })
    }

    #[test]
    fn a_study_without_a_record_says_what_would_make_it() {
        let records = Records::of([("sample-pool5", record(json!({})))]);
        for study in [
            "reencode",
            "neighbors",
            "interpolate",
            "mv",
            "samples",
            "attributes",
            "preimages",
        ] {
            let text = table(&records, study, &["sample-pool5"]).unwrap().unwrap();
            assert_eq!(
                text,
                "*Not recorded yet; `cargo xtask reproduce --only sample-pool5` writes this table.*\n"
            );
        }
        assert!(table(&records, "reencode", &["sample-pool6"]).is_err());
        assert!(table(&records, "reencode", &[]).is_err());
        assert_eq!(table(&records, "nonsense", &[]).unwrap(), None);
    }

    #[test]
    fn studies_become_tables() {
        let mut pool5 = record(json!({}));
        let rows = |rows: Value| json!({ "command": "", "rows": rows });
        pool5["studies"] = json!({
            "reencode": rows(json!([{ "iteration": 2, "image_to_original": 56.1, "feature_to_original": 65.3,
                                      "image_to_previous": 21.0, "feature_to_previous": 30.0, "n": 38 }])),
            "interpolate": rows(json!([{ "step": null }, { "step": 2.0 }, { "step": 4.0 }])),
            "neighbors": rows(json!([{ "space": "pixels", "image_error": 58.1, "feature_error": 88.9,
                                       "reconstruction_nearer_image": 0.79, "same_category": null, "n": 38 }])),
            "mv": rows(json!([{ "image_error": 66.5, "feature_error": 28.2, "gradient_energy": 0.01,
                                "feature_start": 1.18, "feature_end": 0.126, "n": 38 }])),
            "sample": rows(json!([{ "comparator": "pixels", "kl": 28.6, "image_error": 44.7,
                                    "kernel_distance": 1.064, "kernel_distance_of_photos": -0.016 }])),
            "attributes": rows(json!([{ "attribute": "glasses", "probe": 0.58, "guess": 0.5, "found_before": 0.04,
                                        "found_added": 0.4, "missed_before": 0.8, "missed_removed": 1.0 }])),
            "preimages": rows(json!([{ "spread": 3.3, "feature_spread": null, "feature_error": 85.5, "n": 38, "draws": 6 }])),
        });
        let records = Records::of([("sample-pool5", pool5)]);
        for (study, row) in [
            ("reencode", "| 2 | 56.1 % | 65.3 % | 21.0 % | 30.0 % | 38 |"),
            ("interpolate", "| 3 | 3.00 | 4.00 | 1.33 |"),
            (
                "neighbors",
                "| pixels | 58.1 % | 88.9 % | 79 % | – | – | – | 38 |",
            ),
            ("mv", "| 66.5 % | 28.2 % | 0.01 | 1.180 | 0.126 | 38 |"),
            (
                "samples",
                "| pixels | 28.6 | 44.7 % | – | – | 1.064 | −0.016 | – | – |",
            ),
            (
                "attributes",
                "| glasses | 58 % | 50 % | 4 % → 40 % | 80 % → 100 % |",
            ),
            ("preimages", "| 3.3 % | – | 85.5 % | – | – | 38 | 6 |"),
        ] {
            let text = table(&records, study, &["sample-pool5"]).unwrap().unwrap();
            assert!(text.trim_end().ends_with(row), "{text}");
        }
    }
}
