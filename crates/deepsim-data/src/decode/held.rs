//! A decoded image and the memory that it holds, which is taken before it is filled.

use std::cell::Cell;
use std::io::ErrorKind;

use image::{ImageError, RgbImage};

use super::budget::{DECODING, Reservation};
use super::pixels::{Layout, to_rgb8};
use crate::fault::ImageFault;

/// Beside what pixels take: tables, rows of work, a compressor's window.
pub(super) const OVERHEAD: u64 = 2 << 20;

thread_local! {
    /// The least number of copies of an image's pixels for which memory is taken.
    static COPIES: Cell<u64> = const { Cell::new(1) };
}

/// A decoded image and the memory that it holds of the budget for all threads.
pub(crate) struct Held {
    /// The pixels.
    pub image: RgbImage,
    /// To be kept as long as the pixels are.
    pub reservation: Reservation,
}

/// Sets the least number of copies of an image's pixels for which this thread takes memory.
pub(super) fn set_copies(copies: u64) {
    COPIES.set(copies);
}

/// Takes the memory, lets a decoder fill a buffer, and converts the buffer to RGB. The decoder
/// itself needs `extra` bytes.
pub(super) fn decode_into(
    width: usize,
    height: usize,
    layout: Layout,
    extra: u64,
    read: impl FnOnce(&mut [u8]) -> Result<(), ImageFault>,
) -> Result<Held, ImageFault> {
    let output = layout.buffer(width, height);
    let beyond = extra.max(layout.conversion(width, height));
    let mut reservation = reserve(output as u64 + beyond, width * height)?;
    let mut buffer = vec![0; output];
    read(&mut buffer)?;
    let image = to_rgb8(buffer, layout, width, height)?;
    reservation.shrink(pixel_bytes(width * height));
    Ok(Held { image, reservation })
}

/// Waits for `bytes` and [`OVERHEAD`] of the budget of all threads, and at least for the memory
/// that the copies of `pixels` pixels need.
pub(super) fn reserve(bytes: u64, pixels: usize) -> Result<Reservation, ImageFault> {
    let bytes = bytes.saturating_add(OVERHEAD).max(pixel_bytes(pixels));
    DECODING
        .take(bytes)
        .ok_or(ImageFault::TooMuchMemory { bytes })
}

/// What the caller of [`decode_held`](super::decode_held) keeps.
pub(super) fn pixel_bytes(pixels: usize) -> u64 {
    COPIES.get() * 3 * pixels as u64
}

/// What `image` says, in our words.
pub(super) fn fault(error: ImageError) -> ImageFault {
    match &error {
        ImageError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            ImageFault::Truncated("the data ends early".into())
        }
        _ => ImageFault::Refused(error.to_string()),
    }
}
