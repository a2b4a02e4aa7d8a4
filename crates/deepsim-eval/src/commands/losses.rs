//! `losses`: training objectives against metrics.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deepsim_eval::analysis::losses;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::photos::spread;
use deepsim_eval::show::format::{Format, json};
use deepsim_eval::show::sheet::{Sheet, images};
use deepsim_experiment::Consent;

use super::args::Runs;
use super::print::{Result, at_least_one, at_least_two, file_name, put, warn, wrote};

/// Training objectives against metrics: inversions, autoencoders and super-resolution.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask losses inversion` (trains several objectives, each
for the same time) or `cargo xtask reproduce --only sample-sr`:
  cargo run -p deepsim-eval -- losses --runs runs/losses-inversion-90s
  cargo run -p deepsim-eval -- losses --out losses

Measures every inversion, every autoencoder with plain codes and every
super-resolution run (encoder \"downsampled\") by all metrics: a line for each
objective with the ranges over its runs. A metric whose network had a part in
the training is silent (`shared`). For each task, one sheet shows the images of
one run of each objective, and one plot sets distortion against perception.
The numbers of all runs are in losses.json.")]
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
        let judges = losses::Judges::load(&self.judge_weights, device)?;
        for missing in &judges.missing {
            tracing::info!("hint: {missing}");
        }
        let mut all = Vec::new();
        let mut sheets: BTreeMap<(String, String), (Vec<usize>, Sheet)> = BTreeMap::new();
        let mut shown = BTreeSet::new();
        self.runs.each(consent, device, |run| {
            if !losses::compares(&run.experiment) {
                return Ok(());
            }
            let held = run.held_out(self.images)?;
            run.train_data()?;
            run.overlap(&held, warn)?;
            let row = losses::measure(run, &held, &judges).while_running()?;
            // Images stand under the original images that they were made of, one run of each objective.
            let key = (row.task.clone(), row.photos.clone());
            if !shown.insert((key.clone(), row.trained_with.clone())) {
                all.push(row);
                return Ok(());
            }
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
                "hint: no inversion, autoencoder or super-resolution run; `cargo xtask losses` makes them"
            );
        }
        let mut taken = BTreeSet::new();
        for ((task, _), (_, sheet)) in &sheets {
            let name = file_name(task, &mut taken);
            wrote(&self.out.join(format!("losses-{name}.png")), &sheet.png()?)?;
        }
        losses::sort(&mut all);
        let mut taken = BTreeSet::new();
        for (task, plane) in losses::planes(&all) {
            let name = file_name(&task, &mut taken);
            if !plane.points.is_empty() {
                let file = format!("distortion-perception-{name}.png");
                wrote(&self.out.join(file), &plane.png()?)?;
            }
        }
        put(&all, losses::text, "losses", self.format, &self.out)?;
        if self.format != Format::Json {
            // The tables have ranges: here is each run.
            wrote(&self.out.join("losses.json"), json(&all)?.as_bytes())?;
        }
        Ok(())
    }
}
