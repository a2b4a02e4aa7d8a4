//! The images of a tar, and of the tars in it (ILSVRC2012_img_train.tar holds one a synset).
//!
//! Only the headers are read; nothing is unpacked. An image is remembered as a stretch of the
//! archive and read when its turn comes, so that a tar of 138 GB needs no second copy.
//! An inner `n01440764.tar` counts as a folder `n01440764`.
//!
//! Tars one behind the other (`cat a.tar b.tar`) are read as one. A hard link to an image of the
//! archive is that image once more, as in the folder that it would be unpacked to. Sparse members
//! are not taken: their bytes do not lie in one stretch.

use crate::terminal::path as shown;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};
use std::sync::Arc;

use tar::EntryType;

use super::entry::{Entry, HEAD, Location, Named, Step, is_image, named};
use super::skipped::{Skipped, Why};
use crate::error::DataError;

/// How deep tars in tars are looked into.
const DEPTH: usize = 2;

pub(super) fn list(root: &Path, step: Step<'_>) -> Result<(Vec<Entry>, Skipped), DataError> {
    let unreadable = DataError::unreadable(root);
    let metadata = std::fs::metadata(root).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(not_a_source(root, "not a regular file"));
    }
    let file = deepsim_files::open(root).map_err(unreadable)?;
    check_magic(root, &file)?;
    let mut lister = Lister {
        root,
        file: Arc::new(file),
        entries: Vec::new(),
        skipped: Skipped::default(),
        hard_links: Vec::new(),
        step,
    };
    lister.walk_all(0, metadata.len(), "", 1)?;
    lister.resolve_hard_links();
    Ok((lister.entries, lister.skipped))
}

/// Old tars have no magic number; the crate checks the checksum of their header. A file that is
/// surely no tar gets a clearer error than one about a checksum.
fn check_magic(root: &Path, file: &File) -> Result<(), DataError> {
    let mut head = [0; 512];
    let read = file
        .read_at(&mut head, 0)
        .map_err(DataError::unreadable(root))?;
    let known: [(&[u8], &str); 9] = [
        (&[0x1F, 0x8B], "it is gzip-compressed"),
        (b"BZh", "it is bzip2-compressed"),
        (&[0xFD, b'7', b'z', b'X', b'Z'], "it is xz-compressed"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "it is zstd-compressed"),
        (&[0x04, 0x22, 0x4D, 0x18], "it is lz4-compressed"),
        (&[0x1F, 0x9D], "it is compressed by compress"),
        (b"7z\xBC\xAF\x27\x1C", "it is a 7z archive"),
        (b"Rar!", "it is a rar archive"),
        (b"PK\x03\x04", "it is a zip archive"),
    ];
    for (magic, what) in known {
        if head.starts_with(magic) {
            return Err(not_a_source(root, what));
        }
    }
    if is_image(&head[..read.min(HEAD)]) {
        return Err(not_a_source(root, "it is a single image"));
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
    /// The paths of hard links, and of what they link to.
    hard_links: Vec<(String, String)>,
    step: Step<'a>,
}

/// How reading one tar ended.
enum End {
    /// At its end, behind which the file goes on from this offset.
    At(u64),
    /// Before its first member: no tar begins here.
    NoTar(io::Error),
}

impl Lister<'_> {
    /// Lists the archives that lie one behind the other at `start..end` of the file; `prefix` ends
    /// in '/' or is empty.
    fn walk_all(
        &mut self,
        start: u64,
        end: u64,
        prefix: &str,
        depth: usize,
    ) -> Result<(), DataError> {
        let first = self.behind_label(start);
        let mut at = first;
        loop {
            match self.walk(at, end, prefix, depth)? {
                End::At(behind) => match self.data_from(behind, end)? {
                    Some(next) => at = self.behind_label(next),
                    None => return Ok(()),
                },
                End::NoTar(error) if at == first => {
                    return Err(match depth {
                        1 => not_a_source(self.root, &error.to_string()),
                        _ => self.damaged(&format!("the start of {prefix:?}"), &error),
                    });
                }
                End::NoTar(_) => {
                    self.skipped
                        .add(Why::Trailing, &format!("{prefix}from byte {at}"));
                    return Ok(());
                }
            }
        }
    }

    /// GNU tar's name of a volume has the form of a member without a size, which the crate refuses.
    fn behind_label(&self, at: u64) -> u64 {
        const KIND: usize = 156;
        let mut head = [0; KIND + 1];
        let read = self.file.read_exact_at(&mut head, at);
        if read.is_ok() && head[KIND] == b'V' {
            return at + 512;
        }
        at
    }

    /// The first block from `at` on that is not all zeros; headers lie at multiples of 512.
    fn data_from(&mut self, at: u64, end: u64) -> Result<Option<u64>, DataError> {
        let mut block = vec![0; 512 << 10];
        let mut at = at;
        while at < end {
            (self.step)(self.entries.len())?;
            let wanted = block
                .len()
                .min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let read = self
                .file
                .read_at(&mut block[..wanted], at)
                .map_err(DataError::unreadable(self.root))?;
            if read == 0 {
                break;
            }
            if let Some(place) = block[..read].iter().position(|byte| *byte != 0) {
                return Ok(Some(at + place as u64 / 512 * 512));
            }
            at += read as u64;
        }
        Ok(None)
    }

    /// A hard link to an image is that image under another name.
    fn resolve_hard_links(&mut self) {
        if self.hard_links.is_empty() {
            return;
        }
        let known: HashMap<&str, usize> = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.path.as_str(), index))
            .collect();
        let links: HashMap<&str, &str> = self
            .hard_links
            .iter()
            .map(|(path, target)| (path.as_str(), target.as_str()))
            .collect();
        let mut more = Vec::new();
        for (path, target) in &self.hard_links {
            let is_image = matches!(named(path), Named::Image | Named::Unsaid);
            // Through links to links, but not in a circle of them.
            let mut target = target.as_str();
            for _ in 0..links.len() {
                match links.get(target) {
                    Some(next) if !known.contains_key(target) => target = next,
                    _ => break,
                }
            }
            match known.get(target).filter(|_| is_image) {
                Some(&index) => more.push(Entry {
                    path: path.clone(),
                    ..self.entries[index].clone()
                }),
                None => self.skipped.add(Why::HardLink, path),
            }
        }
        self.entries.extend(more);
    }

    /// Lists one archive that begins at `start` and ends before `end`.
    fn walk(&mut self, start: u64, end: u64, prefix: &str, depth: usize) -> Result<End, DataError> {
        let section = Section {
            file: self.file.clone(),
            start,
            len: end - start,
            at: 0,
        };
        let mut archive = tar::Archive::new(section);
        let mut last = None;
        let damaged_at = |last: &Option<String>| {
            last.clone()
                .unwrap_or_else(|| format!("the start of {prefix:?}"))
        };
        let members = archive
            .entries_with_seek()
            .map_err(|error| self.damaged(&damaged_at(&last), &error))?;
        for member in members {
            (self.step)(self.entries.len())?;
            let mut member = match member {
                Ok(member) => member,
                Err(error) if last.is_none() => return Ok(End::NoTar(error)),
                Err(error) => return Err(self.damaged(&damaged_at(&last), &error)),
            };
            let path = member
                .path()
                .map_err(|error| self.damaged(&damaged_at(&last), &error))?
                .into_owned();
            last = Some(format!("the member behind {:?}", self.root.join(&path)));
            let kind = member.header().entry_type();
            let Some(path) = self.plain(&path)? else {
                continue;
            };
            let path = match path {
                Ok(path) => format!("{prefix}{path}"),
                Err(lossy) => {
                    self.skipped.add(Why::NotUtf8, &format!("{prefix}{lossy}"));
                    continue;
                }
            };
            last = Some(format!("the member behind {path:?}"));
            let offset = start + member.raw_file_position();
            let bytes = member.size();
            match kind {
                EntryType::Regular | EntryType::Continuous => {}
                // Headers for what follows are no members.
                EntryType::Directory | EntryType::XGlobalHeader => continue,
                _ if matches!(named(&path), Named::Hidden) => {
                    self.skipped.add(Why::Hidden, &path);
                    continue;
                }
                EntryType::Symlink => {
                    self.skipped.add(Why::Link, &path);
                    continue;
                }
                EntryType::Link => {
                    let target = member.link_name().ok().flatten();
                    let target = target.and_then(|target| self.plain(&target).ok().flatten());
                    match target {
                        Some(Ok(target)) => {
                            self.hard_links.push((path, format!("{prefix}{target}")));
                        }
                        _ => self.skipped.add(Why::HardLink, &path),
                    }
                    continue;
                }
                EntryType::GNUSparse => {
                    self.skipped.add(Why::Sparse, &path);
                    continue;
                }
                _ => {
                    self.skipped.add(Why::Special, &path);
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
            if is_sparse(&mut member) {
                self.skipped.add(Why::Sparse, &path);
                continue;
            }
            let taken = match named(&path) {
                Named::Image => true,
                Named::Unsaid => self.begins_as_an_image(offset, bytes),
                Named::Archive if depth < DEPTH => {
                    let folder = path.strip_suffix(".tar").unwrap_or(&path);
                    let contents = |lister: &Self| {
                        let (entries, links) = (lister.entries.len(), lister.hard_links.len());
                        (entries, links, lister.skipped.clone())
                    };
                    let before = contents(self);
                    self.walk_all(offset, offset + bytes, &format!("{folder}/"), depth + 1)?;
                    if contents(self) == before {
                        self.skipped.add(Why::Hollow, &path);
                    }
                    continue;
                }
                Named::Archive => {
                    self.skipped.add(Why::Archive, &path);
                    continue;
                }
                Named::Hidden => {
                    self.skipped.add(Why::Hidden, &path);
                    continue;
                }
                Named::Other => false,
            };
            if !taken {
                self.skipped.add(Why::Other, &path);
                continue;
            }
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
        let behind = start + archive.into_inner().at;
        if last.is_some() && behind >= end && !self.is_blank(end) {
            let name = prefix.strip_suffix('/').map(str::to_owned);
            let name = name.unwrap_or_else(|| shown(self.root));
            self.skipped.add(Why::Unended, &name);
        }
        Ok(End::At(behind))
    }

    /// Whether the last block before an offset is all zeros, as an archive's end is.
    fn is_blank(&self, end: u64) -> bool {
        let mut block = [1; 512];
        let read = end
            .checked_sub(512)
            .map(|at| self.file.read_exact_at(&mut block, at));
        read.is_some_and(|read| read.is_ok()) && block.iter().all(|byte| *byte == 0)
    }

    fn begins_as_an_image(&self, offset: u64, bytes: u64) -> bool {
        let mut head = [0; HEAD];
        let wanted = HEAD.min(usize::try_from(bytes).unwrap_or(HEAD));
        let read = self.file.read_at(&mut head[..wanted], offset);
        read.is_ok_and(|read| is_image(&head[..read]))
    }

    /// A member's path, '/'-separated, or what can be shown of one that is not UTF-8; `None` for the
    /// folder itself.
    fn plain(&self, path: &Path) -> Result<Option<Result<String, String>>, DataError> {
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(part) => parts.push(part),
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(DataError::ArchiveEscape {
                        path: self.root.into(),
                        member: shown(path),
                    });
                }
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let texts: Option<Vec<&str>> = parts.iter().map(|part| part.to_str()).collect();
        Ok(Some(match texts {
            Some(texts) => Ok(texts.join("/")),
            None => Err(shown(path)),
        }))
    }

    fn damaged(&self, member: &str, error: &io::Error) -> DataError {
        DataError::BadArchive {
            path: self.root.into(),
            member: member.into(),
            reason: error.to_string(),
        }
    }
}

/// Is a member stored with holes, as POSIX's extended headers say it?
fn is_sparse<R: Read>(member: &mut tar::Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = member.pax_extensions() else {
        return false;
    };
    extensions
        .flatten()
        .any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."))
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
