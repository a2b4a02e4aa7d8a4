//! What can stop an evaluation.

use std::fmt::Display;
use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_experiment::ExperimentError;

use crate::search::SearchError;

/// Why nothing could be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The experiment, run, weights or images.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// Nearest neighbours.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The folder of runs that was asked for is not there.
    #[error(
        "--runs {}: no such folder; train an experiment first, or name the folder of your runs",
        shown(path)
    )]
    NoRuns {
        /// What was asked for.
        path: PathBuf,
    },
    /// A run was made with other weights or images than are there now.
    #[error(
        "{}: {what} is not what this run was trained with (blake3 {was}, now {is}); restore it to evaluate the run",
        shown(run)
    )]
    InputChanged {
        /// The run.
        run: PathBuf,
        /// Which input.
        what: String,
        /// Hash in the checkpoint.
        was: String,
        /// Hash now.
        is: String,
    },
    /// An input file of tensors without the key that is needed.
    #[error("{} has no tensor `{key}`; it has {}", shown(path), .have.join(", "))]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The keys there.
        have: Vec<String>,
    },
    /// Weights are needed and nowhere to be had.
    #[error(
        "the {net} has no weights: give --weights FILE, or train the experiment ({} has no checkpoint)",
        shown(run)
    )]
    NoWeights {
        /// Which network.
        net: &'static str,
        /// The run directory that was looked into.
        run: PathBuf,
    },
    /// An experiment without the network that is asked for.
    #[error(
        "{} has no {net}: its loss has no term that needs one",
        shown(experiment)
    )]
    NoNetwork {
        /// The experiment file.
        experiment: PathBuf,
        /// Which network.
        net: &'static str,
    },
    /// A run without codes to draw.
    #[error(
        "{}: no prior to draw from: only variational autoencoders ([latent] with code = \"gaussian\") have one",
        shown(run)
    )]
    NoPrior {
        /// The run.
        run: PathBuf,
    },
    /// A generator that makes one image of each vector of features.
    #[error(
        "{}: one image for each feature vector: give the generator noise (generator.noise in the experiment)",
        shown(run)
    )]
    NoNoise {
        /// The run.
        run: PathBuf,
    },
    /// A run whose encoder did not learn codes.
    #[error(
        "{}: no codes: attribute vectors are of autoencoders ([latent] in the experiment)",
        shown(run)
    )]
    NoCodes {
        /// The run.
        run: PathBuf,
    },
    /// Attributes of other images than a run was trained with.
    #[error(
        "no image of {data} has an attribute in that file; one of them is called `{example}`: names must end alike"
    )]
    NoLabels {
        /// The images.
        data: String,
        /// One of their names.
        example: String,
    },
    /// An attribute that all images have, or none.
    #[error(
        "attribute `{attribute}`: {with} training images have it and {without} do not; a vector needs {needed} of either"
    )]
    OneClass {
        /// The attribute.
        attribute: String,
        /// Training images with it.
        with: usize,
        /// Training images without it.
        without: usize,
        /// How many of either are needed.
        needed: usize,
    },
    /// Two runs that were held out on different images or crops.
    #[error(
        "{} and {} were held out on different images or crops: they cannot stand on one sheet",
        shown(a),
        shown(b)
    )]
    NotComparable {
        /// One run.
        a: PathBuf,
        /// The other.
        b: PathBuf,
    },
    /// Weights of a run are to be put into other networks than it has.
    #[error(
        "{} is not what {} was trained with (there: in its newest checkpoint, here: in the file):\n  {}\n\
         give the experiment.toml of the run",
        shown(experiment), shown(run), differences.join("\n  ")
    )]
    OtherNetworks {
        /// The experiment file.
        experiment: PathBuf,
        /// The run.
        run: PathBuf,
        /// `key: there X, here Y`.
        differences: Vec<String>,
    },
    /// A result that could not be put where it was to be.
    #[error("{}: {reason}; the result is kept in {}", shown(path), shown(kept))]
    Kept {
        /// Where it was to be.
        path: PathBuf,
        /// Why it is not.
        reason: String,
        /// Where it is.
        kept: PathBuf,
    },
    /// No held-out image of such a name.
    #[error("no held-out image has `{filter}` in its name ({data})")]
    NoPhotos {
        /// What was looked for.
        filter: String,
        /// The images.
        data: String,
    },
    /// A folder of runs without any that can be used.
    #[error(
        "{}: no run with a checkpoint; train an experiment, or name another folder with --runs",
        shown(path)
    )]
    NoRunIn {
        /// The folder.
        path: PathBuf,
    },
    /// Runs are there, and none of them could be used.
    #[error("{}: none of {count} runs could be used{}", shown(path), reasons(why))]
    NoneUsable {
        /// The folder.
        path: PathBuf,
        /// Runs in it.
        count: usize,
        /// Why not, a line each; nothing where that was told already.
        why: Vec<String>,
    },
    /// A run that was named and is not there.
    #[error("no run at {}; {there}; {advice}", shown(path))]
    NoRun {
        /// What was named.
        path: PathBuf,
        /// Which runs there are beside it, in words.
        there: String,
        /// How to get it.
        advice: String,
    },
    /// What went wrong after the work had begun.
    #[error(transparent)]
    Running(Box<EvalError>),
    /// A figure for which nothing was trained.
    #[error("nothing to draw figure {figure} from in {}:\n  {}", shown(runs), advice.join("\n  "))]
    NothingToDraw {
        /// Its number in the paper.
        figure: &'static str,
        /// Where runs were looked for.
        runs: PathBuf,
        /// What is missing and how to get it.
        advice: Vec<String>,
    },
    /// An impossible number of frames.
    #[error("--steps {got}: an interpolation has 2 to {most} frames")]
    Steps {
        /// What was asked for.
        got: usize,
        /// The most.
        most: usize,
    },
    /// An option that cannot be used.
    #[error("{option} {value}: {reason}")]
    Usage {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Results that would be overwritten.
    #[error(
        "{} is there already; use another --out, or delete it with --fresh",
        shown(path)
    )]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A record of a baseline that cannot be used.
    #[error("{}: {reason}", shown(path))]
    Record {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// More damaged training images than a run was allowed to leave out, over all processes.
    #[error(
        "{found} training images are damaged, and the run was allowed to leave out {allowed} (data.quarantine)"
    )]
    Damaged {
        /// How many are.
        found: usize,
        /// How many may be.
        allowed: usize,
    },
    /// An optimisation whose images became infinite.
    #[error("the optimisation left all bounds: lower --tv, whose steps grow with it, or --rate")]
    Diverged,
    /// Images are to be treated as those of a run, which does not say how, and whose own are gone.
    #[error(
        "{}: its checkpoints do not say how its images were made square, and {} {state}: restore it, or say it by \
         --frame SIZE[:squash|short-crop[:LEFT,TOP,SIDE]] (--frame 256 for images prepared as usual)",
        shown(run),
        shown(data)
    )]
    FramingUnknown {
        /// The run.
        run: PathBuf,
        /// Its held-out images.
        data: PathBuf,
        /// What is wrong with them.
        state: &'static str,
    },
    /// Two sets whose images are compared one to one, and that have not the same.
    #[error(
        "{} has no `{name}`, which is in {}{}: images are compared by their names; for distances between the sets as \
         distributions alone add --unpaired",
        shown(without),
        shown(with),
        nor_others(*others)
    )]
    Unpaired {
        /// The set that has the image.
        with: PathBuf,
        /// The set that has it not.
        without: PathBuf,
        /// The image.
        name: String,
        /// How many others are missing.
        others: usize,
    },
    /// Two images that are to be compared, of different sizes.
    #[error(
        "`{name}` is {}x{} in the first set and {}x{} in the second: make both the same size",
        a.0, a.1, b.0, b.1
    )]
    OtherSize {
        /// The image.
        name: String,
        /// Width and height in the first set.
        a: (u32, u32),
        /// Width and height in the second set.
        b: (u32, u32),
    },
    /// A generator whose features are scaled by numbers that only its run knows.
    #[error(
        "{}: encoder.normalize scales the features by numbers that are kept in the run's checkpoints; \
         give --run instead of --weights",
        shown(experiment)
    )]
    ScaleUnknown {
        /// The experiment.
        experiment: PathBuf,
    },
    /// A table or image could not be written.
    #[error("cannot format the result: {0}")]
    Format(String),
}

impl EvalError {
    /// An option that cannot be used.
    pub fn usage(
        option: &'static str,
        value: impl Display,
        reason: impl Into<String>,
    ) -> EvalError {
        EvalError::Usage {
            option,
            value: value.to_string(),
            reason: reason.into(),
        }
    }

    /// 2 for what was asked and for inputs that cannot be used, found before the work begins; 1 for what goes wrong
    /// later, and where nothing could be used of what is there.
    pub fn exit_code(&self) -> u8 {
        match self {
            EvalError::Running(e) if !e.is_of_the_request() => 1,
            EvalError::Running(e) => e.exit_code(),
            EvalError::Format(_)
            | EvalError::Damaged { .. }
            | EvalError::Diverged
            | EvalError::Kept { .. }
            | EvalError::NoneUsable { .. } => 1,
            EvalError::Experiment(e) => e.exit_code(),
            _ => 2,
        }
    }

    /// Whether the user has to ask for something else, whenever that was found out.
    fn is_of_the_request(&self) -> bool {
        match self {
            EvalError::Experiment(e) => matches!(
                e,
                ExperimentError::NoEncoder { .. }
                    | ExperimentError::NoComparator
                    | ExperimentError::Learns
                    | ExperimentError::Recorded { .. }
                    | ExperimentError::Device { .. }
                    | ExperimentError::Ranks(_)
            ),
            EvalError::Running(e) => e.is_of_the_request(),
            EvalError::Format(_)
            | EvalError::Damaged { .. }
            | EvalError::Diverged
            | EvalError::Kept { .. }
            | EvalError::NoneUsable { .. } => false,
            _ => true,
        }
    }

    /// Whether it is another process that has failed.
    pub fn is_elsewhere(&self) -> bool {
        match self {
            EvalError::Running(e) => e.is_elsewhere(),
            EvalError::Experiment(e) => matches!(e, ExperimentError::Elsewhere { .. }),
            _ => false,
        }
    }

    /// Whether processes cannot go on together: they were told different things, or one is gone.
    pub fn ends_all(&self) -> bool {
        match self {
            EvalError::Running(e) => e.ends_all(),
            EvalError::Experiment(e) => {
                matches!(e, ExperimentError::Ranks(_) | ExperimentError::Peer(_))
            }
            _ => false,
        }
    }

    /// Whether the work had begun.
    pub fn is_running(&self) -> bool {
        matches!(self, EvalError::Running(_))
    }
}

/// Marks an error as one of the work itself: the exit code is 1 then, unless it says that the request cannot be met.
pub trait WhileRunning<T> {
    /// The same, marked.
    ///
    /// # Errors
    /// The same.
    fn while_running(self) -> Result<T>;
}

impl<T, E: Into<EvalError>> WhileRunning<T> for std::result::Result<T, E> {
    fn while_running(self) -> Result<T> {
        self.map_err(|e| match e.into() {
            marked @ EvalError::Running(_) => marked,
            error => EvalError::Running(Box::new(error)),
        })
    }
}

fn nor_others(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => ", nor another image there".to_owned(),
        _ => format!(", nor {count} other images there"),
    }
}

fn reasons(why: &[String]) -> String {
    if why.is_empty() {
        "; the warnings say why".to_owned()
    } else {
        format!(":\n  {}", why.join("\n  "))
    }
}

impl From<deepsim_nets::NetError> for EvalError {
    fn from(e: deepsim_nets::NetError) -> EvalError {
        EvalError::Experiment(e.into())
    }
}

impl From<deepsim_data::DataError> for EvalError {
    fn from(e: deepsim_data::DataError) -> EvalError {
        EvalError::Experiment(e.into())
    }
}

impl From<tch::TchError> for EvalError {
    fn from(e: tch::TchError) -> EvalError {
        EvalError::Experiment(e.into())
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, EvalError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_requests_from_work() {
        let missing = || ExperimentError::Io {
            path: "x".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        assert_eq!(EvalError::from(missing()).exit_code(), 2);
        let running = Err::<(), _>(missing()).while_running().unwrap_err();
        assert_eq!((running.exit_code(), running.is_running()), (1, true));
        assert_eq!(running.to_string(), missing().to_string());
        let steps = EvalError::Steps { got: 1, most: 2 };
        let asked = Err::<(), _>(steps).while_running().unwrap_err();
        assert_eq!(asked.exit_code(), 2, "what was asked stays what was asked");
    }
}
