//! `losses`: training losses against metrics.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deepsim_eval::analysis::losses;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::metrics::Metrics;
use deepsim_eval::measure::photos::spread;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::sheet::{Sheet, images};
use deepsim_experiment::Consent;

use super::args::Runs;
use super::print::{Result, at_least_one, at_least_two, file_name, put, warn, wrote};

/// Training losses against metrics: autoencoders and super-resolution.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask reproduce --only sample-sr` (trains, minutes each):
  cargo run -p deepsim-eval -- losses --out losses

Measures every autoencoder with plain codes and every super-resolution run
(encoder \"downsampled\") by all metrics, and puts their images on one sheet
for each task: experiments/sample/ae-*.toml and sr-*.toml.")]
pub struct Losses {
    #[command(flatten)]
    runs: Runs,
    /// Held-out images to measure, at most.
    #[arg(long, default_value_t = 256, value_name = "N")]
    images: usize,
    /// Images on a sheet, at most.
    #[arg(long, default_value_t = 8, value_name = "N")]
    show: usize,
    /// Only images with this text in their name on the sheet (repeatable).
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Folder of the metrics' weights.
    #[arg(long, value_name = "DIR", default_value = "weights")]
    judge_weights: PathBuf,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the images, one PNG for each task.
    #[arg(long, value_name = "DIR", default_value = "losses")]
    out: PathBuf,
}

impl super::run::Run for Losses {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_two("--images", self.images)?;
        at_least_one("--show", self.show)?;
        let device = self.runs.device()?;
        let metrics = Metrics::load(&self.judge_weights, device)?;
        let mut all = Vec::new();
        let mut sheets: BTreeMap<(String, String), (Vec<usize>, Sheet)> = BTreeMap::new();
        self.runs.each(consent, device, |run| {
            if !losses::compares(&run.experiment) {
                return Ok(());
            }
            let held = run.held_out(self.images)?;
            run.train_data()?;
            run.overlap(&held, warn)?;
            let row = losses::measure(run, &held, &metrics).while_running()?;
            // Images stand under the original images that they were made of.
            let key = (row.task.clone(), row.photos.clone());
            let fresh = !sheets.contains_key(&key);
            let (chosen, sheet) = match sheets.entry(key) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => {
                    let chosen = spread(&held.data, self.show, &self.filter)?;
                    let title = format!("Trained with several losses: {}", row.task);
                    place.insert((chosen, Sheet::new(&title)))
                }
            };
            let (photos, made) =
                losses::reconstructions(run, &held.data, chosen).while_running()?;
            if fresh {
                sheet.row("photo", images(&photos)?);
            }
            sheet.row(&row.trained_with, images(&made)?);
            all.push(row);
            Ok(())
        })?;
        if all.is_empty() {
            tracing::info!(
                "hint: no autoencoder or super-resolution run; experiments/sample/ae-*.toml and sr-*.toml make them"
            );
        }
        let mut taken = BTreeSet::new();
        for ((task, _), (_, sheet)) in &sheets {
            let name = file_name(task, &mut taken);
            wrote(&self.out.join(format!("losses-{name}.png")), &sheet.png()?)?;
        }
        losses::sort(&mut all);
        put(&all, losses::text, "losses", self.format, &self.out)
    }
}
