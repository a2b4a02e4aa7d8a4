//! Hashes of files.

use std::path::Path;

use crate::error::{ExperimentError, Result};

/// blake3 of a file's bytes, hex.
///
/// # Errors
/// An unreadable file.
pub fn hash_file(path: &Path) -> Result<String> {
    let file = crate::files::open(path).map_err(ExperimentError::io(path))?;
    hash_open(&file, path)
}

/// The same of an open file, from where it is at; `path` names it in errors.
pub(crate) fn hash_open(file: &std::fs::File, path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(file)
        .map_err(ExperimentError::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}
