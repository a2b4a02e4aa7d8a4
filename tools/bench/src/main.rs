//! `deepsim-bench`: our contender in `cargo xtask bench`, which starts it; see its `--help`.
//!
//! Not a tool for people: it speaks the protocol of [`serve`] on its standard streams.

mod counts;
mod distances;
mod flops;
mod gemm;
mod images;
mod inputs;
mod memory;
mod networks;
mod phases;
mod serve;
mod state;
mod training;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use deepsim_experiment::device;

use crate::work::Training;

/// The worker that `cargo xtask bench` starts: one work, timed on request.
#[derive(Debug, Parser)]
#[command(name = "deepsim-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the weights, images and settings that all contenders of a work start from
    Inputs {
        /// Name of a training work
        work: String,
        /// Where to write
        folder: PathBuf,
    },
    /// Do a work, unit by unit: `go` and `stop` on standard input, JSON lines on standard output
    Work {
        /// Name of the work
        work: String,
        /// Its inputs
        folder: PathBuf,
        /// fp32, tf32 (GPUs), bf16, or auto: the faster of fp32 and bf16 here
        #[arg(long, default_value = "auto")]
        precision: String,
        /// cpu, cuda or cuda:N, for training works
        #[arg(long, default_value = "cpu")]
        device: String,
    },
    /// Print what a step of experiments computes, and the weights whose gradients it sums over processes, as JSON
    Counts {
        /// Experiment files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Evaluate so many synthetic images at 227 pixels and print the peak of resident memory as JSON
    Memory {
        /// Images
        images: usize,
        /// Where they are kept
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    // The same start as in the programs that do this work for users.
    deepsim_nets::keep_memory();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            deepsim_data::terminal::tell(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Inputs { work, folder } => {
            inputs::write(&training(&work)?.experiment("fp32")?, &folder)
        }
        Command::Counts { files } => counts::run(&files),
        Command::Memory { images, folder } => memory::run(images, &folder),
        Command::Work {
            work,
            folder,
            precision,
            device,
        } => match work.as_str() {
            "gemm" => gemm::run(&precision, device::choose(&device)?),
            "data" => images::run_folder(&folder),
            "shards" => images::run_shards(&folder),
            "neighbours" => distances::run_neighbours(),
            "pairs" => distances::run_pairs(),
            "ms_ssim" => distances::run_ms_ssim(),
            name => {
                let device = device::choose(&device)?;
                training::run(training(name)?, &folder, &precision, device)
            }
        },
    }
}

fn training(name: &str) -> Result<&'static Training> {
    Training::find(name).with_context(|| format!("no work `{name}`"))
}
