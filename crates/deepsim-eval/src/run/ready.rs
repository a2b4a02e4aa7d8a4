//! A generator ready to use: of a trained run, or released weights without any training here.

use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_data::{Dataset, Framing};
use deepsim_experiment::networks;
use deepsim_experiment::recorded::Scale;
use deepsim_experiment::source::Features;
use deepsim_experiment::{Checkpoint, Consent, Experiment, ModelWeights, run_dir};
use deepsim_nets::Generator;
use deepsim_nets::params::read_safetensors;
use tch::Device;

use crate::error::{EvalError, Result};
use crate::run::catalog;
use crate::run::loaded::same;

/// A generator and what is known of the features that it takes.
#[derive(Debug)]
pub struct Ready {
    /// The experiment that says which features those are.
    pub experiment: Experiment,
    /// The generator.
    pub generator: Generator,
    /// What features are moved and divided by before the generator sees them.
    pub scale: Option<Scale>,
    run: Option<(PathBuf, Checkpoint)>,
}

impl Ready {
    /// The generator of a run's newest checkpoint, with these of its weights. Neither the encoder's weights nor recorded features
    /// nor images need be there.
    ///
    /// # Errors
    /// No experiment or checkpoint there; damaged files; an experiment file that changed since.
    pub fn of_run(path: &Path, weights: ModelWeights, device: Device) -> Result<Ready> {
        catalog::check(path)?;
        let (experiment, checkpoint) = run_dir::read(path)?;
        Ok(Ready {
            experiment,
            generator: checkpoint.generator_of(weights, device)?,
            scale: Scale::of(&checkpoint)?,
            run: Some((path.to_owned(), checkpoint)),
        })
    }

    /// Weights of a generator, such as a released one that `deepsim-weights import caffemodel` wrote,
    /// with the experiment that describes it.
    ///
    /// # Errors
    /// Weights that are not those of the experiment's generator; an experiment whose features are
    /// scaled by numbers that only its run knows.
    pub fn of_weights(experiment: &Path, weights: &Path, device: Device) -> Result<Ready> {
        let experiment = Experiment::load(experiment, &[])?;
        let scaled = experiment.config.encoder.normalize;
        if scaled.is_some_and(|n| n != deepsim_experiment::config::Normalize::None) {
            return Err(EvalError::ScaleUnknown {
                experiment: experiment.path,
            });
        }
        let values = read_safetensors(weights)?;
        let generator = Generator::from_values(
            experiment.generator.clone(),
            &values,
            &format!("the generator of {}", shown(&experiment.path)),
            &shown(weights),
            device,
        )?;
        Ok(Ready {
            experiment,
            generator,
            scale: None,
            run: None,
        })
    }

    /// How images become those that the generator was made for: as the run says, or as the images that it was held out on
    /// do, if they are there and the same.
    ///
    /// # Errors
    /// A run that does not say it, and whose images are gone or changed.
    pub fn framing(&self) -> Result<Framing> {
        let path = &self.experiment.config.data.test;
        let there = Dataset::open(path).ok();
        let Some((run, checkpoint)) = &self.run else {
            return Ok(there.map_or(Framing::USUAL, |data| data.framing()));
        };
        let then = &checkpoint.manifest;
        match (then.framing, there) {
            (Some(framing), _) => Ok(framing),
            (None, Some(data)) if data.digest() == then.test_data => Ok(data.framing()),
            (None, there) => Err(EvalError::FramingUnknown {
                run: run.clone(),
                data: path.clone(),
                state: match there {
                    Some(_) => "has changed since",
                    None => "is not there",
                },
            }),
        }
    }

    /// The encoder; a run's is checked to be the one that it was trained with.
    ///
    /// # Errors
    /// Missing, wrong or changed weights; features that were recorded elsewhere; a TorchScript module without consent.
    pub fn encoder(&self, consent: &Consent, device: Device) -> Result<Box<dyn Features>> {
        let source = &self.experiment.encoder;
        // A run's own file binds like the run: another module than its own is allowed by its hash alone.
        let recorded = match &self.run {
            None if consent.is_bare() => run_dir::of_file(&self.experiment.path)?,
            _ => None,
        };
        let permit = match self.run.as_ref().or(recorded.as_ref()) {
            Some((path, checkpoint)) => consent.on_run(path, &checkpoint.manifest),
            None => consent.at_first(&self.experiment.path),
        };
        let net = networks::open("encoder", source, &permit, device)?;
        if let Some((path, checkpoint)) = &self.run {
            let then = &checkpoint.manifest.encoder_weights;
            same(path, "encoder.weights", then, &source.hash()?)?;
        }
        Ok(net)
    }
}
