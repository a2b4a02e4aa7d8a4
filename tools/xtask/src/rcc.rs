//! Reader of Qt's binary resource files (`.rcc`), format versions 1 to 3.
//!
//! Layout, all numbers big-endian (source: `qtbase/src/tools/rcc/rcc.cpp` and
//! `qtbase/src/corelib/io/qresource.cpp`):
//!
//! ```text
//! header   "qres", version u32, tree u32, data u32, names u32 (offsets from the file's start); version 3 adds flags u32
//! tree     nodes of 14 bytes (22 from version 2 on, which adds a time stamp):
//!            name u32, flags u16, then folder: children u32, first child u32
//!                                      file:   territory u16, language u16, data u32
//! names    length u16 (in UTF-16 units), hash u32, UTF-16 text
//! data     length u32, then that many bytes: raw, zlib behind a u32 of the unpacked size, or zstd
//! ```
//!
//! The file comes from outside, so nothing in it is believed: every offset is checked, a node is
//! visited once at most (no cycles, no sharing), and names, nodes and unpacked sizes are bounded.

use std::io::Read;

/// Largest unpacked file that is accepted, in bytes. The photos have less than 2 MB.
const MAX_UNPACKED: u64 = 64 << 20;
/// Longest name of one path component, in UTF-16 units.
const MAX_NAME: usize = 255;
/// Deepest nesting of folders.
const MAX_DEPTH: usize = 32;
/// Most nodes that one archive may list.
const MAX_NODES: usize = 100_000;

const FLAG_ZLIB: u16 = 1;
const FLAG_FOLDER: u16 = 2;
const FLAG_ZSTD: u16 = 4;

/// Why bytes are not a resource archive that this reader accepts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RccError {
    /// The first four bytes are not `qres`.
    #[error("no Qt resource file: it does not begin with \"qres\"")]
    Magic,
    /// A format version that this reader does not know.
    #[error("resource format version {0}: this reader knows 1 to 3")]
    Version(u32),
    /// An offset or a length points outside the file.
    #[error("{what} at byte {offset} needs {len} bytes, the file has {size}: cut short or damaged")]
    Bounds {
        /// What was to be read.
        what: &'static str,
        /// Where, in bytes from the file's start.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The file's size in bytes.
        size: u64,
    },
    /// A tree node is reached twice: a cycle, or two folders that share it.
    #[error("tree node {0} is reached twice: the folder tree is damaged")]
    Revisited(u64),
    /// More nodes than any real archive has.
    #[error("more than {MAX_NODES} entries in one archive")]
    TooManyNodes,
    /// Folders nested deeper than any real archive has.
    #[error("folders nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A name that could lead out of the target folder, is empty, too long or no UTF-16.
    #[error("unusable file name at byte {offset}: {why}")]
    Name {
        /// Where the name stands, in bytes from the file's start.
        offset: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that unpacks to more than the limit.
    #[error("{path} unpacks to more than {MAX_UNPACKED} bytes")]
    TooLarge {
        /// Path inside the archive.
        path: String,
    },
    /// Compressed data that does not unpack.
    #[error("{path} does not unpack ({method}): {why}")]
    Unpack {
        /// Path inside the archive.
        path: String,
        /// `zlib` or `zstd`.
        method: &'static str,
        /// What the decompressor said.
        why: String,
    },
}

/// How one file's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Raw,
    Zlib,
    Zstd,
}

/// One file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path inside the archive, components joined by `/`, no leading slash.
    pub path: String,
    packing: Packing,
    data: u64,
}

/// A parsed archive that borrows the file's bytes.
#[derive(Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    data: u64,
    entries: Vec<Entry>,
}

impl<'a> Archive<'a> {
    /// Parses the header and the whole folder tree; file contents are read by [`Archive::read`].
    ///
    /// # Errors
    /// Any [`RccError`] but [`RccError::TooLarge`] and [`RccError::Unpack`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RccError> {
        if bytes.get(..4) != Some(b"qres".as_slice()) {
            return Err(RccError::Magic);
        }
        let version = u32_at(bytes, "the header", 4)?;
        if !(1..=3).contains(&version) {
            return Err(RccError::Version(version));
        }
        let tree = u64::from(u32_at(bytes, "the header", 8)?);
        let data = u64::from(u32_at(bytes, "the header", 12)?);
        let names = u64::from(u32_at(bytes, "the header", 16)?);
        let node_len = if version == 1 { 14 } else { 22 };
        let entries = walk(bytes, tree, names, node_len)?;
        Ok(Self {
            bytes,
            data,
            entries,
        })
    }

    /// The files in the archive, in the tree's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One file's bytes, unpacked.
    ///
    /// # Errors
    /// [`RccError::Bounds`], [`RccError::TooLarge`] or [`RccError::Unpack`].
    pub fn read(&self, entry: &Entry) -> Result<Vec<u8>, RccError> {
        let at = self.data + entry.data;
        let len = u64::from(u32_at(self.bytes, "a file's length", at)?);
        let stored = slice(self.bytes, "a file's data", at + 4, len)?;
        match entry.packing {
            Packing::Raw if len > MAX_UNPACKED => Err(RccError::TooLarge {
                path: entry.path.clone(),
            }),
            Packing::Raw => Ok(stored.to_vec()),
            Packing::Zlib => {
                // qCompress puts the unpacked size before the stream; only the stream is believed.
                let stream = slice(
                    self.bytes,
                    "a file's zlib stream",
                    at + 8,
                    len.saturating_sub(4),
                )?;
                unpack(entry, "zlib", flate2::read::ZlibDecoder::new(stream))
            }
            Packing::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(stored)
                    .map_err(|e| unpack_error(entry, "zstd", &e))?;
                unpack(entry, "zstd", decoder)
            }
        }
    }
}

fn walk(bytes: &[u8], tree: u64, names: u64, node_len: u64) -> Result<Vec<Entry>, RccError> {
    let mut entries = Vec::new();
    let mut seen = std::collections::HashSet::from([0u64]);
    // The root is node 0 and its name is empty; (node, its path, depth).
    let mut open = vec![(0u64, String::new(), 0usize)];
    while let Some((node, path, depth)) = open.pop() {
        let at = tree + node * node_len;
        slice(bytes, "a tree node", at, node_len)?;
        let flags = u16_at(bytes, "a tree node", at + 4)?;
        if flags & FLAG_FOLDER == 0 {
            let packing = match flags {
                f if f & FLAG_ZLIB != 0 => Packing::Zlib,
                f if f & FLAG_ZSTD != 0 => Packing::Zstd,
                _ => Packing::Raw,
            };
            let data = u64::from(u32_at(bytes, "a tree node", at + 10)?);
            entries.push(Entry {
                path,
                packing,
                data,
            });
            continue;
        }
        if depth >= MAX_DEPTH {
            return Err(RccError::TooDeep);
        }
        let children = u64::from(u32_at(bytes, "a tree node", at + 6)?);
        let first = u64::from(u32_at(bytes, "a tree node", at + 10)?);
        // Checked for the whole range first, so that a lying count costs nothing.
        slice(
            bytes,
            "a folder's children",
            tree + first * node_len,
            children * node_len,
        )?;
        if seen.len() as u64 + children > MAX_NODES as u64 {
            return Err(RccError::TooManyNodes);
        }
        // Pushed in reverse: the stack then gives them in the archive's order.
        for child in (first..first + children).rev() {
            if !seen.insert(child) {
                return Err(RccError::Revisited(child));
            }
            let name_at = u32_at(bytes, "a tree node", tree + child * node_len)?;
            let name = name(bytes, names + u64::from(name_at))?;
            let path = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            open.push((child, path, depth + 1));
        }
    }
    Ok(entries)
}

fn name(bytes: &[u8], at: u64) -> Result<String, RccError> {
    let bad = |why| Err(RccError::Name { offset: at, why });
    let len = usize::from(u16_at(bytes, "a name", at)?);
    if len == 0 || len > MAX_NAME {
        return bad("empty or longer than 255 characters");
    }
    let text = slice(bytes, "a name", at + 6, 2 * len as u64)?;
    let units: Vec<u16> = text
        .chunks_exact(2)
        .map(|c| u16::from_be_bytes([c[0], c[1]]))
        .collect();
    let Ok(name) = String::from_utf16(&units) else {
        return bad("no UTF-16");
    };
    if name == "." || name == ".." {
        return bad("it leads out of its folder");
    }
    if name
        .chars()
        .any(|c| matches!(c, '/' | '\\' | ':') || c.is_control())
    {
        return bad("it holds a separator or a control character");
    }
    Ok(name)
}

fn unpack(entry: &Entry, method: &'static str, stream: impl Read) -> Result<Vec<u8>, RccError> {
    let mut out = Vec::new();
    stream
        .take(MAX_UNPACKED + 1)
        .read_to_end(&mut out)
        .map_err(|e| unpack_error(entry, method, &e))?;
    if out.len() as u64 > MAX_UNPACKED {
        return Err(RccError::TooLarge {
            path: entry.path.clone(),
        });
    }
    Ok(out)
}

fn unpack_error(entry: &Entry, method: &'static str, error: &std::io::Error) -> RccError {
    RccError::Unpack {
        path: entry.path.clone(),
        method,
        why: error.to_string(),
    }
}

fn slice<'a>(
    bytes: &'a [u8],
    what: &'static str,
    offset: u64,
    len: u64,
) -> Result<&'a [u8], RccError> {
    let error = RccError::Bounds {
        what,
        offset,
        len,
        size: bytes.len() as u64,
    };
    let (Ok(start), Some(Ok(end))) = (
        usize::try_from(offset),
        offset.checked_add(len).map(usize::try_from),
    ) else {
        return Err(error);
    };
    bytes.get(start..end).ok_or(error)
}

fn u16_at(bytes: &[u8], what: &'static str, offset: u64) -> Result<u16, RccError> {
    let b = slice(bytes, what, offset, 2)?;
    Ok(u16::from_be_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], what: &'static str, offset: u64) -> Result<u32, RccError> {
    let b = slice(bytes, what, offset, 4)?;
    Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests;
