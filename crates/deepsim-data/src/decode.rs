//! Strict decoding: the result is the whole image, with the same pixels as the most used libraries
//! give, or an error that says what is wrong.
//!
//! * The format is recognised by the content, not by the extension: a PNG named `.JPEG`
//!   (ILSVRC-2012 has one) works.
//! * JPEG goes through libjpeg-turbo. Its warnings are errors, and so are missing scans, so a
//!   truncated file never becomes an image with a grey rest. WebP goes through libwebp. PNG, TIFF
//!   (BigTIFF too), BMP, GIF and PNM go through the crates of the image-rs project; of animations the
//!   first frame is taken.
//! * Refused by name, because no two programs agree on them or nobody uses them: JPEGs with
//!   arithmetic or lossless coding or other than 8 bits; TIFFs with a palette, planes in
//!   tiles, floating-point samples or bits in reversed order.
//! * More than 20,000 pixels a side or 200 million in all are refused before decoding. All threads
//!   together use at most 1.6 GB for decoding (and 2 GiB for the files that they read). The memory
//!   for an image is computed from its header. An image that alone would need more is refused; the
//!   others wait for their turn. This also limits the time: every format is read in one pass over
//!   its pixels, except progressive JPEG, which is refused beyond 100 scans.
//! * Colour: grey becomes R = G = B. CMYK and YCCK JPEGs are read in Adobe's inverted
//!   convention (stored 255 = no ink) whether or not they carry Adobe's marker, as Pillow and
//!   OpenCV do: R = K − K·(255 − C)/255 and so on, each product rounded (YCCK: the YCbCr part first
//!   becomes CMY). Colour profiles and gamma chunks are ignored. 16-bit samples are scaled to 8,
//!   rounded. Transparency is composited on white: round((c·α + 255·(255−α))/255).
//! * Pixels are taken as they are stored; [`crate::orientation`] turns photos where that is wanted.
//! * A decoder prints nothing: its panics are caught and are errors of the image.

mod bmp;
mod budget;
mod gif;
mod guard;
mod held;
mod jpeg;
mod pixels;
mod png;
mod pnm;
mod tiff;
mod tiff_jpeg;
mod tiff_reader;
mod webp;

use std::path::Path;

use image::{ImageFormat, RgbImage};

use crate::error::DataError;
use crate::fault::ImageFault;
use crate::limits::MAX_FILE;
use budget::FILES;
use guard::guarded;

pub(crate) use budget::Reservation;
pub(crate) use guard::caught;
pub(crate) use held::Held;
pub(crate) use tiff_reader::MAGIC as TIFF_MAGIC;

/// Decodes an image file to RGB, 0–255.
///
/// # Errors
/// [`DataError::Missing`], [`DataError::Unreadable`] or [`DataError::NotAFile`] for the file,
/// [`DataError::BadImage`] naming the path for anything wrong with the image.
pub fn decode_rgb8(path: &Path) -> Result<RgbImage, DataError> {
    let _reservation = std::fs::metadata(path)
        .ok()
        .and_then(|metadata| reserve_for_file(metadata.len()));
    let bytes = read_image(path)?;
    decode_bytes(&bytes).map_err(|fault| DataError::BadImage {
        path: path.into(),
        fault,
    })
}

/// Waits until the budget for files has room for one of this size. Keep the result as long as the
/// file's bytes. `None` for a file that is larger than the budget, which is refused anyway.
pub(crate) fn reserve_for_file(bytes: u64) -> Option<Reservation> {
    FILES.take(bytes)
}

/// Reads a regular file of at most [`MAX_FILE`] bytes.
pub(crate) fn read_image(path: &Path) -> Result<Vec<u8>, DataError> {
    let unreadable = DataError::missing_or_unreadable(path);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(DataError::NotAFile { path: path.into() });
    }
    if metadata.len() > MAX_FILE {
        let fault = ImageFault::FileTooLarge {
            bytes: metadata.len(),
        };
        return Err(DataError::BadImage {
            path: path.into(),
            fault,
        });
    }
    deepsim_files::read(path).map_err(unreadable)
}

/// Decodes the bytes of an image file to RGB, 0–255.
///
/// # Errors
/// What is wrong with the image.
pub fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    decode_held(bytes, 1).map(|held| held.image)
}

/// [`decode_bytes`], and the memory that the image holds: enough for `copies` of its pixels. A
/// thread must give it back before it decodes another image.
pub(crate) fn decode_held(bytes: &[u8], copies: u64) -> Result<Held, ImageFault> {
    held::set_copies(copies);
    guarded(|| decode_by_content(bytes))
}

fn decode_by_content(bytes: &[u8]) -> Result<Held, ImageFault> {
    if bytes.is_empty() {
        return Err(ImageFault::Empty);
    }
    if bytes.starts_with(&jpeg::MAGIC) {
        return jpeg::decode(bytes);
    }
    if TIFF_MAGIC.iter().any(|magic| bytes.starts_with(magic)) {
        return tiff::decode(bytes);
    }
    match image::guess_format(bytes).map_err(|_| ImageFault::UnknownFormat)? {
        ImageFormat::Png => png::decode(bytes),
        ImageFormat::Pnm => pnm::decode(bytes),
        ImageFormat::WebP => webp::decode(bytes),
        ImageFormat::Bmp => bmp::decode(bytes),
        ImageFormat::Gif => gif::decode(bytes),
        _ => Err(ImageFault::UnknownFormat),
    }
}
