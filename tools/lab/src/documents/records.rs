//! The committed records as values that can be asked for by name.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::numbers::thousands;
use crate::reproduce::{EXPERIMENTS, reconstructs};
use crate::samples::{self, RECORDS};
use deepsim_tools::files;
use deepsim_tools::stages::seconds;
use deepsim_tools::workspace::Workspace;

/// The work whose ratio orders the records of processors.
pub const LEADING: &str = "fc6_b64";

/// All records, by their file's name without `.json`.
#[derive(Debug, Default)]
pub struct Records {
    all: BTreeMap<String, Value>,
    /// Seeds that the committed experiment files give: older records do not say theirs.
    seeds: BTreeMap<String, u64>,
}

impl Records {
    /// Reads `docs/results`; an absent folder has no records.
    ///
    /// # Errors
    /// A record that is no JSON.
    pub fn read(ws: &Workspace) -> Result<Records> {
        let mut records = Records::default();
        let Ok(entries) = fs::read_dir(ws.path(RECORDS)) else {
            return Ok(records);
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let json = path.extension().is_some_and(|end| end == "json");
            let Some(stem) = stem.filter(|stem| json && !stem.starts_with('.')) else {
                continue;
            };
            records.all.insert(stem.to_owned(), files::json(&path)?);
        }
        for experiment in EXPERIMENTS {
            if let Ok(settings) = samples::settings(&ws.path(experiment.file())) {
                records
                    .seeds
                    .insert(experiment.name.to_owned(), settings.seed);
            }
        }
        Ok(records)
    }

    /// Records at hand.
    #[cfg(test)]
    pub fn of<const N: usize>(all: [(&str, Value); N]) -> Records {
        Records {
            all: all.map(|(name, value)| (name.to_owned(), value)).into(),
            seeds: BTreeMap::new(),
        }
    }

    /// A record.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }

    /// A record that must be there. `bench:best` and `bench:worst` are those of [`Records::kinds`] in which our step of
    /// FC6 is furthest ahead of the tuned PyTorch's, and least.
    ///
    /// # Errors
    /// There is none.
    pub fn need(&self, name: &str) -> Result<&Value> {
        let found = match name {
            "bench:best" => self.kinds().first().map(|(_, record)| *record),
            "bench:worst" => self.kinds().last().map(|(_, record)| *record),
            name => self.get(name),
        };
        found.with_context(|| format!("there is no {RECORDS}/{name}.json"))
    }

    /// The records of `cargo xtask bench` by kind of processor, `bench-KIND.json`, the best ratio first. The GPU's is none
    /// of them.
    pub fn kinds(&self) -> Vec<(&str, &Value)> {
        let mut all: Vec<(&str, &Value)> = self
            .named("bench-")
            .into_iter()
            .filter(|(kind, _)| *kind != "cuda")
            .collect();
        let ratio = |record: &Value| {
            let step = step(record, LEADING);
            let found = step.and_then(|step| step["tuned_to_ours"].as_f64());
            found.unwrap_or(f64::NEG_INFINITY)
        };
        all.sort_by(|(_, a), (_, b)| ratio(b).total_cmp(&ratio(a)));
        all
    }

    /// Records whose names begin so, with the rest of their names.
    pub fn named(&self, start: &str) -> Vec<(&str, &Value)> {
        let all = self.all.iter();
        all.filter_map(|(name, value)| Some((name.strip_prefix(start)?, value)))
            .collect()
    }

    /// The record of an experiment and those of other machines, `NAME@LABEL`.
    pub fn family(&self, name: &str) -> Vec<&Value> {
        let others = self.all.iter().filter(|(key, _)| {
            key.split_once('@')
                .is_some_and(|(experiment, _)| experiment == name)
        });
        let first = self.get(name).into_iter();
        first.chain(others.map(|(_, value)| value)).collect()
    }

    /// The seed of a record of this experiment: its own word, else that of the committed experiment file.
    pub fn seed(&self, name: &str, record: &Value) -> Option<u64> {
        record["settings"]["seed"]
            .as_u64()
            .or_else(|| self.seeds.get(name).copied())
    }

    /// The rows of a study, with the record that holds them.
    pub fn study(&self, name: &str, study: &str) -> Option<Vec<&Map<String, Value>>> {
        let rows = self.get(name)?["studies"][study]["rows"].as_array()?;
        Some(rows.iter().filter_map(Value::as_object).collect())
    }

    /// A value: of the first row of the record's metrics where that has the key, else by a path of keys, numbers
    /// and names of entries (`fc6_b64.ours_s`, `fc6_b64/bf16.ours_s`, `studies.sample.rows.0.kl`).
    ///
    /// # Errors
    /// There is no such record or value.
    pub fn value(&self, record: &str, key: &str) -> Result<&Value> {
        let root = self.need(record)?;
        if !reconstructs(record) && ["image_error", "feature_error", "lpips"].contains(&key) {
            bail!("{record} reconstructs nothing: its encoder does not learn");
        }
        let first = &root["metrics"][0][key];
        let found = if first.is_null() {
            key.split('.').try_fold(root, step)
        } else {
            Some(first)
        };
        found
            .filter(|value| !value.is_null())
            .with_context(|| format!("{RECORDS}/{record}.json has no {key}"))
    }

    /// A number; see [`Records::value`].
    ///
    /// # Errors
    /// There is none.
    pub fn number(&self, record: &str, key: &str) -> Result<f64> {
        let value = self.value(record, key)?;
        value
            .as_f64()
            .with_context(|| format!("{RECORDS}/{record}.json: {key} is no number"))
    }

    /// What a mark in a sentence asks for: `RECORD KEY`, with a format where the usual one of that key will not do; or
    /// `seeds RECORD…`, how many seeds each of these has at least.
    ///
    /// # Errors
    /// There is no such record, value or format.
    pub fn text(&self, what: &str) -> Result<String> {
        let words: Vec<&str> = what.split_whitespace().collect();
        match words.as_slice() {
            ["seeds", names @ ..] if !names.is_empty() => self.seeds(names),
            [record, key] => format(self.value(record, key)?, usual(key)),
            [record, key, how] => format(self.value(record, key)?, how),
            _ => bail!("a mark says `RECORD KEY [FORMAT]` or `seeds RECORD…`"),
        }
    }

    fn seeds(&self, names: &[&str]) -> Result<String> {
        let mut least = usize::MAX;
        for name in names {
            self.need(name)?;
            let family = self.family(name);
            let mut seeds: Vec<_> = family.iter().map(|r| self.seed(name, r)).collect();
            seeds.sort_unstable();
            seeds.dedup();
            least = least.min(seeds.len());
        }
        Ok(match least {
            1 => "one seed".to_owned(),
            n => format!("{n} seeds"),
        })
    }

    /// Whether what is claimed holds: `RECORD KEY < RECORD KEY`, `RECORD KEY > NUMBER`, and so on.
    ///
    /// # Errors
    /// A claim of another form, or about a value that is not there.
    pub fn holds(&self, claim: &str) -> Result<bool> {
        let words: Vec<&str> = claim.split_whitespace().collect();
        let (a, order, b) = match words.as_slice() {
            [r, k, order, r2, k2] => (self.number(r, k)?, order, self.number(r2, k2)?),
            [r, k, order, number] => (
                self.number(r, k)?,
                order,
                number
                    .parse()
                    .with_context(|| format!("{number} is no number"))?,
            ),
            _ => bail!("a claim says `RECORD KEY < RECORD KEY` or `RECORD KEY < NUMBER`"),
        };
        match *order {
            "<" => Ok(a < b),
            ">" => Ok(a > b),
            other => bail!("claims compare by `<` or `>`, not by `{other}`"),
        }
    }
}

/// One step of a path.
fn step<'a>(at: &'a Value, key: &str) -> Option<&'a Value> {
    let Value::Array(entries) = at else {
        return at.get(key);
    };
    if let Ok(index) = key.parse::<usize>() {
        return entries.get(index);
    }
    let (name, precision) = match key.split_once('/') {
        Some((name, precision)) => (name, Some(precision)),
        None => (key, None),
    };
    entries.iter().find(|entry| {
        let named = ["work", "metric", "target", "name"]
            .iter()
            .any(|by| entry[*by].as_str() == Some(name));
        named && precision.is_none_or(|p| entry["precision"]["ours"].as_str() == Some(p))
    })
}

/// How a number is usually written, by its key.
fn usual(key: &str) -> &'static str {
    match key.rsplit('.').next().unwrap_or(key) {
        "image_error" | "feature_error" | "psnr" | "kl" => ".1",
        "gradient_energy" | "tuned_to_ours" | "naive_to_ours" => ".2",
        "lpips" | "ssim" | "ms_ssim" => ".3",
        "seconds" => "time",
        "label_top1" | "label_top5" => "percent",
        _ => "int",
    }
}

fn format(value: &Value, how: &str) -> Result<String> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let number = value.as_f64().context("it is no number")?;
    Ok(match how {
        "int" => thousands(number.round()),
        "time" => seconds(Duration::from_secs_f64(number.max(0.0))),
        "minutes" => format!("{:.1}", number / 60.0),
        "percent" => format!("{:.0} %", 100.0 * number),
        "ms" => format!("{:.1}", 1e3 * number),
        "gib" => format!("{:.2}", number / 1024.0),
        how => match how
            .strip_prefix('.')
            .and_then(|digits| digits.parse::<usize>().ok())
        {
            Some(digits) => format!("{number:.digits$}"),
            None => bail!("`{how}` is no format: .1, .2, int, time, minutes, percent, ms, gib"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn records() -> Records {
        Records::of([
            (
                "a",
                json!({ "step": 70900, "seconds": 443.04, "metrics": [{ "image_error": 39.43, "label_top1": 0.026 }], "settings": { "seed": 1 } }),
            ),
            (
                "a@amd",
                json!({ "metrics": [{ "image_error": 38.3 }], "settings": { "seed": 2 } }),
            ),
            ("b", json!({ "metrics": [{ "image_error": 50.0 }] })),
            (
                "faces-gan",
                json!({ "metrics": [{ "image_error": 131.9, "feature_error": 122.8 }] }),
            ),
            (
                "bench",
                json!([
                    { "work": "fc6_b64", "precision": { "ours": "bf16" }, "ours_s": 0.0136 },
                    { "work": "fc6_b64", "precision": { "ours": "fp32" }, "ours_s": 0.0395 },
                ]),
            ),
        ])
    }

    #[test]
    fn values_are_found_by_key_and_by_path() {
        let text = |what| records().text(what).unwrap();
        assert_eq!(text("a image_error"), "39.4");
        assert_eq!(text("a image_error .2"), "39.43");
        assert_eq!(text("a step"), "70,900");
        assert_eq!(text("a seconds"), "7m23s");
        assert_eq!(text("a label_top1"), "3 %");
        assert_eq!(text("bench fc6_b64.ours_s ms"), "13.6");
        assert_eq!(text("bench fc6_b64/fp32.ours_s ms"), "39.5");
        for bad in [
            "a lpips",
            "c image_error",
            "a image_error loud",
            "a",
            "a step.x",
        ] {
            assert!(records().text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_best_and_the_worst_processor_are_those_of_the_ratio() {
        let of = |ratio: f64| json!([{ "work": LEADING, "tuned_to_ours": ratio }]);
        let records = Records::of([
            ("bench-a", of(0.96)),
            ("bench-b", of(1.43)),
            ("bench-cuda", of(9.0)),
        ]);
        let kinds: Vec<&str> = records.kinds().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["b", "a"]);
        let text = |what| records.text(what).unwrap();
        assert_eq!(text("bench:best fc6_b64.tuned_to_ours"), "1.43");
        assert_eq!(text("bench:worst fc6_b64.tuned_to_ours"), "0.96");
        assert!(
            records
                .holds("bench:worst fc6_b64.tuned_to_ours < 1")
                .unwrap()
        );
        assert!(Records::default().need("bench:best").is_err());
    }

    #[test]
    fn seeds_are_counted_over_all_records_of_an_experiment() {
        let text = |what| records().text(what).unwrap();
        assert_eq!(text("seeds a"), "2 seeds");
        assert_eq!(text("seeds b"), "one seed");
        assert_eq!(text("seeds a b"), "one seed");
        assert_eq!(records().family("a").len(), 2);
    }

    #[test]
    fn errors_of_a_network_without_a_trained_encoder_cannot_be_asked_for() {
        for key in ["image_error", "feature_error"] {
            let error = records().text(&format!("faces-gan {key}")).unwrap_err();
            assert!(error.to_string().contains("does not learn"), "{error}");
        }
    }

    #[test]
    fn claims_compare_values_and_numbers() {
        assert!(records().holds("a image_error < b image_error").unwrap());
        assert!(!records().holds("a image_error > 40").unwrap());
        assert!(records().holds("a image_error = 40").is_err());
        assert!(records().holds("a image_error").is_err());
    }
}
