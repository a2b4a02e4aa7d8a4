//! What a source holds: folders, tars and tars of tars become one sorted list of images.

mod archive;
mod walk;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::{MAX_FILE, read_picture};
use crate::error::DataError;
use crate::fault::ImageFault;
use crate::square::Resize;

const EXTENSIONS: [&str; 10] = [
    "jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "gif", "tif", "tiff",
];

/// What a source was recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Any images.
    Images,
    /// ILSVRC-2012 training: every image lies in a folder named by its synset (`n01440764`).
    IlsvrcTrain,
    /// ILSVRC-2012 validation: every image is called `ILSVRC2012_val_NNNNNNNN`.
    IlsvrcVal,
}

impl Layout {
    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Images => "a collection of images",
            Self::IlsvrcTrain => "ILSVRC-2012 training pictures",
            Self::IlsvrcVal => "ILSVRC-2012 validation pictures",
        }
    }

    /// The usual way to make its pictures square: ILSVRC was squashed by the Caffe tools.
    #[must_use]
    pub fn resize(self) -> Resize {
        match self {
            Self::Images => Resize::ShortCrop,
            Self::IlsvrcTrain | Self::IlsvrcVal => Resize::Squash,
        }
    }
}

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

/// Things in a source that are no images.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skipped {
    pub hidden: usize,
    pub other: usize,
    pub links: usize,
    pub archives: usize,
}

impl Skipped {
    /// In words; `None` if nothing was skipped.
    pub fn describe(self) -> Option<String> {
        let parts = [
            (self.other, "other files"),
            (self.hidden, "hidden files or folders"),
            (self.links, "symbolic links, which are not followed"),
            (
                self.archives,
                "tar archives: give one of them as the source",
            ),
        ];
        let words: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// The sorted images of a source.
pub(crate) struct Listing {
    pub root: PathBuf,
    pub layout: Layout,
    pub entries: Vec<Entry>,
    pub skipped: Skipped,
}

impl Listing {
    /// Lists a folder or an archive. Only names and sizes are read.
    pub fn of(root: &Path) -> Result<Self, DataError> {
        let metadata = metadata(root)?;
        match metadata.is_dir() {
            true => Self::of_folder(root),
            false => Self::new(root, archive::list(root)?),
        }
    }

    /// Lists a folder.
    pub fn of_folder(root: &Path) -> Result<Self, DataError> {
        Self::new(root, walk::list(root)?)
    }

    fn new(root: &Path, found: (Vec<Entry>, Skipped)) -> Result<Self, DataError> {
        let (mut entries, skipped) = found;
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
        entries.dedup_by(|later, earlier| later.path == earlier.path);
        entries.reverse();
        let layout = recognise(root, &entries)?;
        Ok(Self {
            root: root.into(),
            layout,
            entries,
            skipped,
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
            Layout::IlsvrcTrain | Layout::IlsvrcVal => synset(self.root.as_path(), &entry.path),
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
    Other,
}

fn named(path: &str) -> Named {
    if path.split('/').any(|part| part.starts_with('.')) {
        return Named::Hidden;
    }
    match path
        .rsplit_once('.')
        .map(|(_, end)| end.to_ascii_lowercase())
    {
        Some(end) if end == "tar" => Named::Archive,
        Some(end) if EXTENSIONS.contains(&end.as_str()) => Named::Image,
        _ => Named::Other,
    }
}

fn recognise(root: &Path, entries: &[Entry]) -> Result<Layout, DataError> {
    let is_val = |entry: &Entry| {
        let file = entry.path.rsplit('/').next().unwrap_or_default();
        let stem = file.split('.').next().unwrap_or_default();
        let number = stem.strip_prefix("ILSVRC2012_val_");
        number.is_some_and(|digits| digits.len() == 8 && all_digits(digits))
    };
    // validation pictures may be sorted into synset folders as well
    let is_train = |entry: &Entry| synset(root, &entry.path).is_some() && !is_val(entry);
    let val = entries.iter().find(|entry| is_val(entry));
    let train = entries.iter().find(|entry| is_train(entry));
    if let (Some(train), Some(val)) = (train, val) {
        let (train, val) = (train.path.clone(), val.path.clone());
        return Err(DataError::MixedLayout {
            path: root.into(),
            train,
            val,
        });
    }
    Ok(if entries.iter().all(is_val) {
        Layout::IlsvrcVal
    } else if entries.iter().all(is_train) {
        Layout::IlsvrcTrain
    } else {
        Layout::Images
    })
}

/// The synset whose folder an image lies in; the source itself may be that folder.
fn synset(root: &Path, path: &str) -> Option<String> {
    let folder = match path.rsplit_once('/') {
        Some((folders, _)) => folders.rsplit('/').next()?.to_owned(),
        None => root.file_stem()?.to_str()?.to_owned(),
    };
    let digits = folder.strip_prefix('n')?;
    (digits.len() == 8 && all_digits(digits)).then_some(folder)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
