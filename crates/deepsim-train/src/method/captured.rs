//! The paper's iteration as CUDA graphs. On a GPU it is a long row of short kernels, and the host starts each; a graph starts
//! all of them at once.
//!
//! There is one graph for each state of the gate. It holds all of `deepsim::compute`, with the updates and the numbers
//! that were found; the one read of the host, on which the gate decides, lies between graphs.
//!
//! **What changes from one iteration to the next** is copied into tensors that stay where they are (`Inputs`): images,
//! recorded features, and everything random, which is drawn before ([`Draws`]). So a graph draws nothing, and
//! a resume is exact. Adam's counters are tensors on the GPU, which a graph advances; those on the host are advanced here.
//!
//! **What a graph has in it as numbers** is `Setting`: learning rates, weights of terms, and the addresses of all that
//! updates change. Where one is another, all graphs are made anew: after a halving, in another `[[stage]]`.
//!
//! **Before a graph is made** its iteration runs as usual [`WARM_UP`] times, on the stream that will be recorded: cuDNN and
//! cuBLAS choose their algorithms, and get memory, in the first runs. So nothing is recorded in the first iterations of a
//! run or after a resume, or in a state of the gate that is rare.
//!
//! **What must not be in a recorded iteration** is anything that makes the host wait for the GPU. Looked through for it were
//! uploads and conversions of images ([`deepsim_nets::images`]: the constants of a conversion were copied from the host,
//! and are filled on the GPU now), networks, dropout, LRN, batch normalisation (it reads a count among several processes
//! or shards alone), the losses, sums over micro-batches (they compare shapes, on the host), Adam, norms. `tracing`'s
//! spans are the host's. Memory that a recording frees stays the recording's own.
//!
//! **Not recorded**: several processes (their sums), several micro-batches, shards, TorchScript modules (they may read
//! values), VAE/GAN's iteration (its gate decides in the middle of it), and what multiplies by another number in each
//! iteration, or computes something else in some: learning rates that warm up or follow a cosine, averages of weights with a
//! warm-up, and another `[adversary]` than the paper's (LeCAM's averages are the host's, R1 is due now and then, and both
//! networks may begin late).

use deepsim_aten::{RECORDS_CUDA, Recorder, Recording};
use deepsim_experiment::{Experiment, Perception};
use deepsim_nets::loss::Terms;
use tch::{Device, Tensor};

use crate::error::{Result, TrainError};
use crate::method::draws::Draws;
use crate::method::gate::Gate;
use crate::method::losses::{Losses, Numbers};
use crate::method::micro_batch::MicroBatch;
use crate::method::plan::Plan;
use crate::method::{Images, deepsim, iterate_among};
use crate::ranks::Ranks;
use crate::state::State;

/// Iterations of a state of the gate before it is recorded.
pub const WARM_UP: usize = 3;

/// Iterations that are recorded where they can be, and replayed. It serves one training: the same networks that see images,
/// and a plan of which only the gate's thresholds change.
#[derive(Debug)]
pub struct Captured {
    // Recordings go before their stream.
    ground: Option<Ground>,
    recorder: Option<Recorder>,
}

/// What all recordings share.
#[derive(Debug)]
struct Ground {
    setting: Setting,
    known: Vec<Known>,
    inputs: Inputs,
}

/// What is in a recording as a number.
#[derive(Debug, PartialEq)]
struct Setting {
    rates: [f64; 3],
    weights: Terms<f64>,
    places: Vec<usize>,
}

/// Tensors from which recordings read.
#[derive(Debug)]
struct Inputs {
    x: Tensor,
    recorded: Option<Tensor>,
    draws: Draws,
}

/// A state of the gate that has been met.
#[derive(Debug)]
struct Known {
    gate: Gate,
    /// Iterations that have run as usual.
    runs: usize,
    /// Updates of each network in an iteration, as in [`State::updates`].
    updates: [u64; 3],
    /// Into which recordings write.
    numbers: Numbers,
    recording: Option<Recording>,
}

impl Captured {
    /// For a training on `device`. Nothing is recorded on a CPU, in a build without the feature `cuda`, and where an
    /// iteration cannot be recorded.
    ///
    /// # Errors
    /// A GPU that fails.
    pub fn new(
        experiment: &Experiment,
        state: &State,
        plan: &Plan,
        ranks: &Ranks,
        device: Device,
    ) -> Result<Captured> {
        let records = RECORDS_CUDA && device.is_cuda();
        if records && can_be_recorded(state, plan, ranks) && !experiment.needs_consent() {
            Captured::on(device)
        } else {
            Ok(Captured::off())
        }
    }

    /// Records whatever the device is. On a CPU, where there are no graphs, what was recorded is computed again: for tests.
    ///
    /// # Errors
    /// A GPU, where this build has no CUDA graphs or the GPU fails.
    pub fn on(device: Device) -> Result<Captured> {
        Ok(Captured {
            ground: None,
            recorder: Some(Recorder::new(device)?),
        })
    }

    /// Records nothing.
    pub fn off() -> Captured {
        Captured {
            ground: None,
            recorder: None,
        }
    }

    /// The states of the gate whose iteration is recorded.
    pub fn recorded(&self) -> Vec<Gate> {
        let known = self.ground.iter().flat_map(|ground| &ground.known);
        let recorded = known.filter(|known| known.recording.is_some());
        recorded.map(|known| known.gate).collect()
    }

    /// As [`iterate_among`], by a replay where the iteration is recorded. An iteration that cannot be recorded is a warning,
    /// after which nothing is recorded any more.
    ///
    /// # Errors
    /// As [`iterate_among`].
    pub fn iterate(
        &mut self,
        ranks: &Ranks,
        state: &mut State,
        perception: &Perception,
        images: &Images<'_>,
        plan: &Plan,
        seed: i64,
    ) -> Result<Losses> {
        let Images { x, recorded, slice } = *images;
        let possible = can_be_recorded(state, plan, ranks) && slice.is_whole();
        let Some(recorder) = self.recorder.as_ref().filter(|_| possible) else {
            return iterate_among(ranks, state, perception, images, plan, seed);
        };
        deepsim::begin(state, plan);
        let draws = Draws::new(state, plan, slice.global, x.device(), seed)?;
        let recorded = recorded.map(Tensor::shallow_clone);
        let batch = MicroBatch::new(perception, plan, &draws, x, recorded, slice)?;
        let setting = Setting::of(state, plan);
        let ground = match self.ground.take() {
            Some(ground) if ground.setting == setting && ground.inputs.fit(&batch) => ground,
            _ => Ground::new(setting, &batch)?,
        };
        let ground = self.ground.insert(ground);
        ground.inputs.take(&batch)?;
        let batch = ground.inputs.batch(batch)?;
        let compute = |state: &mut State| {
            let batches = std::slice::from_ref(&batch);
            deepsim::compute(state, plan, batches, x.device(), ranks)
        };
        let before = state.updates();
        if let Some(known) = ground.ready(state.gate) {
            match known.replay(recorder, state, &compute)? {
                Replayed::Done => return deepsim::decide(state, plan, &known.numbers),
                Replayed::NotRecorded(error) => {
                    tracing::warn!(
                        "iterations are not recorded as CUDA graphs, and go on without: {error}"
                    );
                    state.count(before);
                    let numbers = compute(state)?;
                    *self = Captured::off();
                    return deepsim::decide(state, plan, &numbers);
                }
            }
        }
        let gate = state.gate;
        let numbers = compute(state)?;
        let after = state.updates();
        ground.ran(gate, difference(after, before), &numbers)?;
        deepsim::decide(state, plan, &numbers)
    }
}

/// Whether the host has no part in an iteration before its end, and no number of its own in each.
fn can_be_recorded(state: &State, plan: &Plan, ranks: &Ranks) -> bool {
    let one = plan.micro_batches <= 1 && plan.shards.is_none() && ranks.size() == 1;
    let paper_s = plan.vaegan.is_none() && plan.adversary.is_paper_s();
    one && paper_s && state.is_steady()
}

fn difference(after: [u64; 3], before: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|at| after[at].saturating_sub(before[at]))
}

impl Ground {
    fn new(setting: Setting, batch: &MicroBatch<'_>) -> Result<Ground> {
        Ok(Ground {
            setting,
            known: Vec::new(),
            inputs: Inputs::like(batch)?,
        })
    }

    /// A state of the gate that has run often enough.
    fn ready(&mut self, gate: Gate) -> Option<&mut Known> {
        let mut known = self.known.iter_mut();
        known.find(|known| known.gate == gate && known.runs >= WARM_UP)
    }

    /// Takes down that an iteration has run as usual.
    fn ran(&mut self, gate: Gate, updates: [u64; 3], numbers: &Numbers) -> Result<()> {
        if let Some(known) = self.known.iter_mut().find(|known| known.gate == gate) {
            known.runs += 1;
            return Ok(());
        }
        self.known.push(Known {
            gate,
            runs: 1,
            updates,
            numbers: numbers.like()?,
            recording: None,
        });
        Ok(())
    }
}

impl Setting {
    fn of(state: &State, plan: &Plan) -> Setting {
        Setting {
            rates: state.rates(),
            weights: plan.weights(state.step).clone(),
            places: state.places(),
        }
    }
}

/// What came of the wish to replay.
enum Replayed {
    /// The iteration has run.
    Done,
    /// Nothing has.
    NotRecorded(TrainError),
}

impl Known {
    /// Does the iteration by its recording, which is made where there is none.
    fn replay(
        &mut self,
        recorder: &Recorder,
        state: &mut State,
        compute: &dyn Fn(&mut State) -> Result<Numbers>,
    ) -> Result<Replayed> {
        let before = state.updates();
        let numbers = &self.numbers;
        // A replay on a GPU does not count: it is counted below, however it is done.
        let mut body = || -> Result<()> {
            numbers.take(&compute(state)?)?;
            state.count(before);
            Ok(())
        };
        let recording = match self.recording.take() {
            Some(recording) => recording,
            None => match recorder.record(&mut body) {
                Ok(recording) => recording,
                Err(error) => return Ok(Replayed::NotRecorded(error)),
            },
        };
        let replayed = recording.replay(&mut body);
        self.recording = Some(recording);
        // Also of one that failed: nobody knows how far it came.
        state.count(std::array::from_fn(|at| before[at] + self.updates[at]));
        replayed?;
        Ok(Replayed::Done)
    }
}

impl Inputs {
    /// Place for inputs like those of `batch`.
    fn like(batch: &MicroBatch<'_>) -> Result<Inputs> {
        let place = |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.f_empty_like()?) };
        Ok(Inputs {
            x: place(&batch.x)?,
            recorded: batch.recorded.as_ref().map(place).transpose()?,
            draws: batch.draws.map(place, place)?,
        })
    }

    /// All of them, and those of `batch` in the same order.
    fn pairs<'t>(&'t self, batch: &'t MicroBatch<'_>) -> [Vec<&'t Tensor>; 2] {
        let all = |x: &'t Tensor, recorded: &'t Option<Tensor>, draws: &'t Draws| {
            let mut all = vec![x];
            all.extend(recorded);
            all.extend(draws.tensors());
            all
        };
        [
            all(&self.x, &self.recorded, &self.draws),
            all(&batch.x, &batch.recorded, &batch.draws),
        ]
    }

    /// Whether the inputs of `batch` have their place here.
    fn fit(&self, batch: &MicroBatch<'_>) -> bool {
        let kind = |tensor: &&Tensor| (tensor.size(), tensor.kind(), tensor.device());
        let [own, given] = self.pairs(batch);
        own.iter().map(kind).eq(given.iter().map(kind))
    }

    /// Takes the values of `batch`.
    fn take(&self, batch: &MicroBatch<'_>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let [own, given] = self.pairs(batch);
        for (own, given) in own.into_iter().zip(given) {
            own.shallow_clone().f_copy_(given)?;
        }
        Ok(())
    }

    /// The same batch, with its inputs here.
    fn batch<'a>(&self, batch: MicroBatch<'a>) -> Result<MicroBatch<'a>> {
        let same = |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.shallow_clone()) };
        Ok(MicroBatch {
            x: self.x.shallow_clone(),
            recorded: self.recorded.as_ref().map(Tensor::shallow_clone),
            draws: self.draws.map(same, same)?,
            ..batch
        })
    }
}
