//! Several processes that train one run together, launched as PyTorch's are: by torchrun, or with RANK, WORLD_SIZE,
//! MASTER_ADDR and MASTER_PORT in their environment.
//!
//! Each process has its part of every batch. Sums over all of them ([`Ranks::total`]) are equal bit for bit in each, so that
//! each makes the same step. The first one (rank 0) alone writes.
//!
//! Every exchange is one that all processes make, in this order: before the first step `recorded`, which begins with a
//! verdict of rank 0, `ready`, `agree`, a verdict, `share_state`; in each step the sums of its phases, `stop`, a verdict. A
//! process that fails between `recorded` and `agree` says so in `ready`; rank 0 says so in the next verdict. Another one that
//! fails ends, which the others notice. While a process opens its inputs, and while rank 0 reads its run, saves or evaluates,
//! a thread says for it that it is alive (`at_work.rs`): `ready` and the verdict are repeated then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deepsim_data::BadImages;
use deepsim_experiment::{Experiment, ExperimentError, Manifest, config, exchange, rendezvous};
use deepsim_nets::params::NamedTensors;
use deepsim_nets::{AtenError, ProcessGroup, in_turns, over_group, take_failure};
use tch::Device;

pub(crate) use crate::at_work::Ready;
use crate::at_work::{self, AtWork, Heard, Waiting};
use crate::error::{Result, TrainError};
use crate::method::{Parts, Plan, Slice, Sums};
use crate::placing;
use crate::reducer::Reducer;
use crate::state::State;

/// The processes of a training.
#[derive(Debug)]
pub struct Ranks {
    group: Option<Arc<ProcessGroup>>,
    /// Where there is a group.
    at_work: Option<AtWork>,
    rank: i64,
    size: i64,
    /// Whether all have agreed on the training that they begin.
    agreed: Cell<bool>,
    /// Number of this process on its machine, where the launcher says it.
    local: Option<usize>,
    reducer: Reducer,
    /// Time in sums since it was last asked for.
    in_sums: Cell<Duration>,
}

/// What rank 0 has come to, when it has done alone what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To go on.
    GoOn,
    /// A weight is not finite.
    NotFinite,
    /// It failed, and ends.
    Failed,
    /// It has saved, and all stop with this exit code.
    Stop(u8),
}

impl Ranks {
    /// One process.
    pub fn alone() -> Ranks {
        Ranks {
            group: None,
            at_work: None,
            rank: 0,
            size: 1,
            agreed: Cell::new(false),
            local: None,
            reducer: Reducer::default(),
            in_sums: Cell::default(),
        }
    }

    /// The processes that the environment tells of; waits until all have come, at most for `patience`. Without RANK and
    /// WORLD_SIZE, or in a world of one, it is one process.
    ///
    /// # Errors
    /// [`ExperimentError::Ranks`]: variables that are missing or contradict each other, a port in use, a process that does
    /// not come.
    pub fn join(variable: impl Fn(&str) -> Option<String>, patience: Duration) -> Result<Ranks> {
        let Some(at) = rendezvous::read("deepsim-train", &variable)? else {
            return Ok(Ranks::alone());
        };
        let local = placing::local(&variable)?;
        let group = Arc::new(rendezvous::meet(&at, patience)?);
        let at_work = AtWork::new(Arc::clone(&group), patience)
            .map_err(|error| refused(format!("a thread could not be started: {error}")))?;
        Ok(Ranks {
            group: Some(group),
            at_work: Some(at_work),
            rank: at.rank,
            size: at.size,
            agreed: Cell::new(false),
            local,
            reducer: Reducer::default(),
            in_sums: Cell::default(),
        })
    }

    /// Whether the environment calls this process one that follows rank 0.
    pub fn is_follower(variable: impl Fn(&str) -> Option<String>) -> bool {
        rendezvous::is_follower(variable)
    }

    /// Whether this process writes the run.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// Number of processes.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// This process's part of a batch of so many images: its shards, where there are any.
    ///
    /// # Errors
    /// Fewer images than processes; shards of which each process cannot have as many.
    pub fn share(&self, images: usize, shards: Option<usize>) -> Result<Slice> {
        let images = i64::try_from(images).unwrap_or(i64::MAX);
        if let Some(shards) = shards {
            return self.share_of_shards(images, i64::try_from(shards).unwrap_or(i64::MAX));
        }
        if images < self.size {
            return Err(refused(format!(
                "train.batch_size is {images}, for {} processes: each needs an image at least",
                self.size
            )));
        }
        let all = Slice::split(images, self.size);
        let rank = usize::try_from(self.rank).unwrap_or_default();
        let share = all.get(rank).copied();
        share.ok_or_else(|| refused(format!("rank {} of {}", self.rank, self.size)))
    }

    fn share_of_shards(&self, images: i64, shards: i64) -> Result<Slice> {
        let each = shards / self.size;
        if each * self.size != shards {
            return Err(refused(format!(
                "train.deterministic_shards is {shards}, for {} processes: it must be a multiple of their number",
                self.size
            )));
        }
        let all = Slice::split(images, shards);
        let own = |shard: i64| usize::try_from(shard).ok().and_then(|shard| all.get(shard));
        let (first, last) = (own(self.rank * each), own((self.rank + 1) * each - 1));
        let (Some(first), Some(last)) = (first, last) else {
            return Err(refused(format!(
                "train.batch_size is {images}, for {shards} shards: each needs an image at least"
            )));
        };
        Ok(Slice {
            from: first.from,
            len: last.from + last.len - first.from,
            global: images,
        })
    }

    /// Whether the phases of shards run side by side, since they need each other's statistics.
    pub(crate) fn together(&self, plan: &Plan) -> bool {
        plan.shards.is_some() && plan.normalises
    }

    /// Place for what a phase's micro-batches find.
    pub fn parts(&self, plan: &Plan) -> Parts {
        Parts::new(plan.shards.is_some() && self.group.is_some())
    }

    /// Runs a phase on each of this process's micro-batches, one after the other, with batch normalisation over the whole
    /// batch; `take` gets what each has found.
    ///
    /// # Errors
    /// Those of the phase; a process that does not answer in time, or is gone.
    pub fn each<I, T: Send>(
        &self,
        plan: &Plan,
        batches: impl IntoIterator<Item = I>,
        phase: impl Fn(I) -> Result<T>,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let found = if self.together(plan) {
            let shards = batches.into_iter().map(|batch| RefCell::new(Some(batch)));
            let shards: Vec<_> = shards.collect();
            let of = |shard: usize| match shards[shard].take() {
                Some(batch) => phase(batch),
                None => Err(refused(format!("shard {shard} has no images"))),
            };
            in_turns(self.group.clone(), shards.len(), of).and_then(|found| {
                let mut found = found.into_iter();
                found.try_for_each(&mut take)
            })
        } else {
            over_group(self.group.clone(), || {
                let mut batches = batches.into_iter();
                batches.try_for_each(|batch| take(phase(batch)?))
            })
        };
        found.map_err(|error| match take_failure() {
            Some(failure) => AtenError::from(failure).into(),
            None => error,
        })
    }

    /// What all processes have found in a phase, the whole batch's. The next call with gradients of the same network changes
    /// them: they are to be used before.
    ///
    /// # Errors
    /// A process that does not answer in time, or is gone.
    pub fn total(&self, plan: &Plan, parts: Parts) -> Result<Sums> {
        let begun = Instant::now();
        let sums = match (&self.group, plan.shards) {
            (Some(group), Some(_)) => parts.added_in_order(group),
            (Some(group), None) => {
                let mut sums = parts.added()?;
                self.reducer.sum_(group, &mut sums)?;
                Ok(sums)
            }
            (None, _) => parts.added(),
        };
        self.in_sums.set(self.in_sums.get() + begun.elapsed());
        sums
    }

    /// Time that this process has spent in sums since the last call, also waiting for slower ones; none for one process.
    pub(crate) fn time_in_sums(&self) -> Option<Duration> {
        self.group.as_ref().map(|_| self.in_sums.take())
    }

    /// The signal that has asked any of the processes to stop, as its exit code.
    ///
    /// # Errors
    /// A process that does not answer in time, or is gone.
    ///
    /// Where a checkpoint of `state` is due, all compare their weights first: steps that are the same give the same bits.
    pub(crate) fn stop(&self, asked: Option<u8>, state: &State, due: bool) -> Result<Option<u8>> {
        let Some(group) = &self.group else {
            return Ok(asked);
        };
        let digest = if due { state.digest()? } else { 0 };
        // The largest of a number and of its complement: the same where all have the same number.
        let own = [asked.map_or(0, i64::from), digest, !digest];
        let [code, most, least] = exchange::largest(group, own)?;
        if most != !least {
            return Err(TrainError::Apart { step: state.step });
        }
        self.will_judge();
        Ok(u8::try_from(code).ok().filter(|code| *code > 0))
    }

    /// What rank 0 has come to; the others wait for it, and give anything.
    ///
    /// # Errors
    /// A process that does not answer in time, or is gone.
    pub(crate) fn verdict(&self, own: Verdict) -> Result<Verdict> {
        let Some(group) = &self.group else {
            return Ok(own);
        };
        if let Some(Heard::Failure(error)) = self.done() {
            return Err(error);
        }
        let code = match own {
            Verdict::GoOn => 0,
            Verdict::NotFinite => 1,
            Verdict::Failed => 2,
            Verdict::Stop(code) => i64::from(code),
        };
        Ok(match at_work::verdict(group, code)? {
            0 => Verdict::GoOn,
            1 => Verdict::NotFinite,
            2 => Verdict::Failed,
            code => Verdict::Stop(u8::try_from(code).unwrap_or(1)),
        })
    }

    /// What the run has recorded, in all processes: rank 0 reads it by `read` while the others wait. Nothing where there is
    /// one process.
    ///
    /// # Errors
    /// That of `read`, and [`TrainError::Peer`] in the others; a process that does not answer in time, or is gone.
    pub(crate) fn recorded(
        &self,
        read: impl FnOnce() -> Result<Option<Manifest>>,
    ) -> Result<Option<Manifest>> {
        let Some(group) = &self.group else {
            return Ok(None);
        };
        self.will_judge();
        let own = if self.leads() { read() } else { Ok(None) };
        let verdict = self.verdict(match &own {
            Ok(_) => Verdict::GoOn,
            Err(_) => Verdict::Failed,
        });
        // What is wrong here is what counts.
        let own = own?;
        match verdict? {
            Verdict::Failed => Err(ended()),
            _ => Ok(exchange::said_by_first(group, &own)?),
        }
    }

    /// Begins anew: nothing is agreed on. The others wait until this process has opened its inputs.
    pub(crate) fn anew(&self) {
        self.agreed.set(false);
        self.busy(Waiting::ToBegin);
    }

    /// The others wait for what rank 0 does now.
    fn will_judge(&self) {
        if self.leads() {
            self.busy(Waiting::ForVerdict);
        }
    }

    fn busy(&self, waiting: Waiting) {
        if let Some(at_work) = &self.at_work {
            at_work.begin(waiting);
        }
    }

    fn done(&self) -> Option<Heard> {
        self.at_work.as_ref().and_then(AtWork::end)
    }

    /// Lets all know that this process has to end for `error`, so that none waits for it.
    pub(crate) fn give_up(&self, error: &TrainError) {
        // What is wrong here is what counts.
        let _ = match error {
            // Others know, or do not answer.
            TrainError::Peer(_) => return,
            _ if !self.agreed.get() => self.ready(Ready::No).map(drop),
            _ if !self.leads() => return,
            TrainError::NotFinite { .. } => self.verdict(Verdict::NotFinite).map(drop),
            _ => self.verdict(Verdict::Failed).map(drop),
        };
    }

    /// What the worst of all processes says.
    ///
    /// # Errors
    /// A process that does not answer in time, or is gone.
    pub(crate) fn ready(&self, own: Ready) -> Result<Ready> {
        let Some(group) = &self.group else {
            return Ok(own);
        };
        match self.done() {
            Some(Heard::Refusal) => return Ok(Ready::No),
            Some(Heard::Failure(error)) => return Err(error),
            None => {}
        }
        loop {
            let (all, worst) = at_work::ready(group, Some(own))?;
            if all || worst == Ready::No {
                return Ok(worst);
            }
        }
    }

    /// Waits until all can begin and checks that they train the same: `facts` by name. Whether they are to.
    ///
    /// # Errors
    /// [`TrainError::Peer`] where another process cannot begin or trains something else, [`ExperimentError::Ranks`] that
    /// names what is different here.
    pub(crate) fn begin(&self, facts: &BTreeMap<String, String>) -> Result<Ready> {
        match self.ready(Ready::Yes)? {
            Ready::Yes => {}
            Ready::Finished => return Ok(Ready::Finished),
            Ready::No => {
                return Err(TrainError::Peer(
                    "it cannot begin, and its message says why".to_owned(),
                ));
            }
        }
        self.agreed.set(true);
        self.agree(facts)?;
        self.will_judge();
        Ok(Ready::Yes)
    }

    fn agree(&self, facts: &BTreeMap<String, String>) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let different = exchange::difference(group, facts, "train")?;
        let [worst] = exchange::largest(group, [i64::from(different.is_some())])?;
        match different {
            Some(words) => Err(refused(words)),
            None if worst > 0 => Err(TrainError::Peer(
                "it trains something else, and its message says what".to_owned(),
            )),
            None => Ok(()),
        }
    }

    /// Gives all processes rank 0's state.
    ///
    /// # Errors
    /// A process that does not answer in time, or is gone.
    pub(crate) fn share_state(&self, state: &mut State) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let snapshot = state.snapshot();
        let counters = exchange::said_by_first(group, &snapshot.counters)?;
        let mut files: BTreeMap<&str, NamedTensors> = BTreeMap::new();
        for (file, tensors) in &snapshot.files {
            for (name, tensor) in tensors {
                // The values themselves, where they lie as they are sent.
                let values = tensor.f_detach()?.f_contiguous()?;
                group.broadcast(&values, 0)?;
                files.entry(*file).or_default().insert(name.clone(), values);
            }
        }
        if self.leads() {
            return Ok(());
        }
        let moments = files.remove("state").unwrap_or_default();
        let file = |name: &str| -> Result<NamedTensors> {
            let tensors = files.get(name).into_iter().flatten();
            Ok(tensors
                .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
                .collect())
        };
        state.take(&file, &moments, &counters, "rank 0")
    }

    /// The device of this process: [`placing::device`].
    ///
    /// # Errors
    /// Those of [`deepsim_experiment::device::choose`].
    pub(crate) fn device(&self, asked: &str) -> Result<Device> {
        placing::device(asked, self.local)
    }

    /// Sets in what gradients are exchanged.
    pub(crate) fn exchange_in(&self, reduce: config::Reduce) {
        self.reducer.set_bf16(reduce == config::Reduce::Bf16);
    }

    /// Checks that several processes can compute on this device, and train this way.
    ///
    /// # Errors
    /// [`ExperimentError::Ranks`].
    pub(crate) fn check(&self, device: Device, experiment: &Experiment) -> Result<()> {
        let in_parts = self.size > 1 || experiment.config.train.shards().is_some();
        if in_parts && device != Device::Cpu && experiment.normalises_batches() {
            return Err(refused(
                "batch normalisation finds the statistics of a batch that is in parts on CPUs alone: take --device cpu, or one \
                 process without train.deterministic_shards"
                    .to_owned(),
            ));
        }
        if self.size == 1 {
            return Ok(());
        }
        let leaves_out = experiment.config.data.bad_images() != BadImages::Fail;
        let reason = if device != Device::Cpu && !ProcessGroup::MOVES_CUDA {
            "compute on CPUs alone in this build: take --device cpu, or build with NCCL (docs/guide/several-machines.md): \
             cargo build --release -p deepsim-train --features nccl"
        } else if leaves_out {
            "cannot leave out corrupt images yet: set data.quarantine to 0"
        } else {
            return Ok(());
        };
        Err(refused(format!("they {reason}")))
    }
}

/// Rank 0 has said that it failed.
pub(crate) fn ended() -> TrainError {
    TrainError::Peer("rank 0 has ended, and its message says why".to_owned())
}

fn refused(reason: String) -> TrainError {
    ExperimentError::Ranks(reason).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Two processes, which are threads here, with the same state but for what `change` does to it in the second one.
    fn compared(change: fn(&mut State), due: bool) -> [Result<Option<u8>>; 2] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let threads = [0, 1].map(|rank| {
            let port = port.clone();
            std::thread::spawn(move || {
                let set = |name: &str| match name {
                    "RANK" => Some(rank.to_string()),
                    "WORLD_SIZE" => Some("2".to_owned()),
                    "MASTER_ADDR" => Some("127.0.0.1".to_owned()),
                    "MASTER_PORT" => Some(port.clone()),
                    _ => None,
                };
                let ranks = Ranks::join(set, Duration::from_secs(60)).unwrap();
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
                let small = ["generator.width=0.05".to_owned()];
                let file = folder.join("quickstart.toml");
                let experiment = Experiment::load(&file, &small).unwrap();
                let mut state = State::new(&experiment, None, Device::Cpu).unwrap();
                if rank == 1 {
                    change(&mut state);
                }
                ranks.stop((rank == 1).then_some(143), &state, due)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    }

    #[test]
    fn weights_that_differ_are_noticed_where_a_checkpoint_is_due() {
        let one_weight = |state: &mut State| {
            let _guard = tch::no_grad_guard();
            let last = state.generator.params().iter().last().unwrap();
            let _ = last
                .tensor
                .flatten(0, -1)
                .get(0)
                .f_add_scalar_(1e-6)
                .unwrap();
        };
        for (change, due, apart) in [
            ((|_| {}) as fn(&mut State), true, false),
            (one_weight, false, false),
            (one_weight, true, true),
        ] {
            for found in compared(change, due) {
                match found {
                    Err(TrainError::Apart { step: 0 }) => assert!(apart),
                    // A signal to one is one to all.
                    other => assert_eq!((other.unwrap(), apart), (Some(143), false)),
                }
            }
        }
    }
}
