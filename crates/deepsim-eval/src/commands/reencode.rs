//! `reencode`: encode and reconstruct again and again.

use std::path::PathBuf;

use deepsim_eval::EvalError;
use deepsim_eval::analysis::reencode;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::photos::from_files;
use deepsim_eval::measure::scale::Scale;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::sheet::{Sheet, images};
use deepsim_experiment::hash::hash_file;
use deepsim_experiment::{Consent, Processes};

use super::among::{RunAmong, agree};
use super::args::Runs;
use super::print::{Result, at_least_one, at_least_two, put, run_name, warn, wrote};
use crate::progress::bar_among;

/// More would never end; drift is long over.
const MAX_ITERATIONS: usize = 1000;
/// Held-out images to normalise by where the images to look at were given by name.
const SCALE: usize = 256;

/// Encode and reconstruct again and again: images, and the drift in numbers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- reencode --runs runs/quickstart --out reencoded
  cargo run -p deepsim-eval -- reencode photo.jpg --runs runs/quickstart \\
      --iterations 1,4,16

Several processes share the batches (torchrun, or RANK and WORLD_SIZE); rank 0
prints and writes what one process would.")]
pub struct Reencode {
    /// Images; none: those held out by the run.
    photos: Vec<PathBuf>,
    #[command(flatten)]
    runs: Runs,
    /// Iterations that are shown.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,2,4,8",
        value_name = "N,…"
    )]
    iterations: Vec<usize>,
    /// Held-out images to measure, at most.
    #[arg(long, default_value_t = 64, value_name = "N")]
    images: usize,
    /// Images on the sheet, at most.
    #[arg(long, default_value_t = 8, value_name = "N")]
    show: usize,
    /// How the drift is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the images, one PNG for each run.
    #[arg(long, value_name = "DIR", default_value = "reencoded")]
    out: PathBuf,
}

impl RunAmong for Reencode {
    fn run_among(self, consent: &Consent, processes: &Processes) -> Result<()> {
        if self.photos.is_empty() {
            at_least_two("--images", self.images)?
        } else {
            at_least_one("--images", self.images)?
        }
        at_least_one("--show", self.show)?;
        if let Some(bad) = self
            .iterations
            .iter()
            .find(|i| !(1..=MAX_ITERATIONS).contains(*i))
        {
            let reason = format!("iterations count from 1 to {MAX_ITERATIONS}");
            return Err(EvalError::usage("--iterations", bad, reason));
        }
        let device = self.runs.device()?;
        let last = self.iterations.iter().copied().max().unwrap_or(1) as u64;
        processes.check(device)?;
        if processes.size() > 1 {
            let photos: Vec<String> = self
                .photos
                .iter()
                .map(|path| hash_file(path))
                .collect::<std::result::Result<_, _>>()?;
            let asked = [
                ("--images", self.images.to_string()),
                ("--iterations", format!("{:?}", self.iterations)),
                ("--show", self.show.to_string()),
                ("the digests of the images", photos.join(" ")),
            ];
            agree(processes, "reencode", &asked)?;
        }
        let mut all = Vec::new();
        self.runs.each_among(processes, consent, device, |run| {
            let given = !self.photos.is_empty();
            let held = run.held_out(if given { SCALE } else { self.images })?;
            let source = if given {
                let framing = held.data.framing();
                let photos = from_files(&self.photos, framing, &held.augment, device)?;
                reencode::Photos::Given(photos)
            } else {
                if processes.leads() {
                    run.overlap(&held, warn)?;
                }
                reencode::Photos::HeldOut(&held)
            };
            let scale = Scale::measure_among(processes, run, &held).while_running()?;
            let total = source.count() as u64 * last;
            let bar = bar_among(processes, total, "photos × iterations");
            let made = reencode::compute_among(
                processes,
                run,
                &source,
                (&self.iterations, self.show),
                Some(&scale),
                |n| bar.inc(n),
            )
            .while_running()?;
            bar.finish_and_clear();
            if !processes.leads() {
                return Ok(());
            }
            let name = run_name(run);
            let source = &run.experiment.encoder;
            let mut sheet = Sheet::new(&format!(
                "Re-encoding by {source} ({name}); iteration on the left"
            ));
            sheet.row("photo", images(&made.photos)?);
            for (iteration, reconstructions) in &made.reconstructions {
                sheet.row(&iteration.to_string(), images(reconstructions)?);
            }
            wrote(
                &self.out.join(format!("reencode-{name}.png")),
                &sheet.png()?,
            )?;
            all.extend(made.drift);
            Ok(())
        })?;
        if !processes.leads() {
            return Ok(());
        }
        put(&all, reencode::text, "reencode", self.format, &self.out)
    }
}
