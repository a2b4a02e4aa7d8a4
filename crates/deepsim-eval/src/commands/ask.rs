//! `ask`: a page that asks people which of two runs' images is more like the original.

use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_eval::ask;
use deepsim_eval::show::output;
use deepsim_experiment::{Consent, device};

use super::print::{Result, at_least_one};

/// A blind page that asks people which of two runs' images is more like the photo.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask losses inversion` (trains several objectives):
  cargo run -p deepsim-eval -- ask runs/losses-inversion-90s/*-seed1
and after `cargo xtask reproduce --only sample-ae`:
  cargo run -p deepsim-eval -- ask runs/sample-ae-l2 runs/sample-ae-ms-ssim

Show the page to people (it works from disk and sends nothing), collect the
files that they save, and count them:
  cargo run -p deepsim-eval -- asked answers-*.json")]
pub struct Ask {
    /// Run directories; every two of them are compared.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Images, spread evenly over the held-out set.
    #[arg(long, default_value_t = 12, value_name = "N")]
    images: usize,
    /// Only images with this text in their name (repeatable).
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// The page to write.
    #[arg(long, value_name = "FILE", default_value = "ask.html")]
    out: PathBuf,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl super::run::Run for Ask {
    fn run(self, consent: &Consent) -> Result<()> {
        output::check("--out", &self.out, output::Kind::Page)?;
        at_least_one("--images", self.images)?;
        let device = device::choose(&self.device)?;
        let (page, questions) = ask::page(&self.runs, self.images, &self.filter, consent, device)?;
        output::write(&self.out, page.as_bytes())?;
        tracing::info!("wrote {}: {questions} questions", shown(&self.out));
        Ok(())
    }
}
