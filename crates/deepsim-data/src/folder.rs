//! A plain folder as a dataset: photos are decoded, turned upright (outside ILSVRC-2012's layouts) and made square when
//! they are needed, exactly as `prepare` would have.

use std::path::Path;

use rayon::prelude::*;

use crate::decode::reserve_for_file;
use crate::error::DataError;
use crate::manifest::Manifest;
use crate::orientation::{self, Decoded, Orientation};
use crate::source::{Entry, Listing};
use crate::square::{Resize, square};
use crate::window::SquareWindow;

/// The listed folder.
pub(crate) struct Folder {
    pub listing: Listing,
    pub resize: Resize,
    pub orientation: Orientation,
    /// Images that carry an orientation other than upright and are turned.
    pub turned: usize,
    /// blake3 in hex of the names and sizes, and of which images are turned if any are.
    pub digest: String,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let listing = Listing::of_folder(path, &mut |_| Ok(()))?;
        let resize = listing.layout.resize();
        let orientation = Orientation::of_layout(listing.layout);
        let turned: Vec<&str> = match orientation {
            Orientation::Ignore => Vec::new(),
            Orientation::Apply => listing
                .entries
                .par_iter()
                .filter(|entry| orientation::is_oriented(&listing, entry))
                .map(|entry| entry.path.as_str())
                .collect(),
        };
        let mut digest = listing.digest();
        if !turned.is_empty() {
            let mut hasher = blake3::Hasher::new_derive_key("deepsim-data v1 upright folder");
            hasher.update(digest.as_bytes());
            for path in &turned {
                hasher.update(path.as_bytes()).update(&[0]);
            }
            digest = hasher.finalize().to_hex().to_string();
        }
        let turned = turned.len();
        Ok(Self {
            listing,
            resize,
            orientation,
            turned,
            digest,
        })
    }

    pub fn pixels(&self, index: usize, size: u32) -> Result<Vec<u8>, DataError> {
        let entry = &self.listing.entries[index];
        let shape = Shape {
            size,
            resize: self.resize,
            window: None,
            orientation: self.orientation,
        };
        Ok(squared(&self.listing, entry, shape)?.pixels)
    }

    /// An image as a prepared dataset with these settings would hold it before it is stored.
    pub fn prepared(&self, index: usize, manifest: &Manifest) -> Result<Vec<u8>, DataError> {
        let entry = &self.listing.entries[index];
        let shape = Shape {
            size: manifest.size,
            resize: manifest.resize,
            window: manifest.window,
            orientation: manifest.orientation,
        };
        Ok(squared(&self.listing, entry, shape)?.pixels)
    }
}

/// How a photo becomes a stored image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub size: u32,
    pub resize: Resize,
    pub window: Option<SquareWindow>,
    pub orientation: Orientation,
}

/// A photo of a source, ready to be stored.
pub(crate) struct Squared {
    /// Rows of RGB, size×size.
    pub pixels: Vec<u8>,
    /// Does its file carry an EXIF orientation other than upright?
    pub oriented: bool,
}

/// One photo of a source, or the window of it.
pub(crate) fn squared(
    listing: &Listing,
    entry: &Entry,
    shape: Shape,
) -> Result<Squared, DataError> {
    let bad = |fault| DataError::BadImage {
        path: listing.full_path(entry),
        fault,
    };
    let file = reserve_for_file(entry.bytes);
    let bytes = listing.read(entry)?;
    let decoded = orientation::decode(&bytes, shape.orientation).map_err(bad)?;
    drop((bytes, file));
    // The memory is kept until the square, which is small, is there.
    let Decoded {
        mut image,
        oriented,
        reservation,
    } = decoded;
    if let Some(window) = shape.window {
        image = window.cut(&image).map_err(bad)?;
    }
    let pixels = square(&image, shape.size, shape.resize)?.into_raw();
    drop((image, reservation));
    Ok(Squared { pixels, oriented })
}
