//! An experiment: a validated file, and the networks that it describes.

use std::path::{Path, PathBuf};

use deepsim_data::{Augment, Mirror, Place, terminal};
use deepsim_nets::loss::{Term, TermKind, Terms};
use deepsim_nets::{
    DiscriminatorSpec, FeatureDistance, FeatureShape, GeneratorSpec, LearnedEncoder, NetError,
};

use crate::config::check::Complaint;
use crate::config::{self, Config, Loss, agreement, read};
use crate::error::{ExperimentError, Result};
use crate::fixed::Fixed;
use crate::script::source::ScriptSource;
use crate::source::{NetSource, Role, Source, VaeGanSource};

/// What images are compared in, for one feature term.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparatorSource {
    /// Its section of the experiment file.
    pub table: String,
    /// The term, by whose weight it counts.
    pub term: Term,
    /// The source.
    pub source: Source,
    /// How features are compared; means nothing for a metric, which has a distance of its own.
    pub distance: FeatureDistance,
}

impl ComparatorSource {
    /// For people: `alexnet:pool5`, with its distance where that is not the paper's.
    pub fn words(&self, name: impl Fn(&Source) -> String) -> String {
        let name = name(&self.source);
        if self.distance.is_paper_s() {
            return name;
        }
        format!("{name} ({})", self.distance.name())
    }
}

/// The frozen network that a discriminator's heads stand on; none where it has no heads.
fn network_of(described: &config::Discriminator) -> std::result::Result<Option<Source>, Complaint> {
    let weights = described.network_weights.as_deref();
    let (Some(net), Some(taps), Some(weights)) = (described.network, described.taps, weights)
    else {
        return Ok(None);
    };
    let tap = taps.deepest(net);
    let tap = tap.map_err(|e| ("discriminator.taps".to_owned(), e.to_string()))?;
    match NetSource::read(net, tap, weights) {
        Ok(source) => Ok(Some(Source::Network(source))),
        Err(reason) => Err(("discriminator.network_weights".to_owned(), reason)),
    }
}

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
    /// What images can be compared in. Those whose term weighs nothing take no part: [`Experiment::compared`].
    pub comparators: Vec<ComparatorSource>,
    /// Shape of what the generator takes: of the inverted features, or of the codes.
    pub features: FeatureShape,
    /// The generator.
    pub generator: GeneratorSpec,
    /// The discriminator, where the file describes one. Without an adversarial term it takes no part:
    /// [`Experiment::trained_discriminator`].
    pub discriminator: Option<DiscriminatorSpec>,
    /// The frozen network that the discriminator's heads stand on, where it has some.
    pub discriminator_network: Option<Source>,
}

impl Experiment {
    /// Reads and validates an experiment file, with overrides `KEY=VALUE` applied. Reads
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
        let encoder = Source::validate(Role::Encoder, "encoder", &config.encoder)?;
        let comparators = config.comparator.iter().map(|comparator| {
            let table = comparator.table();
            Ok(ComparatorSource {
                term: match &comparator.name {
                    None => Term::from(TermKind::Feature),
                    Some(name) => Term::named(TermKind::Feature, name),
                },
                source: Source::validate(Role::Comparator, &table, &comparator.network)?,
                distance: comparator.network.distance.unwrap_or_default(),
                table,
            })
        });
        let comparators = comparators.collect::<std::result::Result<Vec<_>, Complaint>>()?;
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
        let described = config.discriminator.as_ref();
        let discriminator = described.map(|d| d.spec(crop, features));
        let discriminator_network = described.map(network_of).transpose()?.flatten();
        if let Some(discriminator) = &discriminator {
            discriminator
                .validate()
                .map_err(unusable("discriminator"))?;
        }
        let loss = config.heaviest_loss();
        let trains = loss.weight(TermKind::Adversarial) > 0.0;
        let weights = loss.weights();
        for comparator in comparators.iter().filter(|c| weights.counts(&c.term)) {
            let discriminator = discriminator.as_ref().filter(|_| trains);
            let source = &comparator.source;
            source.check_comparator(&comparator.table, crop, discriminator)?;
        }
        if let Source::VaeGan(VaeGanSource { width }) = encoder {
            LearnedEncoder::check_vae_gan(crop, width).map_err(unusable("encoder"))?;
        }
        Ok(Experiment {
            path: path.to_owned(),
            config,
            overrides: sets.to_vec(),
            encoder,
            comparators,
            features,
            generator,
            discriminator,
            discriminator_network,
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

    /// Whether an iteration changes something before it updates weights.
    pub fn changes_before_updates(&self) -> bool {
        self.config.changes_before_updates()
    }

    /// The comparators that take part: those whose term weighs something, at first or in a later stage.
    pub fn compared(&self) -> impl Iterator<Item = &ComparatorSource> {
        let loss = self.config.heaviest_loss();
        let comparators = self.comparators.iter();
        comparators.filter(move |c| loss.weights().counts(&c.term))
    }

    /// What images are compared in, for people: `alexnet:pool5`, joined by ` + ` where there are several. Empty where no
    /// features are compared.
    pub fn compared_in(&self, name: impl Fn(&Source) -> String) -> String {
        let names: Vec<String> = self.compared().map(|c| c.words(&name)).collect();
        names.join(" + ")
    }

    /// The sections that features come from: the encoder's, those of the comparators that take part, and the discriminator's
    /// where it trains and stands on a frozen network.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &Source)> {
        let comparators = self.compared().map(|c| (c.table.as_str(), &c.source));
        let trains = self.trained_discriminator().is_some();
        let network = self.discriminator_network.iter().filter(move |_| trains);
        std::iter::once(("encoder", &self.encoder))
            .chain(comparators)
            .chain(network.map(|source| ("discriminator", source)))
    }

    /// The same sections with their TorchScript modules, where they have some.
    pub fn scripts(&self) -> Vec<(String, Option<&ScriptSource>)> {
        let all = self.sources();
        all.map(|(table, source)| (table.to_owned(), source.script()))
            .collect()
    }

    /// Whether one of them is a TorchScript module, which runs by consent alone.
    pub fn needs_consent(&self) -> bool {
        self.sources().any(|(_, source)| source.script().is_some())
    }

    /// The discriminator, where one trains, at first or in a later stage.
    pub fn trained_discriminator(&self) -> Option<&DiscriminatorSpec> {
        let trains = self.config.heaviest_loss().weight(TermKind::Adversarial) > 0.0;
        self.discriminator.as_ref().filter(|_| trains)
    }

    /// The weights of the terms of the loss, until the first stage.
    pub fn weights(&self) -> Terms<f64> {
        self.with_diversity(&self.config.loss)
    }

    /// The weights of each further stage, with the steps after which it begins, in their order.
    pub fn stages(&self) -> Vec<(u64, Terms<f64>)> {
        let losses = self.config.losses().into_iter().skip(1);
        losses
            .map(|(from, loss)| (from, self.with_diversity(&loss)))
            .collect()
    }

    /// The weights of a loss, and of what has a section of its own.
    fn with_diversity(&self, loss: &Loss) -> Terms<f64> {
        let mut weights = loss.weights().clone();
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
