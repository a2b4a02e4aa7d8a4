//! The options of a training besides its experiment.

use std::path::PathBuf;

use deepsim_experiment::{Consent, Intent};

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
