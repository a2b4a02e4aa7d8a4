//! `report`: one page of everything that the runs show.

use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::metrics::Metrics;
use deepsim_eval::run::runs;
use deepsim_eval::show::output;
use deepsim_eval::{EvalError, report};
use deepsim_experiment::Consent;

use super::args::Runs;
use super::print::{Result, at_least_one, at_least_two, warn};
use crate::progress::bar;

/// A page that is larger opens slowly.
const LARGE: usize = 8_000_000;

/// One self-contained HTML page of everything that the runs show.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- report
  cargo run -p deepsim-eval -- report --runs runs/quickstart --out one.html
  cargo run -p deepsim-eval -- report --photos 12 --images 256 --out pages
  cargo run -p deepsim-eval -- report --no-images --out numbers.html

Table 2 beside the paper's, loss curves and the gate, photo and reconstruction
with a slider, players of interpolation and re-encoding, nearest training
photos, and the command that made each. The page opens from disk, needs no
network and no other file. What cannot be made says why on the page. stdout is
the page's path.")]
pub struct Report {
    #[command(flatten)]
    runs: Runs,
    /// Held-out images with a slider.
    #[arg(long, default_value_t = 8, value_name = "N")]
    photos: usize,
    /// Held-out images that errors are means over, at most.
    #[arg(long, default_value_t = 64, value_name = "N")]
    images: usize,
    /// Numbers alone: tables, curves, the gate, drift, and no image.
    ///
    /// Runs on photos that may not be shown (data/labelled) are refused in any case.
    #[arg(long, conflicts_with = "photos")]
    no_images: bool,
    /// Folder of the metrics' weights.
    #[arg(long, value_name = "DIR", default_value = "weights")]
    judge_weights: PathBuf,
    /// The page: a file ending in .html, or a folder for report.html.
    #[arg(long, value_name = "DIR|FILE", default_value = "report.html")]
    out: PathBuf,
}

impl super::run::Run for Report {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_one("--photos", self.photos)?;
        at_least_two("--images", self.images)?;
        let folder = runs::needed(self.runs.runs.clone())?;
        let file = if self.out.extension().is_some_and(|e| e == "html") {
            self.out.clone()
        } else {
            self.out.join("report.html")
        };
        output::check("--out", &file, output::Kind::Page)?;
        let device = self.runs.device()?;
        let metrics = Metrics::load(&self.judge_weights, device)?;
        let options = report::Options {
            runs: &folder,
            photos: self.photos,
            images: self.images,
            shown: !self.no_images,
            consent,
            device,
            metrics: Some(&metrics),
            command: report::command("deepsim-eval", std::env::args_os().skip(1)),
        };
        let mut bar = bar(0, "");
        let made = report::collect(&options, |told| match told {
            report::Progress::Begin(what, total) => {
                bar.finish_and_clear();
                bar = crate::progress::bar(total, "");
                bar.set_message(what.to_owned());
            }
            report::Progress::Did(n) => bar.inc(n),
        })
        .while_running()?;
        bar.finish_and_clear();
        for why in &made.left_out {
            warn(why.clone());
        }
        let page = report::render(&made);
        if page.len() > LARGE {
            warn(format!(
                "the page has {} MB; fewer --photos or --runs make it smaller",
                page.len() / 1_000_000
            ));
        }
        output::write(&file, page.as_bytes())?;
        output::show(format_args!("{}\n", shown(file)))?;
        let none = if made.shown {
            made.groups.iter().all(|group| group.runs.is_empty())
        } else {
            made.table.iter().all(|row| row.run.is_none())
        };
        if none {
            Err(EvalError::NoneUsable {
                path: folder,
                count: made.runs.len(),
                why: Vec::new(),
            })
        } else {
            Ok(())
        }
    }
}
