//! `decode`: images from features alone.

use std::path::PathBuf;

use deepsim_eval::analysis::decode;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::output;
use deepsim_experiment::{Consent, device};

use super::args::Chosen;
use super::print::{Result, list};

/// Turn features into images: neither an image nor an encoder is needed.
///
/// FEATURES is a .safetensors file with a tensor for each name, [LENGTH] or [C,H,W] (or a batch
/// [N,...] of them); or a matrix, .safetensors or .npy, with a name for each row in
/// FEATURES.names.txt beside it. They are raw, as they were recorded: what the run's
/// encoder.normalize did to them in training is done here too.
#[derive(clap::Args)]
#[command(after_help = "\
Example, of recorded features (docs/guide/your-own-representation.md records
256 numbers for each sample photo and trains runs/sample-recorded):
  cargo run -p deepsim-eval -- decode data/responses.safetensors \\
      --run runs/sample-recorded --out pictures

With released weights that were imported (`deepsim-weights import caffemodel`):
  cargo run -p deepsim-eval -- decode fc6.safetensors \\
      --experiment experiments/fc6.toml --weights generator-fc6.safetensors")]
pub struct Decode {
    /// The file of features.
    features: PathBuf,
    #[command(flatten)]
    generator: Chosen,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Folder for the images, one PNG for each name.
    #[arg(long, value_name = "DIR", default_value = "decoded")]
    out: PathBuf,
    /// Format of the list of images on stdout.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl super::run::Run for Decode {
    fn run(self, consent: &Consent) -> Result<()> {
        let device = device::choose(&self.device)?;
        let made = decode::decode(
            &self.generator.open(consent, device)?,
            &self.features,
            &self.out,
            device,
        )?;
        output::show_as(self.format, &list(&made, self.format, |m| &m.picture)?)
    }
}
