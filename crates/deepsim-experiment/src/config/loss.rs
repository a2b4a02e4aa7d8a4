//! `[loss]` and `[pixels]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use deepsim_nets::loss::{KINDS, KindInfo, Term, TermKind, Terms, WeightKey};
use deepsim_nets::{PixelDistance, Reduction};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::{Checked, at_least_zero, complain};

/// The key beside the weights.
const REDUCTION: &str = "reduction";
/// The kind whose terms may have names: one for each comparator.
const BY_NAME: TermKind = TermKind::Feature;

/// `[loss]`: the weight of each term, by the key that the table of terms ([`KINDS`]) gives it, and how sums over a batch
/// become numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    weights: Terms<f64>,
    /// How sums over a batch become numbers.
    pub reduction: Reduction,
}

impl Loss {
    /// The weights of the terms that stand in this section.
    #[must_use]
    pub fn weights(&self) -> &Terms<f64> {
        &self.weights
    }

    /// The weight of a kind's term; the sum of the weights of those with names; 0 where none is given.
    #[must_use]
    pub fn weight(&self, kind: TermKind) -> f64 {
        self.of_kind(kind).map(|(_, weight)| weight).sum()
    }

    /// Gives a kind one term without a name.
    pub fn set_weight(&mut self, kind: TermKind, weight: f64) {
        let others = self.weights.iter().filter(|(term, _)| term.kind() != kind);
        self.weights = others.map(|(term, &w)| (term.clone(), w)).collect();
        self.weights.set(kind, weight);
    }

    /// The same with other weights of some terms.
    pub(super) fn with_weights(&self, changes: impl IntoIterator<Item = (Term, f64)>) -> Loss {
        let mut changed = self.clone();
        for (term, weight) in changes {
            changed.weights.set(term, weight);
        }
        changed
    }

    /// The terms of a kind, with their weights.
    pub(super) fn of_kind(&self, kind: TermKind) -> impl Iterator<Item = (&Term, f64)> {
        let all = self.weights.iter().map(|(term, &weight)| (term, weight));
        all.filter(move |(term, _)| term.kind() == kind)
    }

    pub(super) fn check(&self) -> Checked {
        for (term, weight) in self.weights.iter() {
            at_least_zero(&[(&term.log_key(), *weight)])?;
        }
        let makes_images = |kind| self.weight(kind) > 0.0;
        let main = [TermKind::Feature, TermKind::Adversarial, TermKind::Image];
        if !main.into_iter().any(makes_images) {
            return complain("loss", "has no term: feat, adv and img are all 0");
        }
        Ok(())
    }
}

/// The keys of the section, in the table's order.
fn keys() -> Vec<&'static str> {
    let weights = KINDS.iter().filter(|info| info.weight.is_in_loss());
    weights.map(|info| info.key).chain([REDUCTION]).collect()
}

impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for info in KINDS.iter().filter(|info| info.weight.is_in_loss()) {
            let named = self.of_kind(info.kind);
            let named: BTreeMap<&str, f64> = named
                .filter_map(|(term, weight)| Some((term.name()?, weight)))
                .collect();
            let weight = self.weight(info.kind);
            if !named.is_empty() {
                map.serialize_entry(info.key, &named)?;
            } else if info.weight == WeightKey::Required || weight != 0.0 {
                map.serialize_entry(info.key, &weight)?;
            }
        }
        map.serialize_entry(REDUCTION, &self.reduction)?;
        map.end()
    }
}

/// A key of the section, so that an unknown one is an error of the key and not of the section.
enum Key {
    Weight(TermKind),
    Reduction,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Key, D::Error> {
        let key = String::deserialize(from)?;
        if key == REDUCTION {
            return Ok(Key::Reduction);
        }
        let mut known = KINDS.iter().filter(|info| info.weight.is_in_loss());
        match known.find(|info| info.key == key) {
            Some(info) => Ok(Key::Weight(info.kind)),
            None => {
                let known: Vec<String> = keys().iter().map(|key| format!("`{key}`")).collect();
                let known = known.join(", ");
                // As serde's own words for a struct's unknown field.
                let message = format!("unknown field `{key}`, expected one of {known}");
                Err(D::Error::custom(message))
            }
        }
    }
}

/// A weight, or weights by name.
enum Weights {
    One(f64),
    Named(BTreeMap<String, f64>),
}

impl<'de> Deserialize<'de> for Weights {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Weights, D::Error> {
        struct Value;

        impl<'de> Visitor<'de> for Value {
            type Value = Weights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("f64, or a table of a number for each named comparator")
            }

            fn visit_f64<E>(self, weight: f64) -> Result<Weights, E> {
                Ok(Weights::One(weight))
            }

            fn visit_i64<E>(self, weight: i64) -> Result<Weights, E> {
                Ok(Weights::One(weight as f64))
            }

            fn visit_u64<E>(self, weight: u64) -> Result<Weights, E> {
                Ok(Weights::One(weight as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Weights, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Weights::Named)
            }
        }

        from.deserialize_any(Value)
    }
}

impl<'de> Deserialize<'de> for Loss {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Loss, D::Error> {
        struct Section;

        impl<'de> Visitor<'de> for Section {
            type Value = Loss;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the weights of the loss's terms")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loss, A::Error> {
                let (mut weights, mut reduction) = (Terms::default(), None);
                let mut named = false;
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::Weight(kind) if kind == BY_NAME => match map.next_value()? {
                            Weights::One(weight) => weights.set(kind, weight),
                            Weights::Named(all) if all.is_empty() => {
                                let reason =
                                    "feat names no comparator; write 0 for no feature term";
                                return Err(A::Error::custom(reason));
                            }
                            Weights::Named(all) => {
                                let term = |(name, weight): (String, f64)| {
                                    (Term::named(kind, &name), weight)
                                };
                                for (term, weight) in all.into_iter().map(term) {
                                    weights.set(term, weight);
                                }
                                named = true;
                            }
                        },
                        Key::Weight(kind) => {
                            let weight: f64 = map.next_value()?;
                            // What is not written for 0 is not there for 0.
                            if kind.info().weight == WeightKey::Required || weight != 0.0 {
                                weights.set(kind, weight);
                            }
                        }
                        Key::Reduction => reduction = Some(map.next_value()?),
                    }
                }
                let required = |info: &&KindInfo| info.weight == WeightKey::Required;
                for info in KINDS.iter().filter(required) {
                    let is_named = named && info.kind == BY_NAME;
                    if !is_named && weights.get(&Term::from(info.kind)).is_none() {
                        return Err(A::Error::missing_field(info.key));
                    }
                }
                Ok(Loss {
                    weights,
                    reduction: reduction.ok_or_else(|| A::Error::missing_field(REDUCTION))?,
                })
            }
        }

        from.deserialize_map(Section)
    }
}

impl JsonSchema for Loss {
    fn schema_name() -> Cow<'static, str> {
        "Loss".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = serde_json::Map::new();
        let mut required = vec![REDUCTION];
        for info in KINDS.iter().filter(|info| info.weight.is_in_loss()) {
            let description = format!("Weight of the {} term ({}).", info.label, info.equation);
            let value = if info.kind == BY_NAME {
                let numbers = serde_json::json!({
                    "type": "object",
                    "additionalProperties": {"type": "number"},
                });
                serde_json::json!({
                    "anyOf": [{"type": "number"}, numbers],
                    "description": format!("{description} With named comparators a table: a weight for each name."),
                })
            } else {
                serde_json::json!({"type": "number", "description": description})
            };
            properties.insert(info.key.to_owned(), value);
            if info.weight == WeightKey::Required {
                required.push(info.key);
            }
        }
        let mut reduction = generator.subschema_for::<Reduction>();
        reduction.insert(
            "description".to_owned(),
            "How sums over a batch become numbers.".into(),
        );
        properties.insert(REDUCTION.to_owned(), reduction.into());
        json_schema!({
            "type": "object",
            "description": "`[loss]`: weights of the terms.",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}

/// `[pixels]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pixels {
    /// "squared" (the paper's; if left out), "absolute", "ssim" or "ms-ssim": what `loss.img` weighs. The
    /// similarities are 0 for equal images and about 1 for unrelated ones, whatever their size.
    #[serde(default)]
    pub distance: PixelDistance,
}

impl Pixels {
    pub(super) fn is_paper_s(&self) -> bool {
        *self == Pixels::default()
    }
}
