//! What a run writes besides checkpoints: sample sheets, held-out errors, TensorBoard's events.

use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use deepsim_data::{Augment, Dataset};
use deepsim_experiment::evaluate::{decode, held_out, held_out_features};
use deepsim_experiment::networks::Networks;
use deepsim_experiment::upload::to_caffe;
use deepsim_experiment::{
    Clip, Experiment, ExperimentError, HeldOut, Perception, checkpoint, files, measure, sheet,
};
use deepsim_nets::NetError;
use serde_json::Value;
use tch::Device;

use crate::error::{Result, TrainError};
use crate::observe::tensorboard::EventWriter;
use crate::state::State;

/// Images on a sample sheet.
pub(crate) const SHEET: usize = 8;

/// TensorBoard's event file of this process.
pub(crate) struct Events {
    writer: EventWriter,
    folder: PathBuf,
}

impl Events {
    /// Starts a file for the steps after `first`: what other files hold of them is dropped when they are shown.
    pub(crate) fn open(run: &Path, first: u64) -> Result<Events> {
        let folder = run.join("tensorboard");
        let open = || -> std::io::Result<EventWriter> {
            std::fs::create_dir_all(&folder)?;
            if std::fs::read_dir(&folder)?.next().is_none() {
                EventWriter::create(&folder)
            } else {
                EventWriter::resume(&folder, first + 1, now())
            }
        };
        let writer = open().map_err(ExperimentError::io(&folder))?;
        Ok(Events { writer, folder })
    }

    /// Numbers of a step.
    pub(crate) fn scalars(&mut self, step: u64, entries: &[(Cow<'_, str>, Value)]) -> Result<()> {
        let as_number = |v: &Value| v.as_f64().or_else(|| v.as_bool().map(f64::from));
        let numbers: Vec<(&str, f64)> = entries
            .iter()
            .filter_map(|(k, v)| Some((k.as_ref(), as_number(v)?)))
            .collect();
        let written = self
            .writer
            .scalars(step, now(), &numbers)
            .and_then(|()| self.writer.flush());
        Ok(written.map_err(ExperimentError::io(&self.folder))?)
    }

    /// A sample sheet.
    pub(crate) fn sheet(&mut self, step: u64, png: &sheet::Png) -> Result<()> {
        let tag = "reconstructions";
        let written = self
            .writer
            .image_png(step, now(), tag, png.width, png.height, &png.bytes);
        Ok(written.map_err(ExperimentError::io(&self.folder))?)
    }
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

/// What reports are made from.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub run: &'a Path,
    pub experiment: &'a Experiment,
    pub test: &'a Dataset,
    pub perception: &'a Perception,
    pub state: &'a State,
    pub device: Device,
}

impl Shown<'_> {
    fn networks(&self) -> Networks<'_> {
        self.perception.with(self.state.shown_encoder())
    }

    fn augment(&self) -> Augment {
        self.experiment.augment()
    }

    /// Writes `samples/step-….png`: held-out images above their reconstructions.
    pub(crate) fn sample(&self) -> Result<sheet::Png> {
        let _guard = tch::no_grad_guard();
        let shown = measure::chosen(self.test, SHEET);
        let images = deepsim_data::eval_batch(self.test, &shown, &self.augment())?;
        let x = to_caffe(&images, self.device)?;
        let features = held_out_features(self.networks(), self.test, &shown, &x)?;
        let generator = self.state.shown_generator();
        let y = decode(generator, &features, Clip::Displayable)?;
        let png = sheet::rows(&[&x, &y])?;
        let folder = self.run.join("samples");
        let name = checkpoint::directory_name(self.state.step);
        let path = folder.join(format!("{name}.png"));
        std::fs::create_dir_all(&folder)
            .and_then(|()| files::replace(&path, &png.bytes))
            .map_err(ExperimentError::io(&path))?;
        Ok(png)
    }

    /// Held-out errors, or why there are none although nothing is wrong with the training.
    pub(crate) fn evaluate(&self) -> Result<std::result::Result<HeldOut, NetError>> {
        let errors = held_out(
            self.test,
            &self.augment(),
            self.networks(),
            self.state.shown_generator(),
            self.experiment.config.train.eval_images,
            Clip::Displayable,
            self.device,
        );
        match errors {
            Ok(errors) => Ok(Ok(errors)),
            Err(ExperimentError::Net(error @ NetError::AllAlike)) => Ok(Err(error)),
            Err(error) => Err(error.into()),
        }
    }
}

/// An error of a report, with what to do about it.
pub(crate) fn failed(what: &'static str, step: u64, source: TrainError) -> TrainError {
    TrainError::Report {
        what,
        step,
        source: Box::new(source),
    }
}

/// Whether a log that holds losses of a step holds its held-out errors too; none where it holds neither.
pub(crate) fn is_evaluated(run: &Path, step: u64) -> Option<bool> {
    let file = files::open(&run.join("metrics.jsonl")).ok()?;
    let (mut logged, mut evaluated) = (false, false);
    for line in BufReader::new(file).lines() {
        let Ok(value) = serde_json::from_str::<Value>(&line.ok()?) else {
            continue;
        };
        if value.get("step").and_then(Value::as_u64) == Some(step) {
            logged |= value.get("lr").is_some();
            evaluated |= value.get("eval.n").is_some();
        }
    }
    (logged || evaluated).then_some(evaluated)
}
