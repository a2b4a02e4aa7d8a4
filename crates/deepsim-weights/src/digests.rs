//! Digests beside a weights file: `NAME.safetensors.blake3`, one line for the whole file and one for each tensor.
//!
//! Written by `deepsim-weights import`, checked whenever the weights are read. They are in a file of their own, so
//! that the weights file is the same as other tools write. Weights without digests are read unchecked.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use deepsim_terminal::path as shown;
use safetensors::SafeTensors;

/// Why weights are not what was written.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// The digests are there and cannot be read.
    #[error("digests {}: {source}", shown(path))]
    Read {
        /// The file of digests.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The weights have changed.
    #[error("weights file {}: {reason}", shown(path))]
    Changed {
        /// The weights.
        path: PathBuf,
        /// What changed, and what to do.
        reason: String,
    },
}

/// Stands for the file in the first line; no tensor can be called so, since names have no spaces there.
const WHOLE: &str = "the whole file";

/// The file of digests of a weights file.
pub fn beside(weights: &Path) -> PathBuf {
    let mut name = OsString::from(weights);
    name.push(".blake3");
    name.into()
}

/// The digests' text for a safetensors file's bytes.
///
/// # Errors
/// Bytes that are no safetensors file.
pub fn text(bytes: &[u8]) -> Result<String, safetensors::SafeTensorError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = format!("{}  {WHOLE}\n", blake3::hash(bytes).to_hex());
    for (name, view) in tensors {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}  {name}", blake3::hash(view.data()).to_hex());
    }
    Ok(out)
}

/// Whether a file's bytes are digests, perhaps damaged ones: each line begins with one.
pub fn is_list(bytes: &[u8]) -> bool {
    let digits = |line: &[u8]| line.len() >= 64 && line[..64].iter().all(u8::is_ascii_alphanumeric);
    bytes
        .split(|b| *b == b'\n')
        .all(|line| line.is_empty() || digits(line))
}

/// Compares a weights file's bytes with the digests beside it, if there are any.
///
/// # Errors
/// [`DigestError::Changed`] that names what changed; digests that cannot be read.
pub fn check(bytes: &[u8], path: &Path) -> Result<(), DigestError> {
    let file = beside(path);
    let wanted = match deepsim_files::read(&file) {
        Ok(wanted) => wanted,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(DigestError::Read { path: file, source }),
    };
    let wanted = String::from_utf8_lossy(&wanted).into_owned();
    let whole = format!("{}  {WHOLE}", blake3::hash(bytes).to_hex());
    if wanted.lines().next() == Some(&whole) {
        return Ok(());
    }
    let what = match text(bytes) {
        Err(e) => e.to_string(),
        Ok(found) => {
            let wanted: HashSet<&str> = wanted.lines().collect();
            let changed = found.lines().skip(1).find(|line| !wanted.contains(line));
            match changed.and_then(|line| line.split_once("  ")) {
                Some((_, name)) => format!("tensor `{name}` has changed"),
                None => "its header has changed".to_owned(),
            }
        }
    };
    Err(DigestError::Changed {
        path: path.to_owned(),
        reason: format!(
            "{what} since {} was written: import the weights again, or delete that file if the change is yours",
            shown(file)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &Path) -> Result<(), DigestError> {
        check(&std::fs::read(path).unwrap(), path)
    }

    #[test]
    fn no_byte_of_weights_can_change_unnoticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let values: Vec<u8> = (0u8..24).collect();
        let view = |range: std::ops::Range<usize>| {
            safetensors::tensor::TensorView::new(
                safetensors::Dtype::F32,
                vec![range.len() / 4],
                &values[range],
            )
            .unwrap()
        };
        let tensors = [("conv1.weight", view(0..16)), ("conv1.bias", view(16..24))];
        let whole = safetensors::serialize(tensors, None).unwrap();
        std::fs::write(&path, &whole).unwrap();
        std::fs::write(beside(&path), text(&whole).unwrap()).unwrap();
        checked(&path).unwrap();
        let data = whole.len() - 24;
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = checked(&path).unwrap_err().to_string();
            assert!(error.contains("weights.safetensors"), "{error}");
            error
        };
        for i in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[i] ^= 1 << (i % 8);
            let error = refused(&bytes);
            // The bias comes first.
            let tensor = if i < data + 8 {
                "conv1.bias"
            } else {
                "conv1.weight"
            };
            assert!(i < data || error.contains(tensor), "byte {i}: {error}");
        }
        for cut in 0..whole.len() {
            refused(&whole[..cut]);
        }
        refused(&[whole.as_slice(), b"\0"].concat());
        // Damaged digests refuse whole weights too.
        std::fs::write(&path, &whole).unwrap();
        std::fs::write(beside(&path), "").unwrap();
        assert!(checked(&path).is_err());
        std::fs::remove_file(beside(&path)).unwrap();
        checked(&path).unwrap();
    }
}
