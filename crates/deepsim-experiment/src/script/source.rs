//! What an experiment says of a TorchScript module.

use std::path::PathBuf;

use deepsim_nets::FeatureShape;

use crate::config::{OutputTap, Units};

/// A TorchScript module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptSource {
    /// The file that `torch.jit.save` wrote.
    pub file: PathBuf,
    /// What of its output is taken.
    pub output: OutputTap,
    /// What it takes.
    pub units: Units,
    /// Shape of one image's features, stated where a generator must be built for them.
    pub shape: Option<FeatureShape>,
}
