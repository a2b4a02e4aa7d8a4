//! Tables of the documents, as Markdown, from the records of `cargo xtask reproduce`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::markdown::{cell, markdown, metrics, percent};
use super::records::Records;
use super::{objectives, speed, studies};
use crate::numbers::thousands;
use crate::reproduce::{EXPERIMENTS, reconstructs};
use crate::samples::RECORDS;
use deepsim_tools::stages::seconds;

/// The table that a mark asks for: its name, then its arguments. `cargo xtask reproduce` is the name that the table
/// of all runs has had.
///
/// # Errors
/// No such table; a record that it cannot do without.
pub fn table(records: &Records, what: &str) -> Result<String> {
    let mut words = what.split_whitespace();
    let name = words.next().unwrap_or_default();
    let of: Vec<&str> = words.collect();
    match name {
        "runs" => Ok(runs(records)),
        "compare" => compare(records, &of),
        "objectives" => objectives::table(records, &of),
        _ => match studies::table(records, name, &of)? {
            Some(table) => Ok(table),
            None => match speed::table(records, name, &of)? {
                Some(table) => Ok(table),
                None => bail!("there is no table `{name}`"),
            },
        },
    }
}

fn time(record: &Value) -> String {
    match record["seconds"].as_f64() {
        Some(time) => seconds(Duration::from_secs_f64(time.max(0.0))),
        None => "not timed".to_owned(),
    }
}

/// All experiments of `reproduce`, one line for each record.
fn runs(records: &Records) -> String {
    let mut rows = Vec::new();
    let (mut count, mut named) = (0, Vec::new());
    for experiment in EXPERIMENTS {
        let label = format!("[`{}`](../{})", experiment.name, experiment.file());
        let family = records.family(experiment.name);
        if family.is_empty() {
            let mut row = vec![label, experiment.shows.to_owned()];
            row.extend(["not run"; 3].map(str::to_owned));
            row.extend(vec![String::new(); 5]);
            rows.push(row);
            continue;
        }
        for record in family {
            count += 1;
            if let Some(processor) = record["processor"].as_str() {
                named.push(processor);
            }
            let none = Map::new();
            let of = metrics(record).filter(|_| reconstructs(experiment.name));
            let of = of.unwrap_or(&none);
            rows.push(vec![
                label.clone(),
                experiment.shows.to_owned(),
                percent(of, "image_error", 1),
                percent(of, "feature_error", 1),
                cell(of, "gradient_energy", 2),
                cell(of, "lpips", 3),
                cell(metrics(record).unwrap_or(&none), "n", 0),
                seed(records, experiment.name, record),
                record["step"]
                    .as_u64()
                    .map_or_else(String::new, |s| s.to_string()),
                time(record),
            ]);
        }
    }
    let head = [
        "experiment",
        "shows",
        "image error",
        "feature error",
        "gradient energy",
        "LPIPS",
        "n",
        "seed",
        "steps",
        "training",
    ];
    let mut out = markdown(&head, &rows);
    let unnamed = count - named.len();
    named.sort_unstable();
    named.dedup();
    out.push('\n');
    match (unnamed, named.is_empty()) {
        (0, _) => {}
        (_, true) => out.push_str(
            "The records do not name the processor: they were written before `reproduce` kept it.\n",
        ),
        _ => {
            let _ = writeln!(
                out,
                "{unnamed} of {count} records do not name the processor: they were written before `reproduce` kept it."
            );
        }
    }
    if !named.is_empty() {
        let _ = writeln!(out, "Processors: {}.", named.join("; "));
    }
    out
}

fn seed(records: &Records, name: &str, record: &Value) -> String {
    let seed = records.seed(name, record);
    seed.map_or_else(|| "–".to_owned(), |seed| seed.to_string())
}

/// Some experiments beside each other, each on every machine that it has a record of.
fn compare(records: &Records, of: &[&str]) -> Result<String> {
    let mut rows = Vec::new();
    for name in of {
        let shows = EXPERIMENTS.iter().find(|e| e.name == *name);
        let shows = shows.map_or("", |e| e.shows);
        records.need(name)?;
        for record in records.family(name) {
            let Some(of) = metrics(record) else {
                bail!("{RECORDS}/{name}.json has no metrics");
            };
            let steps = record["step"].as_f64().unwrap_or(0.0);
            rows.push(vec![
                format!("{shows} (`{name}`)"),
                cell(of, "image_error", 1),
                cell(of, "feature_error", 1),
                cell(of, "gradient_energy", 2),
                format!("{} steps, {}", thousands(steps), time(record)),
                seed(records, name, record),
                record["processor"]
                    .as_str()
                    .unwrap_or("not recorded")
                    .to_owned(),
            ]);
        }
    }
    let head = [
        "trained with",
        "image error",
        "feature error",
        "gradient energy",
        "training",
        "seed",
        "processor",
    ];
    Ok(markdown(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(metrics: Value) -> Value {
        json!({ "step": 1200, "seconds": 480.0, "metrics": [metrics] })
    }

    #[test]
    fn the_table_of_runs_shows_no_error_of_an_encoder_that_did_not_learn() {
        let errors = json!({ "image_error": 131.9, "feature_error": 122.8, "gradient_energy": 0.29, "lpips": 0.696, "n": 50 });
        let records = Records::of([
            ("faces-gan", record(errors.clone())),
            ("faces-vae", record(errors)),
        ]);
        let table = table(&records, "runs").unwrap();
        let line = |name: &str| {
            let start = format!("| [`{name}`]");
            table.lines().find(|line| line.starts_with(&start)).unwrap()
        };
        assert!(line("faces-vae").contains("| 131.9 % | 122.8 % | 0.29 | 0.696 | 50 |"));
        assert!(
            line("faces-gan").contains("| – | – | – | – | 50 |"),
            "{table}"
        );
        assert!(line("quickstart").contains("| not run | not run | not run |"));
        assert!(table.contains("do not name the processor"), "{table}");
    }

    #[test]
    fn a_record_of_another_machine_is_a_row_of_its_own_that_names_it() {
        let mut here =
            record(json!({ "image_error": 39.43, "feature_error": 57.1, "gradient_energy": 0.93 }));
        let mut there =
            record(json!({ "image_error": 38.3, "feature_error": 58.1, "gradient_energy": 0.78 }));
        there["processor"] = json!("2 x AMD, no AMX");
        there["settings"] = json!({ "seed": 3, "precision": "fp32", "threads": 0 });
        let both = |a: Value, b: Value| Records::of([("quickstart", a), ("quickstart@amd", b)]);
        let text = table(&both(here.clone(), there.clone()), "compare quickstart").unwrap();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(
            rows[0].ends_with("| 39.4 | 57.1 | 0.93 | 1,200 steps, 8m00s | – | not recorded |"),
            "{text}"
        );
        assert!(
            rows[1].ends_with("| 38.3 | 58.1 | 0.78 | 1,200 steps, 8m00s | 3 | 2 x AMD, no AMX |"),
            "{text}"
        );
        here["processor"] = json!("1 x B");
        let text = table(&both(here, there), "runs").unwrap();
        assert!(
            text.contains("Processors: 1 x B; 2 x AMD, no AMX.\n"),
            "{text}"
        );
        assert!(!text.contains("do not name"), "{text}");
        assert!(table(&Records::default(), "compare quickstart").is_err());
    }
}
