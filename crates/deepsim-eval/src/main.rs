//! `deepsim-eval`: tables, reconstructions and tensors from trained runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use deepsim_eval::door::{self, Net};
use deepsim_eval::format::{Format, csv, json};
use deepsim_eval::ready::Ready;
use deepsim_eval::{EvalError, compare, decode, invert, table1, table2};
use deepsim_experiment::{Clip, Experiment, ExperimentError, device};
use serde::Serialize;

/// Turn trained runs into tables, reconstructions and tensors.
#[derive(Parser)]
#[command(
    name = "deepsim-eval",
    version,
    after_help = "\
Examples:
  cargo run -p deepsim-eval -- table2
  cargo run -p deepsim-eval -- table2 --format json --runs runs
  cargo run -p deepsim-eval -- invert photo.jpg --run runs/quickstart --out pictures
  cargo run -p deepsim-eval -- decode features.safetensors --run runs/recorded --out pictures
  cargo run -p deepsim-eval -- decode fc6.safetensors --experiment experiments/fc6.toml \\
      --weights released-fc6.safetensors
  cargo run -p deepsim-eval -- forward experiments/conv5.toml --net generator \\
      --weights generator.safetensors --input in.safetensors --output out.safetensors

Data goes to stdout, remarks to stderr. Exit codes: 0 done, 1 failed while computing,
2 something named on the command line is not there or does not fit."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The generator layer by layer (the paper's Table 1, or an experiment's).
    Table1 {
        /// Show this experiment's generator instead of the paper's FC6.
        #[arg(long, value_name = "EXPERIMENT.toml")]
        experiment: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Normalised errors of all runs beside the paper's Table 2.
    Table2 {
        /// Folder of runs, or one run [default: runs, where it exists].
        #[arg(long, value_name = "DIR")]
        runs: Option<PathBuf>,
        /// Held-out photographs at most.
        #[arg(long, default_value_t = 2000, value_name = "N")]
        images: usize,
        /// Judge reconstructions without clipping them to 0–255.
        #[arg(long)]
        no_clip: bool,
        /// Where to compute: auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
        #[command(flatten)]
        output: Output,
    },
    /// Reconstruct photographs (any size) from their features.
    Invert {
        /// Photographs.
        #[arg(required = true)]
        images: Vec<PathBuf>,
        #[command(flatten)]
        generator: Chosen,
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
    /// Run one network on tensors: key `x` in, key `y` out, f32; pictures RGB 0–255 NCHW.
    Forward {
        /// The experiment that says which network, tap and sizes.
        experiment: PathBuf,
        /// Which of its networks.
        #[arg(long, value_enum)]
        net: Net,
        /// Weights; else the experiment's own, or those of the run's newest checkpoint.
        #[arg(long, value_name = "FILE")]
        weights: Option<PathBuf>,
        /// Safetensors file with key `x`.
        #[arg(long)]
        input: PathBuf,
        /// Safetensors file to write.
        #[arg(long)]
        output: PathBuf,
        /// Run directory with checkpoints [default: runs/NAME].
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

/// Which generator: a run's, or released weights and the experiment that describes them.
#[derive(Args)]
struct Chosen {
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
    fn open(&self, device: tch::Device) -> Result<Ready, EvalError> {
        match (&self.experiment, &self.weights) {
            (Some(experiment), Some(weights)) => Ready::of_weights(experiment, weights, device),
            _ => {
                let run = self.run.as_deref().unwrap_or(Path::new("runs/quickstart"));
                Ready::of_run(run, device)
            }
        }
    }
}

#[derive(Args)]
struct Output {
    /// How to print.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Also write the table into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Output {
    fn put(&self, name: &str, text: &str) -> Result<(), EvalError> {
        print!("{text}");
        if let Some(dir) = &self.out {
            let file = dir.join(format!("{name}.{}", self.format.extension()));
            std::fs::create_dir_all(dir)
                .and_then(|()| std::fs::write(&file, text))
                .map_err(ExperimentError::io(&file))?;
            eprintln!("wrote {}", file.display());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    deepsim_nets::keep_memory();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), EvalError> {
    match command {
        Command::Table1 { experiment, output } => {
            let spec = match experiment {
                Some(path) => Experiment::load(&path, &[])?.generator,
                None => table1::paper_spec(),
            };
            output.put("table1", &table1::render(&spec, output.format)?)
        }
        Command::Table2 {
            runs,
            images,
            no_clip,
            device,
            output,
        } => {
            let folder = match runs {
                Some(path) if !path.is_dir() => return Err(EvalError::NoRuns { path }),
                Some(path) => Some(path),
                None => Some(PathBuf::from("runs")).filter(|p| p.is_dir()),
            };
            let clip = if no_clip {
                Clip::Off
            } else {
                Clip::Displayable
            };
            let options = table2::Options {
                images,
                clip,
                device: device::choose(&device)?,
            };
            let rows = table2::rows(folder.as_deref(), options, |w| eprintln!("warning: {w}"))?;
            if rows.iter().all(|r| r.run.is_none()) {
                eprintln!(
                    "hint: no trained runs yet; `cargo xtask quickstart` trains one on sample photos"
                );
            }
            output.put("table2", &table2::render(&rows, output.format)?)
        }
        Command::Invert {
            images,
            generator,
            device,
            out,
            format,
        } => {
            let device = device::choose(&device)?;
            let made = invert::invert(&generator.open(device)?, &images, &out, device)?;
            print!("{}", list(&made, format, |m| &m.pair)?);
            Ok(())
        }
        Command::Decode {
            features,
            generator,
            device,
            out,
            format,
        } => {
            let device = device::choose(&device)?;
            let made = decode::decode(&generator.open(device)?, &features, &out, device)?;
            print!("{}", list(&made, format, |m| &m.picture)?);
            Ok(())
        }
        Command::Compare {
            runs,
            images,
            filter,
            out,
            device,
        } => {
            let names = compare::compare(&runs, images, &filter, &out, device::choose(&device)?)?;
            eprintln!("wrote {}", out.display());
            for name in names {
                println!("{name}");
            }
            Ok(())
        }
        Command::Forward {
            experiment,
            net,
            weights,
            input,
            output,
            run,
            set,
            device,
        } => {
            let experiment = Experiment::load(&experiment, &set)?;
            let run = run.unwrap_or_else(|| Path::new("runs").join(&experiment.raw.name));
            let request = door::Request {
                net,
                weights,
                run,
                input,
                output,
            };
            let shape = door::forward(&experiment, &request, device::choose(&device)?)?;
            eprintln!("wrote y {shape:?} to {}", request.output.display());
            Ok(())
        }
    }
}

fn list<T: Serialize>(
    made: &[T],
    format: Format,
    line: impl Fn(&T) -> &String,
) -> Result<String, EvalError> {
    match format {
        Format::Json => json(made),
        Format::Csv => csv(made),
        Format::Text => Ok(made.iter().map(|m| format!("{}\n", line(m))).collect()),
    }
}
