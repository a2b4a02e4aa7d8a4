//! What can stop a training.

use std::fmt::{Display, Formatter};
use std::path::PathBuf;

use deepsim_data::DataError;
use deepsim_data::terminal::path as shown;
use deepsim_experiment::{ExperimentError, exchange};
use deepsim_nets::NetError;

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The experiment, its data or its directory.
    #[error(transparent)]
    Experiment(ExperimentError),
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
        "step {step}: {term} is {value}; {}. Lower optimizer.generator.lr or optimizer.discriminator.lr and start over, or go on by \
         --resume --set train.not_finite=halve{}",
        newest_words(*newest),
        at_first(*step)
    )]
    NotFinite {
        /// The iteration.
        step: u64,
        /// Which loss, or whose gradient, or that it was a weight.
        term: String,
        /// Its value.
        value: f64,
        /// The newest checkpoint, which is well.
        newest: Option<u64>,
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
    /// A checkpoint that could not be written.
    #[error(
        "step {step} could not be saved: {source}; {}. Make room or mend what is named, and go on by the same \
         command with --resume",
        newest_words(*newest)
    )]
    Saving {
        /// The step.
        step: u64,
        /// The newest checkpoint that is there.
        newest: Option<u64>,
        /// Why not.
        source: Box<TrainError>,
    },
    /// A run directory that was moved while it was trained in.
    #[error(
        "{0} was moved to {1} while it trained, which ends here: step {step} is saved there; go on by the same command \
         with --out {1} --resume",
        shown(run),
        shown(to)
    )]
    Moved {
        /// Where it was.
        run: PathBuf,
        /// Where it is.
        to: PathBuf,
        /// The step that was saved.
        step: u64,
    },
    /// A run directory that was removed while it was trained in.
    #[error(
        "{} was removed while it trained, or its lock was: step {step} could not be saved",
        shown(run)
    )]
    Gone {
        /// Where it was.
        run: PathBuf,
        /// The step.
        step: u64,
    },
    /// A report on a step whose state is well.
    #[error("step {step}: {what} failed: {source}{}", advice(what, source))]
    Report {
        /// Which report.
        what: &'static str,
        /// The step.
        step: u64,
        /// Why.
        source: Box<TrainError>,
    },
    /// A fault of the program.
    #[error("a fault of the program: {0}")]
    Panicked(String),
    /// What ended a training that was under way, and what became of its state.
    #[error("{source}{}\n{rescue}", remedy(source, rescue))]
    Failed {
        /// What ended it.
        source: Box<TrainError>,
        /// What became of the state.
        rescue: Rescue,
    },
    /// What ended a process while it trained along with rank 0.
    #[error("{0}{adv}", adv = remedy(.0, &Rescue::Nothing { newest: None }))]
    Along(Box<TrainError>),
    /// Another process of the training is gone, or does not answer.
    #[error("another process of this training has ended or does not answer: {0}")]
    Peer(String),
    /// Processes that have made the same steps and have different weights.
    #[error(
        "after step {step} the processes have different weights, which the same steps never give: a processor or a memory may \
         be faulty"
    )]
    Apart {
        /// The step.
        step: u64,
    },
    /// The thread pool could not be set up.
    #[error("train.threads: {0}")]
    Threads(String),
}

/// What became of the state of a training that an error has ended.
#[derive(Debug)]
pub enum Rescue {
    /// It is in a checkpoint.
    Saved {
        /// The checkpoint's step.
        step: u64,
        /// The run directory.
        run: PathBuf,
    },
    /// It is in a checkpoint, and there is no step left to do.
    Done {
        /// The last step.
        step: u64,
        /// The run directory.
        run: PathBuf,
    },
    /// No step was done.
    Nothing {
        /// The newest checkpoint.
        newest: Option<u64>,
    },
    /// It could not be written.
    Lost {
        /// Its step.
        step: u64,
        /// The newest checkpoint.
        newest: Option<u64>,
        /// Why not.
        reason: String,
    },
    /// It was in the middle of a step.
    Spoilt {
        /// The step.
        step: u64,
        /// The newest checkpoint.
        newest: Option<u64>,
    },
}

impl Display for Rescue {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Rescue::Saved { step, run } => write!(
                f,
                "saved at step {step} in {}; resume by the same command with --resume",
                shown(run)
            ),
            Rescue::Done { step, run } => write!(
                f,
                "saved at step {step} in {}: all steps are done, and nothing but what failed is missing",
                shown(run)
            ),
            Rescue::Nothing { newest } => {
                write!(
                    f,
                    "no step was done, nothing is lost; {}",
                    newest_words(*newest)
                )
            }
            Rescue::Lost {
                step,
                newest,
                reason,
            } => write!(
                f,
                "step {step} could not be saved either: {reason}; {}; mend what is named, and go on by the same \
                 command with --resume",
                newest_words(*newest)
            ),
            Rescue::Spoilt { step, newest } => write!(
                f,
                "it happened in the middle of step {step}, whose state is no use; {}; resume by the same command \
                 with --resume",
                newest_words(*newest)
            ),
        }
    }
}

fn newest_words(newest: Option<u64>) -> String {
    newest.map_or("there is no checkpoint yet".to_owned(), |step| {
        format!("the newest checkpoint is of step {step}")
    })
}

/// Advice for a number that is not finite before the learning rates can be the cause: at the first step.
fn at_first(step: u64) -> &'static str {
    match step {
        0 | 1 => {
            ". At a first step with usual rates look at the weights in [loss], at the files of encoder and comparator, and \
             at the images (deepsim-data inspect)"
        }
        _ => "",
    }
}

/// What helps against a report that fails.
fn advice(what: &str, source: &TrainError) -> &'static str {
    match source {
        TrainError::Experiment(ExperimentError::Net(NetError::Torch(_) | NetError::Aten(_)))
            if what == "the held-out error" =>
        {
            "; fewer images need less memory: --set train.eval_images=N"
        }
        _ => "",
    }
}

/// Advice on how to resume after an error.
fn remedy(source: &TrainError, rescue: &Rescue) -> &'static str {
    match source {
        _ if matches!(rescue, Rescue::Done { .. }) => "",
        TrainError::Experiment(ExperimentError::Data(
            DataError::BadImage { .. } | DataError::BadSample { .. },
        )) => "; put it right, or leave it out by --set data.quarantine=1 (one process alone)",
        TrainError::Report { .. } => {
            "; the run can go on: what failed is left out for this step, and comes again when it is next due"
        }
        _ => "",
    }
}

impl TrainError {
    /// 2 for what the user can mend before trying again (experiment, inputs, run directory),
    /// 1 for what went wrong while training, whatever it was.
    pub fn exit_code(&self) -> u8 {
        match self {
            TrainError::NotFinite { .. }
            | TrainError::Along(_)
            | TrainError::Apart { .. }
            | TrainError::Hopeless { .. }
            | TrainError::Moved { .. }
            | TrainError::Gone { .. }
            | TrainError::Saving { .. }
            | TrainError::Report { .. }
            | TrainError::Panicked(_)
            | TrainError::Peer(_)
            | TrainError::Failed { .. } => 1,
            TrainError::Experiment(e) => e.exit_code(),
            TrainError::Counter { .. } | TrainError::Threads(_) => 2,
        }
    }
}

impl From<ExperimentError> for TrainError {
    fn from(e: ExperimentError) -> TrainError {
        match e {
            ExperimentError::Peer(reason) => TrainError::Peer(reason),
            other => TrainError::Experiment(other),
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
        exchange::lost(e).into()
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TrainError>;
