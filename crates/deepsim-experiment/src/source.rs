//! Where features come from: a network of ours, anybody's TorchScript module, recordings, or the
//! discriminator that trains along.

use std::path::{Path, PathBuf};

use deepsim_nets::discriminator::DiscriminatorTap;
use deepsim_nets::{FeatureShape, NetError, NetKind, Tap};

use crate::config::check::Complaint;
use crate::config::{Network, Normalize, OutputTap, SourceKind, SourceTap, Units};

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
    /// Shape of one image's features, stated where a generator must be built for them.
    pub shape: Option<FeatureShape>,
}

/// Recorded features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedSource {
    /// The file.
    pub file: PathBuf,
    /// Shape of one image's features.
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
    VaeGan(f64),
    /// The discriminator as it is after its update of the same iteration (comparators only).
    Discriminator(DiscriminatorTap),
    /// The discriminator of a run's newest checkpoint, frozen (comparators only).
    FrozenDiscriminator(FrozenDiscriminatorSource),
}

/// The discriminator of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenDiscriminatorSource {
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
            Source::VaeGan(_) => f.write_str("larsen"),
            Source::Discriminator(tap) => write!(f, "discriminator:{tap}"),
            Source::FrozenDiscriminator(from) => {
                let run = from.run.file_name().unwrap_or_default().to_string_lossy();
                write!(f, "discriminator:{} of {run}", from.tap)
            }
        }
    }
}

/// Which side of the experiment a source serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its features are inverted.
    Encoder,
    /// Images are compared in them.
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
            Source::FrozenDiscriminator(from) => Some(("weights", &from.run)),
            Source::Network(_)
            | Source::Downsampled(_)
            | Source::VaeGan(_)
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
            Source::VaeGan(width) => format!("larsen:{width}"),
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

    /// Shape of one image's features, for crops of `crop` pixels a side; of an encoder that gives codes alone, a vector of
    /// any length.
    ///
    /// # Errors
    /// The key at fault: a layer that crops of this size do not reach, a factor that does not divide the crop, or a source
    /// whose features have no shape of their own.
    pub fn feature_shape(&self, crop: i64) -> Result<FeatureShape, Complaint> {
        let unusable = |e: NetError| ("encoder".to_owned(), format!("cannot be used: {e}"));
        match self {
            Source::Network(n) => n.net.feature_shape(n.tap, crop).map_err(unusable),
            Source::Script(ScriptSource {
                shape: Some(shape), ..
            })
            | Source::Recorded(RecordedSource { shape, .. }) => Ok(*shape),
            Source::Downsampled(factor) => {
                let factor = i64::from(*factor);
                if crop % factor != 0 || crop == factor {
                    let reason =
                        format!("must divide data.crop ({crop}) into several pixels, not {factor}");
                    return Err(("encoder.factor".to_owned(), reason));
                }
                Ok(FeatureShape::Map {
                    channels: 3,
                    size: crop / factor,
                })
            }
            Source::VaeGan(_) => Ok(FeatureShape::Vector(1)),
            Source::Script(_) | Source::Discriminator(_) | Source::FrozenDiscriminator(_) => {
                Err(unusable(NetError::Spec(format!(
                    "the shape of the features of {self} is not known"
                ))))
            }
        }
    }

    /// Validates a table of an experiment file.
    ///
    /// # Errors
    /// The key that is missing, superfluous or impossible, and why.
    pub fn validate(role: Role, section: &Network) -> Result<Source, Complaint> {
        let name = section.net.to_string();
        let bad = |key: &str, reason: String| (format!("{}.{key}", role.table()), reason);
        let missing = |key: &str, why: &str| bad(key, format!("is missing: {name} needs {why}"));
        only(role, section)?;
        match section.net {
            SourceKind::Network(net) => {
                let tap = match &section.tap {
                    Some(SourceTap::Layer(tap)) => *tap,
                    Some(other) => {
                        return Err(bad("tap", format!("`{other}` is no layer of {net}")));
                    }
                    None => return Err(missing("tap", "the layer whose output is taken")),
                };
                let text = section
                    .weights
                    .as_deref()
                    .ok_or_else(|| missing("weights", "a file or random:SEED"))?;
                let weights = weights(text).map_err(|reason| bad("weights", reason))?;
                Ok(Source::Network(NetSource { net, tap, weights }))
            }
            SourceKind::TorchScript => {
                let file = section
                    .weights
                    .as_deref()
                    .filter(|f| !f.is_empty())
                    .ok_or_else(|| missing("weights", "the file that torch.jit.save wrote"))?;
                let output = match &section.tap {
                    Some(SourceTap::Output(tap)) => tap.clone(),
                    Some(other) => {
                        let reason =
                            "of a TorchScript module is `output`, `output.N` or `output.KEY`";
                        return Err(bad("tap", format!("{reason}, not `{other}`")));
                    }
                    None => return Err(missing("tap", "`output`, `output.N` or `output.KEY`")),
                };
                let units = section.units.ok_or_else(|| {
                    let list = "\"rgb-0-255\", \"rgb-0-1\", \"rgb-imagenet\" or \"bgr-caffe\": what the module takes";
                    missing("units", list)
                })?;
                if section.trust_code == Some(false) {
                    return Err(bad(
                        "trust_code",
                        "is false: this module is not to be run; remove the line, and allow it by --trust-code, if \
                         you trust its maker"
                            .to_owned(),
                    ));
                }
                let shape = match role {
                    Role::Encoder => Some(shape(section).map_err(|reason| bad("shape", reason))?),
                    Role::Comparator => None,
                };
                Ok(Source::Script(ScriptSource {
                    file: file.into(),
                    output,
                    units,
                    shape,
                }))
            }
            SourceKind::Recorded => {
                let file = section
                    .features
                    .clone()
                    .filter(|f| !f.as_os_str().is_empty())
                    .ok_or_else(|| missing("features", "the file of recorded features"))?;
                Ok(Source::Recorded(RecordedSource {
                    file,
                    shape: shape(section).map_err(|reason| bad("shape", reason))?,
                    normalize: section.normalize.unwrap_or(Normalize::None),
                }))
            }
            SourceKind::Downsampled => match section.factor {
                Some(factor) if factor >= 2 => Ok(Source::Downsampled(factor)),
                Some(factor) => Err(bad("factor", format!("must be 2 or more, not {factor}"))),
                None => Err(missing("factor", "how many pixels a side become one")),
            },
            SourceKind::VaeGan => Ok(Source::VaeGan(section.width.unwrap_or(1.0))),
            SourceKind::Discriminator => match &section.tap {
                Some(SourceTap::Discriminator(tap)) => match &section.weights {
                    None => Ok(Source::Discriminator(*tap)),
                    Some(run) if run.is_empty() || run.starts_with("random:") => Err(bad(
                        "weights",
                        "must be the directory of an earlier run, whose discriminator compares; left out: \
                         the one that trains along"
                            .to_owned(),
                    )),
                    Some(run) => Ok(Source::FrozenDiscriminator(FrozenDiscriminatorSource {
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
fn only(role: Role, section: &Network) -> Result<(), Complaint> {
    let (name, table) = (section.net.to_string(), role.table());
    let refused = match (section.net, role) {
        (SourceKind::Recorded, Role::Comparator) => Some(
            "cannot be recorded: images that the generator makes must be compared, and nothing was \
             recorded of those; take a network",
        ),
        (SourceKind::Downsampled, Role::Comparator) => {
            Some("cannot be downsampled: that is no feature space of its own; take a network")
        }
        (SourceKind::VaeGan, Role::Comparator) => Some(
            "cannot be larsen: that is an encoder that learns; compare in their discriminator (net = \
             \"discriminator\") or take a network",
        ),
        (SourceKind::Discriminator, Role::Encoder) => Some(
            "cannot be the discriminator: it changes with every step, and the features to invert would \
             change with it; make it the comparator",
        ),
        _ => None,
    };
    if let Some(reason) = refused {
        return Err((format!("{table}.net"), reason.to_owned()));
    }
    let allowed: &[&str] = match (section.net, role) {
        (SourceKind::Network(_), _) => &["tap", "weights"],
        (SourceKind::TorchScript, Role::Encoder) => {
            &["tap", "weights", "units", "trust_code", "shape"]
        }
        (SourceKind::TorchScript, Role::Comparator) => &["tap", "weights", "units", "trust_code"],
        (SourceKind::Recorded, _) => &["features", "shape", "normalize"],
        (SourceKind::Downsampled, _) => &["factor"],
        (SourceKind::VaeGan, _) => &["width"],
        (SourceKind::Discriminator, _) => &["tap", "weights"],
    };
    let given = [
        ("tap", section.tap.is_some()),
        ("weights", section.weights.is_some()),
        ("features", section.features.is_some()),
        ("shape", section.shape.is_some()),
        ("factor", section.factor.is_some()),
        ("width", section.width.is_some()),
        ("normalize", section.normalize.is_some()),
        ("units", section.units.is_some()),
        ("trust_code", section.trust_code.is_some()),
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

/// More values than any representation of an image has; keeps products of them far from overflow.
const MAX_SIDE: i64 = 1 << 20;

fn shape(section: &Network) -> Result<FeatureShape, String> {
    let Some(sizes) = &section.shape else {
        let reason = "is missing: the shape of one image's features, [LENGTH] or [CHANNELS, SIZE, SIZE]; \
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

/// The sizes of one image's features, as tensors have them.
pub fn sizes(shape: FeatureShape) -> Vec<i64> {
    match shape {
        FeatureShape::Vector(length) => vec![length],
        FeatureShape::Map { channels, size } => vec![channels, size, size],
    }
}
