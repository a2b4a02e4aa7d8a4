//! `table2`: errors of all runs beside the paper's.

use std::path::PathBuf;

use deepsim_data::Dataset;
use deepsim_data::terminal::path as shown;
use deepsim_eval::EvalError;
use deepsim_eval::analysis::table2;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::metrics::Metrics;
use deepsim_eval::run::runs;
use deepsim_eval::show::format::{Format, render};
use deepsim_eval::show::table2_text;
use deepsim_experiment::{Clip, Consent, Processes};

use super::among::{RunAmong, agree, warn_once};
use super::args::{Output, Runs};
use super::print::{Result, at_least_two, no_runs};
use crate::progress::bar_among;

/// Normalised errors of all runs beside the paper's Table 2.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- table2 --out tables

Counts every run with a checkpoint and every `baseline mv` below --runs. Errors
are means over held-out images, divided by the mean distance of all pairs of
different ones (of more than 2000 images: of the pairs of 2000, spread evenly).
Rows of one table stand on the same images. Metrics: LPIPS (by VGG16, or by
AlexNet where VGG16 had a part in the run), SSIM, PSNR, and how often
EfficientNet-Lite0 gives a reconstruction the photo's own label. A metric whose
network is the run's encoder or comparator is left out: the table says `shared`.
With --data every run is measured on those images, cut as its own are.

Several processes share the batches (torchrun, or RANK and WORLD_SIZE); rank 0
prints the numbers of one process.")]
pub struct Table2 {
    #[command(flatten)]
    runs: Runs,
    /// Held-out images: all, or so many spread evenly.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    images: usize,
    /// Measure on these images, a folder or a prepared dataset, instead of those that each run was held out on.
    #[arg(long, value_name = "DATASET")]
    data: Option<PathBuf>,
    /// Measure reconstructions without clipping them to 0–255.
    #[arg(long)]
    no_clip: bool,
    /// In text, also show metrics that the paper lacks (JSON and CSV always have them).
    #[arg(long)]
    judges: bool,
    /// Folder of the metrics' weights.
    #[arg(long, value_name = "DIR", default_value = "weights")]
    judge_weights: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl RunAmong for Table2 {
    fn run_among(self, consent: &Consent, processes: &Processes) -> Result<()> {
        at_least_two("--images", self.images)?;
        let output = &self.output;
        let folder = runs::folder(self.runs.runs.clone())?;
        let clip = if self.no_clip {
            Clip::Off
        } else {
            Clip::Displayable
        };
        let device = self.runs.device()?;
        processes.check(device)?;
        let count = table2::count(folder.as_deref())?;
        // What is not there is told before any run is opened.
        let data = self.data.as_deref().map(Dataset::open).transpose()?;
        let needed = count > 0 && (self.judges || output.format != Format::Text);
        let metrics = if needed {
            Some(Metrics::load(&self.judge_weights, device)?)
        } else {
            None
        };
        for path in metrics.iter().flat_map(|j| &j.missing) {
            tracing::info!(
                "hint: no {}: a metric less; `cargo xtask setup` fetches it",
                shown(path)
            );
        }
        if processes.size() > 1 {
            let digest = metrics.as_ref().map(Metrics::digest).transpose()?;
            let asked = [
                ("--images", self.images.to_string()),
                (
                    "--data",
                    data.map_or_else(String::new, |data| data.digest()),
                ),
                ("--no-clip", self.no_clip.to_string()),
                ("the weights of the metrics", digest.unwrap_or_default()),
            ];
            agree(processes, "table2", &asked)?;
        }
        let options = table2::Options {
            images: self.images,
            data: self.data.as_deref(),
            clip,
            consent,
            device,
            metrics: metrics.as_ref(),
            processes,
        };
        let bar = bar_among(processes, count, "runs");
        let warn = warn_once(processes);
        let rows =
            table2::rows(folder.as_deref(), options, warn, |n| bar.inc(n)).while_running()?;
        bar.finish_and_clear();
        if rows.iter().all(|r| r.run.is_none()) {
            if let Some(path) = folder.clone().filter(|_| count > 0) {
                return Err(EvalError::NoneUsable {
                    path,
                    count: usize::try_from(count).unwrap_or(usize::MAX),
                    why: Vec::new(),
                });
            }
            no_runs(self.runs.runs.as_deref());
        }
        if !processes.leads() {
            return Ok(());
        }
        let mut text = render(&rows, output.format, table2_text::text)?;
        if self.judges && output.format == Format::Text {
            text.push_str(&table2_text::metrics(&rows));
        }
        output.put("table2", &text)
    }
}
