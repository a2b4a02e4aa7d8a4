//! A network of ours at several taps, as a comparator.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use deepsim_nets::{DiscriminatorSpec, FeatureNet, NetError, NetKind, Tap};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as ValueError;
use tch::{Device, Tensor};

use super::kind::{FeatureSource, Features, Given, unusable};
use super::network::{self, NetSource};
use crate::config::check::{Checked, Complaint, complain};
use crate::consent::Allowed;
use crate::error::Result;

/// A network of ours at several taps.
#[derive(Clone, Debug, PartialEq)]
pub struct TapsSource {
    /// The network, at the deepest of the taps.
    pub net: NetSource,
    /// The taps, by name, each with the weight of its distance.
    pub taps: Vec<(Tap, f64)>,
}

pub(super) fn parse(
    given: &Given<'_>,
    net: NetKind,
    taps: &BTreeMap<String, f64>,
) -> std::result::Result<TapsSource, Complaint> {
    if given.section.tap.is_some() {
        return Err(given.bad("taps", "cannot stand beside tap; name all layers in taps"));
    }
    let mut found: Option<TapsSource> = None;
    for (name, &weight) in taps {
        let key = format!("taps.{name}");
        let tap = Tap::deserialize(name.as_str().into_deserializer());
        let tap = tap.map_err(|e: ValueError| given.bad(&key, e.to_string()))?;
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(given.bad(&key, format!("must be above 0, not {weight}")));
        }
        let source = network::at(given, net, tap)?;
        let entry = (source.tap, weight);
        found = Some(match found {
            None => TapsSource {
                net: source,
                taps: vec![entry],
            },
            Some(mut all) => {
                all.taps.push(entry);
                all.net = all.net.deeper(&source).clone();
                all
            }
        });
    }
    found.ok_or_else(|| given.bad("taps", "names no layer; give at least one, or tap"))
}

impl fmt::Display for TapsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net.net)?;
        for (i, (tap, _)) in self.taps.iter().enumerate() {
            write!(f, "{}{tap}", if i == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl FeatureSource for TapsSource {
    fn file(&self) -> Option<(&'static str, &Path)> {
        self.net.file()
    }

    fn help(&self, file: &Path) -> String {
        self.net.help(file)
    }

    fn origin(&self) -> String {
        self.net.origin()
    }

    fn learned(&self) -> bool {
        self.net.learned()
    }

    fn check_comparator(&self, table: &str, crop: i64, _: Option<&DiscriminatorSpec>) -> Checked {
        for (tap, _) in &self.taps {
            if let Err(e) = self.net.net.feature_shape(*tap, crop) {
                let (_, reason) = unusable(table, &e);
                return complain(&format!("{table}.taps.{tap}"), reason);
            }
        }
        Ok(())
    }

    fn open(&self, _: Option<Allowed>, device: Device) -> Result<Box<dyn Features>> {
        Ok(Box::new(Several {
            net: self.net.load(device)?,
            taps: self.taps.iter().map(|(tap, _)| *tap).collect(),
        }))
    }
}

/// A network of ours and the taps that are taken.
#[derive(Debug)]
struct Several {
    net: FeatureNet,
    taps: Vec<Tap>,
}

impl Features for Several {
    /// All of them in a row, as vectors.
    fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        in_a_row(&self.compared(caffe)?)
    }

    fn compared(&self, caffe: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.net.features(caffe, &self.taps)?)
    }

    fn widen(&self) -> std::result::Result<(), NetError> {
        self.net.widen()
    }
}

/// Features of the same images as one vector each, `[N,length]`.
pub(crate) fn in_a_row(all: &[Tensor]) -> Result<Tensor> {
    let flat = all.iter().map(|x| x.f_flatten(1, -1));
    let flat = flat.collect::<std::result::Result<Vec<Tensor>, _>>()?;
    Ok(Tensor::f_cat(&flat, 1)?)
}
