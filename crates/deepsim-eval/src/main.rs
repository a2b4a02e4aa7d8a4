//! `deepsim-eval`: tables, reconstructions and tensors from trained runs.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

mod cli;
mod commands;
mod progress;

use std::process::ExitCode;

use deepsim_data::terminal;
use deepsim_experiment::{Consent, ModelWeights};

use cli::Cli;

fn main() -> ExitCode {
    deepsim_nets::keep_memory();
    // Where no handler can be set, things are as they would be without.
    let _ = terminal::fail_at_the_file_limit();
    let _ = terminal::end_as_first_process();
    let cli: Cli = deepsim_data::terminal::parse();
    // Rank 0 tells what all would.
    if commands::is_follower() {
        cli.log.only_warnings().listen();
    } else {
        cli.log.listen();
    }
    deepsim_nets::fit_threads();
    if let Err(error) = deepsim_nets::capability() {
        tracing::error!("{error}");
        return ExitCode::from(2);
    }
    let weights = if cli.no_ema {
        ModelWeights::Raw
    } else {
        ModelWeights::Averaged
    };
    let consent = Consent::new(cli.trust_code.as_deref(), std::env::args_os());
    let consent = consent.with_weights(weights);
    match cli.command.run(&consent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
