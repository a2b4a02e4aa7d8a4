//! The command line.

use clap::Parser;
use deepsim_experiment::consent::parse_hash;

use crate::commands::Command;

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

table2, neighbors, reencode and measure can be done by several processes,
launched as PyTorch's are (by torchrun, or RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT).
Each has some of the batches; rank 0 prints and writes what one process would:
  PYTHONPATH=third_party/py third_party/py/bin/torchrun --no-python \\
      --standalone --nproc-per-node 2 target/release/deepsim-eval \\
      table2 --out tables

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
    /// Take the weights that a run trains, where it also keeps their averages ([ema] in its experiment). Otherwise the
    /// averages are taken.
    #[arg(long, global = true)]
    pub no_ema: bool,
    #[command(flatten)]
    pub log: deepsim_data::terminal::log::Options,
}
