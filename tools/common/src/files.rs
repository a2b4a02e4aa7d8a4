//! Files as text and as values; every error names the file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::landing;

/// What a file holds.
///
/// # Errors
/// A file that cannot be read as text.
pub fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// A value out of a JSON file.
///
/// # Errors
/// A file that cannot be read, or holds another value.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&text(path)?).with_context(|| format!("in {}", path.display()))
}

/// A value out of a TOML file.
///
/// # Errors
/// As for [`json`].
pub fn toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    toml::from_str(&text(path)?).with_context(|| format!("in {}", path.display()))
}

/// Writes a value as JSON for people: the file lands whole.
///
/// # Errors
/// A full or unwritable disk.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json =
        serde_json::to_vec_pretty(value).with_context(|| format!("writing {}", path.display()))?;
    json.push(b'\n');
    landing::write(path, &json)
}
