//! `measure`: two sets of images, by the numbers that others report.

use std::path::{Path, PathBuf};

use deepsim_data::Dataset;
use deepsim_eval::EvalError;
use deepsim_eval::analysis::measure::{
    self, Asked, Compared, Length, Metric, Purpose, Reconstructions, Resize, Sets, Space,
};
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::measure::metrics::used;
use deepsim_eval::run::loaded::{HeldOutImages, Loaded};
use deepsim_eval::show::format::{Format, csv, json_object};
use deepsim_experiment::{Consent, Experiment, Processes, device};
use tch::Device;

use super::among::{RunAmong, agree, warn_once};
use super::args::Output;
use super::print::{Result, at_least_two, warn};
use crate::progress::bar_among;

/// Compare two sets of images by PSNR, SSIM, LPIPS, DISTS, FID and others.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo run -p deepsim-eval -- measure originals reconstructions
  cargo run -p deepsim-eval -- measure originals samples --unpaired \\
      --fid --kid --precision-recall --format json
  cargo run -p deepsim-eval -- measure --run runs/quickstart --fid
  cargo run -p deepsim-eval -- measure originals reconstructions --brain

A and B are folders or prepared datasets; A is the reference. Images of the same
name and size belong together. A folder's images are taken at their own size.
With --run, A are the run's held-out images as its evaluation cuts them, and B
its reconstructions of them, clipped and rounded to 8 bits: FID is rFID then.

LPIPS and DISTS need `cargo xtask setup --only judges`. FID, KID, precision and
recall need a file that nobody may redistribute here: download
pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid, then
  cargo run -p deepsim-weights -- import torchvision \\
      pt_inception-2015-12-05-6726825d.pth weights/inception-fid.safetensors
A number whose weights are not there is null, with the reason; so is FID of a
run that was trained with FID's network. An --encoder that it was trained with
is told. Distributions need at least ten images of each side. Each number is
printed with how it was measured; numbers compare where that is the same.

--brain adds the eight metrics that brain decoding reports. They keep the
features of all images in memory.

Several processes share the batches (torchrun, or RANK and WORLD_SIZE); rank 0
prints the numbers of one process.")]
pub struct Measure {
    /// The reference: a folder of images or a prepared dataset.
    #[arg(required_unless_present = "run", conflicts_with = "run")]
    a: Option<PathBuf>,
    /// What is compared with it.
    #[arg(required_unless_present = "run", conflicts_with = "run")]
    b: Option<PathBuf>,
    /// Instead of two sets: a trained run.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// With --run, held-out images: all, or so many spread evenly.
    #[arg(long, default_value_t = 50_000, value_name = "N", requires = "run")]
    images: usize,
    /// Nothing belongs together: distances of distributions alone.
    #[arg(long, conflicts_with = "run")]
    unpaired: bool,
    /// Fréchet distance in FID's Inception.
    #[arg(long)]
    fid: bool,
    /// Kernel distance in FID's Inception; keeps the features of all images in memory, as the next one does.
    #[arg(long)]
    kid: bool,
    /// Precision and recall in FID's Inception.
    #[arg(long)]
    precision_recall: bool,
    /// Whose resizing comes before FID's Inception.
    #[arg(long, value_enum, default_value = "pytorch-fid")]
    resize: Resize,
    /// How many features of FID's Inception.
    #[arg(long, value_enum, default_value = "2048")]
    dims: Length,
    /// Fréchet and kernel distance in the encoder of this experiment too, whatever network that is.
    #[arg(long, value_name = "EXPERIMENT.toml")]
    encoder: Option<PathBuf>,
    /// Brain decoding's metrics: pixel correlation, grey SSIM, two-way identification and correlation distance in the
    /// customary networks, and in --encoder's.
    #[arg(long, conflicts_with = "unpaired")]
    brain: bool,
    /// Seed of the subsets of kernel distances.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the metrics' weights.
    #[arg(long, value_name = "DIR", default_value = "weights")]
    weights: PathBuf,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    #[command(flatten)]
    output: Output,
}

impl RunAmong for Measure {
    fn run_among(self, consent: &Consent, processes: &Processes) -> Result<()> {
        let device = device::choose(&self.device)?;
        processes.check(device)?;
        let mut metrics = measure::metrics(&self.weights, device)?;
        if self.brain {
            metrics.extend(measure::of_brain_decoding());
        }
        let mut spaces = self.spaces(consent, device)?;
        let (Some(a), Some(b)) = (&self.a, &self.b) else {
            at_least_two("--images", self.images)?;
            let path = self.run.as_deref().unwrap_or(Path::new("runs/quickstart"));
            let run = Loaded::open(path, consent, device)?;
            let held = run.held_out(self.images)?;
            if processes.leads() {
                run.overlap(&held, warn)?;
            }
            let networks = used(&run.experiment);
            metrics.iter_mut().for_each(|m| m.silence(&networks));
            let sources = run.checkpoint.manifest.sources();
            let digests: Vec<&str> = sources.map(|(_, digest)| digest).collect();
            spaces
                .iter_mut()
                .for_each(|space| space.beside(&networks, &digests));
            return self.reconstructions(processes, &run, &held, &metrics, &spaces);
        };
        let (a, b) = (Dataset::open_and_tell(a)?, Dataset::open_and_tell(b)?);
        let sets = if self.unpaired {
            Sets::unpaired(a, b, device)
        } else {
            Sets::paired(a, b, device)?
        };
        self.compare(processes, &sets, &metrics, &spaces)
    }
}

impl Measure {
    /// What distances of distributions are asked in.
    fn spaces(&self, consent: &Consent, device: Device) -> Result<Vec<Space>> {
        let asked = Asked {
            fid: self.fid,
            kid: self.kid,
            precision_recall: self.precision_recall,
            length: self.dims,
            resize: self.resize,
        };
        let inception = Space::inception(asked, &self.weights, device)?;
        let mut spaces: Vec<Space> = inception.into_iter().collect();
        let purposes = [Purpose::Distributions, Purpose::Pairs];
        if let Some(file) = &self.encoder {
            let experiment = Experiment::load(file, &[])?;
            for purpose in &purposes[..1 + usize::from(self.brain)] {
                spaces.push(Space::encoder(&experiment, *purpose, consent, device)?);
            }
        }
        if self.brain {
            spaces.extend(Space::of_brain_decoding(&self.weights, device)?);
        }
        if self.unpaired && spaces.is_empty() {
            return Err(EvalError::usage(
                "--unpaired",
                "alone",
                "leaves nothing to measure: add --fid, --kid, --precision-recall or --encoder",
            ));
        }
        Ok(spaces)
    }

    fn reconstructions(
        &self,
        processes: &Processes,
        run: &Loaded,
        held: &HeldOutImages,
        metrics: &[Metric],
        spaces: &[Space],
    ) -> Result<()> {
        processes.agree::<EvalError>(&run.facts()?)?;
        self.compare(processes, &Reconstructions { run, held }, metrics, spaces)
    }

    fn compare(
        &self,
        processes: &Processes,
        compared: &dyn Compared,
        metrics: &[Metric],
        spaces: &[Space],
    ) -> Result<()> {
        let sides = compared.sides();
        measure::check(spaces, [sides[0].n, sides[1].n])?;
        if processes.size() > 1 {
            let digests = sides
                .each_ref()
                .map(|s| s.digest.clone().unwrap_or_default());
            let of_metrics = metrics.iter().flat_map(|m| &m.protocol.weights);
            let weights: Vec<&str> = of_metrics
                .map(|w| w.blake3.as_str())
                .chain(spaces.iter().flat_map(|space| space.digests()))
                .collect();
            let options = [
                ("the digests of the images", digests.join(" ")),
                ("--unpaired", self.unpaired.to_string()),
                ("--fid", self.fid.to_string()),
                ("--kid", self.kid.to_string()),
                ("--precision-recall", self.precision_recall.to_string()),
                ("--brain", self.brain.to_string()),
                ("--resize", format!("{:?}", self.resize)),
                ("--dims", format!("{:?}", self.dims)),
                ("--seed", self.seed.to_string()),
                ("the weights of the metrics", weights.join(" ")),
            ];
            agree(processes, "measure", &options)?;
        }
        let bar = bar_among(processes, compared.batches() as u64, "batches");
        let found = measure::compute(processes, compared, metrics, spaces, self.seed, |n| {
            bar.inc(n);
        })
        .while_running()?;
        bar.finish_and_clear();
        if !processes.leads() {
            return Ok(());
        }
        found.remarks().into_iter().for_each(warn_once(processes));
        let text = match self.output.format {
            Format::Json => json_object(&found)?,
            Format::Csv => csv(&found.rows())?,
            Format::Text => found.text(),
        };
        self.output.put("measure", &text)
    }
}
