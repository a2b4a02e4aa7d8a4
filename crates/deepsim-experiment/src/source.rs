//! Where features come from: a network of ours, anybody's TorchScript module, recordings, or the
//! discriminator that trains along.

use std::path::{Path, PathBuf};

use deepsim_nets::discriminator::DiscriminatorTap;
use deepsim_nets::{FeatureShape, NetKind, Tap};
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[encoder]`, `[comparator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNet {
    /// Architecture; or "torchscript": a module saved by `torch.jit.save`; "recorded" (encoder
    /// only): features from a file; "downsampled" (encoder only): the picture itself, made smaller, so that
    /// the generator learns super-resolution; "larsen" (encoder only, with `[latent]`): that of Larsen et al., which
    /// begins at random; "discriminator" (comparator only): the one that trains along,
    /// as it is after its update of the same iteration (with `[vaegan]`: before), or a frozen one of an earlier
    /// run. Each has its own of the keys below.
    pub net: RawKind,
    /// Layer whose output is taken. TorchScript: "output", or "output.N" / "output.KEY" for an
    /// element of a tuple, list or dictionary. Discriminator: "Dconv1" to "Dconv5" (after their
    /// rectifiers; of that of Larsen et al. "Dconv1" to "Dconv4", before normalisation) or "Dpool5".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<RawTap>,
    /// A safetensors file, or `random:SEED`. TorchScript: the module's file. Discriminator: the directory of a run whose
    /// newest checkpoint's discriminator compares, frozen (a run that goes on has another one: name a copy of one of its
    /// `checkpoints/step-…` then); without it, the one that trains along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Recorded: the file of features, one safetensors tensor for each picture under its name; or
    /// a matrix (.safetensors or .npy) with the names beside it (`m.names.txt` for `m.npy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<PathBuf>,
    /// Recorded, and a TorchScript encoder: shape of one picture's features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<i64>>,
    /// Downsampled: how many pixels, along each side, become one (their mean). The crop must be a
    /// multiple of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<u32>,
    /// Larsen: multiplies its hidden channels; 1 (if left out) is theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// Recorded: "none" (if left out); "rms": all values divided by their root mean square;
    /// "zscore": each unit minus its mean, divided by its deviation. Over the training pictures;
    /// kept in the checkpoint and applied to everything that the run decodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// TorchScript: units of the pictures that the module takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Units>,
    /// TorchScript: may be true, and grants nothing. Such a file is a program, and to load it is to run it: only
    /// `--trust-code` on the command line allows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_code: Option<bool>,
}

/// `net`: an architecture, or another source of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKind {
    /// A network of ours.
    Network(NetKind),
    /// A TorchScript module.
    TorchScript,
    /// Features from a file.
    Recorded,
    /// The picture, made smaller.
    Downsampled,
    /// The encoder of Larsen et al.
    Larsen,
    /// The discriminator that trains along, or one of an earlier run.
    Discriminator,
}

const OTHERS: [(&str, RawKind); 5] = [
    ("torchscript", RawKind::TorchScript),
    ("recorded", RawKind::Recorded),
    ("downsampled", RawKind::Downsampled),
    ("larsen", RawKind::Larsen),
    ("discriminator", RawKind::Discriminator),
];

impl std::fmt::Display for RawKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, OTHERS.iter().find(|(_, k)| k == self)) {
            (RawKind::Network(net), _) => net.fmt(f),
            (_, Some((name, _))) => f.write_str(name),
            (_, None) => Ok(()),
        }
    }
}

impl Serialize for RawKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            RawKind::Network(net) => net.serialize(to),
            other => to.serialize_str(&other.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RawKind, D::Error> {
        let text = String::deserialize(from)?;
        if let Some((_, kind)) = OTHERS.iter().find(|(name, _)| *name == text) {
            return Ok(*kind);
        }
        NetKind::deserialize(text.as_str().into_deserializer())
            .map(RawKind::Network)
            .map_err(|e: serde::de::value::Error| {
                D::Error::custom(format!(
                    "{e}, or `torchscript`, `recorded`, `downsampled`, `larsen`, `discriminator`"
                ))
            })
    }
}

/// `tap`: which output is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawTap {
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

impl std::fmt::Display for RawTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RawTap::Layer(tap) => tap.fmt(f),
            RawTap::Output(tap) => tap.fmt(f),
            RawTap::Discriminator(tap) => tap.fmt(f),
        }
    }
}

impl Serialize for RawTap {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for RawTap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RawTap, D::Error> {
        let text = String::deserialize(from)?;
        let bad = |e: serde::de::value::Error| D::Error::custom(e);
        if text == "output" {
            return Ok(RawTap::Output(OutputTap(None)));
        }
        if let Some(key) = text.strip_prefix("output.").filter(|k| !k.is_empty()) {
            return Ok(RawTap::Output(OutputTap(Some(key.to_owned()))));
        }
        if text.starts_with('D') {
            DiscriminatorTap::deserialize(text.as_str().into_deserializer())
                .map(RawTap::Discriminator)
                .map_err(bad)
        } else {
            Tap::deserialize(text.as_str().into_deserializer())
                .map(RawTap::Layer)
                .map_err(bad)
        }
    }
}

/// Units of the pictures that a TorchScript module takes, `[N,3,H,W]`, f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
/// pictures, are kept in the checkpoint, and are applied to whatever is decoded later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Nothing.
    None,
    /// All values are divided by one number, the root of their mean square.
    Rms,
    /// Each unit (voxel, electrode, neuron) by itself: minus its mean over pictures, divided by its
    /// deviation over pictures; a unit that never changes becomes 0.
    Zscore,
}

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

/// A TorchScript module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptSource {
    /// The file that `torch.jit.save` wrote.
    pub file: PathBuf,
    /// What of its output is taken.
    pub output: OutputTap,
    /// What it takes.
    pub units: Units,
    /// Shape of one picture's features, stated where a generator must be built for them.
    pub shape: Option<FeatureShape>,
}

/// Recorded features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedSource {
    /// The file.
    pub file: PathBuf,
    /// Shape of one picture's features.
    pub shape: FeatureShape,
    /// What is done to them.
    pub normalize: Normalize,
}

/// A validated source of features.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A network of ours.
    Network(NetSource),
    /// A TorchScript module.
    Script(ScriptSource),
    /// Recorded features (encoders only).
    Recorded(RecordedSource),
    /// Means of squares of so many pixels a side (encoders only): super-resolution.
    Downsampled(u32),
    /// The encoder of Larsen et al. at a width, which learns (encoders only).
    Larsen(f64),
    /// The discriminator as it is after its update of the same iteration (comparators only).
    Discriminator(DiscriminatorTap),
    /// The discriminator of a run's newest checkpoint, frozen (comparators only).
    Judge(JudgeSource),
}

/// The discriminator of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgeSource {
    /// The run's directory.
    pub run: PathBuf,
    /// The layer.
    pub tap: DiscriminatorTap,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Network(n) => write!(f, "{}:{}", n.net, n.tap),
            Source::Script(s) => write!(f, "torchscript:{}", s.output),
            Source::Recorded(r) => {
                let stem = r.file.file_stem().unwrap_or_default().to_string_lossy();
                write!(f, "recorded:{stem}")
            }
            Source::Downsampled(factor) => write!(f, "downsampled:{factor}"),
            Source::Larsen(_) => f.write_str("larsen"),
            Source::Discriminator(tap) => write!(f, "discriminator:{tap}"),
            Source::Judge(judge) => {
                let run = judge.run.file_name().unwrap_or_default().to_string_lossy();
                write!(f, "discriminator:{} of {run}", judge.tap)
            }
        }
    }
}

/// Which side of the experiment a source serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its features are inverted.
    Encoder,
    /// Pictures are compared in them.
    Comparator,
}

impl Role {
    pub(crate) fn table(self) -> &'static str {
        match self {
            Role::Encoder => "encoder",
            Role::Comparator => "comparator",
        }
    }
}

/// A key and what is wrong with it.
pub type Complaint = (String, String);

impl Source {
    /// The network of ours, where it is one.
    pub fn network(&self) -> Option<&NetSource> {
        match self {
            Source::Network(source) => Some(source),
            _ => None,
        }
    }

    /// The file that must be there, and its key.
    pub fn file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Source::Network(NetSource {
                weights: Weights::File(path),
                ..
            }) => Some(("weights", path)),
            Source::Script(s) => Some(("weights", &s.file)),
            Source::Recorded(r) => Some(("features", &r.file)),
            Source::Judge(judge) => Some(("weights", &judge.run)),
            Source::Network(_)
            | Source::Downsampled(_)
            | Source::Larsen(_)
            | Source::Discriminator(_) => None,
        }
    }

    /// Where its features come from, for people: a file, `random:SEED`, or `trained along`.
    pub fn origin(&self) -> String {
        match self {
            Source::Network(NetSource {
                weights: Weights::Random(seed),
                ..
            }) => format!("random:{seed}"),
            Source::Discriminator(_) => "trained along".to_owned(),
            Source::Downsampled(factor) => format!("downsampled:{factor}"),
            Source::Larsen(width) => format!("larsen:{width}"),
            other => other
                .file()
                .map_or_else(String::new, |(_, path)| path.display().to_string()),
        }
    }

    /// Whether it learned from data, or learns: everything but random weights.
    pub fn learned(&self) -> bool {
        !matches!(
            self,
            Source::Network(NetSource {
                weights: Weights::Random(_),
                ..
            })
        )
    }

    /// Validates a table of an experiment file.
    ///
    /// # Errors
    /// The key that is missing, superfluous or impossible, and why.
    pub fn validate(role: Role, raw: &RawNet) -> Result<Source, Complaint> {
        let name = raw.net.to_string();
        let bad = |key: &str, reason: String| (format!("{}.{key}", role.table()), reason);
        let missing = |key: &str, why: &str| bad(key, format!("is missing: {name} needs {why}"));
        only(role, raw)?;
        match raw.net {
            RawKind::Network(net) => {
                let tap = match &raw.tap {
                    Some(RawTap::Layer(tap)) => *tap,
                    Some(other) => {
                        return Err(bad("tap", format!("`{other}` is no layer of {net}")));
                    }
                    None => return Err(missing("tap", "the layer whose output is taken")),
                };
                let text = raw
                    .weights
                    .as_deref()
                    .ok_or_else(|| missing("weights", "a file or random:SEED"))?;
                let weights = weights(text).map_err(|reason| bad("weights", reason))?;
                Ok(Source::Network(NetSource { net, tap, weights }))
            }
            RawKind::TorchScript => {
                let file = raw
                    .weights
                    .as_deref()
                    .filter(|f| !f.is_empty())
                    .ok_or_else(|| missing("weights", "the file that torch.jit.save wrote"))?;
                let output = match &raw.tap {
                    Some(RawTap::Output(tap)) => tap.clone(),
                    Some(other) => {
                        let reason =
                            "of a TorchScript module is `output`, `output.N` or `output.KEY`";
                        return Err(bad("tap", format!("{reason}, not `{other}`")));
                    }
                    None => return Err(missing("tap", "`output`, `output.N` or `output.KEY`")),
                };
                let units = raw.units.ok_or_else(|| {
                    let list = "\"rgb-0-255\", \"rgb-0-1\", \"rgb-imagenet\" or \"bgr-caffe\": what the module takes";
                    missing("units", list)
                })?;
                if raw.trust_code == Some(false) {
                    return Err(bad(
                        "trust_code",
                        "is false: this module is not to be run; remove the line, and allow it by --trust-code, if \
                         you trust its maker"
                            .to_owned(),
                    ));
                }
                let shape = match role {
                    Role::Encoder => Some(shape(raw).map_err(|reason| bad("shape", reason))?),
                    Role::Comparator => None,
                };
                Ok(Source::Script(ScriptSource {
                    file: file.into(),
                    output,
                    units,
                    shape,
                }))
            }
            RawKind::Recorded => {
                let file = raw
                    .features
                    .clone()
                    .filter(|f| !f.as_os_str().is_empty())
                    .ok_or_else(|| missing("features", "the file of recorded features"))?;
                Ok(Source::Recorded(RecordedSource {
                    file,
                    shape: shape(raw).map_err(|reason| bad("shape", reason))?,
                    normalize: raw.normalize.unwrap_or(Normalize::None),
                }))
            }
            RawKind::Downsampled => match raw.factor {
                Some(factor) if factor >= 2 => Ok(Source::Downsampled(factor)),
                Some(factor) => Err(bad("factor", format!("must be 2 or more, not {factor}"))),
                None => Err(missing("factor", "how many pixels a side become one")),
            },
            RawKind::Larsen => Ok(Source::Larsen(raw.width.unwrap_or(1.0))),
            RawKind::Discriminator => match &raw.tap {
                Some(RawTap::Discriminator(tap)) => match &raw.weights {
                    None => Ok(Source::Discriminator(*tap)),
                    Some(run) if run.is_empty() || run.starts_with("random:") => Err(bad(
                        "weights",
                        "must be the directory of an earlier run, whose discriminator compares; left out: \
                         the one that trains along"
                            .to_owned(),
                    )),
                    Some(run) => Ok(Source::Judge(JudgeSource {
                        run: run.into(),
                        tap: *tap,
                    })),
                },
                Some(other) => Err(bad(
                    "tap",
                    format!("`{other}` is no layer of the discriminator"),
                )),
                None => Err(missing("tap", "a layer, Dconv1 to Dconv5 or Dpool5")),
            },
        }
    }
}

/// Refuses keys that mean nothing for a source, and sources that a side cannot have.
fn only(role: Role, raw: &RawNet) -> Result<(), Complaint> {
    let (name, table) = (raw.net.to_string(), role.table());
    let refused = match (raw.net, role) {
        (RawKind::Recorded, Role::Comparator) => Some(
            "cannot be recorded: pictures that the generator makes must be compared, and nothing was \
             recorded of those; take a network",
        ),
        (RawKind::Downsampled, Role::Comparator) => {
            Some("cannot be downsampled: that is no feature space of its own; take a network")
        }
        (RawKind::Larsen, Role::Comparator) => Some(
            "cannot be larsen: that is an encoder that learns; compare in their discriminator (net = \
             \"discriminator\") or take a network",
        ),
        (RawKind::Discriminator, Role::Encoder) => Some(
            "cannot be the discriminator: it changes with every step, and the features to invert would \
             change with it; make it the comparator",
        ),
        _ => None,
    };
    if let Some(reason) = refused {
        return Err((format!("{table}.net"), reason.to_owned()));
    }
    let allowed: &[&str] = match (raw.net, role) {
        (RawKind::Network(_), _) => &["tap", "weights"],
        (RawKind::TorchScript, Role::Encoder) => {
            &["tap", "weights", "units", "trust_code", "shape"]
        }
        (RawKind::TorchScript, Role::Comparator) => &["tap", "weights", "units", "trust_code"],
        (RawKind::Recorded, _) => &["features", "shape", "normalize"],
        (RawKind::Downsampled, _) => &["factor"],
        (RawKind::Larsen, _) => &["width"],
        (RawKind::Discriminator, _) => &["tap", "weights"],
    };
    let given = [
        ("tap", raw.tap.is_some()),
        ("weights", raw.weights.is_some()),
        ("features", raw.features.is_some()),
        ("shape", raw.shape.is_some()),
        ("factor", raw.factor.is_some()),
        ("width", raw.width.is_some()),
        ("normalize", raw.normalize.is_some()),
        ("units", raw.units.is_some()),
        ("trust_code", raw.trust_code.is_some()),
    ];
    match given
        .iter()
        .find(|(k, there)| *there && !allowed.contains(k))
    {
        Some((key, _)) => Err((
            format!("{table}.{key}"),
            format!("means nothing for the {table} {name}; remove it"),
        )),
        None => Ok(()),
    }
}

fn weights(text: &str) -> Result<Weights, String> {
    match text.strip_prefix("random:") {
        None if text.is_empty() => Err("is empty; name a file or random:SEED".to_owned()),
        None => Ok(Weights::File(PathBuf::from(text))),
        Some(seed) => seed
            .parse()
            .map(Weights::Random)
            .map_err(|_| format!("`{text}`: the seed must be a whole number, as in random:1")),
    }
}

/// More values than any representation of a picture has; keeps products of them far from overflow.
const MAX_SIDE: i64 = 1 << 20;

fn shape(raw: &RawNet) -> Result<FeatureShape, String> {
    let Some(sizes) = &raw.shape else {
        let reason = "is missing: the shape of one picture's features, [LENGTH] or [CHANNELS, SIZE, SIZE]; \
                      the generator is built for it";
        return Err(reason.to_owned());
    };
    if sizes.iter().any(|d| !(1..=MAX_SIDE).contains(d)) {
        return Err(format!(
            "must hold sizes from 1 to {MAX_SIDE}, not {sizes:?}"
        ));
    }
    match sizes.as_slice() {
        [length] => Ok(FeatureShape::Vector(*length)),
        [channels, height, width] if height == width => Ok(FeatureShape::Map {
            channels: *channels,
            size: *height,
        }),
        other => Err(format!(
            "must be [LENGTH] or [CHANNELS, SIZE, SIZE], not {other:?}"
        )),
    }
}

/// The sizes of one picture's features, as tensors have them.
pub fn sizes(shape: FeatureShape) -> Vec<i64> {
    match shape {
        FeatureShape::Vector(length) => vec![length],
        FeatureShape::Map { channels, size } => vec![channels, size, size],
    }
}
