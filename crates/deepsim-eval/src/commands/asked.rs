//! `asked`: counts the answers to the page of `ask`.

use std::path::PathBuf;

use deepsim_eval::ask;
use deepsim_eval::show::format::{Format, render};
use deepsim_eval::show::output;
use deepsim_experiment::Consent;

use super::print::Result;

/// Counts the answers to such a page.
#[derive(clap::Args)]
#[command(after_help = "\
Example, with the files that the page of `ask` saved:
  cargo run -p deepsim-eval -- asked answers-*.json")]
pub struct Asked {
    /// Files that the page saved, one for each person.
    #[arg(value_name = "ANSWERS")]
    answers: Vec<PathBuf>,
    /// How the numbers are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl super::run::Run for Asked {
    fn run(self, _consent: &Consent) -> Result<()> {
        let counted = ask::count(&self.answers)?;
        output::show_as(self.format, &render(&counted, self.format, ask::text)?)
    }
}
