//! What a source holds: folders, tars and tars of tars become one sorted list of images.

mod archive;
mod layout;
mod skipped;
mod walk;

pub use layout::Layout;
pub(crate) use layout::is_ilsvrc_name;
pub use skipped::Skipped;
pub(crate) use skipped::Why;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decode::{MAX_FILE, read_picture};
use crate::error::DataError;
use crate::fault::ImageFault;

/// Endings of images. The second row are JPEGs as browsers and social networks save them.
const EXTENSIONS: [&str; 24] = [
    "jpg",
    "jpeg",
    "png",
    "webp",
    "bmp",
    "ppm",
    "pgm",
    "gif",
    "tif",
    "tiff", // the usual ones
    "jfif",
    "jpe",
    "jfi",
    "jif",
    "pjpeg",
    "pjp",
    "jpg_large",
    "jpg_orig",
    "jpeg_large", // JPEG
    "apng",
    "dib",
    "pnm",
    "pbm",
    "pam", // kinds of PNG, BMP, PNM
];

/// Bytes at the beginning of a file that tell whether it is an image.
const HEAD: usize = 32;

/// Called with the number of images found so far while a source is listed; an error ends it.
pub(crate) type Step<'a> = &'a mut dyn FnMut(usize) -> Result<(), DataError>;

/// Where an image's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    File(PathBuf),
    /// A stretch of an archive that stays open.
    Span {
        archive: Arc<File>,
        offset: u64,
    },
}

/// One image of a source.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Relative to the source, '/'-separated.
    pub path: String,
    pub bytes: u64,
    pub location: Location,
}

/// The sorted images of a source.
pub(crate) struct Listing {
    pub root: PathBuf,
    pub layout: Layout,
    pub entries: Vec<Entry>,
    pub skipped: Skipped,
    /// Why a source with ILSVRC-2012's names in it is a collection of images all the same.
    pub not_ilsvrc: Option<String>,
}

impl Listing {
    /// Lists a folder or an archive. Of files only names and sizes are read, and the first bytes of
    /// those without an ending.
    pub fn of(root: &Path, step: Step<'_>) -> Result<Self, DataError> {
        let metadata = metadata(root)?;
        match metadata.is_dir() {
            true => Self::of_folder(root, step),
            false => Self::new(root, archive::list(root, step)?),
        }
    }

    /// Lists a folder.
    pub fn of_folder(root: &Path, step: Step<'_>) -> Result<Self, DataError> {
        Self::new(root, walk::list(root, step)?)
    }

    fn new(root: &Path, found: (Vec<Entry>, Skipped)) -> Result<Self, DataError> {
        let (mut entries, mut skipped) = found;
        if entries.is_empty() {
            let skipped = skipped.describe().unwrap_or_else(|| "it is empty".into());
            return Err(DataError::NoImages {
                path: root.into(),
                skipped,
            });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        // of two members with one name, tar unpacks the later over the earlier (stable sort)
        entries.reverse();
        entries.dedup_by(|later, earlier| {
            let again = later.path == earlier.path;
            if again {
                skipped.add(Why::Repeated, &later.path);
            }
            again
        });
        entries.reverse();
        let recognised = layout::recognise(root, &entries)?;
        let mut strays = recognised.strays.into_iter().peekable();
        let mut index = 0;
        entries.retain(|entry| {
            let stray = strays.next_if_eq(&index).is_some();
            index += 1;
            if stray {
                skipped.add(Why::Stray, &entry.path);
            }
            !stray
        });
        Ok(Self {
            root: root.into(),
            layout: recognised.layout,
            entries,
            skipped,
            not_ilsvrc: recognised.not_ilsvrc,
        })
    }

    /// blake3 over the sorted (path, size) pairs, in hex.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for entry in &self.entries {
            hasher.update(entry.path.as_bytes());
            hasher.update(&[0]);
            hasher.update(&entry.bytes.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The label of an entry under this layout.
    pub fn label(&self, entry: &Entry) -> Option<String> {
        match self.layout {
            Layout::Images => None,
            Layout::IlsvrcTrain | Layout::IlsvrcVal => {
                layout::synset(self.root.as_path(), &entry.path)
            }
        }
    }

    /// Path of an entry for messages.
    pub fn full_path(&self, entry: &Entry) -> PathBuf {
        match &entry.location {
            Location::File(path) => path.clone(),
            Location::Span { .. } => self.root.join(&entry.path),
        }
    }

    /// An entry's bytes.
    pub fn read(&self, entry: &Entry) -> Result<Vec<u8>, DataError> {
        match &entry.location {
            Location::File(path) => read_picture(path),
            Location::Span { archive, offset } => {
                if entry.bytes > MAX_FILE {
                    let fault = ImageFault::FileTooLarge { bytes: entry.bytes };
                    return Err(DataError::BadImage {
                        path: self.full_path(entry),
                        fault,
                    });
                }
                let mut bytes = vec![0; entry.bytes as usize];
                archive
                    .read_exact_at(&mut bytes, *offset)
                    .map_err(|source| DataError::Unreadable {
                        path: self.full_path(entry),
                        source,
                    })?;
                Ok(bytes)
            }
        }
    }
}

pub(crate) fn metadata(path: &Path) -> Result<std::fs::Metadata, DataError> {
    std::fs::metadata(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => DataError::Missing { path: path.into() },
        _ => DataError::Unreadable {
            path: path.into(),
            source,
        },
    })
}

/// What a file name says about its file.
enum Named {
    Image,
    Archive,
    Hidden,
    /// Nothing: it has no ending.
    Unsaid,
    Other,
}

fn named(path: &str) -> Named {
    if path.split('/').any(|part| part.starts_with('.')) {
        return Named::Hidden;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    match name
        .rsplit_once('.')
        .map(|(_, end)| end.to_ascii_lowercase())
    {
        Some(end) if end == "tar" => Named::Archive,
        Some(end) if EXTENSIONS.contains(&end.as_str()) => Named::Image,
        Some(_) => Named::Other,
        None => Named::Unsaid,
    }
}

/// Do these first bytes belong to a format that is read here?
fn is_image(head: &[u8]) -> bool {
    match head {
        [0xFF, 0xD8, 0xFF, ..]
        | [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..]
        | [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..]
        | [b'I', b'I', 42, 0, ..]
        | [b'M', b'M', 0, 42, ..] => true,
        [b'R', b'I', b'F', b'F', _, _, _, _, rest @ ..] => rest.starts_with(b"WEBP"),
        // a text may begin with BM: the size of the second header tells
        [b'B', b'M', rest @ ..] => rest
            .get(12..16)
            .is_some_and(|size| matches!(size, [12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])),
        // a text may begin with P1: digits or a comment follow in an image
        [b'P', b'1'..=b'6', b' ' | b'\t' | b'\n' | b'\r', rest @ ..] => rest
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .is_some_and(|byte| byte.is_ascii_digit() || *byte == b'#'),
        [b'P', b'7', b'\n', ..] => true,
        _ => false,
    }
}
