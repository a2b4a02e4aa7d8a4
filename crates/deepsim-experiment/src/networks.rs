//! The networks that see images in an experiment: frozen ones, and an encoder that learns.

use std::collections::BTreeMap;
use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_data::{Dataset, Part};
use deepsim_nets::discriminator::DiscriminatorTap;
use deepsim_nets::loss::{Term, Terms};
use deepsim_nets::{FeatureDistance, FeatureNet, LearnedEncoder, NetError, Reduction, Tap, Tokens};
use tch::{Device, Tensor};

use crate::checkpoint::{Checkpoint, ENCODER_FILE, ModelWeights, by_section};
use crate::comparing::{Comparator, Comparing};
use crate::consent::{Allowed, Consent, Permit};
use crate::error::{ExperimentError, Result};
use crate::experiment::Experiment;
use crate::recorded::{Recorded, Scale};
use crate::script::Through;
use crate::source::network::one;
use crate::source::{Features, NetSource, Source};

/// Loads the source of a section by itself: a network of ours, at least up to its tap, or a TorchScript module that may be run.
///
/// # Errors
/// Missing, damaged or wrong weights; modules without consent; [`ExperimentError::NoEncoder`] and
/// [`ExperimentError::NoComparator`] for sources that are no networks.
pub fn open(
    table: &str,
    source: &Source,
    permit: &Permit<'_>,
    device: Device,
) -> Result<Box<dyn Features>> {
    let module = permit.modules(&[(table.to_owned(), source.script())])?;
    source.open(module.into_iter().flatten().next(), device)
}

/// Where the features to invert come from.
#[derive(Debug)]
enum Encoder {
    /// A tap of the network at this place of [`Perception::networks`].
    Tap(usize, Tap),
    Frozen(Box<dyn Features>),
    Recorded(Box<Recorded>, PathBuf),
    /// An autoencoder's: its codes are what the generator takes.
    /// None once a training has taken it.
    Learned(Option<Box<LearnedEncoder>>),
}

/// Encoder and comparators. Where several are the same network of ours with the same weights, one pass serves them all.
#[derive(Debug)]
pub struct Perception {
    /// Each built at least up to the deepest tap that is asked for.
    networks: Vec<FeatureNet>,
    encoder: Encoder,
    comparators: Terms<Comparing>,
    /// blake3 of the encoder's weights, or of those that one that learns begins with (of the file, or of the words
    /// `random:SEED`), or of the recorded features.
    pub encoder_hash: String,
    /// The same of the comparator without a name; empty where there is none.
    pub comparator_hash: String,
    /// The same of comparators with names.
    pub comparator_hashes: BTreeMap<String, String>,
}

/// Features of one batch, raw activations.
#[derive(Debug)]
pub struct Both {
    /// At the layer to invert.
    pub encoder: Tensor,
    /// What each comparator that is a network of its own compares, by its term.
    pub comparators: Terms<Vec<Tensor>>,
}

impl Perception {
    /// Loads all sides, where none is a TorchScript module.
    ///
    /// # Errors
    /// As [`Perception::open`]; [`ExperimentError::NoConsent`] for every module.
    pub fn load(experiment: &Experiment, device: Device) -> Result<Perception> {
        let consent = Consent::none();
        Perception::open(experiment, &consent.at_first(&experiment.path), device)
    }

    /// Loads the encoder alone: images cannot be compared.
    ///
    /// # Errors
    /// As [`Perception::open`].
    pub fn encoder_alone(
        experiment: &Experiment,
        permit: &Permit<'_>,
        device: Device,
    ) -> Result<Perception> {
        let module = permit.modules(&[("encoder".to_owned(), experiment.encoder.script())])?;
        Perception::encoder(
            experiment,
            module.into_iter().flatten().next(),
            None,
            device,
        )
    }

    /// Loads the encoder and the comparators that take part. TorchScript modules are tried on images of the experiment's
    /// size.
    ///
    /// # Errors
    /// Missing, damaged or wrong weights or recorded features; modules without consent.
    pub fn open(
        experiment: &Experiment,
        permit: &Permit<'_>,
        device: Device,
    ) -> Result<Perception> {
        // Before anything is loaded.
        let mut modules = permit.modules(&experiment.scripts())?.into_iter();
        let mut next_module = || modules.next().flatten();
        let crop = i64::from(experiment.config.data.crop);
        // An encoder that learns leaves its comparators behind with the first update.
        let encoder = experiment.encoder.network();
        let encoder = encoder.filter(|_| experiment.config.latent.is_none());
        let shared = Shared::of(encoder, experiment);
        let mut perception =
            Perception::encoder(experiment, next_module(), shared.deepest(encoder), device)?;
        let mut places: Vec<Option<usize>> = vec![None; shared.0.len()];
        if let Some(place) = encoder.and_then(|encoder| shared.place(encoder)) {
            places[place] = Some(0);
        }
        for comparator in experiment.compared() {
            let module = next_module();
            let mut hash = None;
            let loaded = match &comparator.source {
                Source::Discriminator(source) => Comparator::Discriminator(source.tap),
                other => match other.network() {
                    Some(source) => {
                        let place = shared.place(source).unwrap_or_default();
                        let place = match places[place] {
                            Some(place) => place,
                            None => {
                                perception.networks.push(shared.0[place].load(device)?);
                                *places[place].insert(perception.networks.len() - 1)
                            }
                        };
                        let taps = match other {
                            Source::Taps(several) => several.taps.clone(),
                            _ => vec![(source.tap, 1.0)],
                        };
                        Comparator::Taps(place, taps)
                    }
                    None => {
                        let net = other.open(module, device)?;
                        net.probe(crop, Through::Gradients, device)?;
                        hash = net.own_hash().map(str::to_owned);
                        Comparator::Frozen(net)
                    }
                },
            };
            let comparing = Comparing {
                comparator: loaded,
                distance: comparator.distance,
            };
            let term = comparator.term.clone();
            perception.comparators.set(term, comparing);
            let hash = hash.map_or_else(|| comparator.source.hash(), Ok)?;
            match comparator.term.name() {
                None => perception.comparator_hash = hash,
                Some(name) => {
                    perception.comparator_hashes.insert(name.to_owned(), hash);
                }
            }
        }
        Ok(perception)
    }

    /// The encoder of an experiment, with the module that was allowed where it is one, and nothing to compare in. Of a
    /// network of ours `deepest` is the tap that it is built up to.
    fn encoder(
        experiment: &Experiment,
        module: Option<Allowed>,
        deepest: Option<&NetSource>,
        device: Device,
    ) -> Result<Perception> {
        let crop = i64::from(experiment.config.data.crop);
        let source = &experiment.encoder;
        let (mut networks, mut hash) = (Vec::new(), None);
        let encoder = match (source, Perception::learning(experiment, device)?) {
            (_, Some(encoder)) => Encoder::Learned(Some(Box::new(encoder))),
            (Source::Recorded(r), None) => {
                let recorded = Recorded::load(r, device)?;
                Encoder::Recorded(Box::new(recorded), r.file.clone())
            }
            (Source::Network(n), None) => {
                networks.push(deepest.unwrap_or(n).load(device)?);
                Encoder::Tap(0, n.tap)
            }
            (other, None) => {
                let net = other.open(module, device)?;
                net.probe(crop, Through::Values, device)?;
                hash = net.own_hash().map(str::to_owned);
                Encoder::Frozen(net)
            }
        };
        Ok(Perception {
            networks,
            encoder,
            comparators: Terms::default(),
            encoder_hash: hash.map_or_else(|| source.hash(), Ok)?,
            comparator_hash: String::new(),
            comparator_hashes: BTreeMap::new(),
        })
    }

    /// The encoder of an experiment where it learns, with the weights that it begins with.
    ///
    /// # Errors
    /// Missing, damaged or wrong weights.
    pub fn learning(experiment: &Experiment, device: Device) -> Result<Option<LearnedEncoder>> {
        let Some(spec) = experiment.config.latent else {
            return Ok(None);
        };
        let crop = i64::from(experiment.config.data.crop);
        let seed = experiment.config.train.seed;
        Ok(match &experiment.encoder {
            Source::Network(n) => {
                let net = n.load(device)?;
                Some(LearnedEncoder::new(net, n.tap, spec, crop, seed, device)?)
            }
            Source::VaeGan(v) => Some(LearnedEncoder::vae_gan(v.width, spec, crop, seed, device)?),
            _ => None,
        })
    }

    /// The sections of the experiment that were loaded, each with the blake3 of what it was loaded from.
    pub fn hashes(&self) -> impl Iterator<Item = (String, &str)> {
        by_section(
            &self.encoder_hash,
            &self.comparator_hash,
            &self.comparator_hashes,
        )
    }

    /// Tries TorchScript modules on batches of these sizes, as a training will make them.
    ///
    /// # Errors
    /// A module that was traced for another batch size.
    pub fn try_batches(&self, sizes: &[i64], crop: i64, device: Device) -> Result<()> {
        if let Encoder::Frozen(net) = &self.encoder {
            net.try_batches(sizes, crop, Through::Values, device)?;
        }
        for (_, comparing) in self.comparators.iter() {
            if let Comparator::Frozen(net) = &comparing.comparator {
                net.try_batches(sizes, crop, Through::Gradients, device)?;
            }
        }
        Ok(())
    }

    /// Holds recorded features against the images that they belong to and takes their scale from
    /// the training images. Nothing for other encoders.
    ///
    /// # Errors
    /// [`ExperimentError::Recorded`] with all that is wrong.
    pub fn prepare(&mut self, train: &Dataset, test: &Dataset) -> Result<()> {
        match &mut self.encoder {
            Encoder::Recorded(recorded, _) => recorded.prepare(train, test),
            Encoder::Tap(..) | Encoder::Frozen(_) | Encoder::Learned(_) => Ok(()),
        }
    }

    /// Takes from a checkpoint what the encoder has learned there, in the weights that are asked for, or the scale of
    /// recorded features. Nothing for frozen encoders.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn restore(&mut self, checkpoint: &Checkpoint, weights: ModelWeights) -> Result<()> {
        match &mut self.encoder {
            Encoder::Recorded(recorded, _) => recorded.set_scale(Scale::of(checkpoint)?),
            Encoder::Learned(Some(learned)) => {
                let origin = shown(&checkpoint.path);
                let values = checkpoint.tensors(checkpoint.stem(ENCODER_FILE, weights))?;
                learned
                    .params()
                    .handles()
                    .copy_from(&values, "the encoder", &origin)?;
            }
            Encoder::Tap(..) | Encoder::Frozen(_) | Encoder::Learned(None) => {}
        }
        Ok(())
    }

    /// The scale of recorded features, where they have one.
    pub fn scale(&self) -> Option<&Scale> {
        match &self.encoder {
            Encoder::Recorded(recorded, _) => recorded.scale(),
            Encoder::Tap(..) | Encoder::Frozen(_) | Encoder::Learned(_) => None,
        }
    }

    /// What was recorded of images of one side, as the generator takes it; none where a network
    /// encodes them.
    ///
    /// # Errors
    /// An image without features.
    pub fn recorded(&self, part: Part, data: &Dataset, of: &[usize]) -> Result<Option<Tensor>> {
        match &self.encoder {
            Encoder::Recorded(recorded, _) => Ok(Some(recorded.features(part, data, of)?)),
            Encoder::Tap(..) | Encoder::Frozen(_) | Encoder::Learned(_) => Ok(None),
        }
    }

    /// Takes the weights of all sides to fp64, in place: for whoever wants to know how much rounding
    /// matters.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn widen(&self) -> Result<()> {
        for net in &self.networks {
            net.widen()?;
        }
        match &self.encoder {
            Encoder::Frozen(encoder) => encoder.widen()?,
            Encoder::Learned(Some(encoder)) => encoder.params().widen()?,
            Encoder::Tap(..) | Encoder::Learned(None) | Encoder::Recorded(..) => {}
        }
        for (_, comparing) in self.comparators.iter() {
            if let Comparator::Frozen(net) = &comparing.comparator {
                net.widen()?;
            }
        }
        Ok(())
    }

    /// Whether any image can be encoded here.
    pub fn encodes(&self) -> bool {
        !matches!(self.encoder, Encoder::Recorded(..))
    }

    /// The encoder, where it learns.
    pub fn learned(&self) -> Option<&LearnedEncoder> {
        match &self.encoder {
            Encoder::Learned(encoder) => encoder.as_deref(),
            _ => None,
        }
    }

    /// Hands over an encoder that is to learn: whoever trains it owns it from now on. None where none learns.
    pub fn take_learned(&mut self) -> Option<LearnedEncoder> {
        match &mut self.encoder {
            Encoder::Learned(encoder) => encoder.take().map(|encoder| *encoder),
            _ => None,
        }
    }

    /// Encoder and comparators, with an encoder that learns elsewhere.
    pub fn with<'a>(&'a self, learned: Option<&'a LearnedEncoder>) -> Networks<'a> {
        Networks {
            perception: self,
            learned,
        }
    }

    /// The feature terms whose comparator is the discriminator that trains along, and their layers.
    pub fn discriminator_taps(&self) -> Vec<(Term, DiscriminatorTap)> {
        let all = self.comparators.iter();
        all.filter_map(|(term, comparing)| match &comparing.comparator {
            Comparator::Discriminator(tap) => Some((term.clone(), *tap)),
            Comparator::Taps(..) | Comparator::Frozen(_) => None,
        })
        .collect()
    }

    /// How a term's comparator compares.
    pub fn distance_of(&self, term: &Term) -> FeatureDistance {
        let comparing = self.comparators.get(term);
        comparing.map_or(FeatureDistance::default(), |c| c.distance)
    }

    /// The distance, in a term's comparator, of generated images from real ones, of which [`Perception::compare`] has found
    /// these. With several taps the sum of theirs by their weights.
    ///
    /// # Errors
    /// Features of other taps or shapes.
    pub fn distance(
        &self,
        term: &Term,
        found: &[Tensor],
        target: &[Tensor],
        reduction: Reduction,
    ) -> Result<Tensor> {
        let found = self
            .comparators
            .get(term)
            .map(|c| c.distance(found, target, reduction));
        found.unwrap_or_else(|| {
            let reason = format!("no features for the term `{}`", term.key());
            Err(NetError::Spec(reason).into())
        })
    }

    /// Whether any comparator is a network of its own, and not the discriminator that trains along.
    pub fn compares(&self) -> bool {
        let mut all = self.comparators.iter();
        all.any(|(_, c)| !matches!(c.comparator, Comparator::Discriminator(_)))
    }

    /// Both kinds of features of images in Caffe units, in one pass where they share a network.
    ///
    /// # Errors
    /// Images of an illegal size, and as for a single network where one side is no network.
    pub fn both(&self, caffe: &Tensor) -> Result<Both> {
        let mut comparators = Terms::default();
        let encoder = match &self.encoder {
            Encoder::Tap(place, tap) => self.pass(*place, Some(*tap), caffe, &mut comparators)?,
            _ => None,
        };
        let encoder = encoder.map_or_else(|| self.encode(caffe), Ok)?;
        self.compare_further(caffe, &mut comparators)?;
        Ok(Both {
            encoder,
            comparators,
        })
    }

    /// One pass of a network over images: features at the encoder's tap, which are returned, and at the taps of all
    /// comparators that are this network.
    fn pass(
        &self,
        place: usize,
        encoder: Option<Tap>,
        caffe: &Tensor,
        compared: &mut Terms<Vec<Tensor>>,
    ) -> Result<Option<Tensor>> {
        let mine = |(term, comparing): (&Term, &Comparing)| match &comparing.comparator {
            Comparator::Taps(at, taps) if *at == place => {
                let taps = taps.iter().map(|(tap, _)| *tap);
                Some((term.clone(), taps.collect()))
            }
            _ => None,
        };
        let mine: Vec<(Term, Vec<Tap>)> = self.comparators.iter().filter_map(mine).collect();
        let all = mine.iter().flat_map(|(_, taps)| taps.iter().copied());
        let taps = encoder.into_iter().chain(all);
        let taps: Vec<Tap> = taps.collect();
        let mut found = self.networks[place].features(caffe, &taps)?.into_iter();
        let encoder = match encoder.and_then(|tap| Some((tap, found.next()?))) {
            Some((tap, features)) => Some(entering(tap, features)?),
            None => None,
        };
        for (term, taps) in mine {
            compared.set(term, found.by_ref().take(taps.len()).collect());
        }
        Ok(encoder)
    }

    /// Adds the features of the comparators that are not there yet.
    fn compare_further(&self, caffe: &Tensor, compared: &mut Terms<Vec<Tensor>>) -> Result<()> {
        for (term, comparing) in self.comparators.iter() {
            match &comparing.comparator {
                Comparator::Taps(place, _) if compared.get(term).is_none() => {
                    self.pass(*place, None, caffe, compared)?;
                }
                Comparator::Frozen(net) => compared.set(term.clone(), net.compared(caffe)?),
                Comparator::Taps(..) | Comparator::Discriminator(_) => {}
            }
        }
        Ok(())
    }

    /// The encoder's features alone; of an encoder that learns, its codes (their means).
    ///
    /// # Errors
    /// Images of an illegal size; [`ExperimentError::NoEncoder`] where features were recorded.
    pub fn encode(&self, caffe: &Tensor) -> Result<Tensor> {
        match &self.encoder {
            Encoder::Tap(place, tap) => entering(*tap, one(&self.networks[*place], *tap, caffe)?),
            Encoder::Frozen(net) => net.features(caffe),
            Encoder::Learned(Some(encoder)) => Ok(encoder.posterior(caffe)?.mean),
            Encoder::Learned(None) => Err(ExperimentError::Learns),
            Encoder::Recorded(_, path) => Err(ExperimentError::NoEncoder { path: path.clone() }),
        }
    }

    /// Features of images in the comparator of one term, those of several taps in a row; none where it is the discriminator
    /// that trains along.
    ///
    /// # Errors
    /// Images of an illegal size.
    pub fn compare_at(&self, term: &Term, caffe: &Tensor) -> Result<Option<Tensor>> {
        match self.comparators.get(term) {
            Some(comparing) => comparing.features(&self.networks, caffe),
            None => Ok(None),
        }
    }

    /// What each comparator that is a network of its own compares of images, by its term: features at its taps, for
    /// [`Perception::distance`]. Gradients pass to the images.
    ///
    /// # Errors
    /// Images of an illegal size.
    pub fn compare(&self, caffe: &Tensor) -> Result<Terms<Vec<Tensor>>> {
        let mut compared = Terms::default();
        self.compare_further(caffe, &mut compared)?;
        Ok(compared)
    }
}

/// Features as a generator takes them: all tokens of a transformer as one vector.
fn entering(tap: Tap, features: Tensor) -> Result<Tensor> {
    match tap.tokens() {
        Tokens::Patches => Ok(features),
        Tokens::All => Ok(features.f_flatten(1, -1)?),
    }
}

/// The networks of ours among a frozen encoder and the comparators: each once, at the deepest tap that is asked for.
struct Shared<'a>(Vec<&'a NetSource>);

impl<'a> Shared<'a> {
    fn of(encoder: Option<&'a NetSource>, experiment: &'a Experiment) -> Shared<'a> {
        let mut shared = Shared(Vec::new());
        let comparators = experiment.compared().filter_map(|c| c.source.network());
        for source in encoder.into_iter().chain(comparators) {
            match shared.place(source) {
                Some(place) => shared.0[place] = shared.0[place].deeper(source),
                None => shared.0.push(source),
            }
        }
        shared
    }

    fn place(&self, source: &NetSource) -> Option<usize> {
        self.0
            .iter()
            .position(|known| known.is_same_network(source))
    }

    fn deepest(&self, source: Option<&NetSource>) -> Option<&'a NetSource> {
        self.place(source?).map(|place| self.0[place])
    }
}

/// What sees images: the networks of an experiment, and an encoder that learns, whoever owns it.
#[derive(Clone, Copy, Debug)]
pub struct Networks<'a> {
    perception: &'a Perception,
    learned: Option<&'a LearnedEncoder>,
}

impl<'a> From<&'a Perception> for Networks<'a> {
    fn from(perception: &'a Perception) -> Self {
        perception.with(perception.learned())
    }
}

impl Networks<'_> {
    /// Whether any image can be encoded here.
    pub fn encodes(&self) -> bool {
        self.perception.encodes()
    }

    /// Features to invert of images in Caffe units: of an encoder that learns, the codes' means.
    ///
    /// # Errors
    /// Images of an illegal size; recorded features, which nothing here encodes.
    pub fn encode(&self, caffe: &Tensor) -> Result<Tensor> {
        match self.learned {
            Some(encoder) => Ok(encoder.posterior(caffe)?.mean),
            None => self.perception.encode(caffe),
        }
    }

    /// As [`Perception::recorded`].
    ///
    /// # Errors
    /// An image without features.
    pub fn recorded(&self, part: Part, data: &Dataset, of: &[usize]) -> Result<Option<Tensor>> {
        self.perception.recorded(part, data, of)
    }
}
