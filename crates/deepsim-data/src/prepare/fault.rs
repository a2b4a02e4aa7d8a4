//! What can be wrong with the parts of a dataset, one variant for each broken invariant.

use std::path::PathBuf;

use thiserror::Error;

use super::share::Share;
use crate::terminal::path as shown;

/// Why parts make no dataset.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PartFault {
    /// A part stands where a dataset is expected.
    #[error(
        "{} holds part {share} of a dataset, which is no dataset yet: make one of all {} parts with `deepsim-data merge OUT PART…`",
        shown(path), share.of()
    )]
    NotMerged {
        /// The path as given.
        path: PathBuf,
        /// Which part it is.
        share: Share,
    },
    /// Something else stands where a part is expected.
    #[error(
        "{} is no part of a dataset ({found}): give the directories that `deepsim-data prepare … --part` wrote",
        shown(path)
    )]
    NotAPart {
        /// The path as given.
        path: PathBuf,
        /// What was met there.
        found: String,
    },
    /// A part of another version of the format.
    #[error(
        "{} is a part of format version {found} and this program reads {supported}: prepare that part again, or merge with the program that wrote it",
        shown(path)
    )]
    Version {
        /// The part.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The one read here.
        supported: u32,
    },
    /// A part that is not as it was written.
    #[error(
        "{} is damaged: {reason}; copy that part again from where it is whole, or prepare it again",
        shown(path)
    )]
    Damaged {
        /// The part, or a file of it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No part was given.
    #[error("no part was given: give the directories of all parts of a dataset")]
    NoParts,
    /// Parts of datasets that were cut into other numbers of parts.
    #[error(
        "{} is part {share} and {} is part {other_share}: a dataset is cut into one number of parts; give the parts of one cut",
        shown(path),
        shown(other)
    )]
    Counts {
        /// A part.
        path: PathBuf,
        /// Which it is.
        share: Share,
        /// The part that it is compared with.
        other: PathBuf,
        /// Which that is.
        other_share: Share,
    },
    /// One part given twice.
    #[error(
        "{} and {} are both part {share}: give one of them",
        shown(path),
        shown(other)
    )]
    Twice {
        /// Which part it is.
        share: Share,
        /// The one.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// Not all parts are there.
    #[error(
        "missing of {of} parts: {missing}; give all parts, and prepare those that are not there with the same SOURCE and options as the others (--part NUMBER/{of})"
    )]
    Missing {
        /// Their numbers, in words.
        missing: String,
        /// How many parts there are.
        of: u32,
    },
    /// Parts of sources with other names or sizes.
    #[error(
        "{} (part {share}, of {images} images) and {} (part {other_share}, of {other_images} images) were made from sources with other names or sizes of images: if the source has changed in between, prepare the parts again that were made before; if they are parts of two datasets, give those of one",
        shown(path),
        shown(other)
    )]
    Source {
        /// A part.
        path: PathBuf,
        /// Which it is.
        share: Share,
        /// Images in its source.
        images: usize,
        /// The part that it is compared with.
        other: PathBuf,
        /// Which that is.
        other_share: Share,
        /// Images in the source of that.
        other_images: usize,
    },
    /// Parts of equal sources of other names, which the manifest would hold.
    #[error(
        "{} (part {share}) was made from a source called {name:?} and {} (part {other_share}) from one called {other_name:?}: the dataset names its source, so call it the same on all machines (a symbolic link will do)",
        shown(path),
        shown(other)
    )]
    SourceName {
        /// A part.
        path: PathBuf,
        /// Which it is.
        share: Share,
        /// What its source is called.
        name: String,
        /// The part that it is compared with.
        other: PathBuf,
        /// Which that is.
        other_share: Share,
        /// What the source of that is called.
        other_name: String,
    },
    /// Parts prepared with other options.
    #[error(
        "{} (part {share}) was prepared with {option}, and {} (part {other_share}) with {other_option}: prepare one of them again as the others",
        shown(path),
        shown(other)
    )]
    Options {
        /// A part.
        path: PathBuf,
        /// Which it is.
        share: Share,
        /// The first option that differs, with its value.
        option: String,
        /// The part that it is compared with.
        other: PathBuf,
        /// Which that is.
        other_share: Share,
        /// The same option of that.
        other_option: String,
    },
    /// Parts prepared with other quarantines, and none given for the whole.
    #[error(
        "{} was prepared with --quarantine {budget} and {} with --quarantine {other_budget}: say to merge with --quarantine how many corrupt photos the whole dataset may leave out",
        shown(path),
        shown(other)
    )]
    Quarantine {
        /// A part.
        path: PathBuf,
        /// Its quarantine.
        budget: usize,
        /// The part that it is compared with.
        other: PathBuf,
        /// The quarantine of that.
        other_budget: usize,
    },
    /// The output lies in a part, or a part in the output.
    #[error(
        "{} lies in {}: parts and the output must lie beside each other; choose another OUT",
        shown(inner),
        shown(outer)
    )]
    Within {
        /// The path that lies in the other, or is it.
        inner: PathBuf,
        /// The path that it lies in.
        outer: PathBuf,
    },
    /// Parts that fit each other but are not the images of the source that they name.
    #[error(
        "the parts together do not hold the names and sizes of the source that they were made from: prepare all parts again from one source"
    )]
    Together,
}
