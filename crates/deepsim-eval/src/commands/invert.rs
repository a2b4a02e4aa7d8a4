//! `invert`: images from their own features.

use std::path::PathBuf;

use deepsim_data::Framing;
use deepsim_eval::analysis::invert;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::output;
use deepsim_experiment::{Consent, device};

use super::args::Chosen;
use super::print::{Result, list};

/// Reconstruct images (any size) from their features.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- invert photo.jpg --out pictures
  cargo run -p deepsim-eval -- invert data/photos/categorization/fish12.webp

With released weights that were imported (`deepsim-weights import caffemodel`):
  cargo run -p deepsim-eval -- invert photo.jpg \\
      --experiment experiments/fc6.toml --weights generator-fc6.safetensors")]
pub struct Invert {
    /// Images.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    generator: Chosen,
    /// How they become square, where the run does not say it: SIZE[:squash|short-crop[:LEFT,TOP,SIDE]].
    #[arg(long, value_name = "FRAME")]
    frame: Option<Framing>,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Folder for the images.
    #[arg(long, value_name = "DIR", default_value = "inverted")]
    out: PathBuf,
    /// Format of the list of images on stdout.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl super::run::Run for Invert {
    fn run(self, consent: &Consent) -> Result<()> {
        let device = device::choose(&self.device)?;
        let generator = self.generator.open(consent, device)?;
        let made = invert::invert(
            &generator,
            &self.images,
            self.frame,
            &self.out,
            consent,
            device,
        )?;
        output::show_as(self.format, &list(&made, self.format, |m| &m.pair)?)
    }
}
