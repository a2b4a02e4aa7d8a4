//! `deepsim-data verify`.

use std::process::ExitCode;

use deepsim_data::terminal::tell;
use deepsim_data::verify;
use deepsim_data::verify::parts;

use super::progress::Progress;
use super::{VerifyArgs, say};

pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let mut all_whole = true;
    for path in parts(&args.dataset) {
        let mut progress = Progress::new();
        let (count, broken) = verify(&path, &mut |done, total| progress.show(done, total))?;
        drop(progress);
        for broken in &broken {
            say(&format!(
                "broken: {}: {}: {}",
                path.display(),
                broken.what,
                broken.reason
            ))?;
        }
        if broken.is_empty() {
            say(&format!("whole: {}: {count} images", path.display()))?;
        } else {
            all_whole = false;
            tell(format_args!(
                "{} things are broken in {}: prepare it again, or copy it again from where it is whole",
                broken.len(),
                path.display()
            ));
        }
    }
    Ok(if all_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
