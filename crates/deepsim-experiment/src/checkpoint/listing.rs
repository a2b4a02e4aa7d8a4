//! Which checkpoints are visible in a folder, by name, and what only looks like one.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use deepsim_data::terminal::one_line;

use super::MANIFEST;
use crate::error::Result;
use crate::folder;

/// Name of the directory for a step.
pub fn directory_name(step: u64) -> String {
    format!("step-{step:09}")
}

/// The step that a name is of, if it is one that [`directory_name`] gives.
pub(crate) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (directory_name(step) == name).then_some(step)
}

/// Steps of the visible checkpoints below `parent`, ascending: directories (or links to some) with a checkpoint's name
/// and a manifest.
///
/// # Errors
/// A directory that cannot be read.
pub fn steps(parent: &Path) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for name in folder::names(parent)? {
        if let Some(step) = step_of(&name)
            && trouble(&parent.join(name)).is_none()
        {
            found.push(step);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a path is a checkpoint that [`steps`] would find.
pub(crate) fn is_visible(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    step_of(&name.to_string_lossy()).is_some() && trouble(path).is_none()
}

/// Why a path with a checkpoint's name is none.
fn trouble(path: &Path) -> Option<&'static str> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Some("is a file"),
        Ok(_) => match fs::metadata(path.join(MANIFEST)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Some("has no manifest.json"),
            // What cannot be looked at is told when it is opened.
            _ => None,
        },
        Err(_) if path.is_symlink() => Some("is a link that leads nowhere"),
        Err(_) => None,
    }
}

/// What looks like a checkpoint below `parent` and is none, each with the reason.
///
/// # Errors
/// A directory that cannot be read.
pub fn strange(parent: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in folder::names(parent)? {
        let Some(digits) = name.strip_prefix("step-") else {
            continue;
        };
        let reason = match (step_of(&name), digits.parse::<u64>()) {
            (Some(_), _) => trouble(&parent.join(&name)).map(str::to_owned),
            (None, Ok(step)) => Some(format!(
                "a checkpoint's name would be {}",
                directory_name(step)
            )),
            (None, Err(_)) => Some(format!(
                "a checkpoint's name is like {}",
                directory_name(1000)
            )),
        };
        found.extend(reason.map(|reason| format!("{} ({reason})", one_line(&name))));
    }
    Ok(found)
}
