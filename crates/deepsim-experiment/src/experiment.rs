//! An experiment: a validated file, and the networks that it describes.

use std::path::{Path, PathBuf};

use deepsim_data::{Augment, Mirror, Place, terminal};
use deepsim_nets::loss::{TermKind, Terms};
use deepsim_nets::{DiscriminatorSpec, FeatureShape, GeneratorSpec, LearnedEncoder, NetError};

use crate::config::check::{Complaint, complain};
use crate::config::{Config, agreement, read};
use crate::error::{ExperimentError, Result};
use crate::fixed::Fixed;
use crate::source::{Role, Source};

/// A validated experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The file it came from.
    pub path: PathBuf,
    /// The file's sections, with the overrides applied.
    pub config: Config,
    /// Overrides that were given, as typed.
    pub overrides: Vec<String>,
    /// What is inverted.
    pub encoder: Source,
    /// What images are compared in.
    pub comparator: Source,
    /// Shape of what the generator takes: of the inverted features, or of the codes.
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
        Experiment::parse(&read::text_of(path)?, path, sets)
    }

    /// As [`Experiment::load`], from text.
    ///
    /// # Errors
    /// As [`Experiment::load`].
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Experiment> {
        let of_base = |config, base: &Path| Experiment::validate(config, base, &[]).map(drop);
        let config = read::config(text, path, sets, &of_base)?;
        Experiment::validate(config, path, sets)
    }

    fn validate(config: Config, path: &Path, sets: &[String]) -> Result<Experiment> {
        Experiment::checked(config, path, sets).map_err(|(key, reason)| ExperimentError::Invalid {
            path: path.to_owned(),
            key,
            reason,
        })
    }

    fn checked(
        config: Config,
        path: &Path,
        sets: &[String],
    ) -> std::result::Result<Experiment, Complaint> {
        agreement::check(&config)?;
        let encoder = Source::validate(Role::Encoder, &config.encoder)?;
        let comparator = Source::validate(Role::Comparator, &config.comparator)?;
        if let Source::Recorded(_) = encoder {
            config.data.check_recorded()?;
        }
        let crop = i64::from(config.data.crop);
        let unusable =
            |key: &'static str| move |e: NetError| (key.to_owned(), format!("cannot be used: {e}"));
        let read = encoder.feature_shape(crop)?;
        let features = match config.latent {
            Some(spec) => FeatureShape::Vector(spec.size),
            None => read,
        };
        let generator = GeneratorSpec {
            input: features,
            crop,
            width: config.generator.width,
            trunk: config.generator.trunk,
            noise: config.generator.noise,
        };
        generator.validate().map_err(unusable("generator"))?;
        let discriminator = config.discriminator.spec(crop, features);
        discriminator
            .validate()
            .map_err(unusable("discriminator"))?;
        match &comparator {
            Source::Discriminator(tap) => {
                discriminator
                    .has(*tap)
                    .map_err(|e| ("comparator.tap".to_owned(), e.to_string()))?;
                if config.loss.weight(TermKind::Adversarial) == 0.0 {
                    let reason = "is the discriminator, which never learns where loss.adv is 0; \
                                  raise loss.adv or take another comparator";
                    complain("comparator.net", reason)?;
                }
            }
            Source::Network(n) => {
                n.net
                    .feature_shape(n.tap, crop)
                    .map_err(unusable("comparator"))?;
            }
            // The run says which layers its discriminator has.
            Source::FrozenDiscriminator(_) => {}
            Source::Script(_)
            | Source::Recorded(_)
            | Source::Downsampled(_)
            | Source::VaeGan(_) => {}
        }
        if let Source::VaeGan(width) = encoder {
            LearnedEncoder::check_vae_gan(crop, width).map_err(unusable("encoder"))?;
        }
        Ok(Experiment {
            path: path.to_owned(),
            config,
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
        let body = toml::to_string(&self.config).map_err(|e| ExperimentError::Toml {
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
            crop: self.config.data.crop,
            mirror: if self.config.data.mirror {
                Mirror::Random
            } else {
                Mirror::Off
            },
            place: match self.encoder {
                Source::Recorded(_) => Place::Centre,
                _ => Place::Random,
            },
            scale: self.config.data.scale.map(|[lo, hi]| (lo, hi)),
        }
    }

    /// Whether a network normalises batches: then a pass alone changes it, before any weight is updated.
    pub fn normalises_batches(&self) -> bool {
        self.config.normalises_batches()
    }

    /// The weights of the terms of the loss.
    pub fn weights(&self) -> Terms<f64> {
        let mut weights = self.config.loss.weights().clone();
        weights.set_some(
            TermKind::Diversity,
            self.config.diversity.map(|rule| rule.weight),
        );
        weights
    }

    /// Keys that differ from another experiment in what a resumed run may not change:
    /// everything but the length of the run, its reports and its threads.
    pub fn differences(&self, other: &Config) -> Vec<String> {
        match (Fixed::of(&self.config), Fixed::of(other)) {
            (Ok(here), Ok(there)) => here.differences(&there),
            (Err(e), _) | (_, Err(e)) => vec![format!("they cannot be compared: {e}")],
        }
    }
}
