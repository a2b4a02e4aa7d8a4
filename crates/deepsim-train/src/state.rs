//! Everything that affects the next step, and its way into a checkpoint and back.

use std::collections::BTreeMap;

use deepsim_experiment::{Checkpoint, Experiment, Snapshot};
use deepsim_nets::params::Params;
use deepsim_nets::{Adam, Discriminator, Generator};
use tch::{Device, Tensor};

use crate::error::{Result, TrainError};
use crate::gate::Gate;

/// Everything that affects the next step. Randomness and the position in the data are pure
/// functions of the seed and `step`; nothing else is hidden anywhere.
#[derive(Debug)]
pub struct State {
    /// Iterations done.
    pub step: u64,
    /// The generator.
    pub generator: Generator,
    /// The discriminator.
    pub discriminator: Discriminator,
    /// The generator's Adam; its counter advances only when the generator is updated.
    pub adam_g: Adam,
    /// The discriminator's Adam, likewise.
    pub adam_d: Adam,
    /// Which networks the next iteration updates.
    pub gate: Gate,
}

impl State {
    /// The state before the first step.
    ///
    /// # Errors
    /// What libtorch refuses (out of memory).
    pub fn new(experiment: &Experiment, device: Device) -> Result<State> {
        let seed = experiment.raw.train.seed;
        let generator = Generator::new(experiment.generator.clone(), seed, device)?;
        let discriminator = Discriminator::new(experiment.discriminator.clone(), seed, device)?;
        let options = &experiment.raw.optimizer;
        Ok(State {
            step: 0,
            adam_g: Adam::new(generator.params(), options.generator)?,
            adam_d: Adam::new(discriminator.params(), options.discriminator)?,
            generator,
            discriminator,
            gate: Gate::open(),
        })
    }

    /// Size of a checkpoint of this state in bytes: weights and both moments, f32.
    pub fn checkpoint_bytes(&self) -> u64 {
        let values = self.generator.params().count() + self.discriminator.params().count();
        3 * 4 * values as u64
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
        moments.extend(self.adam_d.state("discriminator"));
        Snapshot {
            files: BTreeMap::from([
                ("generator", weights(self.generator.params())),
                ("discriminator", weights(self.discriminator.params())),
                ("state", moments),
            ]),
            counters: BTreeMap::from([
                ("step".to_owned(), self.step.cast_signed()),
                (
                    "generator.step".to_owned(),
                    self.adam_g.count().cast_signed(),
                ),
                (
                    "discriminator.step".to_owned(),
                    self.adam_d.count().cast_signed(),
                ),
                ("gate.train_g".to_owned(), i64::from(self.gate.train_g)),
                ("gate.train_d".to_owned(), i64::from(self.gate.train_d)),
            ]),
        }
    }

    /// Takes everything back from a checkpoint.
    ///
    /// # Errors
    /// A tensor or counter that is missing, unknown or of another shape; the state must not be
    /// used then.
    pub fn restore(&mut self, from: &Checkpoint) -> Result<()> {
        let origin = from.path.display().to_string();
        let (generator, discriminator) =
            (from.tensors("generator")?, from.tensors("discriminator")?);
        self.generator
            .params_mut()
            .copy_from(&generator, "the generator", &origin)?;
        self.discriminator
            .params_mut()
            .copy_from(&discriminator, "the discriminator", &origin)?;
        let (moments, counters) = from.state()?;
        let counter = |name: &str| -> Result<i64> {
            counters
                .get(name)
                .copied()
                .ok_or_else(|| TrainError::Counter {
                    checkpoint: origin.clone(),
                    name: name.to_owned(),
                })
        };
        let (g, d) = (counter("generator.step")?, counter("discriminator.step")?);
        self.adam_g
            .restore("generator", &moments, g.cast_unsigned(), &origin)?;
        self.adam_d
            .restore("discriminator", &moments, d.cast_unsigned(), &origin)?;
        self.gate = Gate {
            train_g: counter("gate.train_g")? != 0,
            train_d: counter("gate.train_d")? != 0,
        };
        self.step = counter("step")?.cast_unsigned();
        Ok(())
    }
}
