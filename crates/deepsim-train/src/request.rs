//! The options of a training besides its experiment.

use std::path::PathBuf;

use deepsim_experiment::{Consent, Experiment, Intent, Manifest, Permit};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Run directory.
    pub out: PathBuf,
    /// What to do with results that are there.
    pub intent: Intent,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Which TorchScript modules may be run.
    pub consent: Consent,
}

impl Request {
    /// What its consent means for a run that has `recorded` what it was trained with, or for a first training.
    pub(crate) fn permit<'a>(
        &'a self,
        experiment: &'a Experiment,
        recorded: Option<&'a Manifest>,
    ) -> Permit<'a> {
        match recorded {
            Some(manifest) => self.consent.on_run(&self.out, manifest),
            None => self.consent.at_first(&experiment.path),
        }
    }
}
