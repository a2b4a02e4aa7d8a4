//! What a page shows, computed already.

use std::path::PathBuf;

use crate::analysis::neighbors;
use crate::analysis::reencode::Drift;
use crate::analysis::table2::Row;

pub use super::history::{Evaluated, History, Logged};

/// A part of the page, or why it could not be made.
pub type Part<T> = std::result::Result<T, String>;

/// An image as a `data:` address, and its size in pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddedImage {
    /// `data:image/jpeg;base64,…`
    pub address: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Everything.
#[derive(Debug)]
pub struct Report {
    /// Where it comes from.
    pub made: Made,
    /// The runs and records, those of the same images together.
    pub runs: Vec<RunCard>,
    /// Runs that could not be shown, and why.
    pub left_out: Vec<String>,
    /// Rows of Table 2.
    pub table: Vec<Row>,
    /// Weights of metrics that are not there.
    pub missing_weights: Vec<PathBuf>,
    /// The image on top.
    pub headline: Part<Headline>,
    /// Original images and reconstructions.
    pub groups: Vec<Group>,
    /// Runs that are looked at closely.
    pub closer: Vec<Closer>,
    /// Whether the page shows images.
    pub shown: bool,
}

/// Why an image is not on a page without images.
pub(super) const NOT_SHOWN: &str = "this page is made without images";

/// When and by what the page was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// UTC, `2026-01-31 12:00`.
    pub when: String,
    /// The commit of the working folder, if it is one.
    pub commit: Option<String>,
    /// Version of this program.
    pub version: &'static str,
    /// `cargo run -p deepsim-eval -- report …`
    pub command: String,
    /// The folder of runs.
    pub runs: PathBuf,
    /// Images that errors are means over, at most.
    pub images: usize,
}

/// A run or record.
#[derive(Clone, Debug)]
pub struct RunCard {
    /// Its folder's name.
    pub name: String,
    /// Terms of its loss, or the method.
    pub loss: String,
    /// The inverted layer.
    pub encoder: String,
    /// The compared layer; empty without feature loss.
    pub comparator: String,
    /// Weights of the encoder, in words.
    pub weights: String,
    /// Held-out images, in words.
    pub data: String,
    /// Side of the crops, pixels.
    pub crop: u32,
    /// Images to train on and held out, where they are there.
    pub counts: Option<(usize, usize)>,
    /// Iterations done, and asked for.
    pub steps: (u64, u64),
    /// Images in a batch.
    pub batch: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// `fp32` or `bf16`.
    pub precision: String,
    /// The command that made it.
    pub command: String,
    /// What it logged; none for a record.
    pub history: Option<Part<History>>,
}

/// The image on top: rows of a label and images.
#[derive(Clone, Debug)]
pub struct Headline {
    /// The inverted layer.
    pub encoder: String,
    /// Names of the images.
    pub names: Vec<String>,
    /// The images, then what runs make of them.
    pub rows: Vec<(String, Vec<EmbeddedImage>)>,
}

/// A held-out image.
#[derive(Clone, Debug)]
pub struct Photo {
    /// Its short name.
    pub name: String,
    /// The image, embedded.
    pub embedded: EmbeddedImage,
}

/// A reconstruction, and its errors in percent of the mean distance between different images.
#[derive(Clone, Debug)]
pub struct Reconstruction {
    /// The image, embedded.
    pub embedded: EmbeddedImage,
    /// Of pixels.
    pub image: f64,
    /// Of the inverted features; none where nothing can encode it.
    pub feature: Option<f64>,
}

/// Runs whose reconstructions are of the same held-out images.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they share.
    pub label: String,
    /// The images.
    pub photos: Vec<Photo>,
    /// Each run's name, label and reconstructions, in the order of the original images.
    pub runs: Vec<(String, String, Vec<Reconstruction>)>,
    /// Each run's folder, in the same order.
    pub paths: Vec<PathBuf>,
}

/// A run that is looked at closely.
#[derive(Debug)]
pub struct Closer {
    /// Its name.
    pub name: String,
    /// Its folder, as commands name it.
    pub path: PathBuf,
    /// Label for the choice.
    pub label: String,
    /// Between images.
    pub interpolations: Part<Vec<Interpolation>>,
    /// Again and again.
    pub reencoding: Part<Reencoding>,
    /// Nearest training images.
    pub neighbors: Part<Neighbors>,
}

impl Closer {
    /// Leaves its numbers and no image.
    pub(super) fn without_images(mut self) -> Self {
        self.interpolations = self.interpolations.and(Err(NOT_SHOWN.to_owned()));
        if let Ok(made) = &mut self.reencoding {
            made.photos.clear();
        }
        if let Ok(made) = &mut self.neighbors {
            made.shown.clear();
        }
        self
    }
}

/// Frames between two images.
#[derive(Clone, Debug)]
pub struct Interpolation {
    /// The images.
    pub ends: [Photo; 2],
    /// Share of the second one's features, the image, and the change of pixels from the frame
    /// before (root mean square, grey levels).
    pub frames: Vec<(f64, EmbeddedImage, Option<f64>)>,
    /// Largest step over mean step.
    pub max_over_mean: f64,
    /// Length of the path over the distance of its ends.
    pub path_over_ends: f64,
}

/// Images of every iteration, and the drift.
#[derive(Clone, Debug)]
pub struct Reencoding {
    /// Each original image, and its image after iteration 1, 2, …
    pub photos: Vec<(Photo, Vec<EmbeddedImage>)>,
    /// Means over more images.
    pub drift: Vec<Drift>,
}

/// An image beside a held-out image, with its errors to it.
#[derive(Clone, Debug)]
pub struct Beside {
    /// `pixels`, `NET:TAP`.
    pub space: String,
    /// Name of the training image.
    pub name: String,
    /// Its mirror image was nearer.
    pub mirrored: bool,
    /// It, with its errors.
    pub found: Reconstruction,
}

/// What was found for one image.
#[derive(Clone, Debug)]
pub struct Neighbor {
    /// The held-out image.
    pub photo: Photo,
    /// What the generator makes of it.
    pub own: Reconstruction,
    /// The nearest training image of every space.
    pub nearest: Vec<Beside>,
}

/// Nearest training images.
#[derive(Clone, Debug)]
pub struct Neighbors {
    /// Some images.
    pub shown: Vec<Neighbor>,
    /// Means over all that were searched for.
    pub rows: Vec<neighbors::Row>,
}
