//! The command line.

mod help;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use deepsim_data::Framing;
use deepsim_data::terminal::path as shown;
use deepsim_data::terminal::tell;
use deepsim_eval::door::Net;
use deepsim_eval::figures::Figure;
use deepsim_eval::format::Format;
use deepsim_eval::ready::Ready;
use deepsim_eval::{EvalError, output};
use deepsim_experiment::consent::parse_hash;

/// Turn trained runs into tables, figures, reconstructions and tensors.
#[derive(Parser)]
#[command(
    name = "deepsim-eval",
    version,
    after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- table2
  cargo run -p deepsim-eval -- table2 --format json --runs runs/quickstart
  cargo run -p deepsim-eval -- figure 1 --out figures
  cargo run -p deepsim-eval -- invert photo.jpg --run runs/quickstart \\
      --out pictures
  cargo run -p deepsim-eval -- report

`COMMAND --help` has examples of each command and says what they need.

Data goes to stdout, remarks to stderr. Exit codes: 0 done, 1 failed while
computing, 2 something named on the command line is not there or does not fit."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Run the TorchScript modules of the experiment: such a file is a program. With hashes: only those; without: on a run,
    /// only what it was trained with.
    #[arg(
        long,
        global = true,
        value_name = "BLAKE3,…",
        num_args = 0..,
        require_equals = true,
        value_delimiter = ',',
        value_parser = parse_hash
    )]
    pub trust_code: Option<Vec<String>>,
}

#[derive(Subcommand)]
pub enum Command {
    /// The generator layer by layer (the paper's Table 1, or an experiment's).
    #[command(after_help = "\
Examples:
  cargo run -p deepsim-eval -- table1
  cargo run -p deepsim-eval -- table1 experiments/quickstart.toml")]
    Table1 {
        /// Show this experiment's generator instead of the paper's FC6.
        #[arg(value_name = "EXPERIMENT.toml", conflicts_with = "experiment")]
        file: Option<PathBuf>,
        /// The same.
        #[arg(long, value_name = "EXPERIMENT.toml")]
        experiment: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Normalised errors of all runs beside the paper's Table 2.
    #[command(after_help = "\
Example, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- table2 --out tables

Counts every run with a checkpoint and every `baseline mv` below --runs. Errors
are means over held-out images, divided by the mean distance of all pairs of
different ones (of more than 2000 images: of the pairs of 2000, spread evenly).
Rows of one table stand on the same images. Judges: LPIPS (by VGG16, or by
AlexNet where VGG16 had a part in the run), SSIM, PSNR, and how often
EfficientNet-Lite0 gives a reconstruction the photo's own label. A judge that is
itself the run's encoder or comparator is not heard: the table says `shared`.")]
    Table2 {
        #[command(flatten)]
        runs: Runs,
        /// Held-out images: all, or so many spread evenly.
        #[arg(long, default_value_t = 2000, value_name = "N")]
        images: usize,
        /// Judge reconstructions without clipping them to 0–255.
        #[arg(long)]
        no_clip: bool,
        /// In text, also show judges that the paper lacks (JSON and CSV always have them).
        #[arg(long)]
        judges: bool,
        /// Folder of the judges' weights.
        #[arg(long, value_name = "DIR", default_value = "weights")]
        judge_weights: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// A figure of the paper from the runs that there are, as one PNG.
    #[command(after_help = help::FIGURE)]
    Figure {
        /// Its number in the paper.
        #[arg(value_enum)]
        figure: Figure,
        #[command(flatten)]
        runs: Runs,
        /// Only runs that invert this layer: NET:TAP, as in alexnet:pool5.
        #[arg(long, value_name = "NET:TAP")]
        encoder: Option<String>,
        /// Photographs, spread evenly over the held-out set.
        #[arg(long, default_value_t = 8, value_name = "N")]
        images: usize,
        /// Only photographs with this text in their name (repeatable).
        #[arg(long, value_name = "TEXT")]
        filter: Vec<String>,
        /// How the list of runs on stdout is printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Folder for the picture.
        #[arg(long, value_name = "DIR", default_value = "figures")]
        out: PathBuf,
    },
    /// Encode and reconstruct again and again: pictures, and the drift in numbers.
    #[command(after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- reencode --runs runs/quickstart --out reencoded
  cargo run -p deepsim-eval -- reencode photo.jpg --runs runs/quickstart \\
      --iterations 1,4,16")]
    Reencode {
        /// Photographs; none: those held out by the run.
        photos: Vec<PathBuf>,
        #[command(flatten)]
        runs: Runs,
        /// Iterations that are shown.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "1,2,4,8",
            value_name = "N,…"
        )]
        iterations: Vec<usize>,
        /// Held-out photographs to measure, at most.
        #[arg(long, default_value_t = 64, value_name = "N")]
        images: usize,
        /// Photographs on the sheet, at most.
        #[arg(long, default_value_t = 8, value_name = "N")]
        show: usize,
        /// How the drift is printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Folder for the pictures, one PNG for each run.
        #[arg(long, value_name = "DIR", default_value = "reencoded")]
        out: PathBuf,
    },
    /// Pictures from features between those of two photographs, and an animation.
    #[command(after_help = help::INTERPOLATE)]
    Interpolate {
        /// The first photograph.
        a: PathBuf,
        /// The second photograph.
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
        /// Folder for the pictures.
        #[arg(long, value_name = "DIR", default_value = "interpolated")]
        out: PathBuf,
    },
    /// Samples of variational autoencoders' priors, and numbers of the models.
    #[command(after_help = help::SAMPLE)]
    Sample {
        #[command(flatten)]
        runs: Runs,
        /// Samples that are measured.
        #[arg(long, default_value_t = 256, value_name = "N")]
        count: usize,
        /// Samples on the sheet, at most.
        #[arg(long, default_value_t = 32, value_name = "N")]
        show: usize,
        /// Seed of the codes.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Held-out photographs to measure, at most.
        #[arg(long, default_value_t = 256, value_name = "N")]
        images: usize,
        /// Folder of EfficientNet-Lite0's weights.
        #[arg(long, value_name = "DIR", default_value = "weights")]
        judge_weights: PathBuf,
        /// How the numbers are printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Folder for the pictures, one PNG for each run.
        #[arg(long, value_name = "DIR", default_value = "sampled")]
        out: PathBuf,
    },
    /// Several pictures of the same features, and how far they are apart.
    #[command(after_help = help::PREIMAGES)]
    Preimages {
        /// Run directories.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Pictures of each photograph's features.
        #[arg(long, default_value_t = 6, value_name = "N")]
        draws: usize,
        /// Held-out photographs to measure, at most.
        #[arg(long, default_value_t = 64, value_name = "N")]
        images: usize,
        /// Photographs on the sheet, at most.
        #[arg(long, default_value_t = 8, value_name = "N")]
        show: usize,
        /// Seed of the noise.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
        /// How the numbers are printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Folder for the sheets, one PNG for each run.
        #[arg(long, value_name = "DIR", default_value = "preimages")]
        out: PathBuf,
    },
    /// Visual attribute vectors of autoencoders: glasses on, glasses off.
    #[command(after_help = help::ATTRIBUTES)]
    Attributes {
        /// Run directories of autoencoders.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// The file of attributes.
        #[arg(long, value_name = "FILE")]
        labels: PathBuf,
        /// Attributes to ask for, all if left out. Repeatable.
        #[arg(long, value_name = "NAME")]
        attribute: Vec<String>,
        /// How many times the vector is added.
        #[arg(
            long,
            default_value_t = 1.0,
            value_name = "X",
            allow_negative_numbers = true
        )]
        strength: f64,
        /// Training pictures and held-out pictures to encode, at most.
        #[arg(long, default_value_t = 2000, value_name = "N")]
        images: usize,
        /// Held-out pictures of either kind on a sheet.
        #[arg(long, default_value_t = 8, value_name = "N")]
        show: usize,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
        /// How the numbers are printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Folder for the sheets, one PNG for each run and attribute.
        #[arg(long, value_name = "DIR", default_value = "attributes")]
        out: PathBuf,
    },
    /// Training losses against metrics: autoencoders and super-resolution.
    #[command(after_help = help::LOSSES)]
    Losses {
        #[command(flatten)]
        runs: Runs,
        /// Held-out photographs to measure, at most.
        #[arg(long, default_value_t = 256, value_name = "N")]
        images: usize,
        /// Photographs on a sheet, at most.
        #[arg(long, default_value_t = 8, value_name = "N")]
        show: usize,
        /// Only photographs with this text in their name on the sheet (repeatable).
        #[arg(long, value_name = "TEXT")]
        filter: Vec<String>,
        /// Folder of the judges' weights.
        #[arg(long, value_name = "DIR", default_value = "weights")]
        judge_weights: PathBuf,
        /// How the table is printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Folder for the pictures, one PNG for each task.
        #[arg(long, value_name = "DIR", default_value = "losses")]
        out: PathBuf,
    },
    /// Does the network only retrieve? Nearest training photographs beside reconstructions.
    #[command(after_help = "\
Example, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- neighbors --runs runs/quickstart --out neighbors

For each held-out photo the nearest training photos (exact search; mirror
images count where the training mirrors) in the space of pixels and of several
layers.")]
    Neighbors {
        #[command(flatten)]
        runs: Runs,
        /// Held-out photographs to measure, at most.
        #[arg(long, default_value_t = 64, value_name = "N")]
        images: usize,
        /// Photographs on the sheet, at most.
        #[arg(long, default_value_t = 8, value_name = "N")]
        show: usize,
        /// How the numbers are printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Folder for the pictures, one PNG for each run.
        #[arg(long, value_name = "DIR", default_value = "neighbors")]
        out: PathBuf,
    },
    /// Methods that train no generator.
    #[command(subcommand)]
    Baseline(Baseline),
    /// Reconstruct photographs (any size) from their features.
    #[command(after_help = help::INVERT)]
    Invert {
        /// Photographs.
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
        /// Folder for the pictures.
        #[arg(long, value_name = "DIR", default_value = "inverted")]
        out: PathBuf,
        /// Format of the list of pictures on stdout.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Turn features into pictures: no photograph and no encoder are needed.
    ///
    /// FEATURES is a .safetensors file with a tensor for each name, [LENGTH] or [C,H,W] (or a batch
    /// [N,...] of them); or a matrix, .safetensors or .npy, with a name for each row in
    /// FEATURES.names.txt beside it. They are raw, as they were recorded: what the run's
    /// encoder.normalize did to them in training is done here too.
    #[command(after_help = help::DECODE)]
    Decode {
        /// The file of features.
        features: PathBuf,
        #[command(flatten)]
        generator: Chosen,
        /// Where to compute: auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
        /// Folder for the pictures, one PNG for each name.
        #[arg(long, value_name = "DIR", default_value = "decoded")]
        out: PathBuf,
        /// Format of the list of pictures on stdout.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Held-out photographs above what several runs make of them, as one PNG.
    #[command(after_help = "\
Example, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- compare runs/quickstart --out compare.png")]
    Compare {
        /// Run directories, one row each.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Photographs, spread evenly over the held-out set.
        #[arg(long, default_value_t = 8, value_name = "N")]
        images: usize,
        /// Only photographs with this text in their name (repeatable).
        #[arg(long, value_name = "TEXT")]
        filter: Vec<String>,
        /// The PNG to write.
        #[arg(long, value_name = "FILE", default_value = "compare.png")]
        out: PathBuf,
        /// Where to compute: auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
    },
    /// A blind page that asks people which of two runs' pictures is more like the photo.
    #[command(after_help = "\
Example, after `cargo xtask reproduce --only sample-ae` (trains, minutes each):
  cargo run -p deepsim-eval -- ask runs/sample-ae-l2 runs/sample-ae-ms-ssim

Show the page to people (it works from disk and sends nothing), collect the
files that they save, and count them:
  cargo run -p deepsim-eval -- asked answers-*.json")]
    Ask {
        /// Run directories; every two of them are compared.
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<PathBuf>,
        /// Photographs, spread evenly over the held-out set.
        #[arg(long, default_value_t = 12, value_name = "N")]
        images: usize,
        /// Only photographs with this text in their name (repeatable).
        #[arg(long, value_name = "TEXT")]
        filter: Vec<String>,
        /// The page to write.
        #[arg(long, value_name = "FILE", default_value = "ask.html")]
        out: PathBuf,
        /// Where to compute: auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
    },
    /// Counts the answers to such a page.
    #[command(after_help = "\
Example, with the files that the page of `ask` saved:
  cargo run -p deepsim-eval -- asked answers-*.json")]
    Asked {
        /// Files that the page saved, one for each person.
        #[arg(value_name = "ANSWERS")]
        answers: Vec<PathBuf>,
        /// How the numbers are printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// One self-contained HTML page of everything that the runs show.
    #[command(after_help = help::REPORT)]
    Report {
        #[command(flatten)]
        runs: Runs,
        /// Held-out photographs with a slider.
        #[arg(long, default_value_t = 8, value_name = "N")]
        photos: usize,
        /// Held-out photographs that errors are means over, at most.
        #[arg(long, default_value_t = 64, value_name = "N")]
        images: usize,
        /// Folder of the judges' weights.
        #[arg(long, value_name = "DIR", default_value = "weights")]
        judge_weights: PathBuf,
        /// The page: a file ending in .html, or a folder for report.html.
        #[arg(long, value_name = "DIR|FILE", default_value = "report.html")]
        out: PathBuf,
    },
    /// Run one network on tensors: key `x` in, key `y` out, f32; pictures RGB 0–255 NCHW.
    #[command(after_help = help::FORWARD)]
    Forward {
        /// The experiment that says which network, tap and sizes.
        experiment: PathBuf,
        /// Which of its networks.
        #[arg(long, value_enum)]
        net: Net,
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
    },
}

#[derive(Subcommand)]
pub enum Baseline {
    /// Mahendran & Vedaldi: gradient descent from noise until the features are met.
    #[command(after_help = "\
Examples, after `cargo xtask quickstart`, some minutes each:
  cargo run -p deepsim-eval -- baseline mv experiments/quickstart.toml
  cargo run -p deepsim-eval -- baseline mv experiments/sample/pool5.toml \\
      --set encoder.tap=pool1

Encoder, layer, crop and held-out photos are the experiment's. The published
schedule: 400 steps from noise, total variation weighed by the layer's depth.
`table2` counts the result as `mv`.")]
    Mv {
        /// The experiment that says which encoder, layer and photographs.
        experiment: PathBuf,
        /// Override a key of the experiment (repeatable).
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Held-out photographs at most.
        #[arg(long, default_value_t = 64, value_name = "N")]
        images: usize,
        /// Photographs that are optimised together.
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
    },
}

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
    pub fn put(&self, name: &str, text: &str) -> Result<(), EvalError> {
        output::show_as(self.format, text)?;
        if let Some(dir) = &self.out {
            let file = dir.join(format!("{name}.{}", self.format.extension()));
            output::write(&file, text.as_bytes())?;
            tell(format_args!("wrote {}", shown(file)));
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
    /// Instead of a run: weights of the generator, as `deepsim-nets import caffemodel` writes them.
    #[arg(long, value_name = "FILE", requires = "experiment")]
    weights: Option<PathBuf>,
}

impl Chosen {
    pub fn open(&self, device: tch::Device) -> Result<Ready, EvalError> {
        match (&self.experiment, &self.weights) {
            (Some(experiment), Some(weights)) => Ready::of_weights(experiment, weights, device),
            _ => {
                let run = self.run.as_deref().unwrap_or(Path::new("runs/quickstart"));
                Ready::of_run(run, device)
            }
        }
    }
}
