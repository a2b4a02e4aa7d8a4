//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use deepsim_data::terminal::path as shown;
use deepsim_eval::run::loaded::Loaded;
use deepsim_eval::run::ready::Ready;
use deepsim_eval::run::runs;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::output;
use deepsim_experiment::{Consent, Processes, device};
use tch::Device;

use super::among::warn_once;
use super::print::Result;

/// Which runs, and where to compute.
#[derive(Args)]
pub struct Runs {
    /// Folder of runs, or one run [default: runs, where it exists].
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
}

impl Runs {
    /// The device.
    pub fn device(&self) -> Result<Device> {
        Ok(device::choose(&self.device)?)
    }

    /// Does something with each run, one at a time in memory; those that cannot be opened are told and left out.
    pub fn each(
        &self,
        consent: &Consent,
        device: Device,
        work: impl FnMut(&Loaded) -> Result<()>,
    ) -> Result<()> {
        self.each_among(&Processes::alone(), consent, device, work)
    }

    /// The same by several processes.
    pub fn each_among(
        &self,
        processes: &Processes,
        consent: &Consent,
        device: Device,
        work: impl FnMut(&Loaded) -> Result<()>,
    ) -> Result<()> {
        let warn = warn_once(processes);
        runs::each(self.runs.clone(), consent, device, processes, warn, work)
    }
}

/// How a table is printed, and where it is kept.
#[derive(Args)]
pub struct Output {
    /// How to print.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Also write the table into this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl Output {
    /// Prints a table, and writes it where asked.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        output::show_as(self.format, text)?;
        if let Some(dir) = &self.out {
            let file = dir.join(format!("{name}.{}", self.format.extension()));
            output::write(&file, text.as_bytes())?;
            tracing::info!("wrote {}", shown(file));
        }
        Ok(())
    }
}

/// Which generator: a run's, or released weights and the experiment that describes them.
#[derive(Args)]
pub struct Chosen {
    /// The trained run [default: runs/quickstart].
    #[arg(long, value_name = "DIR", conflicts_with_all = ["experiment", "weights"])]
    run: Option<PathBuf>,
    /// Instead of a run: the experiment that says which features the generator takes.
    #[arg(long, value_name = "EXPERIMENT.toml", requires = "weights")]
    experiment: Option<PathBuf>,
    /// Instead of a run: weights of the generator, as `deepsim-weights import caffemodel` writes them.
    #[arg(long, value_name = "FILE", requires = "experiment")]
    weights: Option<PathBuf>,
}

impl Chosen {
    /// Opens it; `consent` says which weights of a run.
    pub fn open(&self, consent: &Consent, device: Device) -> Result<Ready> {
        match (&self.experiment, &self.weights) {
            (Some(experiment), Some(weights)) => Ready::of_weights(experiment, weights, device),
            _ => {
                let run = self.run.as_deref().unwrap_or(Path::new("runs/quickstart"));
                Ready::of_run(run, consent.weights(), device)
            }
        }
    }
}
