//! The command line: arguments, and one file for each command.

mod args;
mod inspect;
mod merge;
mod output;
mod prepare;
mod progress;
mod stop;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use deepsim_data::DataError;

use args::{InspectArgs, MergeArgs, PrepareArgs, VerifyArgs};

pub use output::Failed;

/// Turns images into datasets for training.
#[derive(Debug, Parser)]
#[command(
    name = "deepsim-data",
    version,
    after_help = "\
Examples, of a folder ~/photos with photos of yours:
  cargo run --release -p deepsim-data -- \\
      prepare ~/photos data/mine --holdout 0.1
  cargo run --release -p deepsim-data -- inspect data/mine/train --format json
  cargo run --release -p deepsim-data -- verify data/mine

With ILSVRC-2012:
  cargo run --release -p deepsim-data -- prepare \\
      ILSVRC2012_img_train.tar data/ilsvrc-train

Several processes or machines prepare one dataset together with `prepare --part`
and `merge`; `merge --help` has an example.

Exit codes: 0 done; 1 verify found something broken, or the work failed on the
way (a corrupt image, a full disk); 2 the command or its input was refused
before the work began; 129, 130, 138, 143 interrupted. stdout carries results,
stderr what people read."
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub log: deepsim_data::terminal::log::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prepare(PrepareArgs),
    Merge(MergeArgs),
    Inspect(InspectArgs),
    Verify(VerifyArgs),
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Prepare(args) => prepare::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}

/// The exit code for an error that reached the top: 1 if the work had begun, 2 if the request was refused.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_threads = matches!(error.downcast_ref(), Some(DataError::Threads { .. }));
    if error.is::<Failed>() || is_threads {
        ExitCode::from(1)
    } else {
        ExitCode::from(2)
    }
}
