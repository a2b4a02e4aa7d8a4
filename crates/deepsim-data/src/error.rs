//! What can be wrong, one variant for each broken invariant.

use crate::terminal::path as shown;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::fault::ImageFault;
use crate::prepare::PartFault;

/// Everything that this crate reports.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// Places that are no part of a batch.
    #[error("places {} to {} are no part of a batch of {batch_size}", share.start, share.end)]
    Share {
        /// The places.
        share: std::ops::Range<usize>,
        /// Images in a batch.
        batch_size: usize,
    },
    /// Nothing is at this path.
    #[error("{} does not exist: check the path", shown(path))]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// The system refuses to read.
    #[error("cannot read {}: {source}", shown(path))]
    Unreadable {
        /// What was read.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refuses to write.
    #[error("cannot write {}: {source}", shown(path))]
    Unwritable {
        /// What was written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file stands where a dataset or a folder of images is expected.
    #[error(
        "{} is not a folder: give a prepared dataset or a folder of images",
        shown(path)
    )]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
    },
    /// Something other than a regular file stands where an image is expected.
    #[error("{} is not a regular file: give the path of an image", shown(path))]
    NotAFile {
        /// The path as given.
        path: PathBuf,
    },
    /// Photos that may only be measured on ([`only_measured`](crate::only_measured)), where they would be copied or shown.
    #[error("{}: {}", shown(path), crate::ONLY_MEASURED)]
    OnlyMeasured {
        /// The path as given.
        path: PathBuf,
    },
    /// The source holds no image.
    #[error(
        "no image in {} ({skipped}): images are recognised by their extension (jpg, jpeg, png, webp, bmp, ppm, pgm, gif, tif, tiff)",
        shown(path)
    )]
    NoImages {
        /// The source.
        path: PathBuf,
        /// What was there instead, in words.
        skipped: String,
    },
    /// The folder is the root of a split dataset.
    #[error(
        "{0} holds a dataset in parts: give {0}/train or {0}/test (or {0}/val, where there is one)",
        shown(path)
    )]
    SplitRoot {
        /// The root.
        path: PathBuf,
    },
    /// One part of a split dataset is there without the other.
    #[error(
        "{0} holds the part `{there}` of a dataset in two parts, and `{missing}` is missing: copy it again from \
         where it is whole, prepare it again, or give {0}/{there} to use that part alone",
        shown(path)
    )]
    HalfSplit {
        /// The root.
        path: PathBuf,
        /// The part that is there.
        there: &'static str,
        /// The part that is not.
        missing: &'static str,
    },
    /// Training and validation images of ILSVRC-2012 in one folder.
    #[error(
        "{} holds both training and validation images of ILSVRC-2012 ({train} and {val}): prepare the two folders one by one, so that no validation image is trained on",
        shown(path)
    )]
    MixedLayout {
        /// The source.
        path: PathBuf,
        /// A training image.
        train: String,
        /// A validation image.
        val: String,
    },
    /// Neither a folder nor a tar archive.
    #[error(
        "{} is neither a folder nor a tar archive ({reason}): unpack it, or decompress a .tar.gz to a .tar first",
        shown(path)
    )]
    NotASource {
        /// The source.
        path: PathBuf,
        /// What the reader met.
        reason: String,
    },
    /// The archive is damaged.
    #[error(
        "the archive {} is damaged at {member}: {reason}; fetch it again",
        shown(path)
    )]
    BadArchive {
        /// The archive.
        path: PathBuf,
        /// Where in it.
        member: String,
        /// What is wrong.
        reason: String,
    },
    /// A member that would be unpacked outside the folder.
    #[error(
        "the archive {} has a member that leaves its folder: {member:?}; do not trust this archive",
        shown(path)
    )]
    ArchiveEscape {
        /// The archive.
        path: PathBuf,
        /// The member's path.
        member: String,
    },
    /// Fewer photos than one batch needs.
    #[error(
        "{} has {have} images and a batch needs {batch}: add photos or lower the batch size",
        shown(path)
    )]
    TooFewImages {
        /// Images in the dataset.
        have: usize,
        /// The batch size.
        batch: usize,
        /// The dataset.
        path: PathBuf,
    },
    /// A photo that cannot be used.
    #[error("{}: {fault}", shown(path))]
    BadImage {
        /// The photo.
        path: PathBuf,
        /// What is wrong with it.
        fault: ImageFault,
    },
    /// A stored image that cannot be used.
    #[error("{} in {}: {fault}", sample, shown(shard))]
    BadSample {
        /// The shard file.
        shard: PathBuf,
        /// The sample's source path.
        sample: String,
        /// What is wrong with it.
        fault: ImageFault,
    },
    /// More bad photos than the quarantine may hold.
    #[error(
        "{} corrupt images, {budget} allowed:\n{}\nremove or replace them, or allow them with --quarantine {} (data.quarantine in an experiment)",
        images.len(), lines(images), images.len()
    )]
    CorruptImages {
        /// One line for each: path and reason.
        images: Vec<String>,
        /// How many may be left out.
        budget: usize,
    },
    /// Not one photo of a source is whole.
    #[error("no image is left, every one is corrupt:\n{}", images.join("\n"))]
    NothingWhole {
        /// One line for each: path and reason.
        images: Vec<String>,
    },
    /// The crop is no window of the stored images.
    #[error(
        "a crop of {crop} pixels does not fit images stored at {stored}: choose 1 to {stored}, or make the images larger (--size of deepsim-data prepare; --frame, where it was given)"
    )]
    CropSize {
        /// The crop asked for.
        crop: u32,
        /// Side of the stored images.
        stored: u32,
    },
    /// The scale range is empty or outside (0, 1].
    #[error("scale ({low}, {high}) must satisfy 0 < low <= high <= 1")]
    ScaleRange {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// A batch of nothing.
    #[error("the batch size is 0: it must be at least 1")]
    EmptyBatch,
    /// A range of images that the dataset does not have.
    #[error(
        "images {start}..{end} were asked of {} with {len} images",
        shown(path)
    )]
    Range {
        /// First index.
        start: usize,
        /// One past the last index.
        end: usize,
        /// Images in the dataset.
        len: usize,
        /// The dataset.
        path: PathBuf,
    },
    /// A stored size outside 1..=8192.
    #[error("size {size} is not possible: choose 1 to 8192 pixels")]
    Size {
        /// The size asked for.
        size: u32,
    },
    /// A window that no image has, or a text that is none.
    #[error(
        "{text:?} is no window: give LEFT,TOP,SIDE in pixels, such as 15,40,148; SIDE is at least 1, and LEFT+SIDE and TOP+SIDE at most 20000"
    )]
    Window {
        /// The window as given.
        text: String,
    },
    /// A resize that the library refuses.
    #[error("cannot resize: {reason}")]
    Resize {
        /// The library's reason.
        reason: String,
    },
    /// A JPEG that cannot be written.
    #[error("cannot encode a JPEG: {reason}")]
    Encode {
        /// The library's reason.
        reason: String,
    },
    /// A manifest that is no JSON of the documented form.
    #[error("{} is not a deepsim-dataset manifest: {reason}", shown(path))]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// What the parser met, with line and column.
        reason: String,
    },
    /// A manifest of another version of the format.
    #[error(
        "{} has format version {found} and this program reads {supported}: prepare the dataset again, or use the program that wrote it",
        shown(path)
    )]
    ManifestVersion {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The one read here.
        supported: u32,
    },
    /// A manifest that contradicts itself.
    #[error("{}: {reason}; prepare the dataset again", shown(path))]
    ManifestContent {
        /// The manifest.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// A shard of another length than the manifest says.
    #[error(
        "{} has {found} bytes where the manifest says {expected}: the copy is incomplete; copy or prepare it again",
        shown(path)
    )]
    ShardLength {
        /// The shard.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length promised.
        expected: u64,
    },
    /// A holdout that leaves one side empty.
    #[error(
        "--holdout {fraction} of {images} images leaves nothing for {part}: choose a fraction strictly between 0 and 1 and give at least two distinct images"
    )]
    Holdout {
        /// The fraction asked for.
        fraction: f64,
        /// Images in the source.
        images: usize,
        /// The side without images.
        part: &'static str,
    },
    /// Shares of a split in three that leave nothing for one of its sides.
    #[error(
        "--holdout {fraction} with --validation {validation}: both must be above 0, and together below 1"
    )]
    Validation {
        /// The share to hold out.
        fraction: f64,
        /// The share by which settings are chosen.
        validation: f64,
    },
    /// The output is another dataset.
    #[error(
        "{} already holds another dataset ({difference}): choose another OUT, or replace it with --force",
        shown(path)
    )]
    OtherDataset {
        /// The output.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The output is something else than a dataset; never overwritten.
    #[error(
        "{} exists and is no dataset of ours ({found}): choose another OUT; --force only replaces datasets",
        shown(path)
    )]
    OutputOccupied {
        /// The output.
        path: PathBuf,
        /// What was met there.
        found: String,
    },
    /// Something else appeared at the output while the dataset was made.
    #[error(
        "{} changed while the dataset was made: what stands there now was not replaced, and what was made is removed; run it again, or choose another OUT",
        shown(path)
    )]
    OutputAppeared {
        /// The output.
        path: PathBuf,
    },
    /// The output's path names no directory.
    #[error(
        "{} cannot be the output: give the path of a directory to create",
        shown(path)
    )]
    OutputPath {
        /// The output.
        path: PathBuf,
    },
    /// Not enough room.
    #[error(
        "{} has room for {} and the dataset needs about {}: free some space, choose another disk, a smaller --size or --store jpeg",
        shown(path), bytes(*free), bytes(*need)
    )]
    DiskFull {
        /// Where the dataset would be written.
        path: PathBuf,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        free: u64,
    },
    /// Parts of a dataset that make none.
    #[error(transparent)]
    Part(#[from] PartFault),
    /// A file of attributes that cannot be used as a whole.
    #[error("{} cannot be read as attributes of images: {reason}", shown(path))]
    AttributesFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A line in a file of attributes that is wrong.
    #[error("{}, line {line}: {reason}", shown(path))]
    AttributesLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An attribute that a file does not have.
    #[error(
        "{} has no attribute {name:?}; the nearest is {nearest:?}, and all it has are: {known}",
        shown(path)
    )]
    UnknownAttribute {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The name that is most like it.
        nearest: String,
        /// Those that exist.
        known: String,
    },
    /// The threads could not be started.
    #[error("cannot start the worker threads: {reason}")]
    Threads {
        /// The system's reason.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("interrupted: nothing was written to the output")]
    Interrupted,
    /// The loader has already reported why it stopped.
    #[error("the loader has stopped after an earlier error: make a new one")]
    LoaderStopped,
}

/// An error with its causes, each said once: a cause that its effect quotes already is not repeated.
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text += &format!(": {words}");
        }
        next = cause.source();
    }
    text
}

impl DataError {
    /// What the system says of reading, with where.
    pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Unreadable {
            path: path.into(),
            source,
        }
    }

    /// The same, but for what is not there.
    pub(crate) fn missing_or_unreadable(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        move |source| match source.kind() {
            ErrorKind::NotFound => Self::Missing { path: path.into() },
            _ => Self::unreadable(path)(source),
        }
    }

    /// What the system says of writing, with where.
    pub(crate) fn unwritable(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Unwritable {
            path: path.into(),
            source,
        }
    }

    /// Is it one image that is at fault, rather than the disk or the settings?
    /// Only these may go to quarantine.
    #[must_use]
    pub fn is_bad_image(&self) -> bool {
        matches!(self, Self::BadImage { .. } | Self::BadSample { .. })
    }
}

fn lines(images: &[String]) -> String {
    let indented: Vec<String> = images.iter().map(|line| format!("  {line}")).collect();
    indented.join("\n")
}

/// A number of bytes for people: `12.3 MB`.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} bytes"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}
