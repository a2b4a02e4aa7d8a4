//! What a folder holds.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{ExperimentError, Result};

/// Names in a folder, sorted; none where it is missing.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(names),
        Err(e) => return Err(ExperimentError::io(folder)(e)),
    };
    for entry in entries {
        let entry = entry.map_err(ExperimentError::io(folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
