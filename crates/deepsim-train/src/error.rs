//! What can stop a training.

use deepsim_experiment::ExperimentError;
use deepsim_nets::NetError;

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The experiment, its data or its directory.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// A checkpoint without one of its counters.
    #[error("checkpoint {checkpoint}: state.safetensors has no counter `{name}`")]
    Counter {
        /// The checkpoint's directory.
        checkpoint: String,
        /// The counter.
        name: String,
    },
    /// A loss or a gradient that is not a number any more.
    #[error(
        "step {step}: {term} is {value}; the last checkpoint is untouched. \
         Lower optimizer.generator.lr or optimizer.discriminator.lr and start over, or go on by \
         --resume --set train.not_finite=halve"
    )]
    NotFinite {
        /// The iteration.
        step: u64,
        /// Which loss, or whose gradient, or that it was a weight.
        term: &'static str,
        /// Its value.
        value: f64,
    },
    /// Halving the learning rates has not helped.
    #[error(
        "losses are still not finite after the learning rates were halved {halvings} times: it is not the \
         rate, or the last checkpoint was spoilt already: remove it and --resume from the one before"
    )]
    Hopeless {
        /// How often.
        halvings: u64,
    },
    /// The thread pool could not be set up.
    #[error("train.threads: {0}")]
    Threads(String),
}

impl TrainError {
    /// 2 for what the user can mend before trying again (experiment, inputs, run directory),
    /// 1 for what went wrong while computing.
    pub fn exit_code(&self) -> u8 {
        match self {
            TrainError::NotFinite { .. } | TrainError::Hopeless { .. } => 1,
            TrainError::Experiment(e) => e.exit_code(),
            TrainError::Counter { .. } | TrainError::Threads(_) => 2,
        }
    }
}

impl From<NetError> for TrainError {
    fn from(e: NetError) -> TrainError {
        TrainError::Experiment(e.into())
    }
}

impl From<tch::TchError> for TrainError {
    fn from(e: tch::TchError) -> TrainError {
        TrainError::Experiment(e.into())
    }
}

impl From<deepsim_data::DataError> for TrainError {
    fn from(e: deepsim_data::DataError) -> TrainError {
        TrainError::Experiment(e.into())
    }
}

impl From<deepsim_nets::AtenError> for TrainError {
    fn from(e: deepsim_nets::AtenError) -> TrainError {
        NetError::from(e).into()
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TrainError>;
