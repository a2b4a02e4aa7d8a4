//! A plain folder as a dataset: photos are decoded and made square when they are needed,
//! exactly as `prepare` would have.

use std::path::Path;

use crate::decode::decode_bytes;
use crate::error::DataError;
use crate::source::{Entry, Listing};
use crate::square::{Resize, square};
use crate::window::SquareWindow;

/// The listed folder.
pub(crate) struct Folder {
    pub listing: Listing,
    pub resize: Resize,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let listing = Listing::of_folder(path)?;
        let resize = listing.layout.resize();
        Ok(Self { listing, resize })
    }

    pub fn pixels(&self, index: usize, size: u32) -> Result<Vec<u8>, DataError> {
        squared(
            &self.listing,
            &self.listing.entries[index],
            size,
            self.resize,
            None,
        )
    }
}

/// One photo of a source, or the window of it, as rows of RGB, `size`×`size`.
pub(crate) fn squared(
    listing: &Listing,
    entry: &Entry,
    size: u32,
    resize: Resize,
    window: Option<SquareWindow>,
) -> Result<Vec<u8>, DataError> {
    let bad = |fault| DataError::BadImage {
        path: listing.full_path(entry),
        fault,
    };
    let mut image = decode_bytes(&listing.read(entry)?).map_err(bad)?;
    if let Some(window) = window {
        image = window.cut(&image).map_err(bad)?;
    }
    Ok(square(&image, size, resize)?.into_raw())
}
