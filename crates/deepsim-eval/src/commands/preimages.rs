//! `preimages`: several images of the same features.

use std::collections::BTreeSet;
use std::path::PathBuf;

use deepsim_eval::analysis::preimages;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::run::loaded::Loaded;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::sheet::{Sheet, images};
use deepsim_experiment::{Consent, device};
use tch::Tensor;

use super::print::{Result, at_least, at_least_one, file_name, put, run_name, warn, wrote};

/// Several images of the same features, and how far they are apart.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask reproduce --only sample-noise,sample-diverse`
(trains, minutes each):
  cargo run -p deepsim-eval -- preimages runs/sample-noise runs/sample-diverse

Takes runs whose generator takes noise beside the features (generator.noise).
The sheet shows held-out images, those made from their features with the noise
at zero, several draws, and where those differ. Prints the spread of the draws
and whether each still has the features.")]
pub struct Preimages {
    /// Run directories.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Images made from each held-out image's features.
    #[arg(long, default_value_t = 6, value_name = "N")]
    draws: usize,
    /// Held-out images to measure, at most.
    #[arg(long, default_value_t = 64, value_name = "N")]
    images: usize,
    /// Images on the sheet, at most.
    #[arg(long, default_value_t = 8, value_name = "N")]
    show: usize,
    /// Seed of the noise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// How the numbers are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the sheets, one PNG for each run.
    #[arg(long, value_name = "DIR", default_value = "preimages")]
    out: PathBuf,
}

impl super::run::Run for Preimages {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_one("--show", self.show)?;
        for (option, value) in [("--draws", self.draws), ("--images", self.images)] {
            at_least(2, option, value, ": distances are measured")?;
        }
        let device = device::choose(&self.device)?;
        let (mut all, mut taken) = (Vec::new(), BTreeSet::new());
        for path in &self.runs {
            let run = Loaded::open(path, consent, device)?;
            let held = run.held_out(self.images)?;
            run.overlap(&held, warn)?;
            let request = preimages::Draw {
                draws: self.draws,
                show: self.show,
                seed: self.seed,
            };
            let drawn = preimages::draw(&run, &held, request).while_running()?;
            let name = run_name(&run);
            let mut sheet = Sheet::new(&format!("Images of the same features ({name})"));
            let mut row = |label: &str, x: &Tensor| -> Result<()> {
                sheet.row(label, images(x)?);
                Ok(())
            };
            row("photo", &drawn.photos)?;
            row("noise zero", &drawn.mean)?;
            for (i, draw) in drawn.draws.iter().enumerate() {
                row(&format!("draw {}", i + 1), draw)?;
            }
            row(
                &format!("deviation x{}", preimages::BRIGHTER),
                &drawn.deviation()?,
            )?;
            let file = file_name(&name, &mut taken);
            wrote(&self.out.join(format!("{file}.png")), &sheet.png()?)?;
            all.push(drawn.numbers);
        }
        put(&all, preimages::text, "preimages", self.format, &self.out)
    }
}
