//! A set of images, prepared or plain.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image::RgbImage;

use crate::error::{DataError, bytes};
use crate::folder::Folder;
use crate::framing::Framing;
use crate::manifest::{MANIFEST, Manifest, Part, SKIPPED};
use crate::orientation::Orientation;
use crate::prepare::{PartFault, recognise};
use crate::shards::Shards;
use crate::source::{Skipped, metadata};
use crate::terminal::{one_line, path as shown};

/// Side of a plain folder's images, in pixels: the paper's 256.
const FOLDER_SIZE: u32 = 256;
/// Largest `skipped.json` that is read, in bytes.
const MAX_SKIPPED: u64 = 1 << 20;
/// Images that a note names.
const NAMED: usize = 3;

/// A set of images: a prepared dataset (a directory with `manifest.json`) or a plain folder of
/// images, read recursively and decoded and resized when they are needed, as `prepare` would
/// (256 pixels; turned upright and short-cropped, or as stored and squashed for a folder laid out as ILSVRC-2012).
pub struct Dataset {
    path: PathBuf,
    digest: String,
    content: Content,
}

enum Content {
    Prepared {
        manifest: Box<Manifest>,
        shards: Shards,
        /// None if `skipped.json` is damaged.
        skipped: Option<Skipped>,
        /// Names in the directory that are no part of the dataset.
        beside: Vec<String>,
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
    /// Opens a prepared dataset or lists a folder. No image is decoded.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::NotAFolder`], [`DataError::NoImages`],
    /// [`DataError::SplitRoot`], [`DataError::HalfSplit`], [`PartFault::NotMerged`], [`DataError::Unreadable`], and for
    /// a prepared dataset
    /// [`DataError::ManifestSyntax`], [`DataError::ManifestVersion`],
    /// [`DataError::ManifestContent`] or [`DataError::ShardLength`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::open_with(path, |root, manifest| Shards::open(root, &manifest.shards))
    }

    /// Opens a dataset and tells people its [`notes`](Dataset::notes), the first time that the program opens it.
    ///
    /// # Errors
    /// Those of [`Dataset::open`].
    pub fn open_and_tell(path: &Path) -> Result<Self, DataError> {
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let data = Self::open(path)?;
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        for note in data.notes() {
            if told.insert(note.clone()) {
                tracing::info!("{note}");
            }
        }
        Ok(data)
    }

    /// Opens a dataset even if shards are missing or truncated; their images cannot be read then.
    ///
    /// # Errors
    /// Those of [`Dataset::open`] except those of shards.
    pub fn open_incomplete(path: &Path) -> Result<Self, DataError> {
        Self::open_with(path, |root, manifest| {
            Ok(Shards::open_incomplete(root, &manifest.shards))
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
            let names = manifest.shards.iter().map(|shard| shard.file.as_str());
            let beside = beside(path, names.chain([MANIFEST, SKIPPED]))?;
            return Ok(Self {
                path: path.into(),
                digest: blake3::hash(&json).to_hex().to_string(),
                content: Content::Prepared {
                    manifest,
                    shards,
                    skipped: read_skipped(path),
                    beside,
                },
            });
        }
        if is_split_root(path) {
            return Err(DataError::SplitRoot { path: path.into() });
        }
        if let Some((there, missing)) = half_of_a_split(path) {
            return Err(DataError::HalfSplit {
                path: path.into(),
                there: there.name(),
                missing: missing.name(),
            });
        }
        if let Some(share) = recognise(path) {
            let path = path.into();
            return Err(PartFault::NotMerged { path, share }.into());
        }
        let folder = Folder::open(path)?;
        Ok(Self {
            path: path.into(),
            digest: folder.digest.clone(),
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
    /// folder's sorted names and file sizes, and of which images are turned upright if any are.
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

    /// A whole stored image, `stored_size()` pixels a side.
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
        let path = shown(&self.path);
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

    /// What the folder, or the source of a prepared dataset, holds besides the images, in words: files of other kinds
    /// by their ending, links, hidden files, corrupt images and duplicates that were left out. `None` if there is
    /// nothing.
    #[must_use]
    pub fn skipped(&self) -> Option<String> {
        match &self.content {
            Content::Folder(folder) => folder.listing.skipped.describe(),
            Content::Prepared {
                manifest, skipped, ..
            } => {
                let mut words = Vec::new();
                let corrupt = manifest.quarantined.iter().map(|photo| &photo.path);
                words.extend(some(corrupt, "corrupt image", "corrupt images"));
                let twins = manifest.duplicates.iter().map(|photo| &photo.path);
                words.extend(some(twins, "duplicate", "duplicates"));
                words.extend(skipped.as_ref().and_then(Skipped::describe));
                (!words.is_empty()).then(|| words.join(", "))
            }
        }
    }

    /// What a program that opens the dataset tells people, a line each: what is skipped, why a folder with
    /// ILSVRC-2012's names in it is not taken for it, how many images are turned upright.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let path = shown(&self.path);
        let mut notes = Vec::new();
        if let Some(skipped) = self.skipped() {
            notes.push(match self.content {
                Content::Folder(_) => format!("{path}: skipped: {skipped}"),
                Content::Prepared { .. } => {
                    format!("{path}: skipped when it was prepared: {skipped}")
                }
            });
        }
        if let Content::Prepared {
            skipped, beside, ..
        } = &self.content
        {
            if skipped.is_none() {
                notes.push(format!(
                    "{path}: {SKIPPED} is damaged: what was skipped when it was prepared is not known"
                ));
            }
            notes.extend(not_a_part(&self.path, beside));
        }
        if let Content::Folder(folder) = &self.content {
            if let Some(reason) = &folder.listing.not_ilsvrc {
                notes.push(format!("{path}: a collection of images, {reason}"));
            }
            match folder.turned {
                0 => {}
                1 => notes.push(format!(
                    "{path}: 1 image is turned upright (EXIF orientation)"
                )),
                n => notes.push(format!(
                    "{path}: {n} images are turned upright (EXIF orientation)"
                )),
            }
        }
        notes
    }

    /// Whether the list of skipped files cannot be read.
    pub(crate) fn is_skipped_damaged(&self) -> bool {
        matches!(&self.content, Content::Prepared { skipped: None, .. })
    }

    /// Side of the stored images, in pixels.
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

    /// The listed folder, if it is a plain one.
    pub(crate) fn folder(&self) -> Option<&Folder> {
        match &self.content {
            Content::Prepared { .. } => None,
            Content::Folder(folder) => Some(folder),
        }
    }

    /// An image from elsewhere as this dataset would hold it: turned upright, its window cut out, squared and scaled
    /// the same way. In a dataset of ILSVRC-2012 an image of that name stays as it is stored, as there.
    ///
    /// # Errors
    /// Those of [`decode_rgb8`](crate::decode_rgb8); an image in which the window does not lie whole.
    pub fn squared(&self, photo: &Path) -> Result<RgbImage, DataError> {
        self.framing().read(photo)
    }

    /// How it makes squares of images.
    #[must_use]
    pub fn framing(&self) -> Framing {
        match &self.content {
            Content::Prepared { manifest, .. } => Framing {
                size: manifest.size,
                resize: manifest.resize,
                window: manifest.window,
                orientation: Orientation::of_layout(manifest.source.layout),
            },
            Content::Folder(folder) => Framing {
                size: FOLDER_SIZE,
                resize: folder.resize,
                window: None,
                orientation: Orientation::of_layout(folder.listing.layout),
            },
        }
    }

    /// A stored image as rows of RGB, 3·size² bytes.
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
            Content::Prepared {
                manifest, shards, ..
            } => shards.pixels(&manifest.samples[index], manifest.store, manifest.size),
            Content::Folder(folder) => folder.pixels(index, FOLDER_SIZE),
        }
    }
}

/// `3 corrupt images (a, b, c)`.
fn some<'a>(
    names: impl ExactSizeIterator<Item = &'a String>,
    one: &str,
    many: &str,
) -> Option<String> {
    let count = names.len();
    let first: Vec<&str> = names.take(NAMED).map(String::as_str).collect();
    let more = if count > NAMED { ", …" } else { "" };
    let what = match count {
        0 => return None,
        1 => one,
        _ => many,
    };
    let first = first.join(", ");
    Some(format!("{count} {what} ({}{more})", one_line(&first)))
}

/// Reads the list of skipped files beside a manifest; `None` if it cannot be read. Nothing else depends on
/// it.
fn read_skipped(path: &Path) -> Option<Skipped> {
    let file = path.join(SKIPPED);
    match std::fs::metadata(&file) {
        Ok(found) if found.is_file() && found.len() <= MAX_SKIPPED => {
            serde_json::from_slice(&deepsim_files::read(&file).ok()?).ok()
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Some(Skipped::default()),
        _ => None,
    }
}

/// The names in a directory except the known ones, sorted.
pub(crate) fn beside<'a>(
    path: &Path,
    known: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<String>, DataError> {
    let unreadable = DataError::unreadable(path);
    let known: BTreeSet<&str> = known.into_iter().collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        if !known.contains(&*name) {
            found.push(name.into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// A note of what lies in a prepared dataset's directory and is no part of it.
pub(crate) fn not_a_part(path: &Path, beside: &[String]) -> Option<String> {
    let words = some(beside.iter(), "file or folder", "files or folders")?;
    Some(format!("{}: no part of the dataset: {words}", shown(path)))
}

/// Is this the root of a dataset in parts? There is always one for training and one that is held out; see
/// [`parts_of`] for the third.
#[must_use]
pub(crate) fn is_split_root(path: &Path) -> bool {
    [Part::Train, Part::Test]
        .iter()
        .all(|part| holds(path, *part))
}

/// The parts of a dataset's root that are there.
pub(crate) fn parts_of(root: &Path) -> impl Iterator<Item = Part> {
    Part::ALL.into_iter().filter(move |part| holds(root, *part))
}

fn holds(path: &Path, part: Part) -> bool {
    path.join(part.name()).join(MANIFEST).exists()
}

/// The part that is there and the one that is not, where only one of two is prepared.
fn half_of_a_split(path: &Path) -> Option<(Part, Part)> {
    let (there, missing) = match [Part::Train, Part::Test].map(|part| holds(path, part)) {
        [true, false] => (Part::Train, Part::Test),
        [false, true] => (Part::Test, Part::Train),
        _ => return None,
    };
    // Other programs have files of that name.
    let file = path.join(there.name()).join(MANIFEST);
    let manifest = Manifest::parse(&read(&file).ok()?, &file);
    manifest.is_ok().then_some((there, missing))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    deepsim_files::read(path).map_err(DataError::unreadable(path))
}
