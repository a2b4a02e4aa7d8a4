//! `cargo xtask`: set-up, first results, tests; and the way to the lab. It depends on no torch crate, so it builds and
//! runs before libtorch is there, and on little else, so that it builds in seconds.

mod apt;
mod browser;
mod build_tools;
mod circles;
mod faces;
mod lab;
mod labelled;
mod libtorch;
mod nccl;
mod needs;
mod packages;
mod parity;
mod photos;
mod prepared;
mod quickstart;
mod rcc;
mod setup;
mod suite;
mod tidy;
mod verdict;
mod weights;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::lab::Lab;
use crate::setup::{Part, Wishes};
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::workspace::Workspace;

/// Set-up, first results, tests and records of DeepSim.
///
/// Begin with `cargo xtask quickstart`: it brings libtorch, sample photos and real comparator
/// weights, trains an inversion for some minutes and shows what came out.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    /// The workspace, where it is not the one that this program was built in.
    #[arg(long, global = true, hide = true, value_name = "DIR")]
    root: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask quickstart
      from a fresh machine to a table and images, minutes on 2 cores
  cargo xtask quickstart --photos ~/pics
      the same with your own photos
  cargo xtask reproduce --check
      the recorded numbers beside those of the runs here (after quickstart)
  cargo xtask setup --torch full
      PyTorch with CUDA, and what the tests need
  cargo xtask test
      set-up, then the whole test suite
  cargo xtask parity --seeds 3
      the comparisons with PyTorch over three seeds

Fetched things go to third_party/, data/ and weights/, which git ignores; each
is fetched once, checked, and lands whole or not at all. Exit codes: 2 for
something you can mend (the message says how), a failed program's own code, 1
for the rest.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up, prepare photos, train, evaluate: from a fresh machine to a table and images
    ///
    /// Every stage that is done is not done again: interrupted anywhere, the same command goes on;
    /// after a finished run it only evaluates.
    #[command(after_help = "\
Examples:
  cargo xtask quickstart
  cargo xtask quickstart --photos ~/pics
      your own photos, prepared into data/own, run in runs/quickstart-own
  cargo xtask quickstart --minutes 1
      stop training after a minute, to see that all works
  cargo xtask quickstart --torch ~/libtorch
      with a libtorch 2.13 that you have")]
    Quickstart {
        #[command(flatten)]
        wishes: Wishes,
        /// Stop the training after N minutes and evaluate what was reached
        #[arg(long, value_name = "N", value_parser = deepsim_tools::args::minutes)]
        minutes: Option<f64>,
    },

    /// Fetch libtorch, what is needed to build, the sample photos, and the weights of comparators and metrics
    #[command(after_help = "\
Examples:
  cargo xtask setup
      what is missing, the small libtorch on a machine without GPU
  cargo xtask setup --torch full
      PyTorch with CUDA, and what the tests need; replaces lite
  cargo xtask setup --torch ~/libtorch
      link a libtorch or PyTorch 2.13 that you have
  cargo xtask setup --only photos
      one part
  cargo xtask setup --only build
      cmake, make and nasm, where the machine has none
  cargo xtask setup --only browser
      Chromium for the test of the report's page
  cargo xtask setup --only faces
      400 faces of 40 people, prepared into data/faces/{train,test}
  cargo xtask setup --only labelled
      20 labelled photos of ImageNet, to measure on, in data/labelled
  cargo xtask setup --only nccl
      headers of CUDA, for several processes on GPUs
  cargo xtask setup --photos ~/pics
      use your own photos from now on (sample: go back)")]
    Setup {
        #[command(flatten)]
        wishes: Wishes,
        /// Only these parts, separated by commas
        #[arg(long, value_name = "PART", value_delimiter = ',')]
        only: Vec<Part>,
    },

    /// Set up with the full libtorch, run the whole test suite, then tidy
    ///
    /// First all tests as the machine is; then the comparisons with PyTorch (parity) again with the
    /// arithmetic of other processors, one setting after the other. A test program that fails hides no
    /// other: the last lines name every test that failed, its program and its setting.
    #[command(after_help = suite::HELP)]
    Test,

    /// Compare with PyTorch over several seeds and with the arithmetic of several processors
    ///
    /// Networks, losses and whole iterations against the reference in tests/python: the same tests that
    /// `cargo xtask test` runs, whose bounds hold for every seed and every processor. Prints for each test
    /// how near it came to its bound.
    #[command(after_help = parity::EXAMPLES)]
    Parity(parity::Args),

    /// Check the invariants that a machine can check
    ///
    /// Crate directions, no circles of imports between files, no unsafe code outside deepsim-aten, file lengths and sizes, no machine's
    /// paths or registry hosts in committed files, headers of experiments, generated documents.
    Tidy,

    /// Train small cases of every kind and compare them with a record, bit for bit
    #[command(disable_help_flag = true)]
    Goldens(Lab),

    /// Run the sample experiments and write their records, docs/results/*.json; or check them
    #[command(disable_help_flag = true)]
    Reproduce(Lab),

    /// Train in fp32 and in bf16 with several seeds, and compare what they reach
    #[command(disable_help_flag = true)]
    Precision(Lab),

    /// Train one task for several objectives, each for the same time, and measure all by all metrics
    #[command(disable_help_flag = true)]
    Losses(Lab),

    /// Train for an hour and see whether memory, file handles, threads and speed stay flat
    #[command(disable_help_flag = true)]
    Soak(Lab),

    /// Kill a training again and again, and see whether anything is lost
    #[command(disable_help_flag = true)]
    Kills(Lab),

    /// Kill processes that train together under torchrun, and see whether anything is lost
    #[command(disable_help_flag = true)]
    RankKills(Lab),

    /// Feed everything that is read from files with what no program wrote, guided by coverage
    #[command(disable_help_flag = true)]
    Fuzz(Lab),

    /// Run the tests that call C++ under AddressSanitizer
    #[command(disable_help_flag = true)]
    Asan(Lab),

    /// Check the dependencies' licences, sources and known holes with cargo-deny
    #[command(disable_help_flag = true)]
    Deny(Lab),

    /// Evaluate synthetic images and see whether more of them take more memory
    #[command(disable_help_flag = true)]
    Memory(Lab),

    /// Compare DeepSim's speed with PyTorch's on this machine
    #[command(disable_help_flag = true)]
    Bench(Lab),

    /// Measure how time and memory grow with the size of the work
    #[command(disable_help_flag = true)]
    Grow(Lab),

    /// Time exchanges and steps of processes that train together, and model those of GPUs
    #[command(disable_help_flag = true)]
    Dist(Lab),
}

fn main() -> ExitCode {
    deepsim_tools::failure::ended(run(deepsim_terminal::parse()))
}

fn run(cli: Cli) -> Result<()> {
    let ws = Workspace::find(cli.root.as_deref())?;
    match cli.command {
        Command::Quickstart { wishes, minutes } => quickstart::run(&ws, &wishes, minutes),
        Command::Setup { wishes, only } => {
            let parts = if only.is_empty() {
                setup::ALL.to_vec()
            } else {
                only
            };
            let mut stages = Stages::new(parts.len());
            // Only what converts the weights: the rest is built by those who run it.
            setup::run(&ws, &wishes, &parts, &["deepsim-weights"], &mut stages)?;
            note(format_args!("ready in {}", seconds(stages.elapsed())));
            Ok(())
        }
        Command::Test => suite::run(&ws),
        Command::Parity(args) => parity::run(&ws, &args),
        Command::Goldens(lab) => lab.run(&ws, "goldens"),
        Command::Tidy => tidy::run(&ws),
        Command::Reproduce(lab) => lab.run(&ws, "reproduce"),
        Command::Precision(lab) => lab.run(&ws, "precision"),
        Command::Losses(lab) => lab.run(&ws, "losses"),
        Command::Memory(lab) => lab.run(&ws, "memory"),
        Command::Bench(lab) => lab.run(&ws, "bench"),
        Command::Grow(lab) => lab.run(&ws, "grow"),
        Command::Dist(lab) => lab.run(&ws, "dist"),
        Command::Soak(lab) => lab.run(&ws, "soak"),
        Command::Kills(lab) => lab.run(&ws, "kills"),
        Command::RankKills(lab) => lab.run(&ws, "rank-kills"),
        Command::Fuzz(lab) => lab.run(&ws, "fuzz"),
        Command::Asan(lab) => lab.run(&ws, "asan"),
        Command::Deny(lab) => lab.run(&ws, "deny"),
    }
}
