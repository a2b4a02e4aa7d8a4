//! `[encoder]` and `[comparator]`: the keys of all sources of features, as a file gives them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use deepsim_nets::discriminator::DiscriminatorTap;
use deepsim_nets::zoo::NETS;
use deepsim_nets::{FeatureDistance, NetKind, Tap, Tokens};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[encoder]`, `[comparator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Architecture; or "torchscript": a module saved by `torch.jit.save`; "recorded" (encoder
    /// only): features from a file; "downsampled" (encoder only): the image itself, made smaller, so that
    /// the generator learns super-resolution; "larsen" (encoder only, with `[latent]`): that of Larsen et al., which
    /// begins at random; "discriminator" (comparator only): the one that trains along,
    /// as it is after its update of the same iteration (with `[vaegan]`: before), or a frozen one of an earlier
    /// run; "lpips-alexnet", "lpips-vgg16", "dists" (comparator only): the published metrics, as losses.
    /// Each has its own of the keys below.
    pub net: SourceKind,
    /// Layer whose output is taken. Several of one shape: "block3+block7" is their sum, "mean(block3+block7)" their
    /// mean; "layernorm(block3)", alone or in either, is a layer whose channels are normalised at each position,
    /// without weights. TorchScript: "output", or "output.N" / "output.KEY" for an
    /// element of a tuple, list or dictionary. Discriminator: "Dconv1" to "Dconv5" (after their
    /// rectifiers; of that of Larsen et al. "Dconv1" to "Dconv4", before normalisation) or "Dpool5".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<SourceTap>,
    /// A comparator that is a network of ours: several layers instead of one `tap`, each with the weight of its distance, such
    /// as `taps = { relu1 = 1.0, pool5 = 0.5 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taps: Option<BTreeMap<String, f64>>,
    /// Comparators: "squared" (the paper's; if left out), "absolute", "cosine" (1 − cosine of the channels, averaged over
    /// positions) or "unit" (squared differences of the channels divided by their length, averaged over positions). The
    /// last two are numbers of an image, as those of LPIPS and DISTS are: averaged over the batch, with reduction = "paper"
    /// summed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<FeatureDistance>,
    /// LPIPS and DISTS: the file of what was learnt for the metric, beside the network's `weights`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<PathBuf>,
    /// A safetensors file, or `random:SEED`. TorchScript: the module's file. Discriminator: the directory of a run whose
    /// newest checkpoint's discriminator compares, frozen (while that run still trains its newest checkpoint changes: name a copy
    /// of one of its `checkpoints/step-…` then); without it, the one that trains along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Transformers: which tokens are taken. "patches" (if left out): those of the patches, as a map; class token and
    /// registers are dropped. "all": these too, in front of the patches; an encoder's are one vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Recorded: the file of features, one safetensors tensor for each image under its name; or
    /// a matrix (.safetensors or .npy) with the names beside it (`m.names.txt` for `m.npy`); or
    /// a folder of bdpy's `.mat` files, one for each image under its name, with the variable `feat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<PathBuf>,
    /// Recorded, and a TorchScript encoder: shape of one image's features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<i64>>,
    /// Downsampled: how many pixels, along each side, become one (their mean). The crop must be a
    /// multiple of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<u32>,
    /// "larsen": multiplies its hidden channels; 1 (if left out) is that of Larsen et al.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// Recorded: "none" (if left out); "rms": all values divided by their root mean square;
    /// "zscore": each unit minus its mean, divided by its deviation. Over the training images;
    /// kept in the checkpoint and applied to everything that the run decodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// TorchScript: units of the images that the module takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Units>,
    /// TorchScript: accepted as true for files of earlier versions, without effect. Such a file is a program, and to
    /// load it is to run it: only `--trust-code` on the command line allows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_code: Option<bool>,
}

impl Network {
    /// Whether both sections name the same source with the same words for its weights, at whatever taps. Of networks
    /// of ours [`NetSource::is_same_network`](crate::source::NetSource::is_same_network) tells it of what was read.
    #[must_use]
    pub fn names_same_network(&self, other: &Network) -> bool {
        self.net == other.net && self.weights == other.weights
    }
}

/// The keys of the section, as they are written.
pub(crate) const KEYS: [&str; 14] = [
    "net",
    "tap",
    "taps",
    "distance",
    "heads",
    "weights",
    "tokens",
    "features",
    "shape",
    "factor",
    "width",
    "normalize",
    "units",
    "trust_code",
];

/// `net`: an architecture, or another source of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A network of ours.
    Network(NetKind),
    /// A TorchScript module.
    TorchScript,
    /// Features from a file.
    Recorded,
    /// The image, made smaller.
    Downsampled,
    /// The encoder of Larsen et al.
    VaeGan,
    /// The discriminator that trains along, or one of an earlier run.
    Discriminator,
    /// A metric that was learnt, as a loss.
    Perceptual(Perceptual),
}

/// Metrics that were learnt of people's judgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Perceptual {
    /// LPIPS by AlexNet.
    LpipsAlexNet,
    /// LPIPS by VGG16.
    LpipsVgg16,
    /// DISTS, by VGG16.
    Dists,
}

impl Perceptual {
    /// The network that it stands on, and the deepest layer that it looks at.
    #[must_use]
    pub fn network(self) -> (NetKind, Tap) {
        match self {
            Perceptual::LpipsAlexNet => (NetKind::AlexNet, Tap::Relu5),
            Perceptual::LpipsVgg16 | Perceptual::Dists => (NetKind::Vgg16, Tap::Relu5_3),
        }
    }
}

const OTHERS: [(&str, SourceKind); 8] = [
    ("torchscript", SourceKind::TorchScript),
    ("recorded", SourceKind::Recorded),
    ("downsampled", SourceKind::Downsampled),
    ("larsen", SourceKind::VaeGan),
    ("discriminator", SourceKind::Discriminator),
    (
        "lpips-alexnet",
        SourceKind::Perceptual(Perceptual::LpipsAlexNet),
    ),
    (
        "lpips-vgg16",
        SourceKind::Perceptual(Perceptual::LpipsVgg16),
    ),
    ("dists", SourceKind::Perceptual(Perceptual::Dists)),
];

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, OTHERS.iter().find(|(_, k)| k == self)) {
            (SourceKind::Network(net), _) => net.fmt(f),
            (_, Some((name, _))) => f.write_str(name),
            (_, None) => Ok(()),
        }
    }
}

impl Serialize for SourceKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            SourceKind::Network(net) => net.serialize(to),
            other => to.serialize_str(&other.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for SourceKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SourceKind, D::Error> {
        let text = String::deserialize(from)?;
        if let Some((_, kind)) = OTHERS.iter().find(|(name, _)| *name == text) {
            return Ok(*kind);
        }
        NetKind::deserialize(text.as_str().into_deserializer())
            .map(SourceKind::Network)
            .map_err(|e: serde::de::value::Error| {
                let others = OTHERS.map(|(name, _)| format!("`{name}`")).join(", ");
                D::Error::custom(format!("{e}, or {others}"))
            })
    }
}

/// `tap`: which output is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceTap {
    /// A layer of a network of ours.
    Layer(Tap),
    /// What a TorchScript module returns.
    Output(OutputTap),
    /// A layer of the discriminator.
    Discriminator(DiscriminatorTap),
}

/// What a TorchScript module returns: all of it (`output`), or an element of a tuple, list or
/// dictionary (`output.N`, `output.KEY`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTap(pub Option<String>);

impl std::fmt::Display for OutputTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            None => f.write_str("output"),
            Some(key) => write!(f, "output.{key}"),
        }
    }
}

impl std::fmt::Display for SourceTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SourceTap::Layer(tap) => tap.fmt(f),
            SourceTap::Output(tap) => tap.fmt(f),
            SourceTap::Discriminator(tap) => tap.fmt(f),
        }
    }
}

impl Serialize for SourceTap {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for SourceTap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SourceTap, D::Error> {
        let text = String::deserialize(from)?;
        let bad = |e: serde::de::value::Error| D::Error::custom(e);
        if text == "output" {
            return Ok(SourceTap::Output(OutputTap(None)));
        }
        if let Some(key) = text.strip_prefix("output.").filter(|k| !k.is_empty()) {
            return Ok(SourceTap::Output(OutputTap(Some(key.to_owned()))));
        }
        if text.starts_with('D') {
            DiscriminatorTap::deserialize(text.as_str().into_deserializer())
                .map(SourceTap::Discriminator)
                .map_err(bad)
        } else {
            Tap::deserialize(text.as_str().into_deserializer())
                .map(SourceTap::Layer)
                .map_err(bad)
        }
    }
}

/// Units of the images that a TorchScript module takes, `[N,3,H,W]`, f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Units {
    /// Red, green, blue, 0–255.
    #[serde(rename = "rgb-0-255")]
    Rgb255,
    /// Red, green, blue, 0–1.
    #[serde(rename = "rgb-0-1")]
    Rgb1,
    /// Red, green, blue, 0–1, minus ImageNet's mean (0.485, 0.456, 0.406), divided by its deviation
    /// (0.229, 0.224, 0.225): what torchvision's and most PyTorch models take.
    #[serde(rename = "rgb-imagenet")]
    RgbImagenet,
    /// Blue, green, red, 0–255, minus (104, 117, 123).
    #[serde(rename = "bgr-caffe")]
    BgrCaffe,
}

/// What is done to recorded features before they are inverted. Numbers come from the training
/// images, are kept in the checkpoint, and are applied to whatever is decoded later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Nothing.
    None,
    /// All values are divided by one number, the root of their mean square.
    Rms,
    /// Each unit (voxel, electrode, neuron) by itself: minus its mean over images, divided by its
    /// deviation over images; a unit that never changes becomes 0.
    Zscore,
}

impl JsonSchema for SourceKind {
    fn schema_name() -> Cow<'static, str> {
        "SourceKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let networks = NETS.iter().map(|net| net.name);
        let names: Vec<&str> = networks.chain(OTHERS.map(|(name, _)| name)).collect();
        json_schema!({"type": "string", "enum": names})
    }
}

impl JsonSchema for SourceTap {
    fn schema_name() -> Cow<'static, str> {
        "SourceTap".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section of named comparators is told by its first key: a key of a network that is not listed would be a name.
    #[test]
    fn the_listed_keys_are_those_of_the_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(Network)).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let mut found: Vec<&str> = properties.keys().map(String::as_str).collect();
        found.sort_unstable();
        let mut listed = KEYS;
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
