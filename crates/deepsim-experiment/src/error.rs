//! What can be wrong with an experiment on disk.

use std::path::{Path, PathBuf};

use deepsim_data::names::visible;
use deepsim_data::terminal::{one_line, path as shown};

/// A broken invariant of an experiment file, a run directory or a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A file or folder that cannot be used.
    #[error("{}: {source}", shown(path))]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder where an experiment file is asked for.
    #[error(
        "{} is a folder; an experiment is a .toml file{}",
        shown(path),
        own.as_ref().map_or_else(String::new, |own| format!(": this folder's is {}", shown(own)))
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The experiment in it, if it is a run.
        own: Option<PathBuf>,
    },
    /// An experiment file that is not there.
    #[error(
        "no experiment file {}{}", crate::suggest::tried(path),
        meant.as_ref().map_or_else(String::new, |p| format!("; did you mean {}?", shown(p)))
    )]
    NoExperiment {
        /// What was named.
        path: PathBuf,
        /// What was probably meant.
        meant: Option<PathBuf>,
    },
    /// The experiment file is not what it should be; the text shows the place.
    #[error("{}: {message}", shown(path))]
    Toml {
        /// The experiment file.
        path: PathBuf,
        /// Line, column, the line itself and the reason.
        message: String,
    },
    /// A `--set` that cannot be applied.
    #[error("--set {}: {reason}", one_line(assignment))]
    Override {
        /// What was typed.
        assignment: String,
        /// Why not.
        reason: String,
    },
    /// A value that parses but cannot be used.
    #[error("{}: `{key}` {reason}", shown(path))]
    Invalid {
        /// The experiment file.
        path: PathBuf,
        /// Dotted key.
        key: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Files that the experiment needs are not on this machine.
    #[error("{} needs what is not on this machine:\n{}\n{help}", shown(path), missing.join("\n"))]
    MissingInputs {
        /// The experiment file.
        path: PathBuf,
        /// One paragraph for each.
        missing: Vec<String>,
        /// What can be run today.
        help: String,
    },
    /// The run directory has checkpoints and neither flag was given.
    #[error(
        "{} already holds this experiment up to step {step}; \
         continue it with --resume, or delete its results and start over with --fresh",
        shown(path)
    )]
    RunExists {
        /// The run directory.
        path: PathBuf,
        /// Its newest checkpoint.
        step: u64,
    },
    /// The run directory belongs to an experiment that differs in what may not change.
    #[error(
        "{} holds another experiment; these differ:\n  {}\n\
         use another --out, or delete the old results with --fresh",
        shown(path), differences.join("\n  ")
    )]
    AnotherExperiment {
        /// The run directory.
        path: PathBuf,
        /// `key: there X, here Y`.
        differences: Vec<String>,
    },
    /// A run that has saved something and does not have it any more.
    #[error(
        "{}: checkpoints are missing: {reason}; put them back, or train again from the start (deepsim-train --fresh)",
        shown(path)
    )]
    CheckpointsMissing {
        /// The run directory.
        path: PathBuf,
        /// What is there instead.
        reason: String,
    },
    /// Checkpoints without the file that says what they are of.
    #[error(
        "{}: experiment.toml is missing beside its checkpoints: nothing says what they were trained with; \
         put it back, or train again, with another --out or from the start (deepsim-train --fresh)",
        shown(path)
    )]
    ExperimentMissing {
        /// The run directory.
        path: PathBuf,
    },
    /// An experiment file of a run that was changed after the run began.
    #[error(
        "{}/experiment.toml is not what this run was trained with (there: in its newest checkpoint, here: in the \
         file):\n  {}\nrestore what was there, or train again from the start (deepsim-train --fresh)",
        shown(path), differences.join("\n  ")
    )]
    ExperimentEdited {
        /// The run directory.
        path: PathBuf,
        /// `key: there X, here Y`.
        differences: Vec<String>,
    },
    /// A signal has asked to stop.
    #[error("stopped by a signal")]
    Interrupted,
    /// The run directory belongs to something else.
    #[error(
        "{} is not empty and holds no experiment.toml of a run (with its lock or its checkpoints); use another --out",
        shown(path)
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// A run whose link to checkpoints leads to those of another run.
    #[error(
        "{} leads to the checkpoints of {}: give this run a folder of its own in its place, or go on with that run",
        shown(path),
        shown(other)
    )]
    SharedCheckpoints {
        /// The link.
        path: PathBuf,
        /// The run that they are of.
        other: PathBuf,
    },
    /// Something else stands where a file or folder of the run goes.
    #[error("{} is {what}; move it away or use another --out", shown(path))]
    InTheWay {
        /// What it is.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another process is training into this directory.
    #[error(
        "{} is in use by {holder}; wait for it, stop it, or use another --out",
        shown(path)
    )]
    Locked {
        /// The run directory.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// Too little room for the checkpoints.
    #[error(
        "{} has {available} MB free, but checkpoints of this run need about {needed} MB; \
         free some space, use another --out, or lower train.keep_checkpoints",
        shown(path)
    )]
    DiskFull {
        /// The run directory.
        path: PathBuf,
        /// Megabytes needed.
        needed: u64,
        /// Megabytes there.
        available: u64,
    },
    /// A checkpoint that is damaged or was made otherwise.
    #[error("checkpoint {}: {reason}", shown(path))]
    Checkpoint {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What is wrong with which file or tensor.
        reason: String,
    },
    /// Checkpoints are there, and none of them can be read.
    #[error(
        "{}: none of its checkpoints is whole:\n  {}\nput back a copy, or train again from the start \
         (deepsim-train --fresh)",
        shown(path), damaged.join("\n  ")
    )]
    NoWholeCheckpoint {
        /// The folder of the checkpoints.
        path: PathBuf,
        /// What is wrong with each, the newest first.
        damaged: Vec<String>,
    },
    /// No checkpoint where one is needed.
    #[error("{} has no checkpoint yet; train it first", shown(path))]
    NoCheckpoint {
        /// The run directory.
        path: PathBuf,
    },
    /// A run was made with other data or weights than those named now.
    #[error(
        "{}: {what} changed since this run began (was {was}, is {is}); restore it, or train again from the start \
         (deepsim-train --fresh)",
        shown(path)
    )]
    InputChanged {
        /// The run directory.
        path: PathBuf,
        /// Which input.
        what: String,
        /// Hash in the checkpoint.
        was: String,
        /// Hash now.
        is: String,
    },
    /// Recorded features that cannot be used; everything that is wrong is listed.
    #[error("{} cannot be used:\n  {}", shown(path), problems.join("\n  "))]
    Recorded {
        /// The file.
        path: PathBuf,
        /// One line for each kind of trouble, with the first few names.
        problems: Vec<String>,
    },
    /// A TorchScript module that cannot be used.
    #[error("TorchScript module {}: {reason}", shown(path))]
    Script {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// TorchScript modules that the command line does not allow to run.
    #[error(
        "{}: {}.\nA TorchScript module is a program, and to load it is to run it; nothing of it was run. If you trust \
         its maker, type\n  {command}",
        shown(path),
        named(modules)
    )]
    NoConsent {
        /// The experiment or run.
        path: PathBuf,
        /// The modules.
        modules: Vec<Refused>,
        /// The whole command that would allow them.
        command: String,
    },
    /// Images are to be encoded, but the features of this experiment were recorded elsewhere.
    #[error(
        "the features of this experiment were recorded elsewhere ({}): no network here can encode a \
         image. Record its features as you did the others', and turn them into images by \
         `deepsim-eval decode FEATURES --run RUN`",
        shown(path)
    )]
    NoEncoder {
        /// The file of recorded features.
        path: PathBuf,
    },
    /// The discriminator's features are asked for where there is none.
    #[error("the comparator is the discriminator, which is there only while a run trains")]
    NoComparator,
    /// The discriminator is asked for where none trained.
    #[error(
        "{} has no discriminator: its run was trained without an adversarial term",
        shown(path)
    )]
    NoDiscriminator {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A frozen encoder is asked for where it learns.
    #[error("the encoder learned along: its weights are in the checkpoints of its run alone")]
    Learns,
    /// A device that this machine or this libtorch does not have.
    #[error("device `{}`: {reason}", one_line(asked))]
    Device {
        /// What was asked for.
        asked: String,
        /// Why not.
        reason: String,
    },
    /// Several processes that cannot work together: what they were told contradicts, or one does not come.
    #[error("several processes: {0}")]
    Ranks(String),
    /// Another process of an evaluation is gone, or does not answer.
    #[error("another process of this evaluation has ended or does not answer: {0}")]
    Peer(String),
    /// What another process of an evaluation has failed of.
    #[error("rank {rank} has failed: {text}")]
    Elsewhere {
        /// Which one.
        rank: usize,
        /// Its message.
        text: String,
    },
    /// Networks and weights.
    #[error(transparent)]
    Net(#[from] deepsim_nets::NetError),
    /// Images.
    #[error(transparent)]
    Data(#[from] deepsim_data::DataError),
}

fn named(modules: &[Refused]) -> String {
    let one = |m: &Refused| {
        let file = shown(&m.file);
        format!(
            "{} = {file} (blake3 {}) is not allowed to run",
            m.key, m.hash
        )
    };
    modules.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl ExperimentError {
    /// 1 for what libtorch refused while computing and for what another process failed of, 2 for everything that the user
    /// can mend here.
    pub fn exit_code(&self) -> u8 {
        use deepsim_nets::NetError;
        match self {
            ExperimentError::Net(NetError::Torch(_) | NetError::Aten(_))
            | ExperimentError::Interrupted
            | ExperimentError::Peer(_)
            | ExperimentError::Elsewhere { .. } => 1,
            _ => 2,
        }
    }

    /// Whether a file cannot be written to because of its disk or its permissions.
    pub(crate) fn is_read_only(&self) -> bool {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self {
            ExperimentError::Io { source, .. } => {
                matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
            }
            _ => false,
        }
    }

    /// Wraps an I/O error with its path.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ExperimentError {
        let path = path.to_owned();
        move |source| ExperimentError::Io { path, source }
    }
}

impl From<tch::TchError> for ExperimentError {
    fn from(e: tch::TchError) -> ExperimentError {
        ExperimentError::Net(e.into())
    }
}

/// A module that was not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `encoder.weights` or `comparator.weights`.
    pub key: String,
    /// The file.
    pub file: PathBuf,
    /// Its blake3.
    pub hash: String,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ExperimentError>;

/// How many names an error lists of each kind.
pub(crate) const FEW: usize = 3;

/// `n things: a, b, c, …`, names so that those that look alike are seen to differ.
pub(crate) fn few(what: &str, names: &[String]) -> String {
    let shown = names
        .iter()
        .take(FEW)
        .map(|name| visible(name))
        .collect::<Vec<_>>();
    let more = if names.len() > FEW { ", …" } else { "" };
    format!("{} {what}: {}{more}", names.len(), shown.join(", "))
}

/// Recorded features that cannot be used, with what is wrong with them.
pub(crate) fn unusable(path: &Path, problems: Vec<String>) -> ExperimentError {
    ExperimentError::Recorded {
        path: path.to_owned(),
        problems,
    }
}
