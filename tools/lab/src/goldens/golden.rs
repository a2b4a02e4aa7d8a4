//! What a training left, value by value, and how two of them differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use deepsim_tools::failure::refuse;
use deepsim_tools::{files, training};

/// Values that change with the clock.
const OF_THE_CLOCK: [&str; 1] = ["images_per_s"];

/// Values by their place, numbers as they were printed: `losses/3/loss.feat`, `tensors/generator/defc7.weight` (type,
/// shape and checksum), `study/0/image_error`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Golden(BTreeMap<String, String>);

/// What was recorded, by cases.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// What it was recorded on.
    pub processor: String,
    /// Whether it holds for any machine.
    pub portable: bool,
    /// Values by the cases' names.
    pub cases: BTreeMap<String, Golden>,
}

/// Tensors with another name than before.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Map {
    /// Old name to new name.
    renamed: BTreeMap<String, String>,
    /// Old name to the reason for which it need not be there. Only means and an unused discriminator may go.
    gone: BTreeMap<String, String>,
    /// New name to the reason for which it came.
    added: BTreeMap<String, String>,
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let wrong = |why: String| refuse(format!("{}: {why}", path.display()));
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}

impl Record {
    /// Reads one.
    ///
    /// # Errors
    /// A file that is not there, or is none.
    pub fn read(path: &Path) -> Result<Self> {
        read(path)
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// A full or unwritable disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }
}

impl Map {
    /// Reads one.
    ///
    /// # Errors
    /// A file that is not there or is none; a tensor that may not go.
    pub fn read(path: &Path) -> Result<Self> {
        let map: Self = read(path)?;
        let may = |name: &String| of_discriminator(name) || name.contains("means.");
        match map.gone.keys().find(|name| !may(name)) {
            Some(name) => Err(refuse(format!(
                "{}: {name} may not go: only checkpointed means and a discriminator that no loss used may",
                path.display()
            ))),
            None => Ok(map),
        }
    }
}

/// Whether a tensor is the discriminator's, or a moment or counter of its optimiser.
fn of_discriminator(name: &str) -> bool {
    name.starts_with("discriminator/") || name.starts_with("state/discriminator.")
}

impl Golden {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes every value of some JSON.
    pub fn take(&mut self, place: &str, json: &Value) {
        match json {
            Value::Object(map) => {
                for (key, value) in map {
                    self.take(&format!("{place}/{key}"), value);
                }
            }
            Value::Array(all) => {
                for (i, value) in all.iter().enumerate() {
                    self.take(&format!("{place}/{i}"), value);
                }
            }
            value => {
                self.0.insert(place.to_owned(), value.to_string());
            }
        }
    }

    /// Takes a run's log.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn take_losses(&mut self, run: &Path) -> Result<()> {
        let text = fs::read_to_string(run.join("metrics.jsonl")).context("reading the log")?;
        for line in text.lines() {
            let mut line: BTreeMap<String, Value> =
                serde_json::from_str(line).context("reading the log")?;
            line.retain(|key, _| !OF_THE_CLOCK.contains(&key.as_str()));
            let step = line.remove("step").unwrap_or_default();
            for (key, value) in line {
                self.take(&format!("losses/{step}/{key}"), &value);
            }
        }
        Ok(())
    }

    /// Leaves the losses alone.
    pub fn keep_losses(&mut self) {
        self.0.retain(|place, _| place.contains("/loss."));
    }

    /// Takes the tensors of a run's newest checkpoint.
    ///
    /// # Errors
    /// No checkpoint, or one that cannot be read.
    pub fn take_tensors(&mut self, run: &Path) -> Result<()> {
        let checkpoint = training::newest_checkpoint(run).context("there is no checkpoint")?;
        let files = fs::read_dir(&checkpoint).context("reading the checkpoint")?;
        for file in files {
            let path = file.context("reading the checkpoint")?.path();
            if path
                .extension()
                .is_none_or(|ending| ending != "safetensors")
            {
                continue;
            }
            let stem = path.file_stem().unwrap_or_default().display();
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let tensors = SafeTensors::deserialize(&bytes)
                .with_context(|| format!("reading {}", path.display()))?;
            for (name, tensor) in tensors.tensors() {
                let sum = blake3::hash(tensor.data());
                let value = format!("{} {:?} {sum}", tensor.dtype(), tensor.shape());
                self.0.insert(format!("tensors/{stem}/{name}"), value);
            }
        }
        Ok(())
    }

    /// How this differs from what was recorded before: numbers by more than `within`, relative, or at all.
    pub fn differences(&self, before: &Golden, map: &Map, within: Option<f64>) -> Vec<String> {
        // A log names the term in every line, with null where it was not computed.
        let mut losses = self.0.iter();
        let unused = !losses.any(|(place, v)| place.ends_with("/loss.adv") && v != "null");
        let gone = |name: &str| map.gone.contains_key(name) && (unused || !of_discriminator(name));
        let mut found = Vec::new();
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for (place, was) in &before.0 {
            let old = place.strip_prefix("tensors/");
            let renamed = old.and_then(|name| map.renamed.get(name));
            let now = renamed.map_or_else(|| place.clone(), |name| format!("tensors/{name}"));
            match self.0.get_key_value(&now) {
                Some((now, is)) => {
                    known.insert(now);
                    if !same(was, is, within) {
                        found.push(format!("{now}: was {was}, is {is}"));
                    }
                }
                None if old.is_some_and(gone) => {}
                None => found.push(format!("{place}: is not there any more")),
            }
        }
        for place in self.0.keys() {
            let added = |name| map.added.contains_key(name);
            let told = place.strip_prefix("tensors/").is_some_and(added);
            if !told && !known.contains(place.as_str()) {
                found.push(format!("{place}: was not there"));
            }
        }
        found
    }
}

fn same(was: &str, is: &str, within: Option<f64>) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    match (within, number(was), number(is)) {
        (Some(within), Some(was), Some(is)) => (was - is).abs() <= within * was.abs(),
        _ => was == is,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn golden(values: &Value) -> Golden {
        let mut golden = Golden::default();
        for (place, value) in values.as_object().unwrap() {
            golden.take(place, value);
        }
        golden
    }

    #[test]
    fn values_are_kept_by_place_and_to_their_last_digit() {
        let taken = golden(&json!({"study": [{"n": 8, "error": 0.1, "none": null}]}));
        let places: Vec<&str> = taken.0.keys().map(String::as_str).collect();
        assert_eq!(places, ["study/0/error", "study/0/n", "study/0/none"]);
        assert_eq!(taken.0["study/0/error"], "0.1");
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let before = golden(
            &json!({"losses": {"1": {"loss.img": 1.0}}, "tensors": {"generator/a": "x", "generator/b": "y"}}),
        );
        let now = golden(
            &json!({"losses": {"1": {"loss.img": 1.00001}}, "tensors": {"generator/a": "z", "generator/c": "y"}}),
        );
        let none = Map::default();
        assert_eq!(
            before.differences(&before, &none, None),
            Vec::<String>::new()
        );
        let found = now.differences(&before, &none, None);
        assert_eq!(
            found,
            [
                "losses/1/loss.img: was 1.0, is 1.00001",
                "tensors/generator/a: was \"x\", is \"z\"",
                "tensors/generator/b: is not there any more",
                "tensors/generator/c: was not there",
            ]
        );
        assert_eq!(now.differences(&before, &none, Some(1e-4)).len(), 3);
        let renamed = Map {
            renamed: [("generator/b".to_owned(), "generator/c".to_owned())].into(),
            ..Map::default()
        };
        assert_eq!(now.differences(&before, &renamed, Some(1e-4)).len(), 1);
    }

    /// An adversarial loss uses the discriminator.
    #[test]
    fn a_discriminator_may_go_where_no_loss_used_it() {
        let map = Map {
            gone: [("discriminator/d".to_owned(), "unused".to_owned())].into(),
            ..Map::default()
        };
        for (loss, value, allowed) in [
            ("loss.img", json!(1.0), true),
            ("loss.adv", Value::Null, true),
            ("loss.adv", json!(1.0), false),
        ] {
            let losses = json!({"1": {loss: value}});
            let now = golden(&json!({"losses": losses}));
            let before = golden(&json!({"losses": losses, "tensors": {"discriminator/d": "x"}}));
            assert_eq!(now.differences(&before, &map, None).is_empty(), allowed);
        }
    }

    #[test]
    fn a_map_lets_nothing_else_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.json");
        for (name, allowed) in [
            ("state/means.sum0", true),
            ("state/discriminator.m.Dconv1.bias", true),
            ("generator/deconv0.weight", false),
        ] {
            fs::write(&path, json!({"gone": {name: "a reason"}}).to_string()).unwrap();
            assert_eq!(Map::read(&path).is_ok(), allowed, "{name}");
        }
    }
}
