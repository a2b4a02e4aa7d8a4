//! A set of images, prepared or plain.

use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::error::{DataError, bytes};
use crate::folder::Folder;
use crate::manifest::{MANIFEST, Manifest, Part};
use crate::shards::Shards;
use crate::source::metadata;

/// Side of a plain folder's pictures, in pixels: the paper's 256.
const FOLDER_SIZE: u32 = 256;

/// A set of images: a prepared dataset (a directory with `manifest.json`) or a plain folder of
/// images, read recursively and decoded and resized when they are needed, as `prepare` would
/// (256 pixels; the short-crop resize, or the squash for a folder laid out as ILSVRC-2012).
pub struct Dataset {
    path: PathBuf,
    digest: String,
    content: Content,
}

enum Content {
    Prepared {
        manifest: Box<Manifest>,
        shards: Shards,
    },
    Folder(Folder),
}

/// What a [`Dataset`] is on disk.
pub enum DatasetKind<'a> {
    /// Shards and a manifest.
    Prepared(&'a Manifest),
    /// A plain folder of images.
    Folder,
}

impl Dataset {
    /// Opens a prepared dataset or lists a folder. No picture is decoded.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::NotAFolder`], [`DataError::NoImages`],
    /// [`DataError::SplitRoot`], [`DataError::Unreadable`], and for a prepared dataset
    /// [`DataError::ManifestSyntax`], [`DataError::ManifestVersion`],
    /// [`DataError::ManifestContent`] or [`DataError::ShardLength`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::open_with(path, Shards::open)
    }

    /// Opens a dataset whose shards may be missing or cut; the pictures in them are bad then.
    pub(crate) fn open_incomplete(path: &Path) -> Result<Self, DataError> {
        Self::open_with(path, |root, manifest| {
            Ok(Shards::open_incomplete(root, manifest))
        })
    }

    fn open_with(
        path: &Path,
        open_shards: impl FnOnce(&Path, &Manifest) -> Result<Shards, DataError>,
    ) -> Result<Self, DataError> {
        if !metadata(path)?.is_dir() {
            return Err(DataError::NotAFolder { path: path.into() });
        }
        let file = path.join(MANIFEST);
        if file.exists() {
            let json = read(&file)?;
            let manifest = Box::new(Manifest::parse(&json, &file)?);
            let shards = open_shards(path, &manifest)?;
            return Ok(Self {
                path: path.into(),
                digest: blake3::hash(&json).to_hex().to_string(),
                content: Content::Prepared { manifest, shards },
            });
        }
        if is_split_root(path) {
            return Err(DataError::SplitRoot { path: path.into() });
        }
        let folder = Folder::open(path)?;
        Ok(Self {
            path: path.into(),
            digest: folder.listing.digest(),
            content: Content::Folder(folder),
        })
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.content {
            Content::Prepared { manifest, .. } => manifest.samples.len(),
            Content::Folder(folder) => folder.listing.entries.len(),
        }
    }

    /// Never true: a dataset without images does not open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What identifies the dataset, blake3 in hex: of the manifest's bytes, or of a plain
    /// folder's sorted names and file sizes.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest.clone()
    }

    /// An image's path relative to the source, separated by '/'. Like a slice, panics for
    /// `index >= len()`.
    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        match &self.content {
            Content::Prepared { manifest, .. } => &manifest.samples[index].path,
            Content::Folder(folder) => &folder.listing.entries[index].path,
        }
    }

    /// An image's ILSVRC synset, if it has one.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<String> {
        match &self.content {
            Content::Prepared { manifest, .. } => manifest.samples.get(index)?.label.clone(),
            Content::Folder(folder) => folder.listing.label(folder.listing.entries.get(index)?),
        }
    }

    /// A whole stored picture, `stored_size()` pixels a side.
    ///
    /// # Errors
    /// [`DataError::Range`], [`DataError::BadImage`], [`DataError::BadSample`],
    /// [`DataError::Unreadable`].
    pub fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        let size = self.stored_size();
        RgbImage::from_raw(size, size, self.pixels(index)?).ok_or_else(|| DataError::Resize {
            reason: "wrong number of pixels".into(),
        })
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let path = self.path.display();
        let (count, size) = (self.len(), self.stored_size());
        match &self.content {
            Content::Prepared { manifest, .. } => {
                let total = manifest.shards.iter().map(|shard| shard.bytes).sum();
                let (resize, store) = (manifest.resize.name(), manifest.store.name());
                let window = manifest
                    .window
                    .map_or_else(String::new, |window| format!("window {window}, "));
                format!(
                    "{path}: {count} images of {}, prepared at {size} px ({window}{resize}, {store}, {})",
                    manifest.source.name,
                    bytes(total)
                )
            }
            Content::Folder(folder) => format!(
                "{path}: {count} images in a plain folder, resized to {size} px ({}) as they are read",
                folder.resize.name()
            ),
        }
    }

    /// Side of the stored pictures, in pixels.
    #[must_use]
    pub fn stored_size(&self) -> u32 {
        match &self.content {
            Content::Prepared { manifest, .. } => manifest.size,
            Content::Folder(_) => FOLDER_SIZE,
        }
    }

    /// The path it was opened at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is on disk.
    #[must_use]
    pub fn kind(&self) -> DatasetKind<'_> {
        match &self.content {
            Content::Prepared { manifest, .. } => DatasetKind::Prepared(manifest),
            Content::Folder(_) => DatasetKind::Folder,
        }
    }

    /// A photograph from elsewhere as this dataset would hold it: its window cut out, squared and scaled the same way.
    ///
    /// # Errors
    /// Those of [`decode_rgb8`](crate::decode_rgb8); a photograph in which the window does not lie whole.
    pub fn squared(&self, photo: &Path) -> Result<RgbImage, DataError> {
        let mut image = crate::decode_rgb8(photo)?;
        let (size, resize, window) = match &self.content {
            Content::Prepared { manifest, .. } => (manifest.size, manifest.resize, manifest.window),
            Content::Folder(folder) => (FOLDER_SIZE, folder.resize, None),
        };
        if let Some(window) = window {
            image = window.cut(&image).map_err(|fault| DataError::BadImage {
                path: photo.into(),
                fault,
            })?;
        }
        crate::square(&image, size, resize)
    }

    /// A stored picture as rows of RGB, 3·size² bytes.
    pub(crate) fn pixels(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let len = self.len();
        if index >= len {
            let path = self.path.clone();
            return Err(DataError::Range {
                start: index,
                end: index + 1,
                len,
                path,
            });
        }
        match &self.content {
            Content::Prepared { manifest, shards } => {
                shards.pixels(&manifest.samples[index], manifest.store, manifest.size)
            }
            Content::Folder(folder) => folder.pixels(index, FOLDER_SIZE),
        }
    }
}

/// Is this the root of a dataset in two parts?
#[must_use]
pub(crate) fn is_split_root(path: &Path) -> bool {
    [Part::Train, Part::Test]
        .iter()
        .all(|part| path.join(part.name()).join(MANIFEST).exists())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|source| DataError::Unreadable {
        path: path.into(),
        source,
    })
}
