//! Tensors → a safetensors file that is either whole or not there.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use safetensors::{Dtype, View};

use crate::digests;
use crate::error::ImportError;
use crate::tensor::NamedTensor;

/// What to do with a different file that is already at the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail.
    Keep,
    /// Replace it.
    Replace,
}

/// What became of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there and was written.
    Written,
    /// It held something else and was replaced.
    Replaced,
    /// It already held exactly these bytes.
    Unchanged,
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.data.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
    fn data_len(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

pub(super) fn write(
    out: &Path,
    tensors: &[NamedTensor],
    existing: Existing,
) -> Result<Outcome, ImportError> {
    // No metadata: safetensors writes it in a random order, and the same import must give the
    // same bytes.
    let bytes =
        safetensors::serialize(tensors.iter().map(|t| (&t.name, t)), None).map_err(|reason| {
            ImportError::Serialize {
                path: out.to_path_buf(),
                reason,
            }
        })?;
    let failed = |source| ImportError::Write {
        path: out.to_path_buf(),
        source,
    };
    let exists = || ImportError::Exists {
        path: out.to_path_buf(),
    };
    check_digests(out, existing)?;
    let outcome = match deepsim_files::open(out) {
        Ok(file) => {
            if holds(file, &bytes).map_err(failed)? {
                write_digests(out, &bytes)?;
                return Ok(Outcome::Unchanged);
            }
            if existing == Existing::Keep {
                return Err(exists());
            }
            Outcome::Replaced
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Outcome::Written,
        Err(e) => return Err(failed(e)),
    };

    let folder = folder(out);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut beside = partial(folder).map_err(failed)?;
    // The old digests are removed before the weights are replaced, so that they never stand beside
    // other weights.
    match fs::remove_file(digests::beside(out)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    beside.write_all(&bytes).map_err(failed)?;
    beside.as_file().sync_all().map_err(failed)?;
    match existing {
        Existing::Replace => beside.persist(out).map_err(|e| failed(e.error))?,
        // A file may have appeared there since the check above.
        Existing::Keep => beside
            .persist_noclobber(out)
            .map_err(|e| match e.error.kind() {
                io::ErrorKind::AlreadyExists => exists(),
                _ => failed(e.error),
            })?,
    };
    write_digests(out, &bytes)?;
    // A rename lasts through a power cut only once the folder is on disk too.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(failed)?;
    Ok(outcome)
}

/// What stands where the digests go must be a list of digests, or may be replaced.
fn check_digests(out: &Path, existing: Existing) -> Result<(), ImportError> {
    let path = digests::beside(out);
    let exists = || ImportError::Exists { path: path.clone() };
    if path.is_symlink() && existing == Existing::Keep {
        return Err(exists());
    }
    match deepsim_files::read(&path) {
        Ok(text) if existing == Existing::Keep && !digests::is_list(&text) => Err(exists()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ImportError::Write { path, source })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A crash before this leaves complete weights without digests, which are read unchecked.
fn write_digests(out: &Path, bytes: &[u8]) -> Result<(), ImportError> {
    let path = digests::beside(out);
    let text = digests::text(bytes).map_err(|reason| ImportError::Serialize {
        path: path.clone(),
        reason,
    })?;
    // With an incomplete list of digests, intact weights would be refused.
    let put = || -> io::Result<()> {
        if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        let mut beside = partial(folder(&path))?;
        beside.write_all(text.as_bytes())?;
        beside.as_file().sync_all()?;
        beside.persist(&path)?;
        Ok(())
    };
    put().map_err(|source| ImportError::Write {
        path: path.clone(),
        source,
    })
}

fn folder(of: &Path) -> &Path {
    match of.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// A file that takes its name when it is whole.
fn partial(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".import-").suffix(".partial");
    // Temporary files are private by default; weights are as readable as any other output.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Whether `file` holds exactly `bytes`, read piece by piece.
fn holds(mut file: File, bytes: &[u8]) -> io::Result<bool> {
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut rest = bytes;
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            return Ok(rest.is_empty());
        }
        match rest.strip_prefix(&piece[..n]) {
            Some(after) => rest = after,
            None => return Ok(false),
        }
    }
}
