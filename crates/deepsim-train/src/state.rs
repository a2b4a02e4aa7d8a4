//! Everything that affects the next step, and its way into a checkpoint and back.

use std::collections::{BTreeMap, BTreeSet};

use deepsim_data::terminal::path as shown;
use deepsim_experiment::source::Source;
use deepsim_experiment::{Checkpoint, ENCODER_FILE, Experiment, Snapshot, config};
use deepsim_nets::params::{NamedTensors, Params};
use deepsim_nets::{Adam, Discriminator, Generator, LearnedEncoder, NetError};
use tch::{Device, Tensor};
use tracing::trace_span;

use crate::averages::Averages;
use crate::error::{Result, TrainError};
use crate::method::gate::Gate;
use crate::method::gradients::{Gradients, Player};
use crate::method::sides::Sides;
use crate::schedule::rate;

/// Begins the names of counters that mark an image as left out.
const QUARANTINED: &str = "quarantined.";
/// Names of the counters that hold LeCAM's averages, the bits of fp64.
const SCORES: [&str; 2] = ["lecam.real", "lecam.generated"];

/// Everything that affects the next step. Randomness and the position in the data are pure
/// functions of the seed and `step`; nothing else is hidden anywhere.
#[derive(Debug)]
pub struct State {
    /// Iterations done.
    pub step: u64,
    /// The generator.
    pub generator: Generator,
    /// The discriminator, where the loss has an adversarial term.
    pub discriminator: Option<Discriminator>,
    /// An encoder that learns.
    pub encoder: Option<Learning>,
    /// The generator's Adam; its counter advances only when the generator is updated.
    pub adam_g: Adam,
    /// The discriminator's Adam, likewise.
    pub adam_d: Option<Adam>,
    /// Which networks the next iteration updates.
    pub gate: Gate,
    /// LeCAM's averages of the discriminator's scores; none before the first.
    pub scores: Option<Sides<f64>>,
    /// How often all learning rates were halved because a number was not finite.
    pub halvings: u64,
    /// How the learning rates change.
    pub schedule: config::Schedule,
    /// Averages of the weights of generator and encoder, where the experiment has `[ema]`.
    pub averages: Option<Averages>,
    /// Images that were left out as corrupt, by index: their budget is the run's.
    pub quarantined: BTreeSet<usize>,
}

/// An encoder that learns, and its Adam, whose counter advances with the generator's.
#[derive(Debug)]
pub struct Learning {
    /// The network.
    pub network: LearnedEncoder,
    /// Handles of its weights.
    pub params: Params,
    /// Their Adam.
    pub adam: Adam,
}

impl State {
    /// The state before the first step. `learned` is the experiment's encoder, where it learns: it is the state's from now on.
    ///
    /// # Errors
    /// What libtorch refuses (out of memory).
    pub fn new(
        experiment: &Experiment,
        learned: Option<LearnedEncoder>,
        device: Device,
    ) -> Result<State> {
        let seed = experiment.config.train.seed;
        let generator = Generator::new(experiment.generator.clone(), seed, device)?;
        let options = &experiment.config.optimizer;
        let (discriminator, adam_d) =
            match (experiment.trained_discriminator(), options.discriminator) {
                (Some(spec), Some(options)) => {
                    let source = experiment.discriminator_network.as_ref();
                    let network = source.and_then(Source::network);
                    let network = network.map(|network| network.load(device)).transpose()?;
                    let discriminator =
                        Discriminator::with_network(spec.clone(), network, seed, device)?;
                    let adam = Adam::new(discriminator.params(), options)?;
                    (Some(discriminator), Some(adam))
                }
                _ => (None, None),
            };
        let encoder = match (learned, options.encoder) {
            (Some(network), Some(options)) => {
                let params = network.params().handles();
                let adam = Adam::new(&params, options)?;
                Some(Learning {
                    network,
                    params,
                    adam,
                })
            }
            _ => None,
        };
        let learned = encoder.as_ref().map(|encoder| &encoder.params);
        let averages = Averages::new(experiment, &generator, learned, device)?;
        Ok(State {
            step: 0,
            averages,
            adam_g: Adam::new(generator.params(), options.generator)?,
            adam_d,
            encoder,
            generator,
            discriminator,
            gate: Gate::open(),
            scores: None,
            halvings: 0,
            schedule: experiment.config.schedule.clone(),
            quarantined: BTreeSet::new(),
        })
    }

    /// Puts the weights into the networks that the experiment says they begin with, before the first step. Gives the
    /// blake3 of each file, by the key that names it.
    ///
    /// # Errors
    /// Files that are gone or damaged, and weights of another network, each difference in one error.
    pub fn begin_with_weights(
        &mut self,
        experiment: &Experiment,
    ) -> Result<BTreeMap<String, String>> {
        let mut hashes = BTreeMap::new();
        if let Some(initial) = experiment.initial_generator()? {
            let params = self.generator.params_mut();
            params.copy_from(&initial.values, "the generator", &initial.origin)?;
            hashes.insert(initial.key.to_owned(), initial.hash);
        }
        if let Some(discriminator) = &mut self.discriminator
            && let Some(initial) = experiment.initial_discriminator()?
        {
            let params = discriminator.params_mut();
            params.copy_from(&initial.values, "the discriminator", &initial.origin)?;
            hashes.insert(initial.key.to_owned(), initial.hash);
        }
        if let (Some(_), Some(source)) = (&self.discriminator, &experiment.discriminator_network) {
            let key = "discriminator.network_weights";
            hashes.insert(key.to_owned(), source.source().hash()?);
        }
        self.begin_averages()?;
        Ok(hashes)
    }

    /// Lets the averages begin with the weights as they are.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn begin_averages(&self) -> Result<()> {
        let encoder = self.encoder.as_ref().map(|encoder| &encoder.params);
        match &self.averages {
            Some(averages) => averages.begin(&self.generator, encoder),
            None => Ok(()),
        }
    }

    /// Size of a checkpoint of this state in bytes: weights, both moments and averages, f32.
    pub fn checkpoint_bytes(&self) -> u64 {
        let encoder = self.encoder.as_ref().map_or(0, |e| e.params.count());
        let discriminator = self.discriminator.as_ref();
        let discriminator = discriminator.map_or(0, |d| d.params().count());
        let values = self.generator.params().count() + discriminator + encoder;
        let averages = self.averages.iter().flat_map(Averages::files);
        let averages: usize = averages.map(|(_, params, _)| params.count()).sum();
        4 * (3 * values + averages) as u64
    }

    /// The encoder that learns, where one does.
    pub fn learned(&self) -> Option<&LearnedEncoder> {
        self.encoder.as_ref().map(|encoder| &encoder.network)
    }

    /// The generator that evaluations and sample sheets see: the averaged one, where there is one.
    pub fn shown_generator(&self) -> &Generator {
        let averages = self.averages.as_ref();
        averages.map_or(&self.generator, Averages::generator)
    }

    /// The same of the encoder, where one learns.
    pub fn shown_encoder(&self) -> Option<&LearnedEncoder> {
        match &self.averages {
            Some(averages) => averages.encoder(),
            None => self.learned(),
        }
    }

    /// Changes a network along its gradients, and its average with it. No weight changes anywhere else. Gradients that are
    /// to be clipped are shortened in place.
    ///
    /// # Errors
    /// What libtorch refuses; gradients of an encoder where none learns.
    pub fn update(&mut self, gradients: &Gradients) -> Result<()> {
        let _phase = match gradients.player {
            Player::Generator => trace_span!("generator_update"),
            Player::Discriminator => trace_span!("discriminator_update"),
            Player::Encoder => trace_span!("encoder_update"),
        }
        .entered();
        let halvings = self.halvings;
        let (params, adam) = match gradients.player {
            Player::Generator => (self.generator.params(), &mut self.adam_g),
            Player::Discriminator => match (&self.discriminator, &mut self.adam_d) {
                (Some(discriminator), Some(adam)) => (discriminator.params(), adam),
                _ => return Err(NetError::Spec("no discriminator trains here".to_owned()).into()),
            },
            Player::Encoder => match &mut self.encoder {
                Some(encoder) => (&encoder.params, &mut encoder.adam),
                None => return Err(NetError::Spec("no encoder learns here".to_owned()).into()),
            },
        };
        let rate = rate(&self.schedule, halvings, self.step, adam.count());
        adam.step(params, &gradients.tensors, rate)?;
        match &self.averages {
            Some(averages) => averages.take(gradients.player, params, adam.count()),
            None => Ok(()),
        }
    }

    /// Updates of each network so far: of the generator, the discriminator and an encoder that learns.
    pub fn updates(&self) -> [u64; 3] {
        let encoder = self.encoder.as_ref().map_or(0, |e| e.adam.count());
        [self.adam_g.count(), self.discriminator_updates(), encoder]
    }

    /// Sets the numbers of [`State::updates`] on the host alone, for updates that a device does again by itself.
    pub(crate) fn count(&mut self, [generator, discriminator, encoder]: [u64; 3]) {
        self.adam_g.set_count(generator);
        if let Some(adam) = &mut self.adam_d {
            adam.set_count(discriminator);
        }
        if let Some(learning) = &mut self.encoder {
            learning.adam.set_count(encoder);
        }
    }

    /// What the schedule and the halvings leave of each network's learning rate, in the order of [`State::updates`].
    pub(crate) fn rates(&self) -> [f64; 3] {
        self.updates().map(|updates| self.rate_after(updates))
    }

    /// Whether updates multiply by the same numbers from one iteration to the next, but at a halving: no learning rate and
    /// no average that changes with each.
    pub(crate) fn is_steady(&self) -> bool {
        let changes = self.schedule.warmup > 0 || self.schedule.decay != config::Decay::None;
        !changes && self.averages.as_ref().is_none_or(Averages::is_steady)
    }

    /// Where the weights lie, and all else that updates change: other addresses are other tensors.
    pub(crate) fn places(&self) -> Vec<usize> {
        let discriminator = self.discriminator.as_ref().zip(self.adam_d.as_ref());
        let discriminator = discriminator.map(|(d, adam)| (d.params(), adam));
        let encoder = self.encoder.as_ref().map(|e| (&e.params, &e.adam));
        let generator = (self.generator.params(), &self.adam_g);
        let networks = [Some(generator), discriminator, encoder];
        let tensors = networks.into_iter().flatten().flat_map(|(params, adam)| {
            let weights = params.iter().map(|param| &param.tensor);
            weights.chain(adam.tensors())
        });
        let averages = self.averages.iter().flat_map(Averages::files);
        let averages = averages.flat_map(|(_, params, _)| params.iter().map(|p| &p.tensor));
        let tensors = tensors.chain(averages);
        tensors.map(|tensor| tensor.data_ptr().addr()).collect()
    }

    /// Takes an iteration's mean scores into the averages, which keep `decay` of what they were.
    pub(crate) fn follow_scores(&mut self, scores: Sides<f64>, decay: f64) {
        let follow = |average: f64, newest: f64| decay * average + (1.0 - decay) * newest;
        self.scores = Some(match self.scores {
            None => scores,
            Some(Sides { real, generated }) => Sides {
                real: follow(real, scores.real),
                generated: follow(generated, scores.generated),
            },
        });
    }

    /// Updates of the discriminator so far.
    pub fn discriminator_updates(&self) -> u64 {
        self.adam_d.as_ref().map_or(0, Adam::count)
    }

    /// What the schedule and the halvings leave of the generator's learning rate.
    pub fn rate(&self) -> f64 {
        self.rate_after(self.adam_g.count())
    }

    /// The same of the discriminator's.
    pub fn discriminator_rate(&self) -> f64 {
        self.rate_after(self.discriminator_updates())
    }

    fn rate_after(&self, updates: u64) -> f64 {
        rate(&self.schedule, self.halvings, self.step, updates)
    }

    /// Whether all weights and moments are finite numbers: a gradient may be infinite where its loss was not, and
    /// what came of it must not become the newest checkpoint.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn is_finite(&self) -> Result<bool> {
        let _guard = tch::no_grad_guard();
        for (_, tensor) in self.snapshot().files.values().flatten() {
            // One number is enough: infinities and NaN survive a sum of magnitudes.
            let sum = tensor.f_abs()?.f_sum(tch::Kind::Double)?;
            if !sum.f_double_value(&[])?.is_finite() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A number that is the same where all weights and moments are, bit for bit.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn digest(&self) -> Result<i64> {
        let _guard = tch::no_grad_guard();
        let mut hasher = blake3::Hasher::new();
        for (_, tensor) in self.snapshot().files.values().flatten() {
            let bytes = tensor
                .f_detach()?
                .f_to_device(Device::Cpu)?
                .f_contiguous()?;
            let bytes = bytes.f_view([-1])?.f_view_dtype(tch::Kind::Uint8)?;
            hasher.update(&Vec::<u8>::try_from(&bytes)?);
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Ok(i64::from_le_bytes(first))
    }

    /// What a checkpoint holds.
    pub fn snapshot(&self) -> Snapshot {
        let weights = |params: &Params| -> Vec<(String, Tensor)> {
            params
                .iter()
                .map(|p| (p.name.clone(), p.tensor.shallow_clone()))
                .collect()
        };
        let mut moments = self.adam_g.state("generator");
        let mut learned = BTreeMap::new();
        let mut learned_steps = BTreeMap::new();
        if let Some(encoder) = &self.encoder {
            moments.extend(encoder.adam.state(ENCODER_FILE));
            learned.insert(ENCODER_FILE, weights(&encoder.params));
            let count = encoder.adam.count().cast_signed();
            learned_steps.insert("encoder.step".to_owned(), count);
        }
        if let (Some(discriminator), Some(adam)) = (&self.discriminator, &self.adam_d) {
            moments.extend(adam.state("discriminator"));
            learned.insert("discriminator", weights(discriminator.params()));
            let count = adam.count().cast_signed();
            learned_steps.insert("discriminator.step".to_owned(), count);
        }
        let mut snapshot = Snapshot {
            files: BTreeMap::from([
                ("generator", weights(self.generator.params())),
                ("state", moments),
            ]),
            counters: BTreeMap::from([
                ("step".to_owned(), self.step.cast_signed()),
                (
                    "generator.step".to_owned(),
                    self.adam_g.count().cast_signed(),
                ),
                ("gate.train_g".to_owned(), i64::from(self.gate.train_g)),
                ("gate.train_d".to_owned(), i64::from(self.gate.train_d)),
                ("halvings".to_owned(), self.halvings.cast_signed()),
            ]),
        };
        snapshot.files.extend(learned);
        let averages = self.averages.iter().flat_map(Averages::files);
        let averages = averages.map(|(file, params, _)| (file, weights(params)));
        snapshot.files.extend(averages);
        snapshot.counters.extend(learned_steps);
        if let Some(Sides { real, generated }) = self.scores {
            let values = SCORES.into_iter().zip([real, generated]);
            let bits = values.map(|(name, v)| (name.to_owned(), v.to_bits().cast_signed()));
            snapshot.counters.extend(bits);
        }
        let quarantined = self.quarantined.iter();
        let marks = quarantined.map(|index| (format!("{QUARANTINED}{index}"), 1));
        snapshot.counters.extend(marks);
        snapshot
    }

    /// Takes everything back from a checkpoint, and returns all of its counters: some belong to the checks in
    /// `observe`.
    ///
    /// # Errors
    /// A tensor or counter that is missing, unknown or of another shape; the state must not be
    /// used then.
    pub fn restore(&mut self, from: &Checkpoint) -> Result<BTreeMap<String, i64>> {
        let (moments, counters) = from.state()?;
        let file = |name: &str| Ok(from.tensors(name)?);
        self.take(&file, &moments, &counters, &shown(&from.path))?;
        Ok(counters)
    }

    /// Takes everything back from what [`State::snapshot`] gave: weights by file, moments and counters. `origin` says
    /// where they are from.
    ///
    /// # Errors
    /// As [`State::restore`].
    pub fn take(
        &mut self,
        file: &dyn Fn(&str) -> Result<NamedTensors>,
        moments: &NamedTensors,
        counters: &BTreeMap<String, i64>,
        origin: &str,
    ) -> Result<()> {
        self.generator
            .params_mut()
            .copy_from(&file("generator")?, "the generator", origin)?;
        let counter = |name: &str| -> Result<i64> {
            counters
                .get(name)
                .copied()
                .ok_or_else(|| TrainError::Counter {
                    checkpoint: origin.to_owned(),
                    name: name.to_owned(),
                })
        };
        let updates = counter("generator.step")?.cast_unsigned();
        self.adam_g.restore("generator", moments, updates, origin)?;
        // Earlier builds kept one that nothing trained: it is passed over.
        if let (Some(discriminator), Some(adam)) = (&mut self.discriminator, &mut self.adam_d) {
            discriminator.params_mut().copy_from(
                &file("discriminator")?,
                "the discriminator",
                origin,
            )?;
            let updates = counter("discriminator.step")?.cast_unsigned();
            adam.restore("discriminator", moments, updates, origin)?;
        }
        if let Some(encoder) = &mut self.encoder {
            let values = file(ENCODER_FILE)?;
            encoder.params.copy_from(&values, "the encoder", origin)?;
            let updates = counter("encoder.step")?.cast_unsigned();
            encoder
                .adam
                .restore(ENCODER_FILE, moments, updates, origin)?;
        }
        for (name, params, what) in self.averages.iter().flat_map(Averages::files) {
            params.handles().copy_from(&file(name)?, what, origin)?;
        }
        self.gate = Gate {
            train_g: counter("gate.train_g")? != 0,
            train_d: counter("gate.train_d")? != 0,
        };
        let scores = SCORES.map(|name| counters.get(name));
        self.scores = match scores.map(|bits| bits.map(|b| f64::from_bits(b.cast_unsigned()))) {
            [Some(real), Some(generated)] => Some(Sides { real, generated }),
            _ => None,
        };
        // Checkpoints from before there was a count have none.
        self.halvings = counters.get("halvings").map_or(0, |n| n.cast_unsigned());
        let marks = counters.keys().filter_map(|k| k.strip_prefix(QUARANTINED));
        self.quarantined = marks.filter_map(|index| index.parse().ok()).collect();
        self.step = counter("step")?.cast_unsigned();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn averages_of_scores_begin_with_the_first_scores_and_follow_slowly() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
        let small = ["generator.width=0.05".to_owned()];
        let experiment = Experiment::load(&file, &small).unwrap();
        let mut state = State::new(&experiment, None, Device::Cpu).unwrap();
        assert!(state.scores.is_none());
        for (scores, expected) in [((0.1, -1.0), (0.1, -1.0)), ((1.1, 1.0), (0.35, -0.5))] {
            let (real, generated) = scores;
            state.follow_scores(Sides { real, generated }, 0.75);
            let found = state.scores.unwrap();
            assert!((found.real - expected.0).abs() < 1e-12);
            assert!((found.generated - expected.1).abs() < 1e-12);
        }
        let snapshot = state.snapshot();
        let tensors = |file: &str| {
            let all = snapshot.files.get(file).into_iter().flatten();
            all.map(|(name, t)| (name.clone(), t.shallow_clone()))
                .collect::<NamedTensors>()
        };
        let mut other = State::new(&experiment, None, Device::Cpu).unwrap();
        let file = |name: &str| -> Result<NamedTensors> { Ok(tensors(name)) };
        other
            .take(&file, &tensors("state"), &snapshot.counters, "the test")
            .unwrap();
        assert_eq!(other.scores, state.scores);
    }

    #[test]
    fn what_is_not_finite_is_found_in_weights_and_in_moments() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
        let small = ["generator.width=0.05", "ema.decay=0.9"].map(str::to_owned);
        let experiment = Experiment::load(&file, &small).unwrap();
        let state = State::new(&experiment, None, Device::Cpu).unwrap();
        assert!(state.is_finite().unwrap());
        for file in ["generator", "discriminator", "state", "generator-ema"] {
            for (name, tensor) in &state.snapshot().files[file] {
                let _guard = tch::no_grad_guard();
                let kept = tensor.copy();
                let _ = tensor
                    .shallow_clone()
                    .flatten(0, -1)
                    .get(0)
                    .fill_(f64::INFINITY);
                assert!(!state.is_finite().unwrap(), "{file}: {name}");
                tensor.shallow_clone().copy_(&kept);
            }
        }
        assert!(state.is_finite().unwrap());
    }
}
