//! Files that are written whole or not at all.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use deepsim_experiment::{ExperimentError, files};

use crate::error::{Result, WhileRunning as _};
use crate::format::Format;

/// A name that was not taken yet: the stem itself, or numbered.
pub fn unused(stem: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = stem.to_owned();
    let mut n = 2;
    while !taken.insert(name.clone()) {
        name = format!("{stem}-{n}");
        n += 1;
    }
    name
}

/// Prints results.
///
/// # Errors
/// A standard output that takes no more.
pub fn show(results: impl Display) -> Result<()> {
    let path = Path::new("standard output");
    let printed = deepsim_data::terminal::print(results).map_err(ExperimentError::io(path));
    printed.while_running()
}

/// Prints results for people (text) or programs (JSON, CSV).
///
/// # Errors
/// A standard output that takes no more.
pub fn show_as(format: Format, results: &str) -> Result<()> {
    if format == Format::Text {
        return show(results);
    }
    let path = Path::new("standard output");
    let printed = deepsim_data::terminal::print_data(results).map_err(ExperimentError::io(path));
    printed.while_running()
}

/// Writes a file beside and renames it: a reader never sees half of it. Makes its folder.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| files::replace(path, bytes))
        .map_err(ExperimentError::io(path))
        .while_running()
}
