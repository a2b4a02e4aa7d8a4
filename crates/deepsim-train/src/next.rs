//! What to do with a run that is done.

use std::path::Path;

use deepsim_data::terminal::quote;
use deepsim_experiment::Experiment;
use deepsim_experiment::source::Source;
use deepsim_nets::Code;

/// The command that shows what a run has learned.
pub fn command(experiment: &Experiment, run: &Path) -> String {
    let run = quote(run);
    let eval = "cargo run -p deepsim-eval --";
    let gaussian = experiment
        .config
        .latent
        .is_some_and(|l| l.code == Code::Gaussian);
    let consent = if experiment.needs_consent() {
        " --trust-code"
    } else {
        ""
    };
    match &experiment.encoder {
        Source::Recorded(_) => format!("{eval} decode FEATURES.npy --run {run}"),
        _ if gaussian => format!("{eval} sample --runs {run}"),
        _ if experiment.config.generator.noise > 0 => format!("{eval} preimages {run}"),
        _ => format!("{eval} table2 --runs {run}{consent}"),
    }
}
