//! `neighbors`: nearest training images beside reconstructions.

use std::path::PathBuf;

use deepsim_eval::analysis::neighbors;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::scale::Scale;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::neighbors_table;
use deepsim_experiment::{Consent, Processes};

use super::among::{RunAmong, agree};
use super::args::Runs;
use super::print::{Result, at_least_one, at_least_two, put, run_name, warn, wrote};
use crate::progress::bar_among;

/// Does the network only retrieve? Nearest training images beside reconstructions.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- neighbors --runs runs/quickstart --out neighbors

For each held-out photo the nearest training photos (exact search; mirror
images count where the training mirrors) in the space of pixels and of several
layers. Several processes share the batches (torchrun, or RANK and WORLD_SIZE);
rank 0 prints and writes what one process would.")]
pub struct Neighbors {
    #[command(flatten)]
    runs: Runs,
    /// Held-out images to measure, at most.
    #[arg(long, default_value_t = 64, value_name = "N")]
    images: usize,
    /// Images on the sheet, at most.
    #[arg(long, default_value_t = 8, value_name = "N")]
    show: usize,
    /// How the numbers are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the images, one PNG for each run.
    #[arg(long, value_name = "DIR", default_value = "neighbors")]
    out: PathBuf,
}

impl RunAmong for Neighbors {
    fn run_among(self, consent: &Consent, processes: &Processes) -> Result<()> {
        at_least_two("--images", self.images)?;
        at_least_one("--show", self.show)?;
        let device = self.runs.device()?;
        processes.check(device)?;
        if processes.size() > 1 {
            let asked = [("--images", self.images.to_string())];
            agree(processes, "neighbors", &asked)?;
        }
        let mut all = Vec::new();
        self.runs.each_among(processes, consent, device, |run| {
            let held = run.held_out(self.images)?;
            if processes.leads() {
                run.overlap(&held, warn)?;
            }
            let training = run.train_data()?.len() as u64;
            let scale = Scale::measure_among(processes, run, &held).while_running()?;
            let bar = bar_among(processes, training, "training photos");
            let made = neighbors::compute_among(processes, run, &held, 1, &scale, |n| bar.inc(n))
                .while_running()?;
            bar.finish_and_clear();
            if !processes.leads() {
                return Ok(());
            }
            let name = run_name(run);
            let title = format!("Nearest training photos of held-out ones ({name})");
            let sheet = made.sheet(&title, self.show)?;
            wrote(
                &self.out.join(format!("neighbors-{name}.png")),
                &sheet.png()?,
            )?;
            all.extend(made.rows);
            Ok(())
        })?;
        if !processes.leads() {
            return Ok(());
        }
        put(
            &all,
            neighbors_table::text,
            "neighbors",
            self.format,
            &self.out,
        )
    }
}
