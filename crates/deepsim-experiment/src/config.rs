//! The experiment file: raw TOML, then validated.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use deepsim_data::{Augment, BadImages, Mirror, Place, terminal};
use deepsim_nets::loss::{TermKind, Terms};
use deepsim_nets::{
    Architecture, Code, DiscriminatorSpec, FeatureBranch, FeatureShape, GeneratorSpec,
    LearnedEncoder, NetError, NetKind, Rule,
};
use serde::Deserialize;

use crate::contents::EXPERIMENT;
use crate::error::{ExperimentError, Result};
use crate::extends;
use crate::files;
use crate::fixed::Fixed;
use crate::overrides;
pub use crate::raw::*;
pub use crate::source::{NetSource, RawNet, Source, Weights};
use crate::source::{RawKind, RecordedSource, Role, ScriptSource};
use crate::suggest;

/// Bytes of the longest experiment file: far more than any has.
const MOST: u64 = 16 << 20;
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
    /// Shape of what the generator takes: of the inverted features, or of the codes.
    pub features: FeatureShape,
    /// The generator.
    pub generator: GeneratorSpec,
    /// The discriminator.
    pub discriminator: DiscriminatorSpec,
}

/// The assignment that makes the error by itself; all of them where none does.
fn culprit(text: &str, sets: &[String], error: &toml::de::Error) -> String {
    let alone = |assignment: &&String| {
        let mut table: toml::Table = toml::from_str(text).unwrap_or_default();
        overrides::apply(&mut table, assignment).is_ok()
            && Raw::deserialize(table).is_err_and(|e| e.message() == error.message())
    };
    match sets.iter().find(alone) {
        Some(one) => one.clone(),
        None => sets.join(" --set "),
    }
}

/// An experiment may come through a pipe of the shell (`<(sed … FILE)`), but not without end; and no pipe on disk is
/// waited for.
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let bytes = files::open_or_stream(path)?
        .take(MOST + 1)
        .read_to_string(&mut text)?;
    if bytes as u64 > MOST {
        return Err(std::io::Error::other("is too large for an experiment file"));
    }
    Ok(text)
}

/// The text of an experiment file.
fn text_of(path: &Path) -> Result<String> {
    read_text(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ExperimentError::NoExperiment {
            path: path.to_owned(),
            meant: suggest::experiment_file(path),
        },
        std::io::ErrorKind::IsADirectory => ExperimentError::Folder {
            path: path.to_owned(),
            own: Some(path.join(EXPERIMENT)).filter(|own| own.is_file()),
        },
        _ => ExperimentError::io(path)(source),
    })
}

/// An error of a file's own lines.
fn located(path: &Path, text: &str, error: &toml::de::Error) -> ExperimentError {
    ExperimentError::Toml {
        path: path.to_owned(),
        message: suggest::shortened(
            suggest::taps_of_the_network(text, &error.to_string()).trim_end(),
        ),
    }
}

/// What a file says with what it extends, and that as text.
fn complete(text: &str, path: &Path) -> Result<(Raw, String)> {
    let mut own: toml::Table = toml::from_str(text).map_err(|e| located(path, text, &e))?;
    let Some(base) = extends::take(&mut own, path)? else {
        // The file alone, so that its errors point at its own lines.
        let raw = toml::from_str(text).map_err(|e| located(path, text, &e))?;
        return Ok((raw, text.to_owned()));
    };
    let base_text = text_of(&base)?;
    let at_base = |e: toml::de::Error| located(&base, &base_text, &e);
    let mut table: toml::Table = toml::from_str(&base_text).map_err(at_base)?;
    extends::is_complete(&table, &base)?;
    let _: Raw = toml::from_str(&base_text).map_err(at_base)?;
    extends::merge(&mut table, own);
    let whole = toml::to_string(&table).unwrap_or_default();
    let raw = Raw::deserialize(table).map_err(|e| {
        // Of a merged table it is known which key is wrong, not where it stands.
        let message = suggest::taps_of_the_network(&whole, &e.to_string());
        let key = message
            .split("in `")
            .nth(1)
            .and_then(|rest| rest.split('`').next());
        let line = key.and_then(|key| extends::line_of(text, key));
        ExperimentError::Toml {
            path: path.to_owned(),
            message: match line {
                Some(line) => format!("line {line}: {}", suggest::shortened(message.trim_end())),
                None => suggest::shortened(message.trim_end()),
            },
        }
    })?;
    Ok((raw, whole))
}

impl Experiment {
    /// Reads and validates an experiment file, with overrides `KEY=VALUE` applied. Touches
    /// neither data nor weights.
    ///
    /// # Errors
    /// An unreadable file; unknown, mistyped or missing keys (located); impossible values.
    pub fn load(path: &Path, sets: &[String]) -> Result<Experiment> {
        Experiment::parse(&text_of(path)?, path, sets)
    }

    /// As [`Experiment::load`], from text.
    ///
    /// # Errors
    /// As [`Experiment::load`].
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Experiment> {
        let (mut raw, text) = complete(text, path)?;
        if !sets.is_empty() {
            let mut table: toml::Table =
                toml::from_str(&text).map_err(|e| located(path, &text, &e))?;
            for assignment in sets {
                overrides::apply(&mut table, assignment)?;
            }
            let whole = toml::to_string(&table).unwrap_or_default();
            raw = Raw::deserialize(table).map_err(|e| {
                let reason = suggest::taps_of_the_network(&whole, &e.to_string());
                ExperimentError::Override {
                    assignment: culprit(&text, sets, &e),
                    reason: suggest::shortened(reason.trim()).replace('\n', "; "),
                }
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
        // TOML's numbers are signed. The parser takes larger ones all the same, and could not write them again.
        if raw.train.seed > i64::MAX as u64 {
            return Err(bad("train.seed", format!("must be at most {}", i64::MAX)));
        }
        if let Err(e) = toml::Table::try_from(&raw) {
            let reason = format!(
                "cannot be written again: {e}; no number may be above {}",
                i64::MAX
            );
            return Err(bad("one of the values", reason));
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
            ("loss.kl", l.kl),
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
        latent(&raw).map_err(|(key, reason)| bad(key, reason))?;
        larsen(&raw).map_err(|(key, reason)| bad(key, reason))?;
        noise(&raw).map_err(|(key, reason)| bad(key, reason))?;
        let adams = [
            ("generator", Some(raw.optimizer.generator)),
            ("discriminator", Some(raw.optimizer.discriminator)),
            ("encoder", raw.optimizer.encoder),
        ];
        for (which, o) in adams.into_iter().filter_map(|(k, o)| Some((k, o?))) {
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
            if o.rule == Rule::RmsProp && o.beta1 != 0.0 {
                return Err(bad(
                    &key("beta1"),
                    "must be 0 for rmsprop, which has no first moment; beta2 is its decay".into(),
                ));
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
        let read = match &encoder {
            Source::Script(ScriptSource {
                shape: Some(shape), ..
            })
            | Source::Recorded(RecordedSource { shape, .. }) => *shape,
            Source::Downsampled(factor) => {
                let factor = i64::from(*factor);
                if crop % factor != 0 || crop == factor {
                    let reason =
                        format!("must divide data.crop ({crop}) into several pixels, not {factor}");
                    return Err(bad("encoder.factor", reason));
                }
                FeatureShape::Map {
                    channels: 3,
                    size: crop / factor,
                }
            }
            // Only ever with codes, which replace it.
            Source::Larsen(_) => FeatureShape::Vector(1),
            other => shape_of(other, crop).map_err(net("encoder"))?,
        };
        let features = match raw.latent {
            Some(spec) => FeatureShape::Vector(spec.size),
            None => read,
        };
        let generator = GeneratorSpec {
            input: features,
            crop,
            width: raw.generator.width,
            trunk: raw.generator.trunk,
            noise: raw.generator.noise,
        };
        generator.validate().map_err(net("generator"))?;
        let branch = if raw.discriminator.features {
            FeatureBranch::Features(features.len())
        } else {
            FeatureBranch::Off
        };
        let discriminator = DiscriminatorSpec {
            crop,
            features: branch,
            architecture: match raw.discriminator.architecture {
                RawArchitecture::DeePSiM => Architecture::DeePSiM,
                RawArchitecture::Larsen => Architecture::Larsen {
                    width: raw.discriminator.width.unwrap_or(1.0),
                },
            },
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
            // The run says which layers its discriminator has.
            Source::Judge(_) => {}
            Source::Script(_)
            | Source::Recorded(_)
            | Source::Downsampled(_)
            | Source::Larsen(_) => {}
        }
        if let Source::Larsen(width) = encoder {
            LearnedEncoder::check_larsen(crop, width).map_err(net("encoder"))?;
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
        // TOML's comments may hold no control characters, and end with their line.
        let mut head = format!("# Resolved from {}", terminal::path(&self.path));
        for set in &self.overrides {
            let set = set.replace('\n', " ");
            head.push_str(&format!("\n# with --set {}", terminal::one_line(&set)));
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

    /// Whether a network normalises batches: then a pass alone changes it, before any weight is updated.
    pub fn normalises_batches(&self) -> bool {
        self.raw.normalises_batches()
    }

    /// The weights of the terms of the loss.
    pub fn weights(&self) -> Terms<f64> {
        let loss = &self.raw.loss;
        let mut weights = Terms::default();
        weights.set(TermKind::Feature, loss.feat);
        weights.set(TermKind::Adversarial, loss.adv);
        weights.set(TermKind::Image, loss.img);
        weights.set(TermKind::Kl, loss.kl);
        weights.set_some(
            TermKind::Diversity,
            self.raw.diversity.map(|rule| rule.weight),
        );
        weights
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
        match (Fixed::of(&self.raw), Fixed::of(other)) {
            (Ok(here), Ok(there)) => here.differences(&there),
            (Err(e), _) | (_, Err(e)) => vec![format!("they cannot be compared: {e}")],
        }
    }
}

/// More values than any code needs; keeps products of them far from overflow.
const MAX_CODE: i64 = 1 << 20;

/// What `[latent]`, the encoder, its Adam and the KL term must agree on.
fn latent(raw: &Raw) -> std::result::Result<(), (&'static str, String)> {
    let Some(spec) = raw.latent else {
        if raw.encoder.net == RawKind::Larsen {
            let reason =
                "cannot be larsen without [latent]: it learns, and codes are what it gives";
            return Err(("encoder.net", reason.into()));
        }
        if raw.loss.kl != 0.0 {
            let reason = "must be 0 without [latent]: inversion has no latent distribution";
            return Err(("loss.kl", reason.into()));
        }
        return match raw.optimizer.encoder {
            None => Ok(()),
            Some(_) => {
                let reason = "means nothing without [latent]: the encoder is frozen; remove it";
                Err(("optimizer.encoder", reason.into()))
            }
        };
    };
    if !(1..=MAX_CODE).contains(&spec.size) {
        let reason = format!("must be from 1 to {MAX_CODE}, not {}", spec.size);
        return Err(("latent.size", reason));
    }
    match raw.encoder.net {
        RawKind::Network(NetKind::EfficientNetLite0) => {
            let reason = "cannot be efficientnet-lite0 with [latent]: its batch normalisation is folded \
                          into its convolutions, which cannot learn then";
            return Err(("encoder.net", reason.into()));
        }
        RawKind::Network(_) | RawKind::Larsen => {}
        other => {
            let reason =
                format!("cannot be {other} with [latent]: an encoder that learns is a network");
            return Err(("encoder.net", reason));
        }
    }
    if raw.optimizer.encoder.is_none() {
        let reason = "is missing: with [latent] the encoder learns";
        return Err(("optimizer.encoder", reason.into()));
    }
    if spec.code == Code::Plain && raw.loss.kl != 0.0 {
        let reason = "must be 0 for plain codes, which have no distribution";
        return Err(("loss.kl", reason.into()));
    }
    Ok(())
}

/// What noise and its diversity ask of the rest.
fn noise(raw: &Raw) -> std::result::Result<(), (&'static str, String)> {
    if raw.generator.noise != 0 && raw.latent.is_some() {
        let reason = "must be 0 with [latent]: codes have noise of their own";
        return Err(("generator.noise", reason.into()));
    }
    let Some(d) = raw.diversity else {
        return Ok(());
    };
    if raw.generator.noise == 0 {
        let reason =
            "needs generator.noise above 0: without noise the same features make the same picture";
        return Err(("diversity", reason.into()));
    }
    for (key, value) in [("diversity.weight", d.weight), ("diversity.limit", d.limit)] {
        if !(value.is_finite() && value > 0.0) {
            return Err((key, format!("must be a number above 0, not {value}")));
        }
    }
    Ok(())
}

/// What `[vaegan]` and the networks of Larsen et al. ask of the rest.
fn larsen(raw: &Raw) -> std::result::Result<(), (&'static str, String)> {
    if raw.discriminator.width.is_some()
        && raw.discriminator.architecture == RawArchitecture::DeePSiM
    {
        let reason = "means nothing for the discriminator deepsim; remove it";
        return Err(("discriminator.width", reason.into()));
    }
    let normalised = raw.normalises_batches();
    if normalised && raw.train.batch_size < 2 {
        let reason = "must be at least 2: batch normalisation takes the statistics of a batch";
        return Err(("train.batch_size", reason.into()));
    }
    let one = RawPasses::One;
    if raw.train.discriminator_passes == one
        && (raw.vaegan.is_some() || raw.discriminator.architecture == RawArchitecture::Larsen)
    {
        let reason = "must be \"paper\" here: with batch normalisation each picture's loss depends on all \
                      pictures, and [vaegan] has an order of its own";
        return Err(("train.discriminator_passes", reason.into()));
    }
    let Some(v) = raw.vaegan else {
        return Ok(());
    };
    match raw.latent {
        Some(spec) if spec.code == Code::Gaussian => {}
        _ => {
            let reason =
                "needs [latent] with code = \"gaussian\": its decoder takes draws of a prior";
            return Err(("vaegan", reason.into()));
        }
    }
    if raw.loss.adv == 0.0 {
        let reason = "needs loss.adv above 0; leave [vaegan] out for a variational autoencoder";
        return Err(("vaegan", reason.into()));
    }
    if raw.loss.feat == 0.0 && raw.loss.img == 0.0 && raw.loss.kl != 0.0 {
        let reason = "must be 0 with [vaegan] where feat and img are: such a GAN encodes nothing";
        return Err(("loss.kl", reason.into()));
    }
    if raw.discriminator.features {
        let reason = "must be false with [vaegan]: draws of the prior belong to no picture";
        return Err(("discriminator.features", reason.into()));
    }
    if !(0.0..=1.0).contains(&v.gamma) {
        return Err((
            "vaegan.gamma",
            format!("must be from 0 to 1, not {}", v.gamma),
        ));
    }
    if !(v.real_weight > 0.0 && v.real_weight < 1.0) {
        let reason = format!("must be above 0 and below 1, not {}", v.real_weight);
        return Err(("vaegan.real_weight", reason));
    }
    for (key, value) in [
        ("vaegan.equilibrium", v.equilibrium),
        ("vaegan.margin", v.margin),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            return Err((key, format!("must be a number from 0 on, not {value}")));
        }
    }
    Ok(())
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
