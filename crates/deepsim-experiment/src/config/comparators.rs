//! `[comparator]`: one network, or several by name (`[comparator.NAME]`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::{Checked, complain};
use super::network::{KEYS, Network};

/// One entry of `[comparator]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparator {
    /// NAME of `[comparator.NAME]`; none for the only one, `[comparator]`.
    pub name: Option<String>,
    /// The network.
    pub network: Network,
}

impl Comparator {
    /// The section that it stands in.
    #[must_use]
    pub fn table(&self) -> String {
        match &self.name {
            None => "comparator".to_owned(),
            Some(name) => format!("comparator.{name}"),
        }
    }
}

/// The networks in whose feature spaces images are compared: none, one, or several in the order of their names. Each
/// belongs to a feature term, `loss.feat` or `loss.feat.NAME`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparators(Vec<Comparator>);

impl From<Network> for Comparators {
    fn from(network: Network) -> Self {
        Comparators(vec![Comparator {
            name: None,
            network,
        }])
    }
}

impl Comparators {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The network, where there is one alone.
    #[must_use]
    pub fn only(&self) -> Option<&Network> {
        match self.0.as_slice() {
            [one] => Some(&one.network),
            _ => None,
        }
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Comparator> {
        self.0.iter()
    }

    pub(super) fn check(&self) -> Checked {
        for comparator in self.iter() {
            let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c));
            if let Some(name) = &comparator.name
                && (name.is_empty() || name.contains(odd))
            {
                let reason = "must be named by letters, digits, '-' and '_'";
                return complain(&comparator.table(), reason);
            }
        }
        Ok(())
    }
}

impl Serialize for Comparators {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if let [
            Comparator {
                name: None,
                network,
            },
        ] = self.0.as_slice()
        {
            return network.serialize(to);
        }
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for Comparator { name, network } in self.iter() {
            map.serialize_entry(name.as_deref().unwrap_or_default(), network)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Comparators {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Comparators, D::Error> {
        struct Section;

        impl<'de> Visitor<'de> for Section {
            type Value = Comparators;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network, or networks by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Comparators, A::Error> {
                let Some(first) = map.next_key::<String>()? else {
                    return Err(A::Error::missing_field("net"));
                };
                // The keys of a network are no names: the first tells which form the section has, so that an error
                // of either form is located at its own key. What is no table is no named network.
                if KEYS.contains(&first.as_str()) {
                    let whole = Unread {
                        first: Some(first),
                        rest: map,
                    };
                    let network = Network::deserialize(MapAccessDeserializer::new(whole))?;
                    return Ok(network.into());
                }
                let network = map.next_value_seed(Named(&first))?;
                let mut all = BTreeMap::from([(first, network)]);
                while let Some(name) = map.next_key::<String>()? {
                    if KEYS.contains(&name.as_str()) {
                        let reason = format!(
                            "`{name}` is a key of a single comparator and cannot stand beside named ones"
                        );
                        return Err(A::Error::custom(reason));
                    }
                    let network = map.next_value_seed(Named(&name))?;
                    all.insert(name, network);
                }
                let all = all.into_iter().map(|(name, network)| Comparator {
                    name: Some(name),
                    network,
                });
                Ok(Comparators(all.collect()))
            }
        }

        from.deserialize_map(Section)
    }
}

/// The network of `[comparator.NAME]`. What is no table is an unknown key of a single comparator.
struct Named<'a>(&'a str);

impl Named<'_> {
    fn unknown<T, E: serde::de::Error>(&self) -> Result<T, E> {
        let known = KEYS.map(|key| format!("`{key}`")).join(", ");
        // As serde's own words for a struct's unknown field.
        let message = format!("unknown field `{}`, expected one of {known}", self.0);
        Err(E::custom(message))
    }
}

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = Network;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Network, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Named<'_> {
    type Value = Network;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Network, A::Error> {
        Network::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Network, E> {
        self.unknown()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Network, E> {
        self.unknown()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Network, E> {
        self.unknown()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Network, E> {
        self.unknown()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Network, A::Error> {
        self.unknown()
    }
}

/// A map of which the first key was read.
struct Unread<A> {
    first: Option<String>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Unread<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(key) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.rest.next_value_seed(seed)
    }
}

impl JsonSchema for Comparators {
    fn schema_name() -> Cow<'static, str> {
        "Comparators".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // The keys of one network, or networks by other keys.
        let one = Network::json_schema(generator);
        let mut schema = one.clone();
        schema.insert("additionalProperties".to_owned(), one.into());
        schema
    }
}
