//! How large an image may be.

use crate::fault::ImageFault;

/// Largest width and height, in pixels.
pub const MAX_SIDE: usize = 20_000;
/// Largest number of pixels.
pub const MAX_PIXELS: usize = 200_000_000;
/// Largest file, in bytes; also what all threads together hold of files.
pub const MAX_FILE: u64 = 2 << 30;
/// Memory for decoding, of all threads together, in bytes.
pub const MAX_MEMORY: u64 = 8 * MAX_PIXELS as u64;

/// Refuses images without pixels and images that no camera takes.
pub(crate) fn check_dimensions(width: usize, height: usize) -> Result<(), ImageFault> {
    if width == 0 || height == 0 {
        return Err(ImageFault::NoPixels { width, height });
    }
    if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(ImageFault::TooLarge { width, height });
    }
    Ok(())
}
