//! What can be wrong with one image.

use thiserror::Error;

/// Why one image cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageFault {
    /// The file has no bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The file's first bytes belong to no format that is read here.
    #[error("its content is no JPEG, PNG, WebP, BMP, GIF, TIFF or PNM image")]
    UnknownFormat,
    /// The file ends before its image does.
    #[error("the file is truncated ({0})")]
    Truncated(String),
    /// The decoder refuses the content.
    #[error("the content is damaged or not supported ({0})")]
    Refused(String),
    /// The decoder failed in a way that it should not (a bug there, set off by this file).
    #[error("the decoder crashed on it ({0})")]
    DecoderCrashed(String),
    /// Width or height is zero.
    #[error("it is {width}x{height} pixels: an image needs at least one")]
    NoPixels {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// Larger than any photo; refused before memory is taken for it.
    #[error(
        "it is {width}x{height} pixels; at most 20000 a side and 200 million in all are decoded: scale it down"
    )]
    TooLarge {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// More memory than all decoding threads together may take; refused before it is taken.
    #[error(
        "decoding it takes {:.1} GB of memory, and at most 1.6 GB may be used: scale it down, or store it with 8 bits a sample (a progressive JPEG: as a baseline JPEG)", *bytes as f64 / 1e9
    )]
    TooMuchMemory {
        /// What it would take.
        bytes: u64,
    },
    /// The window that is cut out of every image reaches outside this one.
    #[error(
        "it is {width}x{height} pixels and the window {window} (left, top, side) does not lie whole in it: if most are so, give another --window"
    )]
    OutsideWindow {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The window.
        window: String,
    },
    /// A file of more than 2 GiB.
    #[error("the file has {bytes} bytes; at most 2 GiB are read")]
    FileTooLarge {
        /// Size of the file.
        bytes: u64,
    },
    /// The stored bytes are not those that were written.
    #[error(
        "its bytes do not match their checksum: the file was damaged or edited; prepare it again"
    )]
    Checksum,
    /// A stored image of another size than the manifest says.
    #[error("it is {width}x{height} pixels where the manifest says {expected}x{expected}")]
    StoredSize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Side that the manifest promises.
        expected: u32,
    },
}
