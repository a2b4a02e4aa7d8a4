//! Tables of the documents from the records of `cargo xtask precision`, `soak` and `fuzz`, and of `bench` on a GPU.

use anyhow::{Context, Result};
use serde_json::Value;

use super::markdown::markdown;
use super::processors;
use super::records::Records;
use crate::numbers::{mean_and_error, thousands};

/// The table of that name; none where there is no such table.
///
/// # Errors
/// A record that is missing or of another form.
pub fn table(records: &Records, name: &str, of: &[&str]) -> Result<Option<String>> {
    Ok(Some(match (name, of) {
        ("bench-cuda", []) => cuda(records.need("bench-cuda")?)?,
        ("precision", []) => precision(records.need("precision")?)?,
        ("fuzz", []) => fuzz(records.need("fuzz")?)?,
        ("soak", []) => soak(records.need("soak")?)?,
        (name, []) => return processors::table(records, name),
        _ => return Ok(None),
    }))
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().context("a number is missing in the record")
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("a list is missing in the record")
}

fn name(value: &Value) -> String {
    value.as_str().unwrap_or("–").to_owned()
}

/// Training steps on a GPU.
fn cuda(record: &Value) -> Result<String> {
    let mut rows = Vec::new();
    // Older records have none of these.
    let further = [
        ("ours_uncaptured", "ours without CUDA graphs"),
        ("torch_compiled", "torch compiled"),
    ]
    .map(|(who, words)| (format!("{who}_s"), format!("{who}_to_ours"), words));
    let entries = list(record)?;
    let further: Vec<_> = further
        .into_iter()
        .filter(|(time, ..)| entries.iter().any(|entry| entry[time].is_number()))
        .collect();
    for entry in entries {
        let precision = |who: &str| match entry["precision"][who].as_str() {
            Some("tf32") => "TF32".to_owned(),
            other => other.unwrap_or("–").to_owned(),
        };
        let time =
            |key: &str| Ok::<_, anyhow::Error>(format!("{:.1} ms", 1e3 * number(&entry[key])?));
        let beside = |key: &str, ratio: &str| -> Result<String> {
            Ok(format!("{} ({:.2} ×)", time(key)?, number(&entry[ratio])?))
        };
        let memory = |who: &str| -> Result<String> {
            Ok(format!("{:.2}", number(&entry["peak_mib"][who])? / 1024.0))
        };
        let mut row = vec![
            name(&entry["work"]),
            precision("ours"),
            time("ours_s")?,
            beside("torch_tuned_s", "tuned_to_ours")?,
            format!(
                "{}, {}",
                beside("torch_naive_s", "naive_to_ours")?,
                precision("torch_naive")
            ),
            format!("{}, {} GiB", memory("ours")?, memory("torch_tuned")?),
            format!("{:.0} %", 100.0 * number(&entry["share_of_gemm_peak"])?),
        ];
        for (time, ratio, _) in &further {
            row.push(if entry[time].is_number() {
                beside(time, ratio)?
            } else {
                "–".to_owned()
            });
        }
        rows.push(row);
    }
    let mut head = vec![
        "work",
        "arithmetic",
        "ours",
        "torch tuned",
        "torch naive",
        "memory: ours, tuned",
        "of a large product's rate",
    ];
    head.extend(further.iter().map(|(_, _, words)| *words));
    Ok(markdown(&head, &rows))
}

/// bf16 beside fp32.
fn precision(record: &Value) -> Result<String> {
    let mut rows = Vec::new();
    for entry in list(&record["summary"])? {
        let metric = name(&entry["metric"]);
        let (words, unit) = match metric.as_str() {
            "image_error" => ("image error", " %"),
            "feature_error" => ("feature error", " %"),
            "gradient_energy" => ("gradient energy", ""),
            "train_loss_feat" => ("feature loss, training", ""),
            "train_loss_img" => ("image loss, training", ""),
            other => (other, ""),
        };
        let differences: Vec<f64> = list(&entry["differences"])?
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        let (mean, error) = mean_and_error(&differences);
        let error = error.unwrap_or(f64::NAN);
        rows.push(vec![
            words.to_owned(),
            format!(
                "{} to {}{unit}",
                significant(number(&entry["fp32_min"])?, 4),
                significant(number(&entry["fp32_max"])?, 4)
            ),
            format!("{}{unit}", significant(number(&entry["bf16_mean"])?, 4)),
            name(&entry["place"]),
            format!("{} ± {}", significant(mean, 2), significant(error, 2)),
        ]);
    }
    let head = [
        "",
        "fp32, all seeds",
        "bf16, mean",
        "its place",
        "bf16 − fp32 by seed",
    ];
    Ok(markdown(&head, &rows))
}

/// So many digits; an exponent for what is very large.
fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let before = value.abs().log10().floor() as i32;
    let after = (digits - 1 - before).clamp(0, 6).unsigned_abs() as usize;
    let text = match before {
        ..=4 => format!("{value:.after$}"),
        _ => format!("{value:.*e}", (digits - 1).unsigned_abs() as usize),
    };
    text.replacen('-', "−", usize::from(value < 0.0))
}

/// Two decimals at most, none of a whole number.
fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The last whole campaign.
fn fuzz(record: &Value) -> Result<String> {
    let mut rows = Vec::new();
    for target in list(&record["targets"])? {
        let count = |key: &str| -> Result<String> { Ok(thousands(number(&target[key])?)) };
        rows.push(vec![
            name(&target["target"]),
            name(&target["reads"]),
            count("executions")?,
            count("edges_of_seeds")?,
            count("edges")?,
            count("corpus")?,
            format!("{} MiB", count("peak_mib")?),
            list(&target["found"])?.len().to_string(),
        ]);
    }
    let head = [
        "target",
        "reads",
        "executions",
        "edges by the seeds",
        "edges in the end",
        "inputs kept",
        "largest",
        "found",
    ];
    Ok(markdown(&head, &rows))
}

/// First and last quarter of a long run.
fn soak(record: &Value) -> Result<String> {
    let mut rows = Vec::new();
    for change in list(&record["changes"])? {
        rows.push(vec![
            name(&change["quantity"]),
            plain(number(&change["first"])?),
            plain(number(&change["last"])?),
        ]);
    }
    for control in list(&record["controls"])? {
        rows.push(vec![
            format!(
                "milliseconds a step, {} ({} minutes)",
                name(&control["name"]),
                number(&control["minutes"])?
            ),
            String::new(),
            significant(number(&control["step_ms"])?, 3),
        ]);
    }
    Ok(markdown(
        &["quantity", "first quarter", "last quarter"],
        &rows,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_of_measurements_show_what_the_records_hold() {
        let records = Records::of([
            (
                "bench-cuda",
                json!([{ "work": "fc6_b64", "precision": { "ours": "bf16", "torch_naive": "tf32" }, "ours_s": 0.0136,
                         "torch_tuned_s": 0.0134, "torch_naive_s": 0.0257, "tuned_to_ours": 0.987, "naive_to_ours": 1.887,
                         "peak_mib": { "ours": 1695.75, "torch_tuned": 1637.5 }, "share_of_gemm_peak": 0.157 }]),
            ),
            (
                "precision",
                json!({ "summary": [
                    { "metric": "image_error", "fp32_min": 40.4707, "fp32_max": 40.8901, "bf16_mean": 40.8081,
                      "differences": [-0.5, 0.0, 1.0], "place": "within" },
                    { "metric": "train_loss_img", "fp32_min": 34952134.4, "fp32_max": 35346174.9, "bf16_mean": 34919018.8,
                      "differences": [-562313.0, 318250.0], "place": "below" },
                ] }),
            ),
            (
                "fuzz",
                json!({ "targets": [{ "target": "npy", "reads": "recorded features", "executions": 1000000,
                        "edges_of_seeds": 124, "edges": 1310, "corpus": 264, "peak_mib": 158, "found": [] }] }),
            ),
            (
                "soak",
                json!({ "changes": [{ "quantity": "threads", "first": 3.0, "last": 3.0 }, { "quantity": "MiB", "first": 469.828, "last": 470.5 }],
                        "controls": [{ "name": "begun anew", "minutes": 3.0, "step_ms": 46.408 }] }),
            ),
        ]);
        let lines = |name| {
            let text = table(&records, name, &[]).unwrap().unwrap();
            text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            lines("bench-cuda"),
            [
                "| fc6_b64 | bf16 | 13.6 ms | 13.4 ms (0.99 ×) | 25.7 ms (1.89 ×), TF32 | 1.66, 1.60 GiB | 16 % |"
            ]
        );
        assert_eq!(
            lines("precision"),
            [
                "| image error | 40.47 to 40.89 % | 40.81 % | within | 0.17 ± 0.44 |",
                "| image loss, training | 3.495e7 to 3.535e7 | 3.492e7 | below | −1.2e5 ± 4.4e5 |",
            ]
        );
        assert_eq!(
            lines("fuzz"),
            ["| npy | recorded features | 1,000,000 | 124 | 1,310 | 264 | 158 MiB | 0 |"]
        );
        assert_eq!(
            lines("soak"),
            [
                "| threads | 3 | 3 |",
                "| MiB | 469.83 | 470.5 |",
                "| milliseconds a step, begun anew (3 minutes) |  | 46.4 |",
            ]
        );
        assert_eq!(table(&records, "nonsense", &[]).unwrap(), None);
        assert!(table(&Records::default(), "fuzz", &[]).is_err());
    }
}
