//! `forward`: one network on tensors.

use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_eval::analysis::forward;
use deepsim_experiment::{Consent, Experiment, device, run_dir};

use super::print::{Result, warn};

/// Run one network on tensors: key `x` in, key `y` out, f32; images RGB 0–255 NCHW.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`; photos.safetensors has a tensor `x`
of RGB images, [N,3,128,128], 0-255:
  cargo run -p deepsim-eval -- forward experiments/quickstart.toml \\
      --net encoder --input photos.safetensors --output features.safetensors
The generator takes features under the key `x` (save `y` of the file above
again as `x`):
  cargo run -p deepsim-eval -- forward experiments/quickstart.toml \\
      --net generator --input x.safetensors --output images.safetensors")]
pub struct Forward {
    /// The experiment that says which network, tap and sizes.
    experiment: PathBuf,
    /// Which of its networks: encoder, comparator (of several: comparator.NAME), generator or discriminator.
    #[arg(long, value_name = "NET")]
    net: forward::Net,
    /// Weights; else the experiment's own, or those of the run's newest checkpoint.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Safetensors file with key `x`, F32; for the generator also what the encoder wrote (its only key: `y`).
    #[arg(long)]
    input: PathBuf,
    /// Safetensors file to write.
    #[arg(long)]
    output: PathBuf,
    /// Run directory with checkpoints [default: the run whose file EXPERIMENT is, or runs/NAME].
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Override a key of the experiment (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl Forward {
    /// Does it.
    ///
    /// # Errors
    /// What the command line names wrongly, and failures of the work.
    pub fn run(self, consent: &Consent) -> Result<()> {
        let own = run_dir::of_file(&self.experiment).ok().flatten();
        let experiment = Experiment::load(&self.experiment, &self.set)?;
        let run = self
            .run
            .or_else(|| own.map(|(run, _)| run))
            .unwrap_or_else(|| Path::new("runs").join(&experiment.config.name));
        let request = forward::Request {
            net: self.net,
            weights: self.weights,
            run,
            input: self.input,
            output: self.output,
            consent: consent.clone(),
        };
        let shape = forward::forward(&experiment, &request, device::choose(&self.device)?, warn)?;
        tracing::info!("wrote y {shape:?} to {}", shown(&request.output));
        Ok(())
    }
}
