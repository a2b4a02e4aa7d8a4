//! The networks that see images in an experiment: frozen ones, and an encoder that learns.

use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_data::{Dataset, Part};
use deepsim_nets::discriminator::DiscriminatorTap;
use deepsim_nets::{Discriminator, FeatureNet, LearnedEncoder, Mode, NetError, Tap};
use tch::{Device, Tensor};

use crate::checkpoint::{Checkpoint, ENCODER_FILE};
use crate::consent::{Allowed, Consent, Permit};
use crate::error::{ExperimentError, Result};
use crate::experiment::Experiment;
use crate::features_file;
use crate::hash::hash_file;
use crate::recorded::{Recorded, Scale};
use crate::script::{Script, Through};
use crate::source::{FrozenDiscriminatorSource, Role};
use crate::source::{NetSource, Source, Weights};

/// A frozen network and its tap.
#[derive(Debug)]
pub enum Frozen {
    /// A network of ours, built at least up to the tap.
    Network(FeatureNet, Tap),
    /// A TorchScript module.
    Script(Script),
    /// Means of squares of so many pixels a side.
    Downsampled(i64),
    /// The discriminator of an earlier run, and the blake3 of its file.
    Discriminator(Box<Discriminator>, DiscriminatorTap, String),
}

/// Grey levels that become 1 where an image, made smaller, is itself what a generator takes: its
/// layers begin with weights for values of about that size.
const GREY_LEVELS: f64 = 64.0;

impl Frozen {
    /// Loads a network of ours, or a TorchScript module that may be run.
    ///
    /// # Errors
    /// Missing, damaged or wrong weights; modules without consent; [`ExperimentError::NoEncoder`] and
    /// [`ExperimentError::NoComparator`] for sources that are no networks.
    pub fn open(source: &Source, role: Role, permit: Permit<'_>, device: Device) -> Result<Frozen> {
        let [module] = permit.modules([(role, source)])?;
        Frozen::load(source, module, device)
    }

    /// The same with the module that was allowed, where the source is one.
    fn load(source: &Source, module: Option<Allowed>, device: Device) -> Result<Frozen> {
        match source {
            Source::Network(n) => Ok(Frozen::Network(load(n, device)?, n.tap)),
            Source::Script(s) => {
                let module = module.ok_or_else(|| ExperimentError::Script {
                    path: s.file.clone(),
                    reason: "was not allowed to run".to_owned(),
                })?;
                Ok(Frozen::Script(Script::load(module, device)?))
            }
            Source::Downsampled(factor) => Ok(Frozen::Downsampled(i64::from(*factor))),
            Source::Recorded(r) => Err(ExperimentError::NoEncoder {
                path: r.file.clone(),
            }),
            Source::FrozenDiscriminator(from) => {
                let checkpoint = checkpoint_of(from)?;
                checkpoint.manifest.discriminator.has(from.tap)?;
                let mut d = checkpoint.discriminator(device)?;
                d.freeze()?;
                let hash = discriminator_hash(&checkpoint);
                Ok(Frozen::Discriminator(Box::new(d), from.tap, hash))
            }
            Source::Discriminator(_) => Err(ExperimentError::NoComparator),
            Source::VaeGan(_) => Err(ExperimentError::Learns),
        }
    }

    /// blake3 of what was loaded, where it is other than what [`hash`] says of the source.
    fn own_hash(&self) -> Option<&str> {
        match self {
            // Of the bytes that were loaded.
            Frozen::Script(script) => Some(script.hash()),
            // Not that of its file: the run may have gone on since it was read.
            Frozen::Discriminator(_, _, hash) => Some(hash),
            Frozen::Network(..) | Frozen::Downsampled(_) => None,
        }
    }

    /// Features of images in Caffe units. Gradients pass to the images.
    ///
    /// # Errors
    /// Images of an illegal size.
    pub fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        match self {
            Frozen::Network(net, tap) => one(net, *tap, caffe),
            Frozen::Script(script) => script.features(caffe),
            Frozen::Downsampled(factor) => {
                let side = [*factor; 2];
                let small = caffe
                    .f_avg_pool2d(side, side, [0, 0], false, true, None::<i64>)
                    .and_then(|x| x.f_mul_scalar(1.0 / GREY_LEVELS))
                    .map_err(NetError::from)?;
                Ok(small)
            }
            Frozen::Discriminator(d, tap, _) => Ok(d.features(caffe, *tap, Mode::Evaluation)?),
        }
    }
}

/// The checkpoint whose discriminator compares: this one, or the newest of a run.
fn checkpoint_of(from: &FrozenDiscriminatorSource) -> Result<Checkpoint> {
    if from.run.join("manifest.json").is_file() {
        return Checkpoint::open(&from.run);
    }
    Checkpoint::newest(&from.run.join("checkpoints"))?.ok_or_else(|| {
        ExperimentError::NoCheckpoint {
            path: from.run.clone(),
        }
    })
}

fn discriminator_hash(checkpoint: &Checkpoint) -> String {
    let file = checkpoint.manifest.files.get("discriminator.safetensors");
    file.map_or_else(String::new, |f| f.blake3.clone())
}

/// Where the features to invert come from.
#[derive(Debug)]
enum Encoder {
    Frozen(Frozen),
    Recorded(Box<Recorded>, PathBuf),
    /// An autoencoder's: its codes are what the generator takes.
    /// None once a training has taken it.
    Learned(Option<Box<LearnedEncoder>>),
}

/// What images are compared in.
#[derive(Debug)]
enum Comparator {
    /// The encoder's network, at this tap.
    Shared(Tap),
    Frozen(Frozen),
    Discriminator(DiscriminatorTap),
    /// Nothing: the comparator was not asked for.
    None,
}

/// Encoder and comparator. Where both are the same network of ours with the same weights, one pass
/// serves both.
#[derive(Debug)]
pub struct Perception {
    encoder: Encoder,
    comparator: Comparator,
    /// blake3 of the encoder's weights, or of those that one that learns begins with (of the file, or of the words `random:SEED`), or of the
    /// recorded features.
    pub encoder_hash: String,
    /// The same of the comparator.
    pub comparator_hash: String,
}

/// Features of one batch, raw activations.
#[derive(Debug)]
pub struct Features {
    /// At the layer to invert.
    pub encoder: Tensor,
    /// At the layer to compare.
    pub comparator: Tensor,
}

impl Perception {
    /// Loads both sides, where neither is a TorchScript module.
    ///
    /// # Errors
    /// As [`Perception::open`]; [`ExperimentError::NoConsent`] for every module.
    pub fn load(experiment: &Experiment, device: Device) -> Result<Perception> {
        let consent = Consent::none();
        Perception::open(experiment, consent.at_first(&experiment.path), device)
    }

    /// Loads the encoder alone: images cannot be compared.
    ///
    /// # Errors
    /// As [`Perception::open`].
    pub fn encoder_alone(
        experiment: &Experiment,
        permit: Permit<'_>,
        device: Device,
    ) -> Result<Perception> {
        let e = &experiment.encoder;
        let [module] = permit.modules([(Role::Encoder, e)])?;
        let encoder = encoder(experiment, module, device)?;
        Ok(Perception {
            encoder_hash: encoder.hash(e)?,
            encoder,
            comparator: Comparator::None,
            comparator_hash: String::new(),
        })
    }

    /// Loads both sides. TorchScript modules are tried on images of the experiment's size.
    ///
    /// # Errors
    /// Missing, damaged or wrong weights or recorded features; modules without consent.
    pub fn open(experiment: &Experiment, permit: Permit<'_>, device: Device) -> Result<Perception> {
        let (e, c) = (&experiment.encoder, &experiment.comparator);
        // Before anything is loaded.
        let [of_encoder, of_comparator] =
            permit.modules([(Role::Encoder, e), (Role::Comparator, c)])?;
        let crop = i64::from(experiment.config.data.crop);
        let shared = match (e.network(), c.network()) {
            (Some(e), Some(c)) if e.net == c.net && e.weights == c.weights => Some((e, c)),
            _ => None,
        };
        // An encoder that learns leaves its comparator behind with the first update.
        let shared = shared.filter(|_| experiment.config.latent.is_none());
        let (encoder, comparator) = match (shared, c) {
            (Some((e, c)), _) => {
                let table = e.net.table();
                let place = |tap| table.iter().position(|(t, _)| *t == tap);
                let deepest = if place(c.tap) > place(e.tap) { c } else { e };
                let net = load(deepest, device)?;
                (
                    Encoder::Frozen(Frozen::Network(net, e.tap)),
                    Comparator::Shared(c.tap),
                )
            }
            (None, c) => {
                let encoder = encoder(experiment, of_encoder, device)?;
                let comparator = match c {
                    Source::Discriminator(tap) => Comparator::Discriminator(*tap),
                    other => {
                        let net = Frozen::load(other, of_comparator, device)?;
                        Comparator::Frozen(tried(net, crop, Through::Gradients, device)?)
                    }
                };
                (encoder, comparator)
            }
        };
        let comparator_hash = match &comparator {
            Comparator::Frozen(net) => net.own_hash().map(str::to_owned),
            _ => None,
        };
        Ok(Perception {
            encoder_hash: encoder.hash(e)?,
            encoder,
            comparator,
            comparator_hash: comparator_hash.map_or_else(|| hash(c), Ok)?,
        })
    }

    /// Tries TorchScript modules on batches of these sizes, as a training will make them.
    ///
    /// # Errors
    /// A module that was traced for another batch size.
    pub fn try_batches(&self, sizes: &[i64], crop: i64, device: Device) -> Result<()> {
        if let Encoder::Frozen(Frozen::Script(script)) = &self.encoder {
            script.try_batches(sizes, crop, Through::Values, device)?;
        }
        if let Comparator::Frozen(Frozen::Script(script)) = &self.comparator {
            script.try_batches(sizes, crop, Through::Gradients, device)?;
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
            Encoder::Frozen(_) | Encoder::Learned(_) => Ok(()),
        }
    }

    /// Takes from a checkpoint what the encoder has learned there, or the scale of recorded features.
    /// Nothing for frozen encoders.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        match &mut self.encoder {
            Encoder::Recorded(recorded, _) => recorded.set_scale(Scale::of(checkpoint)?),
            Encoder::Learned(Some(learned)) => {
                let origin = shown(&checkpoint.path);
                let values = checkpoint.tensors(ENCODER_FILE)?;
                learned
                    .params()
                    .handles()
                    .copy_from(&values, "the encoder", &origin)?;
            }
            Encoder::Frozen(_) | Encoder::Learned(None) => {}
        }
        Ok(())
    }

    /// The scale of recorded features, where they have one.
    pub fn scale(&self) -> Option<&Scale> {
        match &self.encoder {
            Encoder::Recorded(recorded, _) => recorded.scale(),
            Encoder::Frozen(_) | Encoder::Learned(_) => None,
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
            Encoder::Frozen(_) | Encoder::Learned(_) => Ok(None),
        }
    }

    /// Takes the weights of both sides to fp64, in place: for whoever wants to know how much rounding
    /// matters.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn widen(&self) -> Result<()> {
        let frozen = |frozen: &Frozen| match frozen {
            Frozen::Network(net, _) => net.widen(),
            Frozen::Discriminator(d, _, _) => d.params().widen(),
            Frozen::Script(_) | Frozen::Downsampled(_) => Ok(()),
        };
        match &self.encoder {
            Encoder::Frozen(encoder) => frozen(encoder)?,
            Encoder::Learned(Some(encoder)) => encoder.params().widen()?,
            Encoder::Learned(None) | Encoder::Recorded(..) => {}
        }
        if let Comparator::Frozen(comparator) = &self.comparator {
            frozen(comparator)?;
        }
        Ok(())
    }

    /// Whether any image can be encoded here.
    pub fn encodes(&self) -> bool {
        matches!(self.encoder, Encoder::Frozen(_) | Encoder::Learned(_))
    }

    /// The encoder, where it learns.
    pub fn learned(&self) -> Option<&LearnedEncoder> {
        match &self.encoder {
            Encoder::Learned(encoder) => encoder.as_deref(),
            Encoder::Frozen(_) | Encoder::Recorded(..) => None,
        }
    }

    /// Hands over an encoder that is to learn: whoever trains it owns it from now on. None where none learns.
    pub fn take_learned(&mut self) -> Option<LearnedEncoder> {
        match &mut self.encoder {
            Encoder::Learned(encoder) => encoder.take().map(|encoder| *encoder),
            Encoder::Frozen(_) | Encoder::Recorded(..) => None,
        }
    }

    /// Encoder and comparator, with an encoder that learns elsewhere.
    pub fn with<'a>(&'a self, learned: Option<&'a LearnedEncoder>) -> Networks<'a> {
        Networks {
            perception: self,
            learned,
        }
    }

    /// The layer of the discriminator that images are compared at, if it is the comparator.
    pub fn discriminator_tap(&self) -> Option<DiscriminatorTap> {
        match self.comparator {
            Comparator::Discriminator(tap) => Some(tap),
            _ => None,
        }
    }

    /// Both kinds of features of images in Caffe units.
    ///
    /// # Errors
    /// Images of an illegal size, and as for a single network where one side is no network.
    pub fn both(&self, caffe: &Tensor) -> Result<Features> {
        if let (Encoder::Frozen(Frozen::Network(net, encoder)), Comparator::Shared(comparator)) =
            (&self.encoder, &self.comparator)
        {
            let found = net.features(caffe, &[*encoder, *comparator])?;
            if let Ok([encoder, comparator]) = <[Tensor; 2]>::try_from(found) {
                return Ok(Features {
                    encoder,
                    comparator,
                });
            }
        }
        Ok(Features {
            encoder: self.encode(caffe)?,
            comparator: self.compare(caffe)?,
        })
    }

    /// The encoder's features alone; of an encoder that learns, its codes (their means).
    ///
    /// # Errors
    /// Images of an illegal size; [`ExperimentError::NoEncoder`] where features were recorded.
    pub fn encode(&self, caffe: &Tensor) -> Result<Tensor> {
        match &self.encoder {
            Encoder::Frozen(net) => net.features(caffe),
            Encoder::Learned(Some(encoder)) => Ok(encoder.posterior(caffe)?.mean),
            Encoder::Learned(None) => Err(ExperimentError::Learns),
            Encoder::Recorded(_, path) => Err(ExperimentError::NoEncoder { path: path.clone() }),
        }
    }

    /// The comparator's features alone. Gradients pass to the images.
    ///
    /// # Errors
    /// Images of an illegal size; [`ExperimentError::NoComparator`] where it is the discriminator.
    pub fn compare(&self, caffe: &Tensor) -> Result<Tensor> {
        match (&self.comparator, &self.encoder) {
            (Comparator::Frozen(net), _) => net.features(caffe),
            (Comparator::Shared(tap), Encoder::Frozen(Frozen::Network(net, _))) => {
                one(net, *tap, caffe)
            }
            _ => Err(ExperimentError::NoComparator),
        }
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

impl Encoder {
    /// blake3 of what it was loaded from.
    fn hash(&self, source: &Source) -> Result<String> {
        match self {
            Encoder::Frozen(net) => net
                .own_hash()
                .map_or_else(|| hash(source), |h| Ok(h.to_owned())),
            Encoder::Learned(_) | Encoder::Recorded(..) => hash(source),
        }
    }
}

/// The encoder of an experiment, with the module that was allowed, where it is one.
fn encoder(experiment: &Experiment, module: Option<Allowed>, device: Device) -> Result<Encoder> {
    let crop = i64::from(experiment.config.data.crop);
    let seed = experiment.config.train.seed;
    Ok(match (&experiment.encoder, experiment.config.latent) {
        (Source::Network(n), Some(spec)) => {
            let net = load(n, device)?;
            let learned = LearnedEncoder::new(net, n.tap, spec, crop, seed, device)?;
            Encoder::Learned(Some(Box::new(learned)))
        }
        (Source::VaeGan(width), Some(spec)) => {
            let learned = LearnedEncoder::vae_gan(*width, spec, crop, seed, device)?;
            Encoder::Learned(Some(Box::new(learned)))
        }
        (Source::Recorded(r), _) => {
            let recorded = Recorded::load(r, device)?;
            Encoder::Recorded(Box::new(recorded), r.file.clone())
        }
        (other, _) => {
            let net = Frozen::load(other, module, device)?;
            Encoder::Frozen(tried(net, crop, Through::Values, device)?)
        }
    })
}

fn tried(net: Frozen, crop: i64, through: Through, device: Device) -> Result<Frozen> {
    if let Frozen::Script(script) = &net {
        script.probe(crop, through, device)?;
    }
    Ok(net)
}

fn one(net: &FeatureNet, tap: Tap, caffe: &Tensor) -> Result<Tensor> {
    let mut found = net.features(caffe, &[tap])?;
    found
        .pop()
        .ok_or_else(|| NetError::Spec(format!("{} gave nothing at {tap}", net.kind())).into())
}

/// Loads a network of ours.
///
/// # Errors
/// Missing, damaged or wrong weights.
pub fn load(source: &NetSource, device: Device) -> Result<FeatureNet> {
    Ok(match &source.weights {
        Weights::File(path) => FeatureNet::load(source.net, source.tap, path, device)?,
        Weights::Random(seed) => FeatureNet::random(source.net, source.tap, *seed, device)?,
    })
}

/// blake3 of what a source is made of: of the file's bytes, or of words such as `random:SEED`.
///
/// # Errors
/// An unreadable file.
pub fn hash(source: &Source) -> Result<String> {
    match (source, source.file()) {
        (Source::Recorded(r), _) => features_file::hash(&r.file),
        (Source::FrozenDiscriminator(from), _) => Ok(discriminator_hash(&checkpoint_of(from)?)),
        (_, Some((_, path))) => hash_file(path),
        (other, None) => Ok(blake3::hash(other.origin().as_bytes()).to_hex().to_string()),
    }
}
