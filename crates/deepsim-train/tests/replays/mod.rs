//! Trainings of a few steps whose gate is made to change, with recorded iterations and without.

use deepsim_experiment::{Checkpoint, Experiment, Perception, config};
use deepsim_nets::init::seeded;
use deepsim_train::method::{Captured, Images, Losses, Plan, Slice, iteration_seed};
use deepsim_train::ranks::Ranks;
use deepsim_train::state::State;
use tch::{Device, Kind, Tensor};

use crate::experiments::begin;

const BATCH: i64 = 3;
const NEVER: f64 = -1.0;
const ALWAYS: f64 = 1e300;

/// Thresholds after which the next iteration updates both networks.
pub const BOTH: config::Gate = config::Gate {
    d_off_below: NEVER,
    d_on_above: NEVER,
    g_off_above: ALWAYS,
    g_on_below: ALWAYS,
};
/// The generator alone.
const GENERATOR: config::Gate = config::Gate {
    d_off_below: ALWAYS,
    d_on_above: ALWAYS,
    g_off_above: ALWAYS,
    g_on_below: ALWAYS,
};
/// The discriminator alone.
const DISCRIMINATOR: config::Gate = config::Gate {
    d_off_below: NEVER,
    d_on_above: NEVER,
    g_off_above: NEVER,
    g_on_below: NEVER,
};
/// All three states of the gate, in turn; a training begins in that of the last.
pub const TURNS: [config::Gate; 3] = [GENERATOR, DISCRIMINATOR, BOTH];

/// A training.
pub struct Run {
    pub perception: Perception,
    pub state: State,
    pub plan: Plan,
    pub captured: Captured,
    pub losses: Vec<Losses>,
    device: Device,
    crop: i64,
}

impl Run {
    pub fn new(experiment: &Experiment, device: Device, captured: Captured) -> Run {
        let (perception, state) = begin(experiment, device);
        Run {
            perception,
            state,
            plan: Plan::of(experiment),
            captured,
            losses: Vec::new(),
            device,
            crop: i64::from(experiment.config.data.crop),
        }
    }

    /// The same, from a checkpoint.
    pub fn resumed(
        experiment: &Experiment,
        device: Device,
        captured: Captured,
        from: &Checkpoint,
    ) -> Run {
        let mut run = Run::new(experiment, device, captured);
        run.state.restore(from).unwrap();
        run
    }

    /// Iterates up to a step; after each the gate takes the turn of its step.
    pub fn advance(&mut self, to: u64, turns: &[config::Gate]) {
        let ranks = Ranks::alone();
        while self.state.step < to {
            let step = self.state.step;
            let turn = usize::try_from(step).unwrap() % turns.len();
            self.plan.gate = turns[turn];
            let x = seeded(100 + step.cast_signed(), || {
                let options = (Kind::Float, Device::Cpu);
                let coarse = Tensor::rand([BATCH, 3, 9, 9], options) * 200.0 - 100.0;
                coarse.upsample_bilinear2d([self.crop; 2], false, None, None)
            });
            let x = x.to_device(self.device);
            let images = Images {
                x: &x,
                recorded: None,
                slice: Slice::whole(BATCH),
            };
            let seed = iteration_seed(7, step);
            let (state, perception, plan) = (&mut self.state, &self.perception, &self.plan);
            let captured = &mut self.captured;
            let losses = captured.iterate(&ranks, state, perception, &images, plan, seed);
            self.losses.push(losses.unwrap());
        }
    }
}
