//! What a source holds: folders, tars and tars of tars become one sorted list of images.

mod archive;
mod entry;
mod layout;
mod skipped;
mod walk;

pub(crate) use entry::{Entry, Location, Step};
pub use layout::Layout;
pub(crate) use layout::is_ilsvrc_name;
pub use skipped::Skipped;
pub(crate) use skipped::Why;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::decode::read_image;
use crate::error::DataError;
use crate::fault::ImageFault;
use crate::limits::MAX_FILE;

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
        if metadata.is_dir() {
            Self::of_folder(root, step)
        } else {
            Self::new(root, archive::list(root, step)?)
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

    /// The fingerprint of its images.
    pub fn digest(&self) -> String {
        let mut fingerprint = Fingerprint::default();
        for entry in &self.entries {
            fingerprint.add(&entry.path, entry.bytes);
        }
        fingerprint.hex()
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
            Location::File(path) => read_image(path),
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

/// blake3 over the sorted (path, size) pairs of a source's images.
#[derive(Default)]
pub(crate) struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    pub fn add(&mut self, path: &str, bytes: u64) {
        self.0.update(path.as_bytes());
        self.0.update(&[0]);
        self.0.update(&bytes.to_le_bytes());
    }

    pub fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

pub(crate) fn metadata(path: &Path) -> Result<std::fs::Metadata, DataError> {
    std::fs::metadata(path).map_err(DataError::missing_or_unreadable(path))
}
