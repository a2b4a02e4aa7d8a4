//! The output directory: free space for it, and the one rename that publishes it.
//!
//! Only the dataset, or the part of one, that was agreed to be replaced is removed. A free place is taken by a rename
//! that fails if anything has appeared there. An old dataset is exchanged with the new one in one step. It is then
//! checked again, and deleted file by file. If it is not the agreed dataset, the two are exchanged back.

use crate::terminal::path as shown;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use super::part::{PART, RECORDS};
use crate::dataset::{is_split_root, parts_of, read};
use crate::error::DataError;
use crate::manifest::{MANIFEST, Manifest, Part, SKIPPED};
use crate::source::Skipped;

/// Kept free besides the dataset: manifest and file system overhead.
const MARGIN: u64 = 64 << 20;

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
    std::fs::create_dir_all(parent).map_err(DataError::unwritable(parent))?;
    let parent = parent
        .canonicalize()
        .map_err(DataError::unwritable(parent))?;
    Ok(parent.join(name))
}

/// A dataset that may be replaced, and how it is recognised when its turn comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaceable {
    device: u64,
    inode: u64,
    /// blake3 of the manifests, or of a part's head.
    manifests: Vec<blake3::Hash>,
}

impl Replaceable {
    /// Only files that `prepare` wrote may be replaced. If the directory holds anything else, the
    /// request is refused.
    pub fn check(out: &Path) -> Result<Self, DataError> {
        let mut manifests = Vec::new();
        let directories = directories(out);
        for directory in &directories {
            let unreadable = DataError::unreadable(directory);
            for item in std::fs::read_dir(directory).map_err(unreadable)? {
                let path = item.map_err(unreadable)?.path();
                if !is_ours(&path) && !directories.contains(&path) {
                    let found = format!("besides the dataset it holds {}", shown(path));
                    return Err(DataError::OutputOccupied {
                        path: out.into(),
                        found,
                    });
                }
            }
            for name in [MANIFEST, PART] {
                let manifest = directory.join(name);
                if manifest.exists() {
                    manifests.push(blake3::hash(&read(&manifest)?));
                }
            }
        }
        let found = std::fs::symlink_metadata(out).map_err(DataError::unreadable(out))?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            manifests,
        })
    }
}

/// A dataset's directory, and those of its parts.
fn directories(out: &Path) -> Vec<PathBuf> {
    let mut directories = vec![out.to_path_buf()];
    if is_split_root(out) {
        directories.extend(parts_of(out).map(|part| out.join(part.name())));
    }
    directories
}

/// Is it a file that `prepare` writes, by its name?
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    is_file
        && name.is_some_and(|name| {
            let number = name
                .strip_prefix("shard-")
                .and_then(|n| n.strip_suffix(".bin"));
            [MANIFEST, SKIPPED, PART, RECORDS].contains(&name)
                || number.is_some_and(|n| n.len() >= 5 && n.bytes().all(|b| b.is_ascii_digit()))
        })
}

/// Deletes a dataset file by file. What is not of it stays, and its directory with it.
fn remove_dataset(path: &Path) -> std::io::Result<()> {
    for directory in directories(path).into_iter().rev() {
        for item in std::fs::read_dir(&directory)? {
            let item = item?.path();
            if is_ours(&item) {
                std::fs::remove_file(&item)?;
            }
        }
        std::fs::remove_dir(&directory)?;
    }
    Ok(())
}

fn beside(out: &Path, what: &str) -> OsString {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{what}-"));
    name
}

/// Directories that killed runs left beside the output: unfinished datasets, and one that was being replaced.
pub(crate) fn leftovers(out: &Path) -> Vec<PathBuf> {
    let prefixes = [beside(out, "partial"), beside(out, "old")];
    let Some(Ok(items)) = out.parent().map(std::fs::read_dir) else {
        return Vec::new();
    };
    items
        .flatten()
        .map(|item| item.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let named = |prefix: &OsString| name.starts_with(prefix.as_encoded_bytes());
            prefixes.iter().any(named) && holds_a_dataset(path)
        })
        .collect()
}

/// Is it a directory with nothing in it but what `prepare` writes?
fn holds_a_dataset(path: &Path) -> bool {
    let is_directory = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let parts = Part::ALL.map(|part| path.join(part.name()));
    is_directory
        && std::fs::read_dir(path).is_ok_and(|items| {
            items.flatten().all(|item| {
                let item = item.path();
                is_ours(&item) || (parts.contains(&item) && holds_a_dataset(&item))
            })
        })
}

/// Refuses when the file system has less free space than needed.
pub(crate) fn check_free_space(path: &Path, free: u64, bytes: u64) -> Result<(), DataError> {
    let need = bytes.saturating_add(MARGIN);
    if need > free {
        Err(DataError::DiskFull {
            path: path.into(),
            need,
            free,
        })
    } else {
        Ok(())
    }
}

/// The directory in which the dataset grows; removed when dropped unpublished.
pub(crate) struct Stage {
    directory: TempDir,
}

impl Stage {
    /// Checks the free space and creates `OUT.partial-…`.
    pub fn create(out: &Path, bytes: u64) -> Result<Self, DataError> {
        let parent = out.parent().unwrap_or(Path::new("/"));
        let space = rustix::fs::statvfs(parent)
            .map_err(|error| DataError::unwritable(parent)(error.into()))?;
        check_free_space(parent, space.f_bavail.saturating_mul(space.f_frsize), bytes)?;
        let directory = tempfile::Builder::new()
            .prefix(&beside(out, "partial"))
            // as mkdir: the umask decides
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(DataError::unwritable(parent))?;
        Ok(Self { directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the dataset visible at `out`, in place of what `agreed` says, or where nothing stands.
    pub fn publish(self, out: &Path, agreed: Option<&Replaceable>) -> Result<Published, DataError> {
        let failed = DataError::unwritable(out);
        let parent = out.parent().unwrap_or(Path::new("/"));
        sync_directory(self.path())?;
        let published = match agreed {
            None => self.take_free_place(out),
            Some(agreed) => self.take_place_of(out, agreed),
        };
        match published.map_err(failed)? {
            Published::Occupied => Ok(Published::Occupied),
            Published::Done => {
                // nothing is left at the staging path to remove
                let _ = self.directory.keep();
                sync_directory(parent)?;
                Ok(Published::Done)
            }
            // the staging path now holds the old dataset and other files
            Published::Kept(_) => {
                sync_directory(parent)?;
                Ok(Published::Kept(self.directory.keep()))
            }
        }
    }

    fn take_free_place(&self, out: &Path) -> std::io::Result<Published> {
        let taken = match renameat_with(CWD, self.path(), CWD, out, RenameFlags::NOREPLACE) {
            // an empty directory is as good as none, and this rename fails for all else
            Err(Errno::EXIST) => std::fs::rename(self.path(), out),
            // a file system without that flag: a directory replaces nothing but an empty one anyway
            Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(self.path(), out),
            other => other.map_err(Into::into),
        };
        match taken {
            Ok(()) => Ok(Published::Done),
            Err(error) => match error.kind() {
                ErrorKind::AlreadyExists
                | ErrorKind::DirectoryNotEmpty
                | ErrorKind::NotADirectory => Ok(Published::Occupied),
                _ => Err(error),
            },
        }
    }

    fn take_place_of(&self, out: &Path, agreed: &Replaceable) -> std::io::Result<Published> {
        let exchange = |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
        match exchange(self.path(), out) {
            Ok(()) => {}
            // it is gone meanwhile
            Err(Errno::NOENT) => return self.take_free_place(out),
            Err(Errno::INVAL | Errno::NOSYS) => return self.take_place_in_two_steps(out, agreed),
            Err(error) => return Err(error.into()),
        }
        if Replaceable::check(self.path()).ok().as_ref() != Some(agreed) {
            exchange(self.path(), out)?;
            return Ok(Published::Occupied);
        }
        Ok(match remove_dataset(self.path()) {
            Ok(()) => Published::Done,
            Err(_) => Published::Kept(self.path().into()),
        })
    }

    /// On a file system without the exchange the old dataset stands at `OUT.old-…` for a moment.
    fn take_place_in_two_steps(
        &self,
        out: &Path,
        agreed: &Replaceable,
    ) -> std::io::Result<Published> {
        if Replaceable::check(out).ok().as_ref() != Some(agreed) {
            return Ok(Published::Occupied);
        }
        let parent = out.parent().unwrap_or(Path::new("/"));
        let place = tempfile::Builder::new()
            .prefix(&beside(out, "old"))
            .tempdir_in(parent)?;
        std::fs::rename(out, place.path())?;
        let old = place.keep();
        if Replaceable::check(&old).ok().as_ref() != Some(agreed) {
            std::fs::rename(&old, out)?;
            return Ok(Published::Occupied);
        }
        match self.take_free_place(out) {
            Ok(Published::Done) => {
                // what cannot be deleted is named as left over by the next preparation
                let _ = remove_dataset(&old);
                Ok(Published::Done)
            }
            other => {
                // the old dataset is not lost: it goes back, or stays at its temporary place
                let _ = std::fs::rename(&old, out);
                other
            }
        }
    }
}

/// How publishing ended.
pub(crate) enum Published {
    /// The dataset is at its place and nothing else is left.
    Done,
    /// The dataset is at its place. Parts of the old one are left here, with other files that were put there
    /// meanwhile.
    Kept(PathBuf),
    /// The output is not what was agreed; nothing was changed.
    Occupied,
}

/// Creates a directory unless it is there.
pub(crate) fn make_directory(path: &Path) -> Result<(), DataError> {
    std::fs::create_dir_all(path).map_err(DataError::unwritable(path))
}

/// Writes the manifest and brings the directory to the disk.
pub(crate) fn write_manifest(directory: &Path, manifest: &Manifest) -> Result<(), DataError> {
    write_file(directory, MANIFEST, &manifest.to_json()?)?;
    sync_directory(directory)
}

/// Writes what the source held besides the images, if anything.
pub(crate) fn write_skipped(directory: &Path, skipped: &Skipped) -> Result<(), DataError> {
    if *skipped == Skipped::default() {
        return Ok(());
    }
    let json = serde_json::to_vec_pretty(skipped)
        .map_err(|error| DataError::unwritable(&directory.join(SKIPPED))(error.into()))?;
    write_file(directory, SKIPPED, &json)
}

/// Writes a new file and brings it to the disk.
pub(crate) fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), DataError> {
    let path = directory.join(name);
    let mut file = File::create_new(&path).map_err(DataError::unwritable(&path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(DataError::unwritable(&path))
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), DataError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(DataError::unwritable(path))
}
