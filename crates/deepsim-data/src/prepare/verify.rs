//! Checking every byte of a dataset.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::{Dataset, DatasetKind, beside, is_split_root, not_a_part, parts_of};
use crate::error::DataError;
use crate::manifest::{SKIPPED, Shard};

/// Samples checked between two progress reports.
const CHUNK: usize = 256;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The shard or image.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The places of the datasets at a path: the path itself, or the parts of a split.
#[must_use]
pub fn parts(path: &Path) -> Vec<PathBuf> {
    if is_split_root(path) {
        parts_of(path).map(|part| path.join(part.name())).collect()
    } else {
        vec![path.into()]
    }
}

/// What lies beside the parts of a split and is no part of it, in words.
///
/// # Errors
/// A directory that cannot be read.
pub fn beside_parts(path: &Path) -> Result<Option<String>, DataError> {
    if !is_split_root(path) {
        return Ok(None);
    }
    let found = beside(path, parts_of(path).map(|part| part.name()))?;
    Ok(not_a_part(path, &found))
}

/// Compares every shard and every sample with its checksum and decodes every image (of a
/// plain folder: decodes every file). Gives the number of images and all that is broken;
/// reports progress as (images done, images in all).
///
/// # Errors
/// Those of [`Dataset::open`] except wrong shards, and [`DataError::Unreadable`] when the disk
/// refuses; broken content is no error here.
pub fn verify(
    path: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(usize, Vec<Broken>), DataError> {
    let data = Dataset::open_incomplete(path)?;
    let mut broken = Vec::new();
    if let DatasetKind::Prepared(manifest) = data.kind() {
        let shards: Vec<Result<Option<Broken>, DataError>> = manifest
            .shards
            .par_iter()
            .map(|shard| check_shard(path, shard))
            .collect();
        for found in shards {
            broken.extend(found?);
        }
        if data.is_skipped_damaged() {
            broken.push(Broken {
                what: SKIPPED.to_owned(),
                reason: "it cannot be read: what was skipped is not known".to_owned(),
            });
        }
    }
    for start in (0..data.len()).step_by(CHUNK) {
        let end = (start + CHUNK).min(data.len());
        let results: Vec<Result<(), DataError>> = (start..end)
            .into_par_iter()
            .map(|index| data.pixels(index).map(drop))
            .collect();
        for (index, result) in (start..end).zip(results) {
            match result {
                Ok(()) => {}
                Err(DataError::BadImage { fault, .. } | DataError::BadSample { fault, .. }) => {
                    let what = data.name(index).to_owned();
                    broken.push(Broken {
                        what,
                        reason: fault.to_string(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        progress(end, data.len());
    }
    Ok((data.len(), broken))
}

fn check_shard(root: &Path, shard: &Shard) -> Result<Option<Broken>, DataError> {
    let path = root.join(&shard.file);
    let broken = |reason: String| {
        Ok(Some(Broken {
            what: shard.file.clone(),
            reason,
        }))
    };
    let unreadable = DataError::unreadable(&path);
    let file = match deepsim_files::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return broken("the file is missing".into());
        }
        Err(error) => return Err(unreadable(error)),
    };
    let length = file.metadata().map_err(unreadable)?.len();
    if length != shard.bytes {
        return broken(format!(
            "it has {length} bytes, the manifest says {}",
            shard.bytes
        ));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(unreadable)?;
    if hasher.finalize().to_hex().as_str() == shard.blake3 {
        Ok(None)
    } else {
        broken("its bytes do not match the checksum in the manifest".into())
    }
}
