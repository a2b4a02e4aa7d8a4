//! Small runs in double precision whose phases are computed for whole batches and for parts of them.

use std::path::Path;

use deepsim_experiment::{Experiment, Perception};
use deepsim_nets::init::seeded;
use deepsim_nets::{Adam, AdamOptions, Params, Reduction};
use deepsim_train::method::deepsim::{discriminator_gradients, forward, generator_gradients};
use deepsim_train::method::vaegan::compute_gradients;
use deepsim_train::method::{Draws, MicroBatch, Plan, Slice, Sums};
use deepsim_train::state::State;
use tch::{Device, Kind, Tensor};

pub const IMAGES: i64 = 4;
/// Images of a part whose share is looked at.
pub const PART: i64 = 2;
/// Seed of all draws of the phases.
pub const SEED: i64 = 11;

/// The two losses of the discriminator in [`values`].
pub const ON_REAL: &str = "on real";
pub const ON_GENERATED: &str = "on generated";

pub fn experiment(file: &str, sets: &[&str]) -> Experiment {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Experiment::load(&folder.join(file), &sets).unwrap()
}

pub struct Run {
    pub plan: Plan,
    pub perception: Perception,
    pub state: State,
    pub x: Tensor,
}

impl Run {
    /// A small experiment of the paper's method.
    pub fn paper(file: &str, more: &[&str]) -> Run {
        let mut sets = vec![
            "encoder.net=alexnet",
            "comparator.net=alexnet",
            "encoder.weights=random:1",
            "comparator.weights=random:1",
            "data.crop=64",
            "generator.width=0.1",
            "train.precision=fp32",
        ];
        sets.extend_from_slice(more);
        Run::of(&experiment(file, &sets))
    }

    /// A small experiment of VAE/GAN.
    pub fn vaegan(file: &str, more: &[&str]) -> Run {
        let mut sets = vec![
            "data.crop=32",
            "latent.size=5",
            "generator.width=0.25",
            "discriminator.width=0.25",
            "encoder.width=0.25",
            "train.precision=fp32",
        ];
        sets.extend_from_slice(more);
        Run::of(&experiment(file, &sets))
    }

    pub fn of(experiment: &Experiment) -> Run {
        let mut perception = Perception::load(experiment, Device::Cpu).unwrap();
        let mut state = State::new(experiment, perception.take_learned(), Device::Cpu).unwrap();
        perception.widen().unwrap();
        // Moments are of the weights' precision.
        let options = &experiment.config.optimizer;
        let widened = |params: &Params, options: Option<AdamOptions>| {
            params.widen().unwrap();
            Adam::new(params, options.unwrap()).unwrap()
        };
        state.adam_g = widened(state.generator.params(), Some(options.generator));
        if let Some(encoder) = &mut state.encoder {
            encoder.adam = widened(&encoder.params, options.encoder);
        }
        let d = state.discriminator.as_ref().unwrap().params();
        state.adam_d = Some(widened(d, options.discriminator));
        // Or a weight would be divided by next to nothing.
        let d = state.discriminator.as_ref().unwrap();
        d.iterate_spectral().unwrap();
        let crop = i64::from(experiment.config.data.crop);
        let x = seeded(5, || {
            let options = (Kind::Double, Device::Cpu);
            let coarse = Tensor::rand([IMAGES, 3, 9, 9], options) * 200.0 - 100.0;
            coarse.upsample_bilinear2d([crop, crop], false, None, None)
        });
        Run {
            plan: Plan::of(experiment),
            perception,
            state,
            x,
        }
    }

    /// What an iteration draws for all images.
    pub fn draws(&self) -> Draws {
        Draws::new(&self.state, &self.plan, IMAGES, Device::Cpu, SEED).unwrap()
    }

    /// All phases of a micro-batch, of images whose place in the batch may be told wrongly.
    pub fn phases(&self, x: &Tensor, draws: &Draws, told: Slice) -> Sums {
        let batch = MicroBatch::new(&self.perception, &self.plan, draws, x, None, told).unwrap();
        if let Some(rule) = self.plan.vaegan {
            return compute_gradients(&self.state, &batch, rule).unwrap();
        }
        let forward = forward(&self.state, &batch).unwrap();
        let (mut sums, verdict) = discriminator_gradients(&self.state, &batch, &forward).unwrap();
        let of_generator = generator_gradients(&self.state, &batch, forward, &verdict).unwrap();
        sums.add_(of_generator).unwrap();
        sums
    }

    pub fn whole(&self) -> Sums {
        self.phases(&self.x, &self.draws(), Slice::whole(IMAGES))
    }

    /// Micro-batches of these sizes, one after the other.
    pub fn added(&self, sizes: &[i64]) -> Sums {
        let (draws, mut sums, mut from) = (self.draws(), Sums::default(), 0);
        for &len in sizes {
            let slice = Slice {
                from,
                len,
                global: IMAGES,
            };
            let x = self.x.narrow(0, from, len);
            sums.add_(self.phases(&x, &draws, slice)).unwrap();
            from += len;
        }
        assert_eq!(from, IMAGES);
        sums
    }

    /// What a part of two of the four images has of what the two give as a whole batch. [`Reduction::Caffe`] and
    /// [`Reduction::Mean`] divide by the number of images: half. [`Reduction::Paper`] sums over them: all. So it is of
    /// terms, of the discriminator's losses and of all gradients alike. In VAE/GAN the discriminator's losses, and the
    /// adversarial term with them, are means whatever the reduction.
    pub fn share(&self, name: &str) -> f64 {
        let mean = [ON_REAL, ON_GENERATED, "loss.adv"].contains(&name);
        if self.plan.reduction == Reduction::Paper && !(mean && self.plan.vaegan.is_some()) {
            1.0
        } else {
            PART as f64 / IMAGES as f64
        }
    }
}

/// What some sums hold, by name.
pub type Values = Vec<(String, Tensor)>;

pub fn values(sums: &Sums) -> Values {
    let terms = sums.terms.iter();
    let mut all: Values = terms
        .map(|(term, value)| (term.log_key(), value.shallow_clone()))
        .collect();
    let sides = sums.discriminator.as_ref().unwrap();
    all.push((ON_REAL.to_owned(), sides.real.shallow_clone()));
    all.push((ON_GENERATED.to_owned(), sides.generated.shallow_clone()));
    for gradients in &sums.gradients {
        let flat: Vec<Tensor> = gradients.tensors.iter().map(|t| t.flatten(0, -1)).collect();
        all.push((gradients.player.name().to_owned(), Tensor::cat(&flat, 0)));
    }
    all
}

/// The largest relative difference.
pub fn apart(found: &[(String, Tensor)], expected: &[(String, Tensor)]) -> (String, f64) {
    assert_eq!(found.len(), expected.len());
    let mut worst = (String::new(), 0.0);
    for ((name, found), (other, expected)) in found.iter().zip(expected) {
        assert_eq!(name, other);
        let size = expected.norm().double_value(&[]);
        assert!(size > 0.0, "{name}: nothing but zeros was expected");
        let error = (found - expected).norm().double_value(&[]) / size;
        if error > worst.1 {
            worst = (name.clone(), error);
        }
    }
    worst
}
