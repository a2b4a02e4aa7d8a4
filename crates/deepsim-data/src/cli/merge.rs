//! `deepsim-data merge`.

use std::process::ExitCode;

use anyhow::Context;
use deepsim_data::prepare::Existing;
use deepsim_data::terminal::path as shown;
use deepsim_data::{Merge, merge};

use super::args::MergeArgs;
use super::stop::Stop;
use super::watch::watched;

pub fn run(args: MergeArgs) -> anyhow::Result<ExitCode> {
    let request = Merge {
        out: args.out,
        parts: args.parts,
        quarantine: args.quarantine,
        existing: if args.force {
            Existing::Replace
        } else {
            Existing::Keep
        },
    };
    let stop = Stop::watch().context("cannot watch for Ctrl-C")?;
    let ended = watched(&stop, |events| merge(&request, events));
    if let Err(code) = ended.report(&shown(&request.out), &stop)? {
        return Ok(code);
    }
    tracing::info!(
        "the {} parts are kept: delete them when you need them no more",
        request.parts.len()
    );
    Ok(ExitCode::SUCCESS)
}
