//! `table1`: the generator layer by layer.

use std::path::PathBuf;

use deepsim_eval::analysis::table1;
use deepsim_experiment::{Consent, Experiment};

use super::args::Output;
use super::print::Result;

/// The generator layer by layer (the paper's Table 1, or an experiment's).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo run -p deepsim-eval -- table1
  cargo run -p deepsim-eval -- table1 experiments/quickstart.toml")]
pub struct Table1 {
    /// Show this experiment's generator instead of the paper's FC6.
    #[arg(value_name = "EXPERIMENT.toml", conflicts_with = "experiment")]
    file: Option<PathBuf>,
    /// The same.
    #[arg(long, value_name = "EXPERIMENT.toml")]
    experiment: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl super::run::Run for Table1 {
    fn run(self, _consent: &Consent) -> Result<()> {
        let spec = match self.file.or(self.experiment) {
            Some(path) => Experiment::load(&path, &[])?.generator,
            None => table1::paper_spec(),
        };
        self.output
            .put("table1", &table1::render(&spec, self.output.format)?)
    }
}
