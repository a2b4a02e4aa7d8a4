//! Checkpoints of a run at work.

use std::time::Instant;

use deepsim_experiment::SCALE_FILE;
use deepsim_experiment::{Manifest, Perception, RunDir, Whereabouts, checkpoint};

use crate::error::{Result, TrainError};
use crate::observe::metrics_log::Means;
use crate::observe::watch::Watch;
use crate::state::State;

/// Writes checkpoints of a run.
pub(crate) struct Saver {
    run: RunDir,
    manifest: Manifest,
    keep: usize,
    /// Seconds of training before this process began.
    earlier: f64,
    begun: Instant,
    saved: Option<u64>,
}

impl Saver {
    /// `saved` is the step that the run goes on from, where there is one.
    pub(crate) fn new(run: RunDir, manifest: Manifest, keep: usize, saved: Option<u64>) -> Saver {
        Saver {
            run,
            earlier: manifest.seconds,
            manifest,
            keep,
            begun: Instant::now(),
            saved,
        }
    }

    /// The run.
    pub(crate) fn run(&self) -> &RunDir {
        &self.run
    }

    /// The step of the newest checkpoint.
    pub(crate) fn saved(&self) -> Option<u64> {
        self.saved
    }

    /// Writes a checkpoint, and removes older ones than are to be kept.
    ///
    /// # Errors
    /// A weight or moment that is not finite; what cannot be written.
    pub(crate) fn save(
        &mut self,
        state: &State,
        perception: &Perception,
        means: &Means,
        watch: &Watch,
    ) -> Result<()> {
        if !state.is_finite()? {
            return Err(TrainError::NotFinite {
                step: state.step,
                term: "a weight, or what Adam remembers of one,".to_owned(),
                value: f64::NAN,
                newest: self.saved,
            });
        }
        self.manifest.step = state.step;
        self.manifest.seconds = self.earlier + self.begun.elapsed().as_secs_f64();
        let mut snapshot = state.snapshot();
        snapshot.counters.extend(means.counters());
        snapshot.counters.extend(watch.counters());
        if let Some(scale) = perception.scale() {
            snapshot.files.insert(SCALE_FILE, scale.tensors());
        }
        let run = self.run.path().to_owned();
        let step = state.step;
        let folder = match self.run.whereabouts() {
            Whereabouts::Here => self.run.checkpoints(),
            Whereabouts::Moved(to) => to.join("checkpoints"),
            Whereabouts::Gone => return Err(TrainError::Gone { run, step }),
        };
        checkpoint::write(&folder, self.manifest.clone(), &snapshot)?;
        self.saved = Some(step);
        if let Whereabouts::Moved(to) = self.run.whereabouts() {
            return Err(TrainError::Moved { run, to, step });
        }
        self.run.retain(self.keep, state.step)?;
        Ok(())
    }
}
