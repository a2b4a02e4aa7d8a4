//! `baseline icnn`: a generator's input is optimised; nothing is trained.

use std::path::PathBuf;

use deepsim_data::Framing;
use deepsim_data::terminal::path as shown;
use deepsim_eval::EvalError;
use deepsim_eval::analysis::icnn::{self, Place, Request, Settings, Start, Targets};
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::photos;
use deepsim_eval::run::ready::Ready;
use deepsim_eval::show::format::Format;
use deepsim_experiment::source::{NetSource, Weights};
use deepsim_experiment::{Consent, device, feature_folder};
use deepsim_nets::{FeatureNet, NetKind, Tap};
use serde::de::DeserializeOwned;
use tch::Device;

use crate::commands::args::Chosen;
use crate::commands::print::{Result, at_least_one, put};
use crate::commands::run::Run;
use crate::progress::bar;

/// Side of the images that brain decoding's networks take.
const CUSTOMARY_SIDE: i64 = 224;

/// iCNN: the input of a generator is optimised until its image has the wanted features in several layers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- baseline icnn photo.jpg --net alexnet \\
      --net-weights weights/alexnet-lpips.safetensors \\
      --layers relu1,relu3,relu5

Decoded features, decoded/LAYER/S1/VC/LABEL.mat for every layer in the folder,
with a released generator of fc7's features:
  cargo run -p deepsim-eval -- baseline icnn --features decoded \\
      --within S1/VC --scale-to features \\
      --net vgg19 --net-weights weights/vgg19.safetensors \\
      --experiment experiments/fc7.toml --weights generator-fc7.safetensors

Layers are called as in the network's table. VGG19's are those of bdpy, conv1_1
to fc8, in front of the ReLU; its weights and units here are torchvision's.

The update is that of Shen et al.'s script: the gradient divided by its mean
size, momentum 0.9, a rate that falls linearly, decay 0.01, bounds. The loss is
the sum over layers of w |features - targets|^2, with w = 1/|targets|^2 scaled
to add up to 1. The image is that of the input with the smallest loss.")]
pub struct Icnn {
    /// Images whose own features are the targets.
    #[arg(required_unless_present = "features", conflicts_with = "features")]
    images: Vec<PathBuf>,
    /// Instead of images: a folder of layers, LAYER/LABEL.mat (bdpy's).
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    /// Where a layer's files lie in its folder: SUBJECT/ROI for decoded features.
    #[arg(long, value_name = "DIR", requires = "features")]
    within: Option<PathBuf>,
    /// Features of training images, LAYER/LABEL.mat: the targets get the mean deviation of these.
    #[arg(long, value_name = "DIR", requires = "features")]
    scale_to: Option<PathBuf>,
    /// The network in which features are matched.
    #[arg(long, value_name = "NET", value_parser = named::<NetKind>)]
    net: NetKind,
    /// Its weights: a file, or random:SEED.
    #[arg(long, value_name = "FILE")]
    net_weights: String,
    /// Its layers [default: the folders of --features].
    #[arg(
        long,
        value_name = "LAYER,…",
        value_delimiter = ',',
        value_parser = named::<Tap>,
        required_unless_present = "features"
    )]
    layers: Vec<Tap>,
    #[command(flatten)]
    generator: Chosen,
    /// Central pixels of the generator's images that the network is shown [default: 224, or all where there are fewer].
    #[arg(long, value_name = "PIXELS")]
    side: Option<i64>,
    /// Steps.
    #[arg(long, default_value_t = 200, value_name = "N")]
    steps: usize,
    /// Learning rate of the first step; it falls to nearly 0.
    #[arg(long, default_value_t = 2.0, value_name = "RATE")]
    rate: f64,
    /// Begin with noise of this seed [default: begin with zeros].
    #[arg(long, value_name = "SEED")]
    noise: Option<u64>,
    /// The most that each value of the input may be: a safetensors file with one array, a number for each value or channel.
    #[arg(long, value_name = "FILE")]
    upper: Option<PathBuf>,
    /// The input may be negative: for features that are not rectified.
    #[arg(long)]
    signed: bool,
    /// How images become square, where the run does not say it: SIZE[:squash|short-crop[:LEFT,TOP,SIDE]].
    #[arg(long, value_name = "FRAME", requires = "images")]
    frame: Option<Framing>,
    /// Stimuli that are optimised together.
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch: usize,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Folder for the images and the table.
    #[arg(long, value_name = "DIR", default_value = "icnn")]
    out: PathBuf,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// A network or layer by the name that experiments have for it.
fn named<T: DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

impl Run for Icnn {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_one("--steps", self.steps)?;
        at_least_one("--batch", self.batch)?;
        if !(self.rate.is_finite() && self.rate > 0.0) {
            return Err(EvalError::usage(
                "--rate",
                self.rate,
                "must be a number above 0",
            ));
        }
        let device = device::choose(&self.device)?;
        let taps = self.taps()?;
        let ready = self.generator.open(consent, device)?;
        let whole = i64::from(ready.experiment.config.data.crop);
        let side = self.side.unwrap_or(CUSTOMARY_SIDE.min(whole));
        if !(1..=whole).contains(&side) {
            let reason = format!("must be from 1 to the {whole} pixels of the generator's images");
            return Err(EvalError::usage("--side", side, reason));
        }
        let net = self.network(&taps, device)?;
        let targets = self.targets(&ready, &net, &taps, side, device)?;
        let upper = match &self.upper {
            Some(file) => Some(icnn::upper_bounds(file, &ready, device)?),
            None => None,
        };
        let published = Settings::published();
        let request = Request {
            ready: &ready,
            net: &net,
            taps: &taps,
            side,
            settings: Settings {
                steps: self.steps,
                first_rate: self.rate,
                lower: published.lower.filter(|_| !self.signed),
                upper,
                ..published
            },
            start: self.noise.map_or(Start::Zeros, Start::Noise),
            batch: self.batch,
            device,
        };
        let bar = bar((targets.labels.len() * self.steps) as u64, "images × steps");
        let rows = icnn::compute(&request, &targets, &self.out, |n| bar.inc(n)).while_running()?;
        bar.finish_and_clear();
        put(&rows, icnn::text, "icnn", self.format, &self.out)
    }
}

impl Icnn {
    /// The layers: those that were named, or all that have a folder.
    fn taps(&self) -> Result<Vec<Tap>> {
        let Some(root) = self.features.as_ref().filter(|_| self.layers.is_empty()) else {
            return Ok(self.layers.clone());
        };
        let folders = feature_folder::layers(root)?;
        let tap = |folder: &String| {
            named::<Tap>(folder).map_err(|error| {
                let reason =
                    format!("the folder `{folder}` is no layer ({error}); name layers by --layers");
                EvalError::usage("--features", shown(root), reason)
            })
        };
        folders.iter().map(tap).collect()
    }

    /// The network up to its deepest layer.
    fn network(&self, taps: &[Tap], device: Device) -> Result<FeatureNet> {
        let mut deepest: Option<(usize, Tap)> = None;
        for &tap in taps {
            let rows = self.net.rows_to(tap)?.len();
            if deepest.is_none_or(|(most, _)| rows > most) {
                deepest = Some((rows, tap));
            }
        }
        let Some((_, tap)) = deepest else {
            return Err(EvalError::usage("--layers", "", "name at least one"));
        };
        let weights = match self.net_weights.strip_prefix("random:") {
            None => Weights::File(self.net_weights.clone().into()),
            Some(seed) => Weights::Random(seed.parse().map_err(|_| {
                let reason = "the seed must be a whole number, as in random:1";
                EvalError::usage("--net-weights", &self.net_weights, reason)
            })?),
        };
        let net = self.net;
        Ok(NetSource { net, tap, weights }.load(device)?)
    }

    fn targets(
        &self,
        ready: &Ready,
        net: &FeatureNet,
        taps: &[Tap],
        side: i64,
        device: Device,
    ) -> Result<Targets> {
        if let Some(root) = &self.features {
            let place = Place {
                root,
                within: self.within.as_deref(),
            };
            let like = self
                .scale_to
                .as_deref()
                .map(|root| Place { root, within: None });
            return icnn::of_folder(place, like, net, taps, side);
        }
        let framing = self.frame.map_or_else(|| ready.framing(), Ok)?;
        let augment = ready.experiment.augment();
        let images = photos::from_files(&self.images, framing, &augment, device)?;
        let label = |path: &PathBuf| {
            let stem = path.file_stem().unwrap_or_default();
            stem.to_string_lossy().into_owned()
        };
        let labels = self.images.iter().map(label).collect();
        icnn::of_images(labels, &images, net, taps, side, self.batch)
    }
}
