//! A network of ours, at one of its taps.

use std::fmt;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::quote;
use deepsim_nets::{DiscriminatorSpec, FeatureNet, FeatureShape, NetError, NetKind, Tap};
use tch::{Device, Tensor};

use super::kind::{FeatureSource, Features, Given, KindInfo, unusable};
use crate::config::SourceTap;
use crate::config::check::{Checked, Complaint};
use crate::consent::Allowed;
use crate::error::Result;

pub(super) const INFO: KindInfo = KindInfo {
    encoder: Ok(&["tap", "weights", "tokens"]),
    comparator: Ok(&["tap", "taps", "weights", "tokens", "distance"]),
};

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// A safetensors file.
    File(PathBuf),
    /// Random weights of this seed.
    Random(u64),
}

/// A network of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetSource {
    /// Architecture.
    pub net: NetKind,
    /// Tap.
    pub tap: Tap,
    /// Weights.
    pub weights: Weights,
}

pub(super) fn parse(given: &Given<'_>, net: NetKind) -> std::result::Result<NetSource, Complaint> {
    let tap = match &given.section.tap {
        Some(SourceTap::Layer(tap)) => *tap,
        Some(other) => return Err(given.bad("tap", format!("`{other}` is no layer of {net}"))),
        None => return Err(given.missing("tap", "the layer whose output is taken")),
    };
    at(given, net, tap)
}

/// The network of a section at a tap.
pub(super) fn at(
    given: &Given<'_>,
    net: NetKind,
    tap: Tap,
) -> std::result::Result<NetSource, Complaint> {
    let tokens = given.section.tokens.unwrap_or_default();
    if given.section.tokens.is_some() && !net.has_tokens() {
        return Err(given.bad("tokens", format!("means nothing for {net}: it has none")));
    }
    let tap = tap.with(tokens);
    let text = given.section.weights.as_deref();
    let text = text.ok_or_else(|| given.missing("weights", "a file or random:SEED"))?;
    let weights = weights(text).map_err(|reason| given.bad("weights", reason))?;
    Ok(NetSource { net, tap, weights })
}

fn weights(text: &str) -> std::result::Result<Weights, String> {
    match text.strip_prefix("random:") {
        None if text.is_empty() => Err("is empty; name a file or random:SEED".to_owned()),
        None => Ok(Weights::File(PathBuf::from(text))),
        Some(seed) => seed
            .parse()
            .map(Weights::Random)
            .map_err(|_| format!("`{text}`: the seed must be a whole number, as in random:1")),
    }
}

impl NetSource {
    /// A network of ours at a tap, with weights as experiment files name them.
    ///
    /// # Errors
    /// What is wrong with the weights' name.
    pub(crate) fn read(
        net: NetKind,
        tap: Tap,
        text: &str,
    ) -> std::result::Result<NetSource, String> {
        let weights = weights(text)?;
        Ok(NetSource { net, tap, weights })
    }

    /// Loads the network at least up to the tap.
    ///
    /// # Errors
    /// Missing, damaged or wrong weights.
    pub fn load(&self, device: Device) -> Result<FeatureNet> {
        Ok(match &self.weights {
            Weights::File(path) => FeatureNet::load(self.net, self.tap, path, device)?,
            Weights::Random(seed) => FeatureNet::random(self.net, self.tap, *seed, device)?,
        })
    }

    /// Whether both are the same network with the same weights, at whatever taps.
    pub fn is_same_network(&self, other: &NetSource) -> bool {
        self.net == other.net && self.weights == other.weights
    }

    /// The one of two taps of the same network that lies deeper; of equals the other's.
    pub fn deeper<'a>(&'a self, other: &'a NetSource) -> &'a NetSource {
        // A layer that the network lacks lies nowhere; loading it says so.
        let rows = |tap| self.net.rows_to(tap).map_or(0, <[_]>::len);
        if rows(other.tap) > rows(self.tap) {
            other
        } else {
            self
        }
    }
}

impl fmt::Display for NetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.net, self.tap)
    }
}

impl FeatureSource for NetSource {
    fn file(&self) -> Option<(&'static str, &Path)> {
        match &self.weights {
            Weights::File(path) => Some(("weights", path)),
            Weights::Random(_) => None,
        }
    }

    fn help(&self, file: &Path) -> String {
        let net = self.net.info();
        match net.import {
            Some((kind, from)) => format!(
                "  {} and import it by\n  \
                 `cargo run -p deepsim-weights -- import {kind} {from} {}`",
                net.obtain,
                quote(file)
            ),
            None => format!("  {}", net.obtain),
        }
    }

    fn origin(&self) -> String {
        match &self.weights {
            Weights::File(path) => path.display().to_string(),
            Weights::Random(seed) => format!("random:{seed}"),
        }
    }

    fn learned(&self) -> bool {
        matches!(self.weights, Weights::File(_))
    }

    fn feature_shape(&self, crop: i64) -> std::result::Result<FeatureShape, Complaint> {
        let shape = self.net.feature_shape(self.tap, crop);
        shape.map_err(|e| unusable("encoder", &e))
    }

    fn check_comparator(&self, table: &str, crop: i64, _: Option<&DiscriminatorSpec>) -> Checked {
        let shape = self.net.feature_shape(self.tap, crop);
        shape.map(drop).map_err(|e| unusable(table, &e))
    }

    fn open(&self, _: Option<Allowed>, device: Device) -> Result<Box<dyn Features>> {
        Ok(Box::new(Tapped {
            net: self.load(device)?,
            tap: self.tap,
        }))
    }
}

/// A network of ours and the tap that is taken.
#[derive(Debug)]
pub struct Tapped {
    /// Built at least up to the tap.
    pub net: FeatureNet,
    /// The tap.
    pub tap: Tap,
}

impl Features for Tapped {
    fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        one(&self.net, self.tap, caffe)
    }

    fn widen(&self) -> std::result::Result<(), NetError> {
        self.net.widen()
    }
}

/// Features at one tap.
pub(crate) fn one(net: &FeatureNet, tap: Tap, caffe: &Tensor) -> Result<Tensor> {
    let mut found = net.features(caffe, &[tap])?;
    found
        .pop()
        .ok_or_else(|| NetError::Spec(format!("{} gave nothing at {tap}", net.net().name)).into())
}
