//! `compare`: held-out images above what several runs make of them.

use std::path::PathBuf;

use deepsim_data::terminal::{one_line, path as shown};
use deepsim_eval::analysis::compare;
use deepsim_eval::show::output;
use deepsim_experiment::{Consent, device};

use super::print::{Result, at_least_one};

/// Held-out images above what several runs make of them, as one PNG.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- compare runs/quickstart --out compare.png")]
pub struct Compare {
    /// Run directories, one row each.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Images, spread evenly over the held-out set.
    #[arg(long, default_value_t = 8, value_name = "N")]
    images: usize,
    /// Only images with this text in their name (repeatable).
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// The PNG to write.
    #[arg(long, value_name = "FILE", default_value = "compare.png")]
    out: PathBuf,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl super::run::Run for Compare {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_one("--images", self.images)?;
        let device = device::choose(&self.device)?;
        let names = compare::compare(
            &self.runs,
            self.images,
            &self.filter,
            &self.out,
            consent,
            device,
        )?;
        tracing::info!("wrote {}", shown(&self.out));
        for name in names {
            output::show(format_args!("{}\n", one_line(&name)))?;
        }
        Ok(())
    }
}
