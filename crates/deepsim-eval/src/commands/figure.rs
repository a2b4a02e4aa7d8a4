//! `figure`: a figure of the paper from the runs that there are.

use std::path::{Path, PathBuf};

use deepsim_eval::EvalError;
use deepsim_eval::analysis::figures;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::run::catalog;
use deepsim_eval::run::runs;
use deepsim_eval::show::format::{Format, columns, render};
use deepsim_eval::show::output;
use deepsim_experiment::Consent;
use serde::Serialize;

use super::args::Runs;
use super::print::{Result, at_least_one, warn, wrote};
use crate::progress::bar;

/// A run of a figure, as it is listed.
#[derive(Default, Serialize)]
struct Listed {
    figure: u8,
    label: String,
    run: String,
    picture: String,
}

/// The end of the help: an example, and the figures.
fn examples() -> String {
    let figures: String = figures::FIGURES
        .iter()
        .map(|f| format!("  {}  {}\n", f.number, f.title))
        .collect();
    format!(
        "\
Example, after `cargo xtask quickstart` (more runs give more panels):
  cargo run -p deepsim-eval -- figure 1 --out figures

The figures (2 is a diagram):
{figures}
Runs are chosen by what their experiment says, not by name: of several that
would do, the longest trained with the plainest name. stdout lists them; stderr
says what is missing and which experiment file makes it."
    )
}

/// A figure of the paper from the runs that there are, as one PNG.
#[derive(clap::Args)]
#[command(after_help = examples())]
pub struct Figure {
    /// Its number in the paper.
    #[arg(value_enum)]
    figure: figures::Figure,
    #[command(flatten)]
    runs: Runs,
    /// Only runs that invert this layer: NET:TAP, as in alexnet:pool5.
    #[arg(long, value_name = "NET:TAP")]
    encoder: Option<String>,
    /// Images, spread evenly over the held-out set.
    #[arg(long, default_value_t = 8, value_name = "N")]
    images: usize,
    /// Only images with this text in their name (repeatable).
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// How the list of runs on stdout is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the image.
    #[arg(long, value_name = "DIR", default_value = "figures")]
    out: PathBuf,
}

impl super::run::Run for Figure {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_one("--images", self.images)?;
        let device = self.runs.device()?;
        let folder = runs::folder(self.runs.runs.clone())?;
        let number = self.figure.number;
        let entries = match &folder {
            Some(folder) => {
                let found = catalog::read(folder, warn)?;
                let count = found.len();
                let allowed = catalog::allowed(found, consent, warn);
                if allowed.is_empty() && count > 0 {
                    let path = folder.clone();
                    return Err(EvalError::NoneUsable {
                        path,
                        count,
                        why: Vec::new(),
                    });
                }
                allowed
            }
            None => Vec::new(),
        };
        let plan = self.figure.plan(&entries, self.encoder.as_deref());
        let files = catalog::experiments(Path::new("experiments"));
        let model = plan.panels.first().map(|p| &p.entry.experiment);
        let advice: Vec<String> = plan
            .missing
            .iter()
            .map(|m| m.advice(&files, model))
            .collect();
        if plan.panels.is_empty() {
            return Err(EvalError::NothingToDraw {
                figure: number,
                runs: folder.unwrap_or_else(|| "runs".into()),
                advice,
            });
        }
        for line in advice {
            tracing::info!("missing: {line}");
        }
        let bar = bar(plan.panels.len() as u64, "panels");
        let made = figures::draw(
            &self.figure,
            &plan,
            self.images,
            &self.filter,
            consent,
            device,
            |n| bar.inc(n),
        )
        .while_running()?;
        bar.finish_and_clear();
        for remark in &made.remarks {
            warn(remark.clone());
        }
        let file = self.out.join(format!("figure{number}.png"));
        wrote(&file, &made.sheet.png()?)?;
        let list: Vec<Listed> = made
            .runs
            .into_iter()
            .map(|(label, run)| Listed {
                figure: number.parse().unwrap_or_default(),
                label,
                run: run.display().to_string(),
                picture: file.display().to_string(),
            })
            .collect();
        let text = |list: &[Listed]| {
            let cells = |l: &Listed| vec![l.label.clone(), l.run.clone()];
            columns(&["row", "run"], &list.iter().map(cells).collect::<Vec<_>>())
        };
        output::show_as(self.format, &render(&list, self.format, text)?)
    }
}
