//! `sample`: samples of autoencoders' priors.

use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_eval::EvalError;
use deepsim_eval::analysis::sample;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::sheet::{Sheet, images};
use deepsim_experiment::Consent;

use super::args::Runs;
use super::print::{Result, at_least, at_least_one, put, run_name, warn, wrote};

/// Images of a row on a sheet of samples.
const SAMPLES_A_ROW: i64 = 8;

/// Samples of variational autoencoders' priors, and numbers of the models.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask reproduce --only sample-vae` (trains, minutes each):
  cargo run -p deepsim-eval -- sample --out samples

Draws codes from a standard normal distribution and decodes them, for every run
with Gaussian codes ([latent] in its experiment). Prints the divergence of the
codes, errors and sharpness, and the distance of samples and held-out photos as
distributions, in EfficientNet-Lite0's features.")]
pub struct Sample {
    #[command(flatten)]
    runs: Runs,
    /// Samples that are measured.
    #[arg(long, default_value_t = 256, value_name = "N")]
    count: usize,
    /// Samples on the sheet, at most.
    #[arg(long, default_value_t = 32, value_name = "N")]
    show: usize,
    /// Seed of the codes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Held-out images to measure, at most.
    #[arg(long, default_value_t = 256, value_name = "N")]
    images: usize,
    /// Folder of EfficientNet-Lite0's weights.
    #[arg(long, value_name = "DIR", default_value = "weights")]
    judge_weights: PathBuf,
    /// How the numbers are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the images, one PNG for each run.
    #[arg(long, value_name = "DIR", default_value = "sampled")]
    out: PathBuf,
}

impl super::run::Run for Sample {
    fn run(self, consent: &Consent) -> Result<()> {
        for (option, value) in [("--count", self.count), ("--images", self.images)] {
            at_least(2, option, value, ": distributions are compared")?;
        }
        at_least_one("--show", self.show)?;
        let device = self.runs.device()?;
        let reference = sample::reference(&self.judge_weights, device)?;
        if reference.is_none() {
            tracing::info!(
                "hint: no {}: no distances; `cargo xtask setup` fetches it",
                shown(self.judge_weights.join(sample::REFERENCE_FILE))
            );
        }
        let (mut all, mut without) = (Vec::new(), None);
        self.runs.each(consent, device, |run| {
            if !sample::has_prior(&run.experiment) {
                without = Some(run.path.clone());
                return Ok(());
            }
            let held = run.held_out(self.images)?;
            run.train_data()?;
            run.overlap(&held, warn)?;
            let made = sample::draw(run, self.show.min(self.count), self.seed).while_running()?;
            let name = run_name(run);
            let mut sheet = Sheet::new(&format!(
                "Samples of the prior ({name}, compared in {})",
                sample::compared_in(&run.experiment)
            ));
            for row in made.f_split(SAMPLES_A_ROW, 0)? {
                sheet.row("", images(&row)?);
            }
            wrote(&self.out.join(format!("samples-{name}.png")), &sheet.png()?)?;
            let drawn = (self.count, self.seed);
            let numbers = sample::measure(run, &held, drawn, reference.as_ref()).while_running()?;
            all.push(numbers);
            Ok(())
        })?;
        match (all.is_empty(), without) {
            (true, Some(run)) => Err(EvalError::NoPrior { run }),
            _ => put(&all, sample::text, "samples", self.format, &self.out),
        }
    }
}
