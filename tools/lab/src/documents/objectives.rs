//! The table of objectives by metrics, from the records of `cargo xtask losses`.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::markdown::markdown;
use super::records::Records;
use crate::numbers::summary;

/// Head, key of a run's row, digits.
const COLUMNS: [(&str, &str, usize); 9] = [
    ("steps", "steps", 0),
    ("L2, grey levels", "l2", 1),
    ("SSIM", "ssim", 3),
    ("LPIPS (AlexNet)", "lpips_alex", 3),
    ("LPIPS (VGG16)", "lpips_vgg16", 3),
    ("DISTS", "dists", 3),
    ("kernel distance", "kernel_distance", 2),
    ("feature error, %", "feature_error", 1),
    ("sharpness", "gradient_energy", 2),
];

/// The objectives of a task, a line each: the ranges over its runs.
///
/// # Errors
/// No task is named.
pub fn table(records: &Records, of: &[&str]) -> Result<String> {
    let [task] = of else {
        bail!("the name of one task is missing");
    };
    let Some(record) = records.get(&format!("losses-{task}")) else {
        return Ok(format!(
            "*Not recorded yet; `cargo xtask losses {task}` writes this table.*\n"
        ));
    };
    let mut lines = Vec::new();
    for objective in list(record, "objectives") {
        let name = objective["name"].as_str().unwrap_or_default();
        let own: Vec<&Map<String, Value>> = list(record, "runs")
            .iter()
            .filter_map(Value::as_object)
            .filter(|row| is_of(row, name))
            .collect();
        if own.is_empty() {
            continue;
        }
        let shows = objective["shows"].as_str().unwrap_or_default();
        let mut line = vec![format!("`{name}`"), shows.to_owned()];
        line.extend(COLUMNS.map(|(_, key, digits)| range(&own, key, digits)));
        lines.push(line);
    }
    let mut head = vec!["objective", "trained with"];
    head.extend(COLUMNS.map(|(name, ..)| name));
    Ok(markdown(&head, &lines))
}

fn list<'a>(record: &'a Value, key: &str) -> &'a [Value] {
    record[key].as_array().map_or(&[][..], Vec::as_slice)
}

/// Whether a run, named `NAME-seedN`, is of this objective.
fn is_of(row: &Map<String, Value>, name: &str) -> bool {
    let run = row.get("run").and_then(Value::as_str).unwrap_or_default();
    run.rsplit_once("-seed").is_some_and(|(own, _)| own == name)
}

/// Smallest to largest; a word where the metric is silent, a dash where there is none.
fn range(runs: &[&Map<String, Value>], key: &str, digits: usize) -> String {
    let all = || runs.iter().filter_map(|row| row.get(key));
    if let Some(word) = all().find_map(Value::as_str) {
        return word.to_owned();
    }
    let values: Vec<f64> = all().filter_map(Value::as_f64).collect();
    let Some(found) = summary(&values).filter(|_| values.len() == runs.len()) else {
        return "–".to_owned();
    };
    let [min, max] = [found.min, found.max].map(|v| format!("{v:.digits$}").replace('-', "−"));
    let trained = runs
        .iter()
        .any(|row| row.get("feature_trained") == Some(&Value::Bool(true)));
    let mark = if key == "feature_error" && trained {
        " (trained)"
    } else {
        ""
    };
    if min == max {
        format!("{min}{mark}")
    } else {
        format!("{min} to {max}{mark}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objectives_have_ranges_and_silent_cells() {
        let run = |run: &str, l2: f64, lpips: Value| {
            json!({ "run": run, "l2": l2, "lpips_alex": lpips, "feature_error": 57.0,
                    "feature_trained": run.starts_with("deepsim") })
        };
        let records = Records::of([(
            "losses-inversion",
            json!({
                "objectives": [{ "name": "l1", "shows": "pixels" }, { "name": "l1-hinge", "shows": "both" },
                               { "name": "deepsim", "shows": "the paper's" }],
                "runs": [run("l1-seed1", 31.04, json!(0.5)), run("l1-seed2", 32.0, json!(0.5)),
                         run("deepsim-seed1", 35.0, json!("shared"))],
            }),
        )]);
        let text = table(&records, &["inversion"]).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.contains("| `l1` | pixels | – | 31.0 to 32.0 | – | 0.500 |"),
            "{text}"
        );
        assert!(
            text.contains("| shared |") && text.contains("57.0 (trained)"),
            "{text}"
        );
        let none = table(&records, &["autoencoder"]).unwrap();
        assert!(none.contains("`cargo xtask losses autoencoder`"), "{none}");
        assert!(table(&records, &[]).is_err());
    }
}
