//! The output directory: what stands there, room for it, and the one rename that publishes it.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::dataset::{is_split_root, read};
use crate::error::DataError;
use crate::manifest::{MANIFEST, Manifest, Part};
use crate::prepare::Plan;
use crate::shards::{Shards, unwritable};

/// Kept free besides the dataset: manifest and file system overhead.
const MARGIN: u64 = 64 << 20;

/// What stands at the output.
pub(crate) enum Standing {
    /// Nothing, or an empty directory.
    Free,
    /// Exactly the dataset that is asked for.
    UpToDate { images: usize },
    /// Another dataset of ours.
    Other { difference: String },
}

/// The output's path, absolute and without symbolic links; its parents are created.
pub(crate) fn locate(out: &Path) -> Result<PathBuf, DataError> {
    if let Ok(existing) = out.canonicalize() {
        return match existing.file_name() {
            Some(_) => Ok(existing),
            None => Err(DataError::OutputPath { path: out.into() }),
        };
    }
    let impossible = || DataError::OutputPath { path: out.into() };
    let name = out.file_name().ok_or_else(impossible)?;
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(|source| unwritable(parent, source))?;
    let parent = parent
        .canonicalize()
        .map_err(|source| unwritable(parent, source))?;
    Ok(parent.join(name))
}

/// Compares the output with the plan.
pub(crate) fn standing(out: &Path, source: &Path, plan: &Plan) -> Result<Standing, DataError> {
    let occupied = |found: &str| DataError::OutputOccupied {
        path: out.into(),
        found: found.into(),
    };
    let Ok(metadata) = std::fs::symlink_metadata(out) else {
        return Ok(Standing::Free);
    };
    if !metadata.is_dir() {
        return Err(occupied("a file"));
    }
    let is_dataset = out.join(MANIFEST).exists() || is_split_root(out);
    if !is_dataset {
        let unreadable = |source| DataError::Unreadable {
            path: out.into(),
            source,
        };
        let mut items = std::fs::read_dir(out).map_err(unreadable)?;
        return match items.next() {
            None => Ok(Standing::Free),
            Some(_) => Err(occupied("a directory with other content")),
        };
    }
    if source
        .canonicalize()
        .is_ok_and(|source| source.starts_with(out))
    {
        return Err(occupied("it contains the source"));
    }
    let mut images = 0;
    for part in plan.parts() {
        match difference(out, part, plan)? {
            Ok(count) => images += count,
            Err(difference) => return Ok(Standing::Other { difference }),
        }
    }
    Ok(Standing::UpToDate { images })
}

/// The number of images of a part that is as planned, or what differs.
fn difference(
    out: &Path,
    part: Option<Part>,
    plan: &Plan,
) -> Result<Result<usize, String>, DataError> {
    let directory = part.map_or_else(|| out.to_path_buf(), |part| out.join(part.name()));
    let file = directory.join(MANIFEST);
    if !file.exists() {
        return Ok(Err("split differently".into()));
    }
    let manifest = match Manifest::parse(&read(&file)?, &file) {
        Ok(manifest) => manifest,
        Err(error @ DataError::ManifestVersion { .. }) => return Ok(Err(error.to_string())),
        Err(error) => {
            let found = format!("its manifest cannot be read: {error}");
            return Err(DataError::OutputOccupied {
                path: out.into(),
                found,
            });
        }
    };
    let same_split = match (&manifest.holdout, plan.holdout, part) {
        (None, None, None) => true,
        (Some(holdout), Some((fraction, seed)), Some(part)) => {
            holdout.part == part
                && holdout.seed == seed
                && (holdout.fraction - fraction).abs() < 1e-9
        }
        _ => false,
    };
    let corrupt = manifest.quarantined.len();
    let checks = [
        (
            manifest.size != plan.size,
            format!("stored at {} px", manifest.size),
        ),
        (
            manifest.resize != plan.resize,
            format!("resized by {}", manifest.resize.name()),
        ),
        (
            manifest.window != plan.window,
            match manifest.window {
                Some(window) => format!("the window {window} of each picture"),
                None => "whole pictures, no window of them".into(),
            },
        ),
        (
            manifest.store != plan.store,
            format!("stored as {}", manifest.store.name()),
        ),
        (!same_split, "split differently".into()),
        (
            manifest.source.listing != plan.source.listing
                || manifest.source.layout != plan.source.layout,
            format!(
                "made from {} images with other names or sizes",
                manifest.source.images
            ),
        ),
        (
            corrupt > plan.quarantine,
            format!("it leaves out {corrupt} corrupt photos"),
        ),
    ];
    if let Some((_, difference)) = checks.into_iter().find(|(differs, _)| *differs) {
        return Ok(Err(difference));
    }
    match Shards::open(&directory, &manifest) {
        Ok(_) => Ok(Ok(manifest.count)),
        Err(error) => Ok(Err(format!("incomplete: {error}"))),
    }
}

/// Only what `prepare` wrote may be replaced: anything else in the directory is kept from
/// being deleted by refusing.
pub(crate) fn check_replaceable(out: &Path) -> Result<(), DataError> {
    let mut directories = vec![out.to_path_buf()];
    if is_split_root(out) {
        directories.extend([Part::Train, Part::Test].map(|part| out.join(part.name())));
    }
    for directory in &directories {
        let unreadable = |source| DataError::Unreadable {
            path: directory.clone(),
            source,
        };
        for item in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = item.map_err(unreadable)?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let shard = name.starts_with("shard-") && name.ends_with(".bin") && path.is_file();
            if name != MANIFEST && !shard && !directories.contains(&path) {
                let found = format!("besides the dataset it holds {}", path.display());
                return Err(DataError::OutputOccupied {
                    path: out.into(),
                    found,
                });
            }
        }
    }
    Ok(())
}

fn beside(out: &Path, what: &str) -> OsString {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{what}-"));
    name
}

/// Staging directories that killed runs left beside the output.
pub(crate) fn leftovers(out: &Path) -> Vec<PathBuf> {
    let prefix = beside(out, "partial");
    let Some(Ok(items)) = out.parent().map(std::fs::read_dir) else {
        return Vec::new();
    };
    items
        .flatten()
        .map(|item| item.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes()
                .starts_with(prefix.as_encoded_bytes())
        })
        .collect()
}

/// Refuses when the file system has less room than needed.
pub(crate) fn check_room(path: &Path, free: u64, bytes: u64) -> Result<(), DataError> {
    let need = bytes.saturating_add(MARGIN);
    match need > free {
        true => Err(DataError::DiskFull {
            path: path.into(),
            need,
            free,
        }),
        false => Ok(()),
    }
}

/// The directory in which the dataset grows; removed when dropped unpublished.
pub(crate) struct Stage {
    directory: TempDir,
}

impl Stage {
    /// Checks the room and creates `OUT.partial-…`.
    pub fn create(out: &Path, bytes: u64) -> Result<Self, DataError> {
        let parent = out.parent().unwrap_or(Path::new("/"));
        let room = rustix::fs::statvfs(parent)
            .map_err(|error| unwritable(parent, std::io::Error::from(error)))?;
        check_room(parent, room.f_bavail.saturating_mul(room.f_frsize), bytes)?;
        let directory = tempfile::Builder::new()
            .prefix(&beside(out, "partial"))
            // as mkdir: the umask decides
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(|source| unwritable(parent, source))?;
        Ok(Self { directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the dataset visible at `out`, in place of what `standing` allowed to replace.
    pub fn publish(self, out: &Path) -> Result<(), DataError> {
        let failed = |source| unwritable(out, source);
        let parent = out.parent().unwrap_or(Path::new("/"));
        sync_directory(self.path())?;
        let occupied = std::fs::read_dir(out).is_ok_and(|mut items| items.next().is_some());
        let old = match occupied {
            false => None,
            true => {
                let old = tempfile::Builder::new()
                    .prefix(&beside(out, "old"))
                    .tempdir_in(parent)
                    .map_err(failed)?;
                std::fs::rename(out, old.path()).map_err(failed)?;
                Some(old)
            }
        };
        if let Err(error) = std::fs::rename(self.path(), out) {
            if let Some(old) = old {
                // put the old one back; should that fail as well, keep it where it is
                let kept = old.keep();
                let _ = std::fs::rename(&kept, out);
            }
            return Err(failed(error));
        }
        // nothing is left at the staging path to remove
        let _ = self.directory.keep();
        sync_directory(parent)
    }
}

/// Creates a directory unless it is there.
pub(crate) fn make_directory(path: &Path) -> Result<(), DataError> {
    std::fs::create_dir_all(path).map_err(|source| unwritable(path, source))
}

/// Writes the manifest and brings the directory to the disk.
pub(crate) fn write_manifest(directory: &Path, manifest: &Manifest) -> Result<(), DataError> {
    let path = directory.join(MANIFEST);
    let json = manifest.to_json()?;
    let mut file = File::create_new(&path).map_err(|source| unwritable(&path, source))?;
    file.write_all(&json)
        .and_then(|()| file.sync_all())
        .map_err(|source| unwritable(&path, source))?;
    sync_directory(directory)
}

fn sync_directory(path: &Path) -> Result<(), DataError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| unwritable(path, source))
}
