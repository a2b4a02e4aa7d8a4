//! The training loop.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use deepsim_data::{Batch, Loader, Part};
use deepsim_experiment::config;
use deepsim_experiment::upload::to_caffe;
use deepsim_experiment::{Checkpoint, Experiment, ExperimentError, Intent, Perception};

pub use crate::end::End;
use crate::error::{Rescue, Result, TrainError};
use crate::follow::follow;
use crate::method::{Captured, Images, Losses, Plan, Slice, iteration_seed};
use crate::observe::metrics_log::{Means, MetricsLog};
use crate::observe::progress::Progress;
use crate::observe::report::{
    eval_entries, eval_line, gate_name, log_entries, warn_of_idle_networks,
};
use crate::observe::watch::Watch;
use crate::precision::settle;
use crate::preflight::{Prepared, Ready, finished, prepare, recorded};
use crate::ranks::{self, Ranks, Verdict};
use crate::reports::{Events, Shown, failed};
use crate::request::Request;
use crate::save::Saver;
use crate::signals::Stop;
use crate::state::State;

/// How long a batch is waited for before a signal is looked for again.
const PATIENCE: Duration = Duration::from_millis(200);

/// Trains an experiment to its last step, or until a signal.
///
/// # Errors
/// Everything that is wrong with the experiment, its inputs or the run directory, before the
/// first step; unreadable images, losses that are not finite, failed reports and a full disk later: then the
/// state is saved first, where it is valid. The last checkpoint is never harmed.
pub fn train(
    experiment: &Experiment,
    request: &Request,
    stop: &Stop,
    ranks: &Ranks,
) -> Result<End> {
    let mut request = request.clone();
    let mut rates = Rates::AsTheyAre;
    loop {
        match attempt(experiment, &request, rates, stop, ranks) {
            Err(TrainError::NotFinite {
                step, term, value, ..
            }) if experiment.config.train.not_finite == config::OnNotFinite::Halve => {
                if ranks.leads() {
                    tracing::warn!(
                        "step {step}: {term} is {value}: back to the last checkpoint, and on with \
                         half the learning rates"
                    );
                }
                request.intent = Intent::Resume;
                rates = Rates::Halved;
            }
            other => return other,
        }
    }
}

/// Learning rates of an attempt, against those of the checkpoint that it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rates {
    AsTheyAre,
    Halved,
}

/// Most halvings. If a number is still not finite, the learning rate is not the cause.
const HALVINGS: u64 = 8;

/// Trains until the end, a signal, or an error.
fn attempt(
    experiment: &Experiment,
    request: &Request,
    rates: Rates,
    stop: &Stop,
    ranks: &Ranks,
) -> Result<End> {
    // After a halving there is a run: a signal is remembered, and the loop says how to go on.
    if rates == Rates::AsTheyAre {
        stop.nothing_to_save();
    }
    let manifest = ranks.recorded(|| recorded(experiment, request))?;
    ranks.anew();
    let read = || recorded(experiment, request);
    let settled = settle(experiment, request, manifest.as_ref(), read, ranks)?;
    let experiment = &*settled;
    if !ranks.leads() {
        return follow(experiment, request, manifest.as_ref(), stop, ranks);
    }
    let mut training = match begin(experiment, request, rates, stop, ranks) {
        Ok(Begun::Training(training)) => *training,
        Ok(Begun::Finished(step)) => {
            ranks.ready(ranks::Ready::Finished)?;
            return Ok(End::Done(step));
        }
        Err(error) => {
            ranks.give_up(&error);
            return Err(error);
        }
    };
    ranks.verdict(Verdict::GoOn)?;
    ranks.share_state(&mut training.state)?;
    training.run(stop)
}

/// What there is of a training before its next step.
enum Begun<'a> {
    /// All steps are done.
    Finished(u64),
    /// It is ready.
    Training(Box<Training<'a>>),
}

fn begin<'a>(
    experiment: &'a Experiment,
    request: &Request,
    rates: Rates,
    stop: &Stop,
    ranks: &'a Ranks,
) -> Result<Begun<'a>> {
    let prepared = match prepare(experiment, request, stop, ranks)? {
        Ready::Begin(prepared) => prepared,
        Ready::Finished(step) => return Ok(Begun::Finished(step)),
    };
    let mut training = Training::new(experiment, *prepared, ranks)?;
    let step = training.state.step;
    if step >= training.settings.steps {
        finished(training.saver.run().path(), step, experiment);
    }
    if rates == Rates::Halved {
        if training.state.halvings == HALVINGS {
            return Err(TrainError::Hopeless { halvings: HALVINGS });
        }
        training.state.halvings += 1;
        // Save at once: if the process is killed now, a resume must not begin with the old rates.
        training.save()?;
    }
    Ok(Begun::Training(Box::new(training)))
}

/// What follows a step.
enum Next {
    Step,
    Stop(u8),
}

/// A training at work.
struct Training<'a> {
    experiment: &'a Experiment,
    settings: &'a config::Train,
    ranks: &'a Ranks,
    share: Slice,
    plan: Plan,
    captured: Captured,
    parts: Parts,
    state: State,
    loader: Loader,
    /// The first batch, which was read before anything was written.
    first: Option<Batch>,
    saver: Saver,
    log: MetricsLog,
    events: Events,
    progress: Progress,
    means: Means,
    watch: Watch,
    logged: (Instant, u64),
    /// Whether `state` is that after a complete step. An iteration that fails half-way leaves a mixture.
    valid: bool,
}

/// What a training looks at and never changes.
struct Parts {
    device: tch::Device,
    test: deepsim_data::Dataset,
    data: std::sync::Arc<deepsim_data::Dataset>,
    perception: Perception,
    /// Of the images that evaluations look at: how many are training images, where it is known.
    overlap: Option<usize>,
}

impl<'a> Training<'a> {
    fn new(experiment: &'a Experiment, ready: Prepared, ranks: &'a Ranks) -> Result<Training<'a>> {
        let settings = &experiment.config.train;
        let state = ready.state;
        let first = state.step;
        let mut watch = Watch::new(state.adam_g.count(), state.discriminator_updates());
        let mut means = Means::default();
        if let Some(counters) = &ready.counters {
            means = Means::restore(counters);
            watch.restore(counters);
        }
        let run = ready.run.path();
        let log = MetricsLog::open(&run.join("metrics.jsonl"), first)?;
        let events = Events::open(run, first)?;
        let saved = ready.counters.is_some().then_some(first);
        let plan = Plan::of(experiment);
        let mut training = Training {
            experiment,
            settings,
            ranks,
            share: ready.share,
            captured: Captured::new(experiment, &state, &plan, ranks, ready.device)?,
            plan,
            parts: Parts {
                device: ready.device,
                test: ready.test,
                data: ready.data,
                perception: ready.perception,
                overlap: ready.overlap,
            },
            state,
            loader: ready.loader,
            first: Some(ready.batch),
            saver: Saver::new(ready.run, ready.manifest, settings.keep_checkpoints, saved),
            log,
            events,
            progress: Progress::new(first, settings.steps),
            means,
            watch,
            logged: (Instant::now(), first),
            valid: true,
        };
        training.catch_up()?;
        Ok(training)
    }

    /// A checkpoint is written before the log's line of its step. If the run was interrupted between the two, the line
    /// is written now. If the line is there, its means are discarded.
    fn catch_up(&mut self) -> Result<()> {
        if self.means.is_empty() {
            return Ok(());
        }
        let step = self.state.step;
        if self.log.has_line_of(step) {
            self.means = Means::default();
        } else if step >= self.settings.steps || step.is_multiple_of(self.settings.log_every) {
            // If the line cannot be written, its means become part of the next line.
            match self.log() {
                Ok(entries) => self.events.scalars(step, &entries)?,
                Err(error) => tracing::warn!("the line of step {step} is missing: {error}"),
            }
        }
        Ok(())
    }

    /// Steps until the last, a signal or an error.
    fn run(mut self, stop: &Stop) -> Result<End> {
        let begun = self.state.step;
        while self.state.step < self.settings.steps {
            let next = guarded(|| self.step(stop));
            match next {
                Ok(Next::Step) => {}
                Ok(Next::Stop(code)) => {
                    self.progress.finish();
                    let step = self.state.step;
                    // It may wait for a disk that does not answer.
                    std::mem::forget(self.loader);
                    return Ok(End::Stopped(step, code));
                }
                Err(error) => {
                    self.progress.finish();
                    return Err(self.rescue(error, begun));
                }
            }
        }
        self.progress.finish();
        Ok(End::Done(self.state.step))
    }

    /// One step, and what is due after it, which the other processes wait for.
    fn step(&mut self, stop: &Stop) -> Result<Next> {
        let batch = loop {
            // Several processes stop after the same step.
            if let (Some(code), 1) = (stop.asked(), self.ranks.size()) {
                return self.stopped(code);
            }
            if let Some(batch) = self.first.take() {
                break batch;
            }
            if let Some(batch) = self.loader.next_batch_within(PATIENCE)? {
                break batch;
            }
        };
        let losses = self.iterate(batch)?;
        self.means.add(&losses);
        let agreed = self.ranks.stop(stop.asked(), &self.state, self.saves());
        if let Err(TrainError::Apart { .. }) = agreed {
            self.valid = false;
        }
        let agreed = agreed?;
        stop.something_to_save();
        self.progress.tick(&self.means);
        warn_of_idle_networks(&mut self.watch, &self.state, &self.plan, &losses);
        let next = guarded(|| self.due(stop, agreed));
        let verdict = match &next {
            Ok(Next::Step) => Verdict::GoOn,
            Ok(Next::Stop(code)) => Verdict::Stop(*code),
            Err(TrainError::NotFinite { .. }) => Verdict::NotFinite,
            Err(_) => Verdict::Failed,
        };
        let told = self.ranks.verdict(verdict);
        let next = next?;
        told?;
        Ok(next)
    }

    /// Whether a checkpoint is due after this step.
    fn saves(&self) -> bool {
        let step = self.state.step;
        step == self.settings.steps || step.is_multiple_of(self.settings.checkpoint_every)
    }

    /// What is due after a step: the checkpoint, then a line of the log, then all that only reports. `agreed` is the
    /// signal to any process.
    fn due(&mut self, stop: &Stop, agreed: Option<u8>) -> Result<Next> {
        // Another process's signal stops this one, too.
        let asked = || stop.asked().or(agreed);
        let step = self.state.step;
        let last = step == self.settings.steps;
        let due = |every: u64| last || every > 0 && step.is_multiple_of(every);
        // First: whatever the log says, a checkpoint of that step is there. It holds the means of which the line is
        // made, so that a resume can write a line that is missing.
        if self.saves() {
            self.save()?;
        }
        if due(self.settings.log_every) {
            let entries = self.log().map_err(|e| failed("the log", step, e))?;
            let written = self.events.scalars(step, &entries);
            written.map_err(|e| failed("TensorBoard's events", step, e))?;
        }
        if let (Some(code), false) = (asked(), last) {
            return self.stopped(code);
        }
        if due(self.settings.sample_every) {
            let drawn = self.shown().sample();
            let written = drawn.and_then(|png| self.events.sheet(step, &png));
            written.map_err(|e| failed("the sample sheet", step, e))?;
        }
        if due(self.settings.eval_every) {
            let stopped = match self.evaluate(step) {
                Err(TrainError::Experiment(ExperimentError::Interrupted)) => asked(),
                other => {
                    other.map_err(|e| failed("the held-out error", step, e))?;
                    None
                }
            };
            if let Some(code) = stopped {
                return self.stopped(code);
            }
        }
        match asked() {
            Some(code) if !last => self.stopped(code),
            _ => Ok(Next::Step),
        }
    }

    /// One iteration, after which the state is that of the next step.
    fn iterate(&mut self, batch: Batch) -> Result<Losses> {
        let x = to_caffe(&batch.images, self.parts.device)?;
        let Parts {
            data, perception, ..
        } = &self.parts;
        let recorded = perception.recorded(Part::Train, data, &batch.indices)?;
        self.loader.recycle(batch);
        let state = &mut self.state;
        for (&image, reason) in self.loader.quarantined() {
            if state.quarantined.insert(image) {
                tracing::warn!(step = state.step + 1, "left out: {reason}");
            }
        }
        let seed = iteration_seed(self.settings.seed, state.step);
        let updates = state.updates();
        self.valid = false;
        let images = Images {
            x: &x,
            recorded: recorded.as_ref(),
            slice: self.share,
        };
        let (ranks, plan) = (self.ranks, &self.plan);
        let captured = &mut self.captured;
        let losses = captured.iterate(ranks, state, perception, &images, plan, seed);
        // Running statistics of batch normalisation and vectors of power iterations move before any weight does.
        let untouched = updates == state.updates() && !self.experiment.changes_before_updates();
        self.valid = losses.is_ok() || untouched;
        losses
    }

    /// Writes a line of the log, of the means since the last.
    fn log(&mut self) -> Result<Vec<(Cow<'static, str>, serde_json::Value)>> {
        let step = self.state.step;
        let (at, before) = self.logged;
        let kept = self.means.clone();
        let means = self.means.take();
        let n = (step - before) as f64 * self.settings.batch_size as f64;
        let images_per_s = if step > before {
            n / at.elapsed().as_secs_f64().max(1e-9)
        } else {
            // The line is that of an earlier process, whose speed is not known.
            f64::NAN
        };
        self.logged = (Instant::now(), step);
        let mut entries = log_entries(
            &means,
            &self.state,
            self.experiment,
            images_per_s,
            &self.watch,
            self.state.quarantined.len(),
        );
        if let Some(time) = self.ranks.time_in_sums()
            && step > before
        {
            // Of a step.
            let seconds = time.as_secs_f64() / (step - before) as f64;
            entries.push((Cow::Borrowed("sums_s"), seconds.into()));
        }
        if step > before {
            let lr = self.experiment.config.optimizer.generator.lr * self.state.rate();
            let gate = gate_name(&self.state);
            self.progress.report(step, &means, images_per_s, gate, lr);
        }
        match self.log.write(step, &entries) {
            Ok(()) => Ok(entries),
            Err(error) => {
                // The next line will include these steps.
                self.means = kept;
                Err(error)
            }
        }
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            run: self.saver.run().path(),
            experiment: self.experiment,
            test: &self.parts.test,
            perception: &self.parts.perception,
            state: &self.state,
            device: self.parts.device,
        }
    }

    /// Measures held-out errors and writes them down.
    fn evaluate(&mut self, step: u64) -> Result<()> {
        match self.shown().evaluate()? {
            Ok(errors) => {
                let entries = eval_entries(&errors, self.parts.overlap);
                self.log.write(step, &entries)?;
                self.events.scalars(step, &entries)?;
                tracing::info!(
                    step,
                    image_error = errors.image_error,
                    "{}",
                    eval_line(step, &errors)
                );
            }
            // Nothing is wrong with the training.
            Err(error) => {
                tracing::info!(step, "step {step}: no held-out error: {error}");
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let (before, step) = (self.saver.saved(), self.state.step);
        let perception = &self.parts.perception;
        let saved = self
            .saver
            .save(&self.state, perception, &self.means, &self.watch);
        match saved {
            Ok(()) => Ok(()),
            Err(error @ TrainError::NotFinite { .. }) => {
                self.valid = false;
                Err(error)
            }
            Err(error @ TrainError::Gone { .. }) => Err(error),
            // An older one could not be removed, or the directory was moved.
            Err(error) if self.saver.saved() == Some(step) && before != Some(step) => Err(error),
            Err(error) => Err(TrainError::Saving {
                step,
                newest: before,
                source: Box::new(error),
            }),
        }
    }

    /// Saves what is not saved yet.
    fn stopped(&mut self, code: u8) -> Result<Next> {
        if self.saver.saved() != Some(self.state.step) {
            self.save()?;
        }
        Ok(Next::Stop(code))
    }

    /// Saves what can be saved before an error ends the program.
    fn rescue(mut self, error: TrainError, begun: u64) -> TrainError {
        // It may wait for a disk that does not answer.
        let run = self.saver.run().path().to_owned();
        let newest = self.saver.saved();
        let step = self.state.step;
        let rescue = match &error {
            TrainError::NotFinite {
                step, term, value, ..
            } => {
                return TrainError::NotFinite {
                    step: *step,
                    term: term.clone(),
                    value: *value,
                    newest,
                };
            }
            TrainError::Saving { .. } | TrainError::Moved { .. } | TrainError::Gone { .. } => {
                return error;
            }
            _ if !self.valid => Rescue::Spoilt {
                step: step + 1,
                newest,
            },
            _ if newest == Some(step) && step >= self.settings.steps => Rescue::Done { step, run },
            _ if newest == Some(step) => Rescue::Saved { step, run },
            _ if step == begun => Rescue::Nothing { newest },
            _ => match guarded(|| self.save()) {
                Ok(()) => Rescue::Saved { step, run },
                Err(TrainError::Saving { source, .. }) => Rescue::Lost {
                    step,
                    newest,
                    reason: source.to_string(),
                },
                Err(other) => Rescue::Lost {
                    step,
                    newest,
                    reason: other.to_string(),
                },
            },
        };
        std::mem::forget(self.loader);
        TrainError::Failed {
            source: Box::new(error),
            rescue,
        }
    }
}

/// Turns a panic into an error: what was learned so far is not lost by it.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(TrainError::Panicked(
            text.unwrap_or("no reason given").to_owned(),
        ))
    })
}

/// The newest checkpoint of a run, for callers that only read.
///
/// # Errors
/// No checkpoint, or none that verifies.
pub fn newest(run: &Path) -> Result<Checkpoint> {
    match Checkpoint::newest(&run.join("checkpoints"))? {
        Some(checkpoint) => Ok(checkpoint),
        None => Err(TrainError::from(ExperimentError::NoCheckpoint {
            path: run.to_owned(),
        })),
    }
}
