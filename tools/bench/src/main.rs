//! `deepsim-bench`: our contender in `cargo xtask bench`, which starts it; see its `--help`.
//!
//! Not a tool for people: it speaks the protocol of [`serve`] on its standard streams.

mod counts;
mod distances;
mod entries;
mod flops;
mod gemm;
mod images;
mod inputs;
mod memory;
mod networks;
mod paths;
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

use crate::training::Manner;
use crate::work::{Sizes, Training};

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
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Print which code of ours computes here, as JSON
    Paths,
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
        #[command(flatten)]
        sizes: Sizes,
        /// Threads of libtorch; without it, as many as it takes by itself
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1024))]
        threads: Option<i32>,
        /// Do not time the phases of a training work in the end
        #[arg(long)]
        no_phases: bool,
        /// Do not record iterations on a GPU as CUDA graphs
        #[arg(long)]
        no_graphs: bool,
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
    /// Write a dataset of so many entries, of which many name the same image
    MakeEntries {
        /// Entries
        entries: usize,
        /// Where to write; what it is made of is kept beside
        folder: PathBuf,
    },
    /// Open a dataset, make an epoch's order and a few batches, and print times and memory as JSON
    Entries {
        /// The dataset
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
        Command::Inputs {
            work,
            folder,
            sizes,
        } => inputs::write(&training(&work)?.sized(&sizes).experiment("fp32")?, &folder),
        Command::Paths => paths::run(),
        Command::MakeEntries { entries, folder } => entries::make(entries, &folder),
        Command::Entries { folder } => entries::run(&folder),
        Command::Counts { files } => counts::run(&files),
        Command::Memory { images, folder } => memory::run(images, &folder),
        Command::Work {
            work,
            folder,
            precision,
            device,
            sizes,
            threads,
            no_phases,
            no_graphs,
        } => match work.as_str() {
            "gemm" => gemm::run(&precision, device::choose(&device)?),
            "data" => images::run_folder(&folder),
            "shards" => images::run_shards(&folder),
            "neighbours" => distances::run_neighbours(),
            "pairs" => distances::run_pairs(),
            "ms_ssim" => distances::run_ms_ssim(),
            name => {
                if let Some(threads) = threads {
                    tch::set_num_threads(threads);
                }
                let manner = Manner {
                    precision: &precision,
                    device: device::choose(&device)?,
                    phases: !no_phases,
                    graphs: !no_graphs,
                };
                training::run(&training(name)?.sized(&sizes), &folder, manner)
            }
        },
    }
}

fn training(name: &str) -> Result<&'static Training> {
    Training::find(name).with_context(|| format!("no work `{name}`"))
}
