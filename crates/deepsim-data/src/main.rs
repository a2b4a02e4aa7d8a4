//! `deepsim-data`: prepare, merge, inspect and verify datasets.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

mod cli;

use std::process::ExitCode;

use deepsim_data::terminal::{self, parse};
use deepsim_data::with_causes;

fn main() -> ExitCode {
    // If the handler cannot be set, the program runs without it.
    let _ = terminal::fail_at_the_file_limit();
    let args: cli::Args = parse();
    args.log.listen();
    match cli::run(args) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{}", with_causes(error.as_ref()));
            cli::exit_code(&error)
        }
    }
}
