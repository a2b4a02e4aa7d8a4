//! `deepsim-data prepare`.

use std::process::ExitCode;

use anyhow::Context;
use deepsim_data::prepare::Existing;
use deepsim_data::terminal::path as shown;
use deepsim_data::{DataError, Prepare, prepare, prepare_part};
use rayon::ThreadPoolBuilder;

use super::args::PrepareArgs;
use super::stop::Stop;
use super::watch::watched;

/// Most threads. More than a machine can use would only cost memory, and time to stop.
const MOST_THREADS: usize = 1024;

pub fn run(args: PrepareArgs) -> anyhow::Result<ExitCode> {
    if args
        .threads
        .is_some_and(|n| !(1..=MOST_THREADS).contains(&n))
    {
        anyhow::bail!("--threads must be 1 to {MOST_THREADS}");
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(args.threads.unwrap_or(0))
        .build()
        .map_err(|error| DataError::Threads {
            reason: error.to_string(),
        })?;
    let request = Prepare {
        source: args.source,
        out: args.out,
        size: args.size,
        resize: args.resize.map(Into::into),
        orientation: args.orientation.map(Into::into),
        window: args.window,
        store: args.store.map(Into::into),
        holdout: args.holdout,
        validation: args.validation,
        seed: args.seed,
        quarantine: args.quarantine,
        existing: if args.force {
            Existing::Replace
        } else {
            Existing::Keep
        },
    };
    let share = args.part;
    let stop = Stop::watch().context("cannot watch for Ctrl-C")?;
    let ended = pool.install(|| {
        watched(&stop, |events| match share {
            None => prepare(&request, events),
            Some(share) => prepare_part(&request, share, events),
        })
    });
    let out = shown(&request.out);
    let what = share.map_or_else(|| out.clone(), |share| format!("{out} (part {share})"));
    if let Err(code) = ended.report(&what, &stop)? {
        return Ok(code);
    }
    if let Some(share) = share {
        tracing::info!(
            "a part is no dataset yet: `deepsim-data merge OUT PART…` makes one when all {} are there",
            share.of()
        );
    }
    Ok(ExitCode::SUCCESS)
}
