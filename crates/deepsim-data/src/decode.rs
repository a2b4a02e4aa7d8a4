//! Strict decoding: a picture comes out whole, or an error says what is wrong with it.
//!
//! * The format is told from the content, not from the extension: a PNG named `.JPEG`
//!   (ILSVRC-2012 has one) works.
//! * JPEG goes through zune-jpeg in strict mode; a cut file is an error, never a picture with
//!   a grey rest. PNG, WebP, BMP, GIF, TIFF and PNM go through the `image` crate; of animations
//!   the first frame is taken.
//! * More than 20,000 pixels a side or 200 million in all are refused before decoding, and what would take more than
//!   1.6 GB to decode. Time is bounded by that: every format is read in one pass over its pixels but progressive JPEG,
//!   which is refused beyond 100.
//! * Colour: grey becomes R = G = B. CMYK and YCCK JPEGs are read in Adobe's inverted
//!   convention (stored 255 = no ink) whether or not they carry Adobe's marker, as Pillow and
//!   OpenCV do: R = C·K/255 and so on (YCCK: the YCbCr part first becomes CMY). Colour
//!   profiles and gamma chunks are ignored. 16-bit samples are scaled to 8. Transparency is
//!   composited on white: round((c·α + 255·(255−α))/255).
//! * The EXIF orientation is ignored, as the ILSVRC tools ignored it: a photo is taken as its
//!   pixels are stored.

use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::DataError;
use crate::fault::ImageFault;
use crate::jpeg;

/// Largest width and height, in pixels.
pub const MAX_SIDE: usize = 20_000;
/// Largest number of pixels.
pub const MAX_PIXELS: usize = 200_000_000;
/// Largest file, in bytes.
pub const MAX_FILE: u64 = 2 << 30;

/// Decodes a picture file to RGB, 0–255.
///
/// # Errors
/// [`DataError::Missing`], [`DataError::Unreadable`] or [`DataError::NotAFile`] for the file,
/// [`DataError::BadImage`] naming the path for anything wrong with the picture.
pub fn decode_rgb8(path: &Path) -> Result<RgbImage, DataError> {
    let bytes = read_picture(path)?;
    decode_bytes(&bytes).map_err(|fault| DataError::BadImage {
        path: path.into(),
        fault,
    })
}

/// Reads a regular file of at most [`MAX_FILE`] bytes.
pub(crate) fn read_picture(path: &Path) -> Result<Vec<u8>, DataError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => DataError::Missing { path: path.into() },
        _ => DataError::Unreadable {
            path: path.into(),
            source,
        },
    };
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
    std::fs::read(path).map_err(unreadable)
}

/// Decodes the bytes of a picture file to RGB, 0–255.
///
/// # Errors
/// What is wrong with the picture.
pub fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    guarded(|| decode_by_content(bytes))
}

/// A decoder's bug must cost one picture, not a training run.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ImageFault>) -> Result<T, ImageFault> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Err(ImageFault::DecoderCrashed(reason.to_owned()))
    })
}

fn decode_by_content(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    if bytes.is_empty() {
        return Err(ImageFault::Empty);
    }
    if bytes.starts_with(&jpeg::MAGIC) {
        return jpeg::decode(bytes);
    }
    let format = image::guess_format(bytes).map_err(|_| ImageFault::UnknownFormat)?;
    match format {
        ImageFormat::Png => check_png_whole(bytes)?,
        ImageFormat::WebP => check_riff_whole(bytes)?,
        ImageFormat::Bmp | ImageFormat::Gif | ImageFormat::Tiff | ImageFormat::Pnm => {}
        _ => return Err(ImageFault::UnknownFormat),
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Four samples of two bytes; pictures of floats may have half as many pixels.
    limits.max_alloc = Some(8 * MAX_PIXELS as u64);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    check_dimensions(width as usize, height as usize)?;
    Ok(on_white(
        DynamicImage::from_decoder(decoder).map_err(fault)?,
    ))
}

/// Refuses pictures without pixels and pictures that no camera takes.
pub(crate) fn check_dimensions(width: usize, height: usize) -> Result<(), ImageFault> {
    if width == 0 || height == 0 {
        return Err(ImageFault::NoPixels { width, height });
    }
    if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(ImageFault::TooLarge { width, height });
    }
    Ok(())
}

fn fault(error: ImageError) -> ImageFault {
    match &error {
        ImageError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            ImageFault::Truncated("the data ends early".into())
        }
        _ => ImageFault::Refused(error.to_string()),
    }
}

fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    let (width, height) = image.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let [r, g, b, a] = image.get_pixel(x, y).0;
        let over = |c: u8| {
            let (c, a) = (u32::from(c), u32::from(a));
            ((c * a + 255 * (255 - a) + 127) / 255) as u8
        };
        image::Rgb([over(r), over(g), over(b)])
    })
}

/// A PNG's chunks must lead to IEND: the decoder is content with the last row.
fn check_png_whole(bytes: &[u8]) -> Result<(), ImageFault> {
    let mut at = 8_usize;
    loop {
        let Some(&[a, b, c, d, ref kind @ ..]) = bytes.get(at..at + 8) else {
            return Err(ImageFault::Truncated("no IEND chunk".into()));
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        at = at.saturating_add(length).saturating_add(12);
        if at > bytes.len() {
            return Err(ImageFault::Truncated("a chunk ends behind the file".into()));
        }
        if kind == b"IEND" {
            return Ok(());
        }
    }
}

/// A RIFF container says how long it is; a lossy WebP decoder may not mind a missing rest.
fn check_riff_whole(bytes: &[u8]) -> Result<(), ImageFault> {
    match bytes.get(4..8) {
        Some(&[a, b, c, d])
            if u64::from(u32::from_le_bytes([a, b, c, d])) + 8 <= bytes.len() as u64 =>
        {
            Ok(())
        }
        _ => Err(ImageFault::Truncated(
            "shorter than its RIFF header says".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoders_panic_is_an_error_of_the_picture() {
        let crash = guarded::<()>(|| panic!("index {} out of bounds", 7));
        assert!(matches!(crash, Err(ImageFault::DecoderCrashed(why)) if why.contains("index 7")));
        assert!(matches!(guarded(|| Ok(3)), Ok(3)));
    }
}
