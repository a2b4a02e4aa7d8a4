//! Tables of the documents from the studies in the records of `cargo xtask reproduce`.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::markdown::{cell, markdown, metrics, percent, share};
use super::records::Records;
use crate::reproduce::{EXPERIMENTS, reconstructs};
use crate::samples::RECORDS;

/// The table of that name, of some experiments; none where there is no such table.
///
/// # Errors
/// No such experiment; a record that it cannot do without.
pub fn table(records: &Records, name: &str, of: &[&str]) -> Result<Option<String>> {
    let (study, lines): (_, Line) = match name {
        "samples" => ("sample", samples),
        "attributes" => ("attributes", attributes),
        "preimages" => ("preimages", preimages),
        "reencode" => ("reencode", reencode),
        "neighbors" => ("neighbors", neighbors),
        "interpolate" => ("interpolate", interpolate),
        "mv" => ("mv", mv),
        "losses" => return losses(records, of).map(Some),
        _ => return Ok(None),
    };
    studied(records, study, of, lines).map(Some)
}

type Line = fn(&str, &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>);

/// A table of a study, of those experiments that have a record of it. Where none has, what would make it.
fn studied(records: &Records, study: &str, of: &[&str], lines: Line) -> Result<String> {
    if of.is_empty() {
        bail!("the names of experiments are missing");
    }
    let (mut head, mut rows) = (Vec::new(), Vec::new());
    for name in of {
        if !EXPERIMENTS.iter().any(|e| e.name == *name) {
            bail!("there is no experiment {name}");
        }
        if let Some(found) = records.study(name, study) {
            let (columns, cells) = lines(name, &found);
            head = columns;
            rows.extend(cells);
        }
    }
    Ok(if rows.is_empty() {
        not_recorded(of)
    } else {
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        markdown(&head, &rows)
    })
}

fn not_recorded(of: &[&str]) -> String {
    format!(
        "*Not recorded yet; `cargo xtask reproduce --only {}` writes this table.*\n",
        of.join(",")
    )
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

fn samples(name: &str, rows: &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>) {
    let head = [
        "run",
        "compared in",
        "KL, nats an image",
        "image error",
        "sharpness of reconstructions",
        "of samples",
        "kernel distance",
        "of training photos",
        "Fréchet distance",
        "of training photos",
    ];
    let cells = rows.iter().map(|row| {
        let error = if reconstructs(name) {
            percent(row, "image_error", 1)
        } else {
            "–".to_owned()
        };
        let energy = if reconstructs(name) {
            cell(row, "reconstruction_energy", 2)
        } else {
            "–".to_owned()
        };
        let kl = if reconstructs(name) {
            cell(row, "kl", 1)
        } else {
            "–".to_owned()
        };
        vec![
            format!("`{name}`"),
            cell(row, "comparator", 0),
            kl,
            error,
            energy,
            cell(row, "sample_energy", 2),
            cell(row, "kernel_distance", 3),
            cell(row, "kernel_distance_of_photos", 3),
            cell(row, "frechet_distance", 0),
            cell(row, "frechet_distance_of_photos", 0),
        ]
    });
    (words(&head), cells.collect())
}

fn attributes(name: &str, rows: &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>) {
    let head = [
        "run",
        "attribute",
        "probe, held out",
        "by guessing",
        "added",
        "taken away",
    ];
    let cells = rows.iter().map(|row| {
        let change = |before, after| format!("{} → {}", share(row, before), share(row, after));
        vec![
            format!("`{name}`"),
            cell(row, "attribute", 0),
            share(row, "probe"),
            share(row, "guess"),
            change("found_before", "found_added"),
            change("missed_before", "missed_removed"),
        ]
    });
    (words(&head), cells.collect())
}

fn preimages(name: &str, rows: &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>) {
    let head = [
        "run",
        "spread of images",
        "spread of their features",
        "feature error",
        "with noise zero",
        "image error",
        "n",
        "draws",
    ];
    let cells = rows.iter().map(|row| {
        vec![
            format!("`{name}`"),
            percent(row, "spread", 1),
            percent(row, "feature_spread", 1),
            percent(row, "feature_error", 1),
            percent(row, "feature_error_of_mean", 1),
            percent(row, "image_error", 1),
            cell(row, "n", 0),
            cell(row, "draws", 0),
        ]
    });
    (words(&head), cells.collect())
}

fn reencode(name: &str, rows: &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>) {
    let head = [
        "run",
        "iteration",
        "image error",
        "feature error",
        "image, to the iteration before",
        "features, to the iteration before",
        "n",
    ];
    let cells = rows.iter().map(|row| {
        vec![
            format!("`{name}`"),
            cell(row, "iteration", 0),
            percent(row, "image_to_original", 1),
            percent(row, "feature_to_original", 1),
            percent(row, "image_to_previous", 1),
            percent(row, "feature_to_previous", 1),
            cell(row, "n", 0),
        ]
    });
    (words(&head), cells.collect())
}

fn neighbors(name: &str, rows: &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>) {
    let head = [
        "run",
        "nearest training photo in",
        "image error",
        "feature error",
        "reconstruction is nearer: image",
        "features",
        "same category",
        "by chance",
        "n",
    ];
    let cells = rows.iter().map(|row| {
        vec![
            format!("`{name}`"),
            cell(row, "space", 0),
            percent(row, "image_error", 1),
            percent(row, "feature_error", 1),
            share(row, "reconstruction_nearer_image"),
            share(row, "reconstruction_nearer_feature"),
            share(row, "same_category"),
            share(row, "same_category_by_chance"),
            cell(row, "n", 0),
        ]
    });
    (words(&head), cells.collect())
}

fn interpolate(name: &str, rows: &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>) {
    let steps: Vec<f64> = rows
        .iter()
        .filter_map(|row| row.get("step")?.as_f64())
        .collect();
    let largest = steps.iter().copied().fold(f64::NAN, f64::max);
    let mean = steps.iter().sum::<f64>() / steps.len() as f64;
    let cells = vec![
        format!("`{name}`"),
        rows.len().to_string(),
        format!("{mean:.2}"),
        format!("{largest:.2}"),
        format!("{:.2}", largest / mean),
    ];
    let head = [
        "run",
        "frames",
        "mean step, grey levels",
        "largest",
        "largest / mean",
    ];
    (words(&head), vec![cells])
}

fn mv(name: &str, rows: &[&Map<String, Value>]) -> (Vec<String>, Vec<Vec<String>>) {
    let head = [
        "layer of",
        "image error",
        "feature error",
        "gradient energy",
        "feature term at first",
        "in the end",
        "n",
    ];
    let cells = rows.iter().map(|row| {
        vec![
            format!("`{name}`"),
            percent(row, "image_error", 1),
            percent(row, "feature_error", 1),
            cell(row, "gradient_energy", 2),
            cell(row, "feature_start", 3),
            cell(row, "feature_end", 3),
            cell(row, "n", 0),
        ]
    });
    (words(&head), cells.collect())
}

/// Training losses against metrics: those of the study where it is recorded, else those that `table2` gave.
fn losses(records: &Records, of: &[&str]) -> Result<String> {
    let mut rows = Vec::new();
    let whole = of
        .iter()
        .all(|name| records.study(name, "losses").is_some());
    for name in of {
        let shows = EXPERIMENTS.iter().find(|e| e.name == *name);
        let Some(shows) = shows.map(|e| e.shows) else {
            bail!("there is no experiment {name}");
        };
        let mut row = vec![format!("`{name}`"), shows.to_owned()];
        match records.study(name, "losses").filter(|_| whole) {
            Some(found) => {
                let Some(of) = found.first() else { continue };
                let digits = [
                    ("l1", 2),
                    ("l2", 2),
                    ("ssim", 3),
                    ("ms_ssim", 3),
                    ("lpips", 3),
                    ("gradient_energy", 2),
                ];
                row.extend(digits.map(|(key, digits)| cell(of, key, digits)));
                row.push(share(of, "classified"));
                row.push(share(of, "classified_by_chance"));
                row.push(cell(of, "n_classified", 0));
            }
            None => {
                let Some(of) = metrics(records.need(name)?) else {
                    bail!("{RECORDS}/{name}.json has no metrics");
                };
                let digits = [
                    ("image_error", 1),
                    ("psnr", 2),
                    ("ssim", 3),
                    ("lpips", 3),
                    ("gradient_energy", 2),
                ];
                row.extend(digits.map(|(key, digits)| cell(of, key, digits)));
            }
        }
        rows.push(row);
    }
    let head: &[&str] = if whole {
        &[
            "run",
            "trained with",
            "L1",
            "L2",
            "SSIM",
            "MS-SSIM",
            "LPIPS",
            "sharpness",
            "category from codes",
            "by guessing",
            "of images",
        ]
    } else {
        &[
            "run",
            "trained with",
            "image error, %",
            "PSNR, dB",
            "SSIM",
            "LPIPS",
            "sharpness",
        ]
    };
    let mut out = markdown(head, &rows);
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
