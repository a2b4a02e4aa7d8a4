//! Making a photo square, and cutting windows out of square images.
//!
//! The filter is everywhere the antialiased bicubic (Catmull-Rom, a = −0.5) of Pillow's
//! `Image.resize(…, Image.BICUBIC, box=…)`, columns first, computed by `fast_image_resize` in
//! integers. Golden vectors compare it with Pillow's passes: 99 of 100 values are equal, and the
//! others differ by one grey level, or two at the very most. (Weights have 15 bits here and 22 in
//! Pillow, and each pass rounds.) Pillow 13.0 begins with the rows in some upright images, which
//! makes a difference at hard edges. As with Pillow's `box`, the filter at a window's border looks
//! at the pixels beyond it.
//!
//! * [`Resize::Squash`]: both sides to `size`, the aspect ratio is lost. The Caffe tools
//!   prepared ILSVRC-2012 so.
//! * [`Resize::ShortCrop`]: the largest centred square (offset ⌊(side − short)/2⌋) to `size`.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::fault::ImageFault;

/// Largest stored size, in pixels.
pub const MAX_SIZE: u32 = 8192;

/// How a photo becomes square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Both sides are scaled to the size; the aspect ratio is lost.
    Squash,
    /// The largest centred square is scaled to the size.
    ShortCrop,
}

impl Resize {
    /// The name on the command line and in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Squash => "squash",
            Self::ShortCrop => "short-crop",
        }
    }
}

/// A window of an image, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// Scales a photo to `size`×`size` RGB.
///
/// # Errors
/// [`DataError::Size`] for a size outside 1..=8192, [`DataError::BadImage`] for a photo
/// without pixels, [`DataError::Resize`] if the library refuses.
pub fn square(img: &RgbImage, size: u32, mode: Resize) -> Result<RgbImage, DataError> {
    check_size(size)?;
    let (width, height) = img.dimensions();
    if width == 0 || height == 0 {
        let fault = ImageFault::NoPixels {
            width: width as usize,
            height: height as usize,
        };
        return Err(DataError::BadImage {
            path: "(image in memory)".into(),
            fault,
        });
    }
    let window = match mode {
        Resize::Squash => Window {
            x: 0,
            y: 0,
            width,
            height,
        },
        Resize::ShortCrop => {
            let side = width.min(height);
            let (x, y) = ((width - side) / 2, (height - side) / 2);
            Window {
                x,
                y,
                width: side,
                height: side,
            }
        }
    };
    let pixels = resample(img.as_raw(), (width, height), window, size)?;
    RgbImage::from_raw(size, size, pixels).ok_or_else(|| DataError::Resize {
        reason: "wrong number of pixels".into(),
    })
}

/// Refuses a stored size that is not possible.
pub(crate) fn check_size(size: u32) -> Result<(), DataError> {
    if (1..=MAX_SIZE).contains(&size) {
        Ok(())
    } else {
        Err(DataError::Size { size })
    }
}

/// Scales a window of an RGB image (rows of interleaved pixels) to `side`×`side`.
///
/// Columns first, then rows, as Pillow does. Values are clipped to 0–255 between the two passes, so
/// at hard edges the order changes the result by up to 26 grey levels. By default
/// `fast_image_resize` begins with the rows.
pub(crate) fn resample(
    pixels: &[u8],
    size: (u32, u32),
    window: Window,
    side: u32,
) -> Result<Vec<u8>, DataError> {
    if window.width == side || window.height == side {
        return pass(pixels, size, window, (side, side));
    }
    // Only the rows that the second pass looks at; one more on each side is a margin for rounding.
    let reach = 2 * window.height.div_ceil(side) + 1;
    let top = window.y.saturating_sub(reach);
    let bottom = (window.y + window.height + reach).min(size.1);
    let band = Window {
        y: top,
        height: bottom - top,
        ..window
    };
    let narrow = pass(pixels, size, band, (side, band.height))?;
    let window = Window {
        x: 0,
        y: window.y - top,
        width: side,
        height: window.height,
    };
    pass(&narrow, (side, band.height), window, (side, side))
}

/// One call of the library, which scales only the sides that change.
fn pass(
    pixels: &[u8],
    (width, height): (u32, u32),
    window: Window,
    (columns, rows): (u32, u32),
) -> Result<Vec<u8>, DataError> {
    let refused = |reason: String| DataError::Resize { reason };
    // Typed images: the untyped ones would compile the resizer for every pixel type there is.
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, pixels)
        .map_err(|error| refused(error.to_string()))?;
    let mut bytes = vec![0; columns as usize * rows as usize * 3];
    let mut target = TypedImage::<U8x3>::from_buffer(columns, rows, &mut bytes)
        .map_err(|error| refused(error.to_string()))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .crop(
            window.x.into(),
            window.y.into(),
            window.width.into(),
            window.height.into(),
        );
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .map_err(|error| refused(error.to_string()))?;
    drop(target);
    Ok(bytes)
}
