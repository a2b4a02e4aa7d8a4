//! `baseline mv`: the method of Mahendran & Vedaldi, which trains no generator.

use std::path::{Path, PathBuf};

use deepsim_data::Dataset;
use deepsim_data::terminal::{path as shown, quote};
use deepsim_eval::EvalError;
use deepsim_eval::analysis::mv;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::show::output;
use deepsim_experiment::{Consent, Experiment, Perception, device, run_dir};

use crate::commands::print::{Result, at_least_one, at_least_two};
use crate::commands::run::Run;
use crate::progress::bar;

/// Mahendran & Vedaldi: gradient descent from noise until the features are met.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`, some minutes each:
  cargo run -p deepsim-eval -- baseline mv experiments/quickstart.toml
  cargo run -p deepsim-eval -- baseline mv experiments/sample/pool5.toml \\
      --set encoder.tap=pool1

Encoder, layer, crop and held-out photos are the experiment's. The published
schedule: 400 steps from noise, total variation weighed by the layer's depth.
`table2` counts the result as `mv`.")]
pub struct Mv {
    /// The experiment that says which encoder, layer and images.
    experiment: PathBuf,
    /// Override a key of the experiment (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Held-out images at most.
    #[arg(long, default_value_t = 64, value_name = "N")]
    images: usize,
    /// Images that are optimised together.
    #[arg(long, default_value_t = 16, value_name = "N")]
    batch: usize,
    /// Weight of the total variation [default: 1, 10 or 100 by the layer's depth].
    #[arg(long, value_name = "WEIGHT")]
    tv: Option<f64>,
    /// Seed of the noise that it starts from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Result [default: runs/mv-NET-TAP-CROP].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace a result that is there.
    #[arg(long)]
    fresh: bool,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl Run for Mv {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_one("--batch", self.batch)?;
        at_least_two("--images", self.images)?;
        if let Some(tv) = self.tv.filter(|t| !(t.is_finite() && *t >= 0.0)) {
            return Err(EvalError::usage("--tv", tv, "must be a number from 0 on"));
        }
        let experiment = Experiment::load(&self.experiment, &self.set)?;
        if experiment.config.latent.is_some() {
            let reason = "its encoder learns with the generator; give one whose features are a network's own";
            return Err(EvalError::usage(
                "EXPERIMENT",
                shown(&experiment.path),
                reason,
            ));
        }
        let crop = experiment.config.data.crop;
        let source = &experiment.encoder;
        let out = self.out.unwrap_or_else(|| {
            Path::new("runs").join(format!(
                "mv-{}-{crop}",
                source.to_string().replace(':', "-")
            ))
        });
        mv::check(&out, self.fresh)?;
        let device = device::choose(&self.device)?;
        let data = Dataset::open_and_tell(&experiment.config.data.test)?;
        let of_run = run_dir::of_file(&experiment.path)?;
        let permit = match &of_run {
            Some((run, checkpoint)) => consent.on_run(run, &checkpoint.manifest),
            None => consent.at_first(&experiment.path),
        };
        let perception = Perception::encoder_alone(&experiment, &permit, device)?;
        let layer = source.network().map_or("", |n| n.tap.name());
        let weight = self.tv.unwrap_or_else(|| mv::total_variation_for(layer));
        let settings = mv::Settings::published(crop, weight, self.seed);
        let n = data.len().min(self.images);
        let bar = bar((n * settings.steps()) as u64, "photos × steps");
        let made = mv::compute(
            &experiment,
            &perception,
            &data,
            &settings,
            (self.images, self.batch),
            device,
            |n| bar.inc(n),
        )
        .while_running()?;
        bar.finish_and_clear();
        mv::write(&out, &made, self.fresh).while_running()?;
        let mean = |of: fn(&mv::Photo) -> f64| {
            made.photos.iter().map(of).sum::<f64>() / made.photos.len().max(1) as f64
        };
        output::show(format_args!(
            "{}: {n} photos, {:.0} s, feature term {:.3} -> {:.4}\n",
            shown(&out),
            made.seconds,
            mean(|p| p.feature_start),
            mean(|p| p.feature_end)
        ))?;
        let parent = out.parent().filter(|p| !p.as_os_str().is_empty());
        let beside = quote(parent.unwrap_or(Path::new(".")));
        tracing::info!(
            "errors beside other methods: cargo run -p deepsim-eval -- table2 --runs {beside}"
        );
        Ok(())
    }
}
