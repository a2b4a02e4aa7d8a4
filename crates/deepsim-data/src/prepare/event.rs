//! What is told while a dataset is made, and how it ended.

use std::path::PathBuf;

use super::share::Share;
use crate::error::DataError;
use crate::manifest::Store;
use crate::orientation::Orientation;
use crate::source::Layout;
use crate::square::Resize;
use crate::window::SquareWindow;

/// What the caller may want to show while the work goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The source is being listed, or its files' metadata read; so many images are done. Sent for each.
    Listing {
        /// Images found so far.
        found: usize,
    },
    /// The source is listed and the settings are resolved; nothing is written yet.
    Planned {
        /// What the source is.
        layout: Layout,
        /// Its images.
        images: usize,
        /// Where a part of it is prepared: which one, and how many of the images are in it.
        part: Option<(Share, usize)>,
        /// How photos will become square.
        resize: Resize,
        /// The window that will be cut out of them before.
        window: Option<SquareWindow>,
        /// How they will be stored.
        store: Store,
        /// Expected size (exact for raw, before duplicates are dropped).
        bytes: u64,
        /// What to do about the EXIF orientation.
        orientation: Orientation,
        /// What else the source holds and is skipped, in words.
        skipped: Option<String>,
        /// Why a source with ILSVRC-2012's names in it is a collection of images all the same.
        not_ilsvrc: Option<String>,
    },
    /// The work begins, in this directory beside the output: errors from here on are no longer the request's.
    Started(PathBuf),
    /// Everything is written; the directory is about to take its place.
    Publishing,
    /// A directory that a killed run left behind.
    Leftover(PathBuf),
    /// So many photos are done.
    Progress {
        /// Photos done.
        done: usize,
        /// Photos in all.
        total: usize,
    },
    /// A corrupt photo: path and reason.
    Corrupt(String),
    /// A photo whose stored pixels equal another's.
    Duplicate {
        /// Its path.
        path: String,
        /// The path of the one that is kept.
        of: String,
    },
}

/// The caller's answer to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop and clean up: [`DataError::Interrupted`].
    Stop,
}

/// What `prepare`, `prepare_part` or `merge` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The output already holds exactly this dataset, or this part; nothing was read or written.
    UpToDate {
        /// Images in it.
        images: usize,
        /// Of the source's images (a part: of its own), how many were turned by their EXIF orientation.
        turned: usize,
    },
    /// The dataset, or the part, was written.
    Written {
        /// Images stored (all sides of a split together).
        images: usize,
        /// Of those, the ones by which settings are chosen.
        val: usize,
        /// Of those, held out for testing.
        test: usize,
        /// Bytes stored.
        bytes: u64,
        /// Duplicates left out.
        duplicates: usize,
        /// Corrupt photos left out.
        quarantined: usize,
        /// Photos that carry an EXIF orientation other than upright.
        oriented: usize,
    },
}

/// The caller's answer as a result.
pub(crate) fn go_on(flow: Flow) -> Result<(), DataError> {
    match flow {
        Flow::Continue => Ok(()),
        Flow::Stop => Err(DataError::Interrupted),
    }
}
