//! What the records of `cargo xtask bench` and `grow` say of several kinds of processors, side by side.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

use super::markdown::markdown;
use super::records::{LEADING, Records};
use crate::bench::head::Paths;
use crate::grow::record::Record;
use crate::grow::table;
use crate::numbers::significant;
use crate::{bench, samples};

/// The table of that name; none where there is no such table.
///
/// # Errors
/// A record that is missing or of another form.
pub fn table(records: &Records, name: &str) -> Result<Option<String>> {
    Ok(Some(match name {
        "bench" => side_by_side(records)?,
        "bench-each" => each(records)?,
        "bench-speed" => sentence(records)?,
        "grow" => grow(records)?,
        _ => return Ok(None),
    }))
}

/// A row for each work and kind of processor, and which kinds these are.
fn side_by_side(records: &Records) -> Result<String> {
    let kinds = records.kinds();
    records.need("bench:best")?;
    let mut rows = Vec::new();
    for work in works(&kinds)? {
        for (kind, record) in &kinds {
            let entries = record.as_array().context("no list of works")?;
            let Some(entry) = entries
                .iter()
                .find(|e| e["work"].as_str() == Some(work.as_str()))
            else {
                continue;
            };
            rows.push(vec![
                work.clone(),
                (*kind).to_owned(),
                time(entry, "ours"),
                beside(entry, "torch_tuned", "tuned_to_ours"),
                beside(entry, "torch_naive", "naive_to_ours"),
                match entry["share_of_gemm_peak"].as_f64() {
                    Some(share) => format!("{:.0} %", 100.0 * share),
                    None => "–".to_owned(),
                },
            ]);
        }
    }
    let head = [
        "work",
        "processor",
        "ours",
        "torch tuned",
        "torch naive",
        "of a large product's rate",
    ];
    let mut out = markdown(&head, &rows);
    out.push('\n');
    for (kind, record) in &kinds {
        let _ = writeln!(out, "- `{kind}`: {}", machine(&record[0]));
    }
    if let [(kind, _)] = kinds.as_slice() {
        let _ = writeln!(
            out,
            "\nThere is a record of `{kind}` alone: these figures say nothing of other processors."
        );
    }
    Ok(out)
}

/// Names of the works in the order of the first record, then those that only others have.
fn works(kinds: &[(&str, &Value)]) -> Result<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for (kind, record) in kinds {
        let entries = record.as_array();
        let entries = entries.with_context(|| format!("bench-{kind}.json is no list of works"))?;
        for name in entries.iter().filter_map(|entry| entry["work"].as_str()) {
            if !all.iter().any(|known| known == name) {
                all.push(name.to_owned());
            }
        }
    }
    Ok(all)
}

/// The processor, the commit and the code of a record, as far as it says them.
fn machine(entry: &Value) -> String {
    let Some(processor) = entry["processor"].as_str() else {
        let threads = entry["threads"]["ours"].as_u64();
        let threads = threads.map_or_else(String::new, |n| format!("{n} threads; "));
        return format!(
            "{threads}the record is older than its fields for processor, commit, code and settings that were tried"
        );
    };
    let mut out = processor.to_owned();
    if let Some(commit) = entry["commit"].as_str() {
        let _ = write!(out, ", commit `{}`", commit.get(..7).unwrap_or(commit));
    }
    out
}

/// Seconds, or images in a second, with the arithmetic where it is not fp32.
fn time(entry: &Value, who: &str) -> String {
    let Some(seconds) = entry[format!("{who}_s")].as_f64() else {
        return "–".to_owned();
    };
    let value = match entry["images_per_unit"].as_f64() {
        Some(images) => format!("{:.0} images/s", images / seconds),
        None => format!("{} s", significant(seconds, 3)),
    };
    match entry["precision"][who].as_str() {
        Some("bf16") => format!("bf16 {value}"),
        _ => value,
    }
}

/// The same, and how many times ours that is.
fn beside(entry: &Value, who: &str, ratio: &str) -> String {
    match entry[ratio].as_f64() {
        Some(ratio) => format!("{} ({ratio:.2} ×)", time(entry, who)),
        None => time(entry, who),
    }
}

/// What `cargo xtask bench` printed for each kind, as far as the phases of the first work.
fn each(records: &Records) -> Result<String> {
    let mut out = String::new();
    for (kind, record) in records.kinds() {
        let text = bench::table_of(record)?;
        // The times, then where those of the first training work go.
        let parts: Vec<&str> = text.split("\n\n").take(2).collect();
        let paths = serde_json::from_value::<Paths>(record[0]["paths"].clone());
        let paths = paths.map_or_else(|_| String::new(), |paths| paths.lines());
        let _ = write!(
            out,
            "`{kind}`:\n\n```\n{paths}{}\n```\n\n",
            parts.join("\n\n").trim_end()
        );
    }
    anyhow::ensure!(
        !out.is_empty(),
        "there is no {}/bench-KIND.json",
        samples::RECORDS
    );
    Ok(out.trim_end().to_owned() + "\n")
}

/// The README's sentences: a step of FC6 on the processor with the best ratio, and on the one with the worst.
fn sentence(records: &Records) -> Result<String> {
    let kinds = records.kinds();
    let (Some((best, record)), Some((worst, other))) = (kinds.first(), kinds.last()) else {
        anyhow::bail!("there is no {}/bench-KIND.json", samples::RECORDS);
    };
    let mut out = format!(
        "A step of the paper's FC6 experiment at full size (batch 64, 227 pixels), by kind of processor:\n\n\
         - `{best}`{}: {}.\n",
        if best == worst {
            ""
        } else {
            ", the best of our ratios"
        },
        step(record)?
    );
    if best == worst {
        let _ = writeln!(
            out,
            "\nThere is no record of another kind yet, so this is the worst of our ratios as well as the best."
        );
    } else {
        let _ = writeln!(out, "- `{worst}`, the worst: {}.", step(other)?);
    }
    Ok(out)
}

/// Ours, the tuned and the usual script's step, in words.
fn step(record: &Value) -> Result<String> {
    let entries = record.as_array().context("no list of works")?;
    let entry = entries
        .iter()
        .find(|entry| entry["work"].as_str() == Some(LEADING))
        .with_context(|| format!("a record has no {LEADING}"))?;
    let number = |key: &str| {
        let found = entry[key].as_f64();
        found.with_context(|| format!("{LEADING} has no {key}"))
    };
    let arithmetic = |who: &str| {
        entry["precision"][who]
            .as_str()
            .unwrap_or("fp32")
            .to_owned()
    };
    Ok(format!(
        "ours takes {} s in {}, a tuned PyTorch script {} s in {} in the same run ({} times as long), and a script \
         as it is usually written {} s in fp32 ({} times as long)",
        significant(number("ours_s")?, 2),
        arithmetic("ours"),
        significant(number("torch_tuned_s")?, 2),
        arithmetic("torch_tuned"),
        significant(number("tuned_to_ours")?, 3),
        significant(number("torch_naive_s")?, 2),
        significant(number("naive_to_ours")?, 2),
    ))
}

/// Tables and curves of how cost grows, for each kind that has a record.
fn grow(records: &Records) -> Result<String> {
    let mut out = String::new();
    for (kind, value) in records.named("grow-") {
        let record: Record = serde_json::from_value(value.clone())
            .with_context(|| format!("reading {}/grow-{kind}.json", samples::RECORDS))?;
        let _ = write!(
            out,
            "![time and memory against batch, crop, width, threads, entries and images on {kind}](pictures/grow-{kind}.png)\n\n\
             ```\n{}\n```\n\n",
            table::render(&record).trim_end()
        );
    }
    if out.is_empty() {
        out.push_str("It was not run yet: there is no record.\n");
    }
    Ok(out.trim_end().to_owned() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(ratio: f64, precision: &str) -> Value {
        json!([
            { "work": "fc6_b64", "precision": { "ours": precision, "torch_tuned": "bf16", "torch_naive": "fp32" },
              "ours_s": 1.0, "torch_tuned_s": ratio, "torch_naive_s": 8.8, "tuned_to_ours": ratio, "naive_to_ours": 8.8,
              "share_of_gemm_peak": 0.474, "processor": "2 x A, AMX", "commit": "0123456789" },
            { "work": "shards", "precision": { "ours": null }, "ours_s": 0.5, "torch_tuned_s": null,
              "images_per_unit": 4000.0 },
        ])
    }

    fn rows(records: &Records) -> Vec<String> {
        let text = table(records, "bench").unwrap().unwrap();
        text.lines().skip(2).map(str::to_owned).collect()
    }

    #[test]
    fn one_record_reads_as_one() {
        let records = Records::of([("bench-intel-amx", record(1.431, "bf16"))]);
        let rows = rows(&records);
        assert_eq!(
            rows[0],
            "| fc6_b64 | intel-amx | bf16 1.00 s | bf16 1.43 s (1.43 ×) | 8.80 s (8.80 ×) | 47 % |"
        );
        assert_eq!(
            rows[1],
            "| shards | intel-amx | 8000 images/s | – | – | – |"
        );
        assert!(rows.contains(&"- `intel-amx`: 2 x A, AMX, commit `0123456`".to_owned()));
        assert!(rows.last().unwrap().contains("alone"), "{rows:?}");
        let text = table(&records, "bench-speed").unwrap().unwrap();
        assert!(
            text.contains("worst of our ratios as well as the best"),
            "{text}"
        );
        assert!(text.contains("(1.43 times as long)"), "{text}");
    }

    #[test]
    fn several_records_stand_side_by_side_and_the_worst_is_said() {
        let records = Records::of([
            ("bench-amd-avx512-bf16", record(0.96, "fp32")),
            ("bench-intel-amx", record(1.43, "bf16")),
        ]);
        let rows = rows(&records);
        assert!(
            rows[0].starts_with("| fc6_b64 | intel-amx | bf16 "),
            "{rows:?}"
        );
        assert!(
            rows[1].starts_with("| fc6_b64 | amd-avx512-bf16 | 1.00 s"),
            "{rows:?}"
        );
        assert!(!rows.last().unwrap().contains("alone"), "{rows:?}");
        let text = table(&records, "bench-speed").unwrap().unwrap();
        for words in [
            "`intel-amx`, the best of our ratios: ours takes 1.0 s in bf16",
            "`amd-avx512-bf16`, the worst: ours takes 1.0 s in fp32",
            "(0.960 times as long)",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
    }

    #[test]
    fn without_records_there_is_no_table_and_growth_was_not_run() {
        let none = Records::default();
        for name in ["bench", "bench-each", "bench-speed"] {
            assert!(table(&none, name).is_err(), "{name}");
        }
        let text = table(&none, "grow").unwrap().unwrap();
        assert!(text.contains("not run"), "{text}");
        assert_eq!(table(&none, "nonsense").unwrap(), None);
    }

    #[test]
    fn an_older_record_says_that_it_is_older() {
        let said = machine(&json!({ "work": "fc6_b64", "threads": { "ours": 2 } }));
        assert!(said.starts_with("2 threads; the record is older"), "{said}");
        assert!(machine(&json!({})).starts_with("the record is older"));
    }
}
