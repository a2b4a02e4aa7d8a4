//! What a run keeps from its first step to its last: every key of the experiment that a resume may not change, with
//! its value, as a checkpoint's manifest stores them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, KEYS};

/// Keys that a resume may change: the length of the run, its reports, its threads and micro-batches, and what it
/// tolerates. Consent to run
/// code is no part of an experiment either.
const FREE: [&str; 14] = [
    "train.steps",
    "train.accumulate",
    "train.threads",
    "train.patience",
    "train.log_every",
    "train.checkpoint_every",
    "train.sample_every",
    "train.eval_every",
    "train.eval_images",
    "train.keep_checkpoints",
    "train.not_finite",
    "data.quarantine",
    "encoder.trust_code",
    "comparator.trust_code",
];

/// What a run is called, and where its data and weights lie: stored, but not compared. Digests tell whether data and the
/// weights of encoder and comparators are the same; what generator and discriminator begin with, and what heads stand on, is
/// in the checkpoints. Weights that are drawn lie nowhere.
const PLACES: [&str; 9] = [
    "name",
    "data.train",
    "data.test",
    "encoder.weights",
    "comparator.weights",
    "comparator.heads",
    "generator.weights",
    "discriminator.weights",
    "discriminator.network_weights",
];

fn is_drawn(value: Option<&Value>) -> bool {
    value
        .and_then(Value::as_str)
        .is_none_or(|v| v.starts_with("random:"))
}

/// What a key meant while it could be left out, or did not exist yet: a value that an earlier format lacks is this one,
/// whatever the key's default has become since. A key that is added gets a line here, and no line is ever changed.
const UNWRITTEN: [(&str, Default); 27] = [
    ("encoder.normalize", Default::Word("none")),
    ("encoder.width", Default::Number(1.0)),
    ("generator.trunk", Default::Word("deepsim")),
    ("generator.noise", Default::Count(0)),
    ("generator.feature_noise", Default::Number(0.0)),
    ("discriminator.architecture", Default::Word("deepsim")),
    ("discriminator.width", Default::Number(1.0)),
    ("pixels.distance", Default::Word("squared")),
    ("train.tf32", Default::Word("off")),
    ("train.deterministic", Default::Switch(true)),
    ("train.discriminator_passes", Default::Word("paper")),
    ("train.deterministic_shards", Default::Count(0)),
    ("train.reduce", Default::Word("fp32")),
    ("comparator.width", Default::Number(1.0)),
    ("loss.tv", Default::Number(0.0)),
    ("encoder.tokens", Default::Word("patches")),
    ("comparator.tokens", Default::Word("patches")),
    ("schedule.warmup", Default::Count(0)),
    ("schedule.decay", Default::Word("none")),
    ("schedule.min", Default::Number(0.0)),
    ("ema.warmup", Default::Switch(false)),
    ("discriminator.layers", Default::Count(3)),
    ("discriminator.norm", Default::Word("batch")),
    ("adversary.loss", Default::Word("cross-entropy")),
    ("adversary.discriminator_from", Default::Count(0)),
    ("adversary.generator_from", Default::Count(0)),
    ("comparator.distance", Default::Word("squared")),
];

/// The same for the optimisers of all networks.
const UNWRITTEN_OF_OPTIMISERS: [(&str, Default); 1] = [("rule", Default::Word("adam"))];

#[derive(Clone, Copy, Debug)]
enum Default {
    Word(&'static str),
    Number(f64),
    Count(i64),
    Switch(bool),
}

impl Default {
    fn value(self) -> Value {
        match self {
            Default::Word(word) => word.into(),
            Default::Number(number) => number.into(),
            Default::Count(count) => count.into(),
            Default::Switch(on) => on.into(),
        }
    }
}

/// What `key` is where nobody has written it; none where it is then absent.
fn unwritten(key: &str) -> Option<Value> {
    let of_optimiser = || {
        let (network, name) = key.strip_prefix("optimizer.")?.split_once('.')?;
        let known = ["generator", "discriminator", "encoder"].contains(&network);
        let mut names = UNWRITTEN_OF_OPTIMISERS.iter();
        names.find(|(k, _)| known && *k == name)
    };
    let found = UNWRITTEN.iter().find(|(k, _)| *k == key);
    found.or_else(of_optimiser).map(|(_, d)| d.value())
}

/// NAME and the rest of a key of `[comparator.NAME]`. A key of `[comparator]` with parts, such as `taps.pool5`, is none.
fn named(key: &str) -> Option<(&str, &str)> {
    let parts = key.strip_prefix("comparator.")?.split_once('.')?;
    Some(parts).filter(|(name, _)| !KEYS.contains(name))
}

/// A key of `[comparator.NAME]` as one of `[comparator]`, which means the same.
fn without_name(key: &str) -> String {
    match named(key) {
        Some((_, own)) => format!("comparator.{own}"),
        None => key.to_owned(),
    }
}

/// The weight that a comparator's key takes part by.
fn feature_term(key: &str) -> String {
    match named(key) {
        Some((name, _)) => format!("loss.feat.{name}"),
        None => "loss.feat".to_owned(),
    }
}

/// The values of all keys that a resume may not change, and their digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    /// blake3 of the values as one line of JSON.
    pub digest: String,
    /// Dotted key → value, of the type that the experiment file gives it (numbers that JSON has not, such as an
    /// infinite threshold, are words).
    pub values: BTreeMap<String, Value>,
}

impl Fixed {
    /// Of an experiment.
    ///
    /// # Errors
    /// A value that TOML cannot hold (none of ours).
    pub fn of(config: &Config) -> Result<Fixed, toml::ser::Error> {
        let mut values = flatten(config)?;
        values.retain(|key, _| !FREE.contains(&without_name(key).as_str()));
        Ok(Fixed {
            digest: digest(&values),
            values,
        })
    }

    /// Whether the digest is that of the values.
    pub fn is_whole(&self) -> bool {
        self.digest == digest(&self.values)
    }

    /// Whether a key belongs to a section that takes no part: it may be there or not.
    fn is_idle(&self, key: &str) -> bool {
        let weighs = |term: &str| {
            let mut all = self.values.range(term.to_owned()..);
            let all = all.by_ref().take_while(|(key, _)| key.starts_with(term));
            let named = |key: &str| matches!(key.as_bytes().get(term.len()), None | Some(b'.'));
            let mut all = all.filter(|(key, _)| named(key));
            all.any(|(_, weight)| weight.as_f64() != Some(0.0))
        };
        // No gate, or only an open one, which means the same.
        let has_vaegan = self.values.keys().any(|key| key.starts_with("vaegan."));
        let game = self.values.get("adversary.loss").cloned();
        let gateless = has_vaegan || game.is_some() && game != unwritten("adversary.loss");
        let begins = |section: &str| key.starts_with(section);
        // A stage may weigh what weighs nothing at first.
        if self.values.contains_key("stage") {
            return begins("gate.") && gateless;
        }
        let adversarial = [
            "discriminator.",
            "optimizer.discriminator.",
            "adversary.",
            "gate.",
        ];
        (adversarial.into_iter().any(begins) && !weighs("loss.adv"))
            || (begins("gate.") && gateless)
            || (begins("comparator.") && !weighs(&feature_term(key)))
    }

    /// Each key with another value here than there: `key: there X, here Y`.
    pub fn differences(&self, there: &Fixed) -> Vec<String> {
        let keys: BTreeSet<&String> = self.values.keys().chain(there.values.keys()).collect();
        let show = |value: Option<Value>| value.map_or("nothing".to_owned(), |v| words(&v));
        let mut different = Vec::new();
        for key in keys {
            let meaning = without_name(key);
            // What a later build leaves out of the comparison, this build's manifests need not lack.
            if FREE.contains(&meaning.as_str()) || (self.is_idle(key) && there.is_idle(key)) {
                continue;
            }
            let of = |side: &Fixed| {
                let written = side.values.get(key).cloned();
                written.or_else(|| unwritten(&meaning))
            };
            let (here, there) = (of(self), of(there));
            let are_places = PLACES.contains(&meaning.as_str())
                && !is_drawn(here.as_ref())
                && !is_drawn(there.as_ref());
            if here != there && !are_places {
                different.push(format!("{key}: there {}, here {}", show(there), show(here)));
            }
        }
        different
    }
}

fn digest(values: &BTreeMap<String, Value>) -> String {
    let line = serde_json::to_vec(values).unwrap_or_default();
    blake3::hash(&line).to_hex().to_string()
}

/// As a TOML file has it.
fn words(value: &Value) -> String {
    match value {
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(words).collect();
            format!("[{}]", all.join(", "))
        }
        other => other.to_string(),
    }
}

/// Dotted key → value.
fn flatten(config: &Config) -> Result<BTreeMap<String, Value>, toml::ser::Error> {
    fn walk(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, Value>) {
        let toml::Value::Table(table) = value else {
            out.insert(prefix.to_owned(), json(value));
            return;
        };
        for (key, value) in table {
            let key = match prefix {
                "" => key.clone(),
                _ => format!("{prefix}.{key}"),
            };
            walk(&key, value, out);
        }
    }
    let mut out = BTreeMap::new();
    walk("", &toml::Value::try_from(config)?, &mut out);
    Ok(out)
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map_or_else(|| number.to_string().into(), Value::Number),
        toml::Value::Boolean(on) => (*on).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(all) => all.iter().map(json).collect(),
        toml::Value::Table(table) => {
            let all = table.iter().map(|(key, value)| (key.clone(), json(value)));
            Value::Object(all.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Experiment;

    fn fixed(sets: &[&str]) -> Fixed {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Fixed::of(&Experiment::load(&file, &sets).unwrap().config).unwrap()
    }

    #[test]
    fn values_keep_their_types_through_json_to_the_last_digit() {
        let sets = [
            "gate.g_off_above=inf",
            "loss.img=0.1234567890123456",
            "data.scale=[0.1, 0.7]",
        ];
        let before = fixed(&sets);
        let text = serde_json::to_string(&before).unwrap();
        let after: Fixed = serde_json::from_str(&text).unwrap();
        assert_eq!(after, before);
        assert!(after.is_whole());
        for (key, value) in [
            ("train.seed", Value::from(1)),
            ("encoder.tap", "pool2".into()),
            ("data.mirror", true.into()),
            ("loss.img", 0.123_456_789_012_345_6.into()),
            ("gate.g_off_above", "inf".into()),
            ("schedule.halve_at", vec![1100, 1600].into()),
        ] {
            assert_eq!(after.values[key], value, "{key}");
        }
        let mut other = after;
        other.values.insert("train.seed".into(), 1.0.into());
        assert!(!other.is_whole());
        assert_eq!(
            before.differences(&other),
            ["train.seed: there 1.0, here 1"],
            "a number of another type is another value"
        );
    }

    #[test]
    fn what_a_resume_may_change_is_not_stored() {
        let stored = fixed(&[]);
        for key in FREE {
            assert!(!stored.values.contains_key(key), "{key}");
        }
        assert_eq!(stored, fixed(&["train.steps=9", "data.quarantine=3"]));
        assert_ne!(stored.digest, fixed(&["train.seed=9"]).digest);
    }

    #[test]
    fn where_data_and_weights_lie_is_no_difference_and_how_they_are_drawn_is_one() {
        let here = fixed(&["comparator.weights=a.safetensors", "data.test=\"x\""]);
        let there = fixed(&["comparator.weights=./a.safetensors", "name=other"]);
        assert_eq!(here.differences(&there), [""; 0]);
        let drawn = fixed(&["comparator.weights=random:1"]);
        for other in [here, fixed(&["comparator.weights=random:2"])] {
            let differences = other.differences(&drawn);
            assert!(differences[0].starts_with("comparator.weights: there \"random:1\""));
        }
    }

    /// A manifest without the key is from before there was one: only the meaning of that time is no difference.
    #[test]
    fn a_key_that_an_earlier_format_lacks_counts_as_its_default_of_that_time() {
        let vaegan = ["generator", "discriminator"].map(|n| format!("optimizer.{n}.rule"));
        let keys = UNWRITTEN.iter().map(|(key, _)| (*key).to_owned());
        for key in keys.chain(vaegan) {
            let mut earlier = fixed(&[]);
            earlier.values.remove(&key);
            assert_eq!(fixed(&[]).differences(&earlier), [""; 0], "{key}");
        }
        let one = fixed(&["train.discriminator_passes=one", "generator.noise=4"]);
        let mut earlier = fixed(&[]);
        earlier.values.remove("train.discriminator_passes");
        assert_eq!(
            one.differences(&earlier),
            [
                "generator.noise: there 0, here 4",
                "train.discriminator_passes: there \"paper\", here \"one\""
            ]
        );
    }
}
