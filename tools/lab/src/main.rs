//! The lab of DeepSim: measurements against PyTorch and against records, evidence of endurance, searches for faults.
//!
//! `cargo xtask NAME` starts it. It depends on no torch crate: what computes are the workspace's programs.

mod bench;
mod chart;
mod dist;
mod documents;
mod endure;
mod experiment_file;
mod goldens;
mod grow;
mod harden;
mod losses;
mod memory;
mod numbers;
mod precision;
mod reproduce;
mod samples;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use deepsim_tools::failure;
use deepsim_tools::workspace::Workspace;

/// Measurements, records and evidence of DeepSim.
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
  cargo xtask reproduce --check
      the recorded numbers beside those of the runs here (after quickstart)
  cargo xtask bench --json speed.json
      our speed beside PyTorch's

Exit codes: 2 for something you can mend (the message says how), a failed
program's own code, 1 for the rest.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Train small cases of every kind and compare them with a record, bit for bit
    ///
    /// For changes of the code that must change no number: record before, check after. Eleven trainings of 30 steps in one
    /// thread; compared are all logged losses, every tensor of the checkpoint, and what `table2` or `sample` prints.
    #[command(after_help = goldens::EXAMPLES)]
    Goldens(goldens::Args),

    /// Run the sample experiments and write their records, docs/results/*.json; or check them
    ///
    /// Finished runs are only evaluated, cut ones go on. Tables and numbers of the documents are made
    /// from the records; what was not run reads "not run".
    #[command(after_help = reproduce::EXAMPLES)]
    Reproduce(reproduce::Args),

    /// Train in fp32 and in bf16 with several seeds, and compare what they reach
    ///
    /// Writes docs/results/precision.json and docs/pictures/precision.png, and prints whether bf16
    /// stays within what the seed alone changes in fp32.
    #[command(after_help = precision::EXAMPLES)]
    Precision(precision::Args),

    /// Train one task for several objectives, each for the same time, and measure all by all metrics
    ///
    /// Pixels, similarities, LPIPS, DISTS, features and the DeePSiM loss, without and with an adversary. Prints
    /// objectives by metrics with the ranges over seeds, and draws distortion against perception.
    #[command(after_help = losses::EXAMPLES)]
    Losses(losses::Args),

    /// Train for an hour and see whether memory, file handles, threads and speed stay flat
    #[command(after_help = endure::SOAK_EXAMPLES)]
    Soak(endure::SoakArgs),

    /// Kill a training again and again, and see whether anything is lost
    #[command(after_help = endure::KILL_EXAMPLES)]
    Kills(endure::KillArgs),

    /// Kill processes that train together under torchrun, and see whether anything is lost
    #[command(after_help = endure::RANK_KILL_EXAMPLES)]
    RankKills(endure::RankKillArgs),

    /// Feed everything that is read from files with what no program wrote, guided by coverage
    ///
    /// libFuzzer on the stable toolchain. The targets are in tools/fuzz/targets.toml.
    #[command(after_help = harden::FUZZ_EXAMPLES)]
    Fuzz(harden::FuzzArgs),

    /// Run the tests that call C++ under AddressSanitizer
    #[command(after_help = harden::ASAN_EXAMPLES)]
    Asan,

    /// Check the dependencies' licences, sources and known holes with cargo-deny
    Deny(harden::DenyArgs),

    /// Evaluate synthetic images and see whether more of them take more memory
    #[command(after_help = memory::EXAMPLES)]
    Memory(memory::Args),

    /// Compare DeepSim's speed with PyTorch's on this machine
    ///
    /// Contenders take turns in rounds, so that what disturbs the machine disturbs all of them;
    /// the median counts. Prints a table, and where the time of our iterations goes.
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Args),

    /// Measure how time and memory grow with the size of the work
    ///
    /// Batch, crop, width and threads of a training step, entries of a dataset, images of an
    /// evaluation: one thing is varied at a time. Prints a table with the powers by which they
    /// grow, and draws the curves.
    #[command(after_help = grow::EXAMPLES)]
    Grow(grow::Args),

    /// Time exchanges and steps of processes that train together, and model those of GPUs
    #[command(after_help = dist::EXAMPLES)]
    Dist(dist::Args),

    /// Check that the documents have the records' numbers and no others
    #[command(hide = true)]
    Documents,
}

fn main() -> ExitCode {
    failure::ended(run(deepsim_terminal::parse()))
}

fn run(cli: Cli) -> Result<()> {
    let ws = Workspace::find(cli.root.as_deref())?;
    match cli.command {
        Command::Goldens(args) => goldens::run(&ws, &args),
        Command::Reproduce(args) => reproduce::run(&ws, &args),
        Command::Precision(args) => precision::run(&ws, &args),
        Command::Losses(args) => losses::run(&ws, &args),
        Command::Soak(args) => endure::soak(&ws, &args),
        Command::Kills(args) => endure::kills(&ws, &args),
        Command::RankKills(args) => endure::rank_kills(&ws, &args),
        Command::Fuzz(args) => harden::fuzz(&ws, &args),
        Command::Asan => harden::asan(&ws),
        Command::Deny(args) => harden::deny(&ws, &args),
        Command::Memory(args) => memory::run(&ws, &args),
        Command::Bench(args) => bench::run(&ws, &args),
        Command::Grow(args) => grow::run(&ws, &args),
        Command::Dist(args) => dist::run(&ws, &args),
        Command::Documents => documents::check(&ws),
    }
}
