//! The images of a tar, and of the tars in it (ILSVRC2012_img_train.tar holds one a synset).
//!
//! Only the headers are read; nothing is unpacked. An image is remembered as a stretch of the
//! archive and read when its turn comes, so that a tar of 138 GB needs no second copy.
//! An inner `n01440764.tar` counts as a folder `n01440764`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};
use std::sync::Arc;

use tar::EntryType;

use super::{Entry, Location, Named, Skipped, named};
use crate::error::DataError;

/// How deep tars in tars are looked into.
const DEPTH: usize = 2;

pub(super) fn list(root: &Path) -> Result<(Vec<Entry>, Skipped), DataError> {
    let unreadable = |source| DataError::Unreadable {
        path: root.into(),
        source,
    };
    let file = File::open(root).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(not_a_source(root, "not a regular file"));
    }
    check_magic(root, &file)?;
    let mut lister = Lister {
        root,
        file: Arc::new(file),
        entries: Vec::new(),
        skipped: Skipped::default(),
    };
    lister.walk(0, metadata.len(), "", 1)?;
    Ok((lister.entries, lister.skipped))
}

/// Old tars have no magic; the crate checks their header's checksum. What is surely something
/// else gets a better word than "checksum".
fn check_magic(root: &Path, file: &File) -> Result<(), DataError> {
    let mut head = [0; 512];
    let read = file
        .read_at(&mut head, 0)
        .map_err(|source| DataError::Unreadable {
            path: root.into(),
            source,
        })?;
    let known: [(&[u8], &str); 6] = [
        (&[0x1F, 0x8B], "it is gzip-compressed"),
        (b"BZh", "it is bzip2-compressed"),
        (&[0xFD, b'7', b'z', b'X', b'Z'], "it is xz-compressed"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "it is zstd-compressed"),
        (b"PK", "it is a zip archive"),
        (&[0xFF, 0xD8, 0xFF], "it is a single picture"),
    ];
    for (magic, what) in known {
        if head.starts_with(magic) {
            return Err(not_a_source(root, what));
        }
    }
    match read {
        512 => Ok(()),
        0 => Err(not_a_source(root, "it is empty")),
        _ => Err(not_a_source(root, "it is shorter than one tar header")),
    }
}

fn not_a_source(root: &Path, reason: &str) -> DataError {
    DataError::NotASource {
        path: root.into(),
        reason: reason.into(),
    }
}

struct Lister<'a> {
    root: &'a Path,
    file: Arc<File>,
    entries: Vec<Entry>,
    skipped: Skipped,
}

impl Lister<'_> {
    /// Lists the archive that lies at `start..end` of the file; `prefix` ends in '/' or is empty.
    fn walk(&mut self, start: u64, end: u64, prefix: &str, depth: usize) -> Result<(), DataError> {
        let section = Section {
            file: self.file.clone(),
            start,
            len: end - start,
            at: 0,
        };
        let mut archive = tar::Archive::new(section);
        let mut last = format!("the start of {prefix:?}");
        let members = archive
            .entries_with_seek()
            .map_err(|error| self.damaged(&last, &error))?;
        for member in members {
            let member = member.map_err(|error| match (depth, start, self.entries.is_empty()) {
                (1, 0, true) if last.starts_with("the start") => {
                    not_a_source(self.root, &error.to_string())
                }
                _ => self.damaged(&last, &error),
            })?;
            let path = member.path().map_err(|error| self.damaged(&last, &error))?;
            let kind = member.header().entry_type();
            let Some(path) = self.plain(&path)? else {
                continue;
            };
            let path = format!("{prefix}{path}");
            let offset = start + member.raw_file_position();
            let bytes = member.size();
            last = format!("the member behind {path:?}");
            match kind {
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::Symlink | EntryType::Link => {
                    self.skipped.links += 1;
                    continue;
                }
                EntryType::Directory => continue,
                _ => {
                    self.skipped.other += 1;
                    continue;
                }
            }
            if offset.checked_add(bytes).is_none_or(|behind| behind > end) {
                return Err(DataError::BadArchive {
                    path: self.root.into(),
                    member: format!("{path:?}"),
                    reason: "the archive ends before the member does (truncated)".into(),
                });
            }
            match named(&path) {
                Named::Image => {
                    let location = Location::Span {
                        archive: self.file.clone(),
                        offset,
                    };
                    self.entries.push(Entry {
                        path,
                        bytes,
                        location,
                    });
                }
                Named::Archive if depth < DEPTH => {
                    let folder = path.strip_suffix(".tar").unwrap_or(&path);
                    self.walk(offset, offset + bytes, &format!("{folder}/"), depth + 1)?;
                }
                Named::Archive => self.skipped.archives += 1,
                Named::Hidden => self.skipped.hidden += 1,
                Named::Other => self.skipped.other += 1,
            }
        }
        Ok(())
    }

    /// A member's path, '/'-separated; `None` for the folder itself.
    fn plain(&self, path: &Path) -> Result<Option<String>, DataError> {
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(part) => match part.to_str() {
                    Some(part) => parts.push(part),
                    None => {
                        return Err(DataError::NameNotUtf8 {
                            path: self.root.join(path),
                        });
                    }
                },
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(DataError::ArchiveEscape {
                        path: self.root.into(),
                        member: path.display().to_string(),
                    });
                }
            }
        }
        Ok((!parts.is_empty()).then(|| parts.join("/")))
    }

    fn damaged(&self, member: &str, error: &io::Error) -> DataError {
        DataError::BadArchive {
            path: self.root.into(),
            member: member.into(),
            reason: error.to_string(),
        }
    }
}

/// A stretch of a file as a file of its own.
struct Section {
    file: Arc<File>,
    start: u64,
    len: u64,
    at: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self
            .file
            .read_at(&mut buffer[..wanted], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
