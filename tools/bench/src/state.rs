//! A trainer's state under the clock.

use anyhow::{Result, bail};
use deepsim_experiment::{Experiment, Perception};
use deepsim_train::method::captured::WARM_UP;
use deepsim_train::method::{Captured, Images, Losses, Plan, Slice, iteration_seed};
use deepsim_train::precision::set_products;
use deepsim_train::ranks::Ranks;
use deepsim_train::state::State;
use tch::Tensor;

use crate::serve::wait;

/// Everything that an iteration needs.
#[derive(Debug)]
pub struct Bench {
    /// The trainer's state.
    pub state: State,
    /// The frozen networks.
    pub perception: Perception,
    /// Images in Caffe units.
    pub x: Tensor,
    /// What the trainer is told.
    pub plan: Plan,
    /// Of the work.
    pub experiment: Experiment,
    captured: Captured,
}

impl Bench {
    /// Everything at its beginning.
    ///
    /// # Errors
    /// Missing weights; out of memory.
    pub fn new(experiment: Experiment, x: &Tensor) -> Result<Bench> {
        set_products(&experiment.config.train)?;
        Ok(Bench {
            state: State::new(&experiment, None, x.device())?,
            perception: Perception::load(&experiment, x.device())?,
            x: x.shallow_clone(),
            plan: Plan::of(&experiment),
            experiment,
            captured: Captured::off(),
        })
    }

    /// Records the iteration as CUDA graphs, as a training does where it can, and iterates until that is done. Whether it
    /// is.
    ///
    /// # Errors
    /// As [`Bench::iterate`].
    pub fn record(&mut self) -> Result<bool> {
        let device = self.x.device();
        self.captured = Captured::new(
            &self.experiment,
            &self.state,
            &self.plan,
            &Ranks::alone(),
            device,
        )?;
        for _ in 0..=WARM_UP {
            self.iterate()?;
        }
        Ok(!self.captured.recorded().is_empty())
    }

    /// Goes on without CUDA graphs.
    pub fn forget_recording(&mut self) {
        self.captured = Captured::off();
    }

    /// One iteration of the trainer, waited for. It reads the losses and checks that they are finite, as in a training;
    /// it writes nothing.
    ///
    /// # Errors
    /// A gate that has closed; what the trainer fails with.
    pub fn iterate(&mut self) -> Result<Losses> {
        let seed = iteration_seed(self.experiment.config.train.seed, self.state.step);
        let images = Images {
            x: &self.x,
            recorded: None,
            slice: Slice::whole(self.x.size().first().copied().unwrap_or_default()),
        };
        let (state, perception, plan) = (&mut self.state, &self.perception, &self.plan);
        let ranks = Ranks::alone();
        let losses = self
            .captured
            .iterate(&ranks, state, perception, &images, plan, seed)?;
        if !(self.state.gate.train_d && self.state.gate.train_g) {
            bail!("the gate closed: the iterations are not the same work any more");
        }
        wait(self.x.device());
        Ok(losses)
    }
}
