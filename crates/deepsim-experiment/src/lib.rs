//! What an experiment is: a strict TOML file, a run directory, checkpoints, and the networks and
//! held-out errors that training and evaluation both need.

pub mod checkpoint;
mod comparing;
pub mod config;
pub mod consent;
mod contents;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod exchange;
pub mod experiment;
mod extends;
pub mod feature_folder;
pub mod features_file;
pub use deepsim_files as files;
pub mod fixed;
mod folder;
pub mod hash;
pub mod initial;
mod inputs;
pub mod interrupt;
pub mod measure;
pub mod networks;
pub mod overrides;
pub mod processes;
pub mod recorded;
pub mod rendezvous;
pub mod run_dir;
pub mod script;
pub mod sheet;
pub mod source;
pub mod suggest;
pub mod upload;

pub use checkpoint::{
    AVERAGED_ENCODER_FILE, AVERAGED_GENERATOR_FILE, Checkpoint, ENCODER_FILE, Manifest,
    ModelWeights, SCALE_FILE, Snapshot,
};
pub use consent::{Consent, Permit};
pub use error::ExperimentError;
pub use evaluate::Clip;
pub use experiment::Experiment;
pub use fixed::Fixed;
pub use measure::{HeldOut, Norm};
pub use networks::Perception;
pub use processes::Processes;
pub use run_dir::{Intent, RunDir, Start, Whereabouts};
