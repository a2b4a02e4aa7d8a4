//! `interpolate`: images from features between those of two images.

use std::path::PathBuf;

use deepsim_eval::analysis::interpolate;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::photos::from_files;
use deepsim_eval::show::apng;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::output;
use deepsim_eval::show::sheet::{Sheet, images, png};
use deepsim_experiment::Consent;

use super::args::Runs;
use super::print::{Result, put, run_name, wrote};
use crate::progress::bar;

/// Images from features between those of two images, and an animation.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask quickstart`, of two photos of yours:
  cargo run -p deepsim-eval -- interpolate a.jpg b.jpg --steps 24 \\
      --runs runs/quickstart

Writes OUT/RUN/frame-000.png …, strip.png (the photos at both ends) and
animation.png (an animated PNG: browsers play it). A step is the root mean
squared change of pixels from one frame to the next; the largest over the mean
says how smooth it is.")]
pub struct Interpolate {
    /// The first image.
    a: PathBuf,
    /// The second image.
    b: PathBuf,
    /// Frames, both ends included.
    #[arg(long, default_value_t = 16, value_name = "N")]
    steps: usize,
    #[command(flatten)]
    runs: Runs,
    /// Milliseconds that a frame of the animation is shown.
    #[arg(long, default_value_t = 80, value_name = "MS")]
    delay: u16,
    /// How the steps are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the images.
    #[arg(long, value_name = "DIR", default_value = "interpolated")]
    out: PathBuf,
}

impl super::run::Run for Interpolate {
    fn run(self, consent: &Consent) -> Result<()> {
        let device = self.runs.device()?;
        let mut all = Vec::new();
        self.runs.each(consent, device, |run| {
            let paths = [self.a.clone(), self.b.clone()];
            let data = run.test_data()?;
            let augment = run.experiment.augment();
            let photos = from_files(&paths, data.framing(), &augment, device)?;
            let (a, b) = (photos.f_narrow(0, 0, 1)?, photos.f_narrow(0, 1, 1)?);
            let bar = bar(self.steps as u64, "frames");
            let mut made =
                interpolate::compute(run, &a, &b, self.steps, |n| bar.inc(n)).while_running()?;
            bar.finish_and_clear();
            let folder = self.out.join(run_name(run));
            let frames = images(&made.frames)?;
            for (i, (frame, step)) in frames.iter().zip(&mut made.steps).enumerate() {
                let file = folder.join(format!("frame-{i:03}.png"));
                output::write(&file, &png(frame)?)?;
                step.file = file.display().to_string();
            }
            let mut strip = Sheet::default();
            let mut row = images(&a)?;
            strip.columns.push("photo".to_owned());
            // A strip that can be looked at: of many frames, some.
            let shown = frames.len().min(14);
            for i in 0..shown {
                let at = i * (frames.len() - 1) / (shown - 1).max(1);
                strip.columns.push(format!("{:.2}", made.steps[at].t));
                row.push(frames[at].clone());
            }
            row.extend(images(&b)?);
            strip.columns.push("photo".to_owned());
            strip.row("", row);
            wrote(&folder.join("strip.png"), &strip.png()?)?;
            let animation = apng::encode(&apng::there_and_back(&frames, self.delay))?;
            wrote(&folder.join("animation.png"), &animation)?;
            all.push((made.steps, made.smoothness));
            Ok(())
        })?;
        let frames: Vec<_> = all.iter().flat_map(|(steps, _)| steps).cloned().collect();
        let text = |_: &[_]| interpolate::text(&all);
        put(&frames, text, "interpolate", self.format, &self.out)
    }
}
