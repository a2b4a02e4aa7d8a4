//! `deepsim-data verify`.

use std::process::ExitCode;

use deepsim_data::terminal::{self, one_line, path as shown};
use deepsim_data::verify::{beside_parts, parts};
use deepsim_data::{Dataset, verify};

use super::args::VerifyArgs;
use super::output::{Failed, say};
use super::progress::Progress;

pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    // If the handler cannot be set, the program runs without it.
    let _ = terminal::end_as_first_process();
    let mut all_whole = true;
    let parts = parts(&args.dataset);
    beside_parts(&args.dataset)?
        .iter()
        .for_each(|note| tracing::info!("{note}"));
    // what cannot be opened at all is refused before the work begins
    for path in &parts {
        Dataset::open_incomplete(path)?
            .notes()
            .iter()
            .for_each(|note| tracing::info!("{note}"));
    }
    for path in parts {
        let mut progress = Progress::new();
        let (count, broken) = verify(&path, &mut |done, total| progress.show(done, total))
            .map_err(|error| Failed(error.into()))?;
        drop(progress);
        for broken in &broken {
            say(&format!(
                "broken: {}: {}: {}",
                shown(&path),
                one_line(&broken.what),
                one_line(&broken.reason)
            ))?;
        }
        if broken.is_empty() {
            say(&format!("whole: {}: {count} images", shown(&path)))?;
        } else {
            all_whole = false;
            tracing::info!(
                "{} things are broken in {}: prepare it again, or copy it again from where it is whole",
                broken.len(),
                shown(&path)
            );
        }
    }
    Ok(if all_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
