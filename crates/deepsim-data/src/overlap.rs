//! Which images of one dataset are also in another: training images among held-out ones.
//!
//! What is compared depends on what is there. Nothing is guessed: where neither bytes nor names decide, the answer is
//! [`Overlap::NotComparable`].
//!
//! | the two datasets | an image is in both if |
//! |---|---|
//! | the same digest (plain folders: also the same place) | it has the same index: all are |
//! | prepared with the same size, resize, window, store and orientation | the checksums of the stored bytes in the manifests are equal |
//! | prepared otherwise, from one source (the manifests' `listing`) | the source paths are equal, or one is listed as the other's duplicate |
//! | plain folders | the bytes of the files are equal (blake3, only of files whose size occurs in both) |
//! | a plain folder and a prepared dataset with store `raw` | the folder's image, prepared the same way, has the stored checksum |

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::dataset::{Dataset, DatasetKind};
use crate::error::DataError;
use crate::folder::Folder;
use crate::manifest::{Manifest, Store};
use crate::prepare::Flow;
use crate::source::{Entry, Location};

/// Most files of plain folders that are read to be compared.
pub const MAX_FILES: usize = 100_000;
/// Most images of a plain folder that are decoded to be compared with a prepared dataset.
pub const MAX_DECODED: usize = 2_000;
/// Bytes at the beginning of a file that are compared before all of it is.
const HEAD: u64 = 64 << 10;

/// What [`shared_images`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The images of `b` that are also in `a`, by index in `b`, ascending.
    Images(Vec<usize>),
    /// It cannot be told; the reason, in words.
    NotComparable(String),
}

/// The images of `b` that are also in `a`. For two prepared datasets only the manifests are compared, which are in
/// memory. Otherwise files are read, and `go_on` is asked between them.
///
/// # Errors
/// [`DataError::Unreadable`] for a file that the disk refuses, [`DataError::Interrupted`] when `go_on` says stop.
pub fn shared_images(
    a: &Dataset,
    b: &Dataset,
    go_on: &(dyn Fn() -> Flow + Sync),
) -> Result<Overlap, DataError> {
    let all = || Ok(Overlap::Images((0..b.len()).collect()));
    match (a.kind(), b.kind()) {
        (DatasetKind::Prepared(_), DatasetKind::Prepared(_)) if a.digest() == b.digest() => all(),
        (DatasetKind::Prepared(a), DatasetKind::Prepared(b)) => Ok(prepared(a, b)),
        (DatasetKind::Folder, DatasetKind::Folder) => {
            if same_place(a, b) {
                all()
            } else {
                folders(a, b, go_on)
            }
        }
        (DatasetKind::Prepared(manifest), DatasetKind::Folder) => {
            let stored: HashSet<&blake3::Hash> = manifest
                .samples
                .iter()
                .map(|sample| &sample.blake3)
                .collect();
            mixed(manifest, b, go_on, |found| {
                let is_in = |(_, hash): &&(usize, blake3::Hash)| stored.contains(hash);
                found
                    .iter()
                    .filter(is_in)
                    .map(|(index, _)| *index)
                    .collect()
            })
        }
        (DatasetKind::Folder, DatasetKind::Prepared(manifest)) => {
            mixed(manifest, a, go_on, |found| {
                let found: HashSet<&blake3::Hash> = found.iter().map(|(_, hash)| hash).collect();
                let samples = manifest.samples.iter().enumerate();
                samples
                    .filter(|(_, sample)| found.contains(&sample.blake3))
                    .map(|(index, _)| index)
                    .collect()
            })
        }
    }
}

/// Are two plain folders one folder?
fn same_place(a: &Dataset, b: &Dataset) -> bool {
    let place = |data: &Dataset| data.path().canonicalize().ok();
    a.digest() == b.digest() && place(a).is_some() && place(a) == place(b)
}

fn prepared(a: &Manifest, b: &Manifest) -> Overlap {
    let same_source = a.source.listing == b.source.listing;
    let same_settings = a.size == b.size
        && a.resize == b.resize
        && a.window == b.window
        && a.store == b.store
        // with different sources, images that neither dataset turned can still be equal
        && (a.orientation == b.orientation || !same_source);
    if same_settings {
        let stored: HashSet<&blake3::Hash> =
            a.samples.iter().map(|sample| &sample.blake3).collect();
        let samples = b.samples.iter().enumerate();
        let shared = samples.filter(|(_, sample)| stored.contains(&sample.blake3));
        return Overlap::Images(shared.map(|(index, _)| index).collect());
    }
    if !same_source {
        return Overlap::NotComparable(format!(
            "the two datasets were prepared from different sources ({}, {}) and with different settings ({}, {})",
            a.source.name,
            b.source.name,
            settings(a),
            settings(b)
        ));
    }
    let of_a = names(a);
    let mut others: HashMap<&str, Vec<&str>> = HashMap::new();
    for duplicate in &b.duplicates {
        others
            .entry(&duplicate.of)
            .or_default()
            .push(&duplicate.path);
    }
    let shown = |path: &str| {
        of_a.contains(path)
            || others
                .get(path)
                .is_some_and(|paths| paths.iter().any(|path| of_a.contains(path)))
    };
    let samples = b.samples.iter().enumerate();
    let shared = samples.filter(|(_, sample)| shown(&sample.path));
    Overlap::Images(shared.map(|(index, _)| index).collect())
}

/// Source paths of all that a dataset shows: its samples, and the duplicates of them that it left out.
fn names(manifest: &Manifest) -> HashSet<&str> {
    let mut names: HashSet<&str> = manifest.samples.iter().map(|s| s.path.as_str()).collect();
    let twins: Vec<&str> = manifest
        .duplicates
        .iter()
        .filter(|duplicate| names.contains(duplicate.of.as_str()))
        .map(|duplicate| duplicate.path.as_str())
        .collect();
    names.extend(twins);
    names
}

fn settings(manifest: &Manifest) -> String {
    let (size, store) = (manifest.size, manifest.store.name());
    format!("{size} px, {}, {store}", manifest.resize.name())
}

/// Images of the plain folder `folder` as `manifest` would store them: `choose` takes their checksums.
fn mixed(
    manifest: &Manifest,
    folder: &Dataset,
    go_on: &(dyn Fn() -> Flow + Sync),
    choose: impl FnOnce(&[(usize, blake3::Hash)]) -> Vec<usize>,
) -> Result<Overlap, DataError> {
    let plain = folder.folder().filter(|_| manifest.store == Store::Raw);
    let Some(plain) = plain else {
        return Ok(Overlap::NotComparable(
            "one dataset is a plain folder, the other holds images that were encoded again (store jpeg)".into(),
        ));
    };
    if folder.len() > MAX_DECODED {
        return Ok(Overlap::NotComparable(format!(
            "one dataset is prepared, the other a plain folder of {} images, more than the {MAX_DECODED} that are decoded for this: prepare it as well",
            folder.len()
        )));
    }
    let entries: Vec<usize> = (0..folder.len()).collect();
    let found = each(&entries, go_on, |index| {
        match plain.prepared(index, manifest) {
            Ok(pixels) => Ok(Some((index, blake3::hash(&pixels)))),
            // what cannot be decoded is in no prepared dataset
            Err(error) if error.is_bad_image() => Ok(None),
            Err(error) => Err(error),
        }
    })?;
    let found: Vec<(usize, blake3::Hash)> = found.into_iter().flatten().collect();
    Ok(Overlap::Images(choose(&found)))
}

fn folders(
    a: &Dataset,
    b: &Dataset,
    go_on: &(dyn Fn() -> Flow + Sync),
) -> Result<Overlap, DataError> {
    let (Some(a), Some(b)) = (a.folder(), b.folder()) else {
        return Ok(Overlap::Images(Vec::new()));
    };
    let sizes = |folder: &Folder| -> HashSet<u64> {
        folder
            .listing
            .entries
            .iter()
            .map(|entry| entry.bytes)
            .collect()
    };
    let (of_a, of_b) = (sizes(a), sizes(b));
    let candidates = |folder: &Folder, other: &HashSet<u64>| -> Vec<usize> {
        let entries = folder.listing.entries.iter().enumerate();
        let found = entries.filter(|(_, entry)| other.contains(&entry.bytes));
        found.map(|(index, _)| index).collect()
    };
    let (from_a, from_b) = (candidates(a, &of_b), candidates(b, &of_a));
    let files = from_a.len() + from_b.len();
    if files > MAX_FILES {
        return Ok(Overlap::NotComparable(format!(
            "{files} files of the two folders have sizes that occur in both, more than the {MAX_FILES} that are read for this: prepare both"
        )));
    }
    // a short beginning first: most files of one size differ there
    let (from_a, from_b) = equal(a, b, from_a, from_b, HEAD, go_on)?;
    let (_, shared) = equal(a, b, from_a, from_b, u64::MAX, go_on)?;
    Ok(Overlap::Images(shared))
}

/// Those of the files whose first `limit` bytes, and whose sizes, occur on both sides.
fn equal(
    a: &Folder,
    b: &Folder,
    from_a: Vec<usize>,
    from_b: Vec<usize>,
    limit: u64,
    go_on: &(dyn Fn() -> Flow + Sync),
) -> Result<(Vec<usize>, Vec<usize>), DataError> {
    let hashes = |folder: &Folder, files: &[usize]| {
        each(files, go_on, |index| {
            let entry = &folder.listing.entries[index];
            Ok((entry.bytes, beginning(entry, limit)?))
        })
    };
    let (of_a, of_b) = (hashes(a, &from_a)?, hashes(b, &from_b)?);
    let keep = |files: Vec<usize>, own: &[(u64, blake3::Hash)], other: &[(u64, blake3::Hash)]| {
        let other: HashSet<&(u64, blake3::Hash)> = other.iter().collect();
        let both = files
            .into_iter()
            .zip(own)
            .filter(|(_, hash)| other.contains(hash));
        both.map(|(index, _)| index).collect()
    };
    let common_a = keep(from_a, &of_a, &of_b);
    Ok((common_a, keep(from_b, &of_b, &of_a)))
}

/// blake3 of the first `limit` bytes of a file.
fn beginning(entry: &Entry, limit: u64) -> Result<blake3::Hash, DataError> {
    let Location::File(path) = &entry.location else {
        return Ok(blake3::hash(&[]));
    };
    let unreadable = DataError::unreadable(path);
    let file = deepsim_files::open(path).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(limit)).map_err(unreadable)?;
    Ok(hasher.finalize())
}

/// Calls `work` for each item on rayon's threads until `go_on` says stop; results in order.
fn each<T: Send>(
    items: &[usize],
    go_on: &(dyn Fn() -> Flow + Sync),
    work: impl Fn(usize) -> Result<T, DataError> + Sync,
) -> Result<Vec<T>, DataError> {
    let stopped = AtomicBool::new(false);
    let results: Vec<Result<T, DataError>> = items
        .par_iter()
        .map(|&index| {
            if stopped.load(Ordering::Relaxed) || go_on() == Flow::Stop {
                stopped.store(true, Ordering::Relaxed);
                return Err(DataError::Interrupted);
            }
            work(index)
        })
        .collect();
    if stopped.into_inner() {
        Err(DataError::Interrupted)
    } else {
        results.into_iter().collect()
    }
}
