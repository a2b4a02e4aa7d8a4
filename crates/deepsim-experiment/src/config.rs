//! The experiment file: raw TOML, then validated.

use std::path::{Path, PathBuf};

use deepsim_data::{Augment, BadImages, Mirror, Place};
use deepsim_nets::{
    AdamOptions, DiscriminatorSpec, FeatureBranch, FeatureShape, GeneratorSpec, NetError,
    Reduction, Trunk,
};
use serde::{Deserialize, Serialize};

use crate::error::{ExperimentError, Result};
use crate::overrides;
pub use crate::source::{NetSource, Source, Weights};
use crate::source::{Normalize, RawKind, RawTap, RecordedSource, Role, ScriptSource, Units};

/// An experiment file, key by key. Every hyper-parameter must be written out: two files can be
/// compared line by line, and no default hides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// Name of the run: `runs/NAME` unless `--out` says otherwise.
    pub name: String,
    /// Photographs.
    pub data: RawData,
    /// The network whose features are inverted.
    pub encoder: RawNet,
    /// The network in whose feature space pictures are compared.
    pub comparator: RawNet,
    /// The generator.
    pub generator: RawGenerator,
    /// The discriminator.
    pub discriminator: RawDiscriminator,
    /// Weights of the loss terms.
    pub loss: RawLoss,
    /// Adam, per network.
    pub optimizer: RawOptimizer,
    /// Learning-rate schedule.
    pub schedule: RawSchedule,
    /// When each network pauses.
    pub gate: RawGate,
    /// The run itself.
    pub train: RawTrain,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawData {
    /// Training photographs: a prepared dataset or a folder of images.
    pub train: PathBuf,
    /// Held-out photographs, the same way.
    pub test: PathBuf,
    /// Side of the square crops, pixels.
    pub crop: u32,
    /// Whether half of the training crops are mirrored left to right.
    pub mirror: bool,
    /// Side of the window that becomes a crop, as a fraction of the stored picture, drawn from
    /// this range (and resized to `crop`). Without it the window is `crop` pixels, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<[f32; 2]>,
    /// How many unreadable photographs to leave out (and count) before giving up; 0 fails at the
    /// first.
    #[serde(default)]
    pub quarantine: usize,
}

/// `[encoder]`, `[comparator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNet {
    /// Architecture; or "torchscript": a module saved by `torch.jit.save`; "recorded" (encoder
    /// only): features from a file; "discriminator" (comparator only): the one that trains along,
    /// as it is after its update of the same iteration. Each has its own of the keys below.
    pub net: RawKind,
    /// Layer whose output is taken. TorchScript: "output", or "output.N" / "output.KEY" for an
    /// element of a tuple, list or dictionary. Discriminator: "Dconv1" to "Dconv5" (after their
    /// rectifiers) or "Dpool5".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<RawTap>,
    /// A safetensors file, or `random:SEED`. TorchScript: the module's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Recorded: the file of features, one safetensors tensor for each picture under its name; or
    /// a matrix (.safetensors or .npy) with the names beside it in `FILE.names.txt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<PathBuf>,
    /// Recorded, and a TorchScript encoder: shape of one picture's features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<i64>>,
    /// Recorded: "none" (if left out); "rms": all values divided by their root mean square;
    /// "zscore": each unit minus its mean, divided by its deviation. Over the training pictures;
    /// kept in the checkpoint and applied to everything that the run decodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// TorchScript: units of the pictures that the module takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Units>,
    /// TorchScript: must be true. Such a file is a program, and to load it is to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_code: Option<bool>,
}

/// `[generator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGenerator {
    /// Multiplies the channels of the hidden layers; 1 is the paper's.
    pub width: f64,
    /// "deepsim", or `{ db = { kernel = 5, slope = 0.2 } }`: the generator of Dosovitskiy & Brox, CVPR
    /// 2016, whose rows in Table 2 are "D&B".
    #[serde(default = "Trunk::deepsim", skip_serializing_if = "Trunk::is_deepsim")]
    pub trunk: Trunk,
}

/// `[discriminator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDiscriminator {
    /// Whether it also sees the inverted features (as the released training; not in the paper).
    pub features: bool,
}

/// `[loss]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLoss {
    /// Weight of the feature loss.
    pub feat: f64,
    /// Weight of the adversarial loss (and of the discriminator's own).
    pub adv: f64,
    /// Weight of the image loss.
    pub img: f64,
    /// Weight of the KL term (variational autoencoders; 0 for inversion).
    pub kl: f64,
    /// How sums over a batch become numbers.
    pub reduction: Reduction,
}

/// `[optimizer]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawOptimizer {
    /// The generator's Adam.
    pub generator: AdamOptions,
    /// The discriminator's Adam.
    pub discriminator: AdamOptions,
}

/// `[schedule]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSchedule {
    /// Updates of a network after which its learning rate halves.
    pub halve_at: Vec<u64>,
}

/// `[gate]`: thresholds on r = (L_D real + L_D fake) / L_adv, unweighted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGate {
    /// The discriminator pauses below this.
    pub d_off_below: f64,
    /// A paused discriminator continues above this.
    pub d_on_above: f64,
    /// The generator pauses above this.
    pub g_off_above: f64,
    /// A paused generator continues below this.
    pub g_on_below: f64,
}

/// Arithmetic of convolutions and matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawPrecision {
    /// Single precision.
    Fp32,
    /// bfloat16 products; weights, losses and Adam in single precision.
    Bf16,
}

/// Whether a GPU may multiply fp32 numbers with ten bits of mantissa.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawTf32 {
    /// All 23 bits.
    #[default]
    Off,
    /// TF32 in convolutions and matrix products.
    On,
}

/// How often an iteration passes its generated pictures through the discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawPasses {
    /// Before the discriminator's update for its own loss, after it for the generator's.
    #[default]
    Paper,
    /// Once, before the update, for both.
    One,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTrain {
    /// Iterations in all.
    pub steps: u64,
    /// Pictures per iteration.
    pub batch_size: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of libtorch and of the decoder; 0: as many as the machine has.
    #[serde(default)]
    pub threads: usize,
    /// Arithmetic.
    pub precision: RawPrecision,
    /// Whether a GPU may multiply fp32 numbers in TF32, which is faster and keeps ten bits of their
    /// mantissa. Nothing changes on a CPU.
    #[serde(default)]
    pub tf32: RawTf32,
    /// Passes of the discriminator over the generated pictures of an iteration. "paper": one for
    /// its own update, and the updated one passes over them again for the generator's. "one": a
    /// single pass before the update serves both, which is faster and another order than the
    /// paper's. A run keeps what it began with.
    #[serde(default)]
    pub discriminator_passes: RawPasses,
    /// Steps between lines of metrics.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between sample pictures; 0: only at the end.
    pub sample_every: u64,
    /// Steps between evaluations on held-out photographs; 0: only at the end.
    pub eval_every: u64,
    /// Held-out photographs of such an evaluation, at most.
    pub eval_images: usize,
    /// Checkpoints to keep.
    pub keep_checkpoints: usize,
}

/// More threads than any machine that this runs on has cores.
const MAX_THREADS: usize = 1024;

/// A validated experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The file it came from.
    pub path: PathBuf,
    /// The file's values with the overrides applied.
    pub raw: Raw,
    /// Overrides that were given, as typed.
    pub overrides: Vec<String>,
    /// What is inverted.
    pub encoder: Source,
    /// What pictures are compared in.
    pub comparator: Source,
    /// Shape of the inverted features.
    pub features: FeatureShape,
    /// The generator.
    pub generator: GeneratorSpec,
    /// The discriminator.
    pub discriminator: DiscriminatorSpec,
}

impl Experiment {
    /// Reads and validates an experiment file, with overrides `KEY=VALUE` applied. Touches
    /// neither data nor weights.
    ///
    /// # Errors
    /// An unreadable file; unknown, mistyped or missing keys (located); impossible values.
    pub fn load(path: &Path, sets: &[String]) -> Result<Experiment> {
        let text = std::fs::read_to_string(path).map_err(ExperimentError::io(path))?;
        Experiment::parse(&text, path, sets)
    }

    /// As [`Experiment::load`], from text.
    ///
    /// # Errors
    /// As [`Experiment::load`].
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Experiment> {
        let located = |e: toml::de::Error| ExperimentError::Toml {
            path: path.to_owned(),
            message: e.to_string().trim_end().to_owned(),
        };
        // The file alone first, so that its errors point at its own lines.
        let mut raw: Raw = toml::from_str(text).map_err(located)?;
        if !sets.is_empty() {
            let mut table: toml::Table = toml::from_str(text).map_err(located)?;
            for assignment in sets {
                overrides::apply(&mut table, assignment)?;
            }
            raw = Raw::deserialize(table).map_err(|e| ExperimentError::Override {
                assignment: sets.join(" --set "),
                reason: e.to_string().trim().replace('\n', "; "),
            })?;
        }
        Experiment::validate(raw, path, sets)
    }

    fn validate(raw: Raw, path: &Path, sets: &[String]) -> Result<Experiment> {
        let bad = |key: &str, reason: String| ExperimentError::Invalid {
            path: path.to_owned(),
            key: key.to_owned(),
            reason,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if raw.name.is_empty() || raw.name.starts_with('.') || !raw.name.chars().all(plain) {
            return Err(bad(
                "name",
                "must be letters, digits, '-', '_' and '.'".into(),
            ));
        }
        for (key, value) in [
            ("train.steps", raw.train.steps),
            ("train.batch_size", raw.train.batch_size as u64),
            ("train.log_every", raw.train.log_every),
            ("train.checkpoint_every", raw.train.checkpoint_every),
            ("train.keep_checkpoints", raw.train.keep_checkpoints as u64),
            ("train.eval_images", raw.train.eval_images as u64),
            ("data.crop", u64::from(raw.data.crop)),
        ] {
            if value == 0 {
                return Err(bad(key, "must be at least 1".into()));
            }
        }
        // Both thread pools start what they are told to; far too many end the process.
        if raw.train.threads > MAX_THREADS {
            return Err(bad(
                "train.threads",
                format!("must be at most {MAX_THREADS}; 0 takes as many as the machine has"),
            ));
        }
        if raw.train.eval_images < 2 {
            return Err(bad(
                "train.eval_images",
                "must be at least 2: errors are relative to the distance between pictures".into(),
            ));
        }
        let l = &raw.loss;
        for (key, w) in [
            ("loss.feat", l.feat),
            ("loss.adv", l.adv),
            ("loss.img", l.img),
        ] {
            if !(w.is_finite() && w >= 0.0) {
                return Err(bad(key, format!("must be a number from 0 on, not {w}")));
            }
        }
        if l.feat == 0.0 && l.adv == 0.0 && l.img == 0.0 {
            return Err(bad(
                "loss",
                "has no term: feat, adv and img are all 0".into(),
            ));
        }
        if l.kl != 0.0 {
            return Err(bad(
                "loss.kl",
                "must be 0: inversion has no latent distribution".into(),
            ));
        }
        for (which, o) in [
            ("generator", raw.optimizer.generator),
            ("discriminator", raw.optimizer.discriminator),
        ] {
            let key = |k: &str| format!("optimizer.{which}.{k}");
            for (k, v) in [("lr", o.lr), ("eps", o.eps)] {
                if !(v.is_finite() && v > 0.0) {
                    return Err(bad(&key(k), format!("must be above 0, not {v}")));
                }
            }
            for (k, v) in [("beta1", o.beta1), ("beta2", o.beta2)] {
                if !(0.0..1.0).contains(&v) {
                    return Err(bad(&key(k), format!("must be from 0 to below 1, not {v}")));
                }
            }
            if !(o.weight_decay.is_finite() && o.weight_decay >= 0.0) {
                return Err(bad(
                    &key("weight_decay"),
                    "must be a number from 0 on".into(),
                ));
            }
        }
        if !raw.schedule.halve_at.is_sorted() {
            return Err(bad(
                "schedule.halve_at",
                "must be in ascending order".into(),
            ));
        }
        let g = raw.gate;
        if [g.d_off_below, g.d_on_above, g.g_off_above, g.g_on_below]
            .iter()
            .any(|t| t.is_nan())
            || g.d_off_below > g.d_on_above
            || g.g_on_below > g.g_off_above
        {
            return Err(bad(
                "gate",
                "needs d_off_below <= d_on_above and g_on_below <= g_off_above".into(),
            ));
        }
        if let Some([lo, hi]) = raw.data.scale
            && !(lo > 0.0 && lo <= hi && hi <= 1.0)
        {
            return Err(bad(
                "data.scale",
                format!("must be [low, high] with 0 < low <= high <= 1, not [{lo}, {hi}]"),
            ));
        }
        let source =
            |role, n: &RawNet| Source::validate(role, n).map_err(|(key, reason)| bad(&key, reason));
        let (encoder, comparator) = (
            source(Role::Encoder, &raw.encoder)?,
            source(Role::Comparator, &raw.comparator)?,
        );
        if let Source::Recorded(_) = encoder {
            whole_pictures(&raw.data).map_err(|(key, reason)| bad(key, reason))?;
        }
        let crop = i64::from(raw.data.crop);
        let net = |key: &'static str| move |e: NetError| bad(key, format!("cannot be used: {e}"));
        let features = match &encoder {
            Source::Script(ScriptSource {
                shape: Some(shape), ..
            })
            | Source::Recorded(RecordedSource { shape, .. }) => *shape,
            other => shape_of(other, crop).map_err(net("encoder"))?,
        };
        let generator = GeneratorSpec {
            input: features,
            crop,
            width: raw.generator.width,
            trunk: raw.generator.trunk,
        };
        generator.layers().map_err(net("generator"))?;
        let branch = match raw.discriminator.features {
            true => FeatureBranch::Features(features.len()),
            false => FeatureBranch::Off,
        };
        let discriminator = DiscriminatorSpec {
            crop,
            features: branch,
        };
        discriminator.validate().map_err(net("discriminator"))?;
        match &comparator {
            Source::Discriminator(tap) => {
                discriminator
                    .has(*tap)
                    .map_err(|e| bad("comparator.tap", e.to_string()))?;
                if raw.loss.adv == 0.0 {
                    return Err(bad(
                        "comparator.net",
                        "is the discriminator, which never learns where loss.adv is 0; \
                         raise loss.adv or take another comparator"
                            .into(),
                    ));
                }
            }
            Source::Network(_) => drop(shape_of(&comparator, crop).map_err(net("comparator"))?),
            Source::Script(_) | Source::Recorded(_) => {}
        }
        Ok(Experiment {
            path: path.to_owned(),
            raw,
            overrides: sets.to_vec(),
            encoder,
            comparator,
            features,
            generator,
            discriminator,
        })
    }

    /// The resolved, complete file, as a run directory keeps it.
    ///
    /// # Errors
    /// A value that TOML cannot hold (none of ours).
    pub fn to_toml(&self) -> Result<String> {
        let body = toml::to_string(&self.raw).map_err(|e| ExperimentError::Toml {
            path: self.path.clone(),
            message: e.to_string(),
        })?;
        let mut head = format!("# Resolved from {}", self.path.display());
        for set in &self.overrides {
            head.push_str(&format!("\n# with --set {}", set.replace('\n', " ")));
        }
        Ok(format!("{head}\n{body}"))
    }

    /// Crops and mirroring of training batches.
    pub fn augment(&self) -> Augment {
        Augment {
            crop: self.raw.data.crop,
            mirror: if self.raw.data.mirror {
                Mirror::Random
            } else {
                Mirror::Off
            },
            place: match self.encoder {
                Source::Recorded(_) => Place::Centre,
                _ => Place::Random,
            },
            scale: self.raw.data.scale.map(|[lo, hi]| (lo, hi)),
        }
    }

    /// What to do with unreadable photographs.
    pub fn bad_images(&self) -> BadImages {
        match self.raw.data.quarantine {
            0 => BadImages::Fail,
            budget => BadImages::Quarantine { budget },
        }
    }

    /// Keys that differ from another experiment in what a resumed run may not change:
    /// everything but the length of the run, its reports and its threads.
    pub fn differences(&self, other: &Raw) -> Vec<String> {
        let free = [
            "train.steps",
            "train.threads",
            "train.log_every",
            "train.checkpoint_every",
            "train.sample_every",
            "train.eval_every",
            "train.eval_images",
            "train.keep_checkpoints",
            "data.quarantine",
        ];
        let (here, there) = (flatten(&self.raw), flatten(other));
        let keys: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let show = |v: Option<&String>| v.map_or("nothing".to_owned(), Clone::clone);
        keys.into_iter()
            .filter(|k| !free.contains(&k.as_str()) && here.get(*k) != there.get(*k))
            .map(|k| {
                format!(
                    "{k}: there {}, here {}",
                    show(there.get(k)),
                    show(here.get(k))
                )
            })
            .collect()
    }
}

/// Recorded features belong to one picture: nothing random may be done to it.
fn whole_pictures(data: &RawData) -> std::result::Result<(), (&'static str, String)> {
    let recorded = "the features were recorded of the whole picture";
    if data.mirror {
        let reason =
            format!("must be false for a recorded encoder: {recorded}, not of its mirror image");
        return Err(("data.mirror", reason));
    }
    match data.scale {
        None | Some([1.0, 1.0]) => Ok(()),
        Some(_) => {
            let reason = format!(
                "must be left out for a recorded encoder (the crop is the centre of the picture), or be \
                 [1.0, 1.0] (the crop is all of it): {recorded}, not of random windows"
            );
            Err(("data.scale", reason))
        }
    }
}

fn shape_of(source: &Source, crop: i64) -> std::result::Result<FeatureShape, NetError> {
    match source {
        Source::Network(n) => n.net.feature_shape(n.tap, crop),
        other => Err(NetError::Spec(format!(
            "the shape of the features of {other} is not known"
        ))),
    }
}

/// Dotted key → value as text.
fn flatten(raw: &Raw) -> std::collections::BTreeMap<String, String> {
    fn walk(prefix: &str, v: &toml::Value, out: &mut std::collections::BTreeMap<String, String>) {
        match v {
            toml::Value::Table(t) => {
                for (k, v) in t {
                    let key = if prefix.is_empty() {
                        k.clone()
                    } else {
                        format!("{prefix}.{k}")
                    };
                    walk(&key, v, out);
                }
            }
            other => {
                out.insert(prefix.to_owned(), other.to_string());
            }
        }
    }
    let mut out = std::collections::BTreeMap::new();
    if let Ok(v) = toml::Value::try_from(raw) {
        walk("", &v, &mut out);
    }
    out
}
