//! JPEG by libjpeg-turbo's arithmetic, strictly, and the check that the file is whole.
//!
//! The decoder is `libjpeg-turbo-rs`, a port to Rust that needs neither a C compiler nor an
//! assembler. Its pixels are those of libjpeg-turbo (accurate integer IDCT, smooth chroma
//! upsampling), and so Pillow's, on every processor: a test holds it to that.

use image::RgbImage;
use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};

use crate::decode::{MAX_PIXELS, check_dimensions};
use crate::fault::ImageFault;

/// Every JPEG starts with these bytes.
pub(crate) const MAGIC: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// Scans of a progressive picture; cameras and encoders write about ten. More are a way to make a
/// small file take long.
const MAX_SCANS: usize = 100;
/// Bytes that one picture may take while it is decoded: [`MAX_PIXELS`] progressive ones fit.
const MAX_MEMORY: u64 = 4 << 30;

/// Decodes a JPEG to RGB. Colour: see the conversions in [`crate::decode`].
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    check_whole(bytes)?;
    let limits = DecodeLimits {
        // the largest that a header can say: our own check words the refusal
        max_width: usize::from(u16::MAX),
        max_height: usize::from(u16::MAX),
        max_pixels: MAX_PIXELS as u64,
        max_scans: MAX_SCANS,
        max_memory: Some(MAX_MEMORY),
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(fault)?;
    let header = decoder.header();
    let (width, height) = (usize::from(header.width), usize::from(header.height));
    check_dimensions(width, height)?;
    let refused = |what: String| Err(ImageFault::Refused(what));
    if header.precision != 8 {
        return refused(format!("{} bits a sample", header.precision));
    }
    if header.is_lossless || decoder.is_arithmetic() {
        return refused("lossless or arithmetic coding".into());
    }
    let inks = match header.components.len() {
        1 | 3 => false,
        4 => true,
        bands => return refused(format!("{bands} colour components")),
    };
    decoder.set_output_format(match inks {
        true => PixelFormat::Cmyk,
        false => PixelFormat::Rgb,
    });
    decoder.set_stop_on_warning(true);
    let mut pixels = decoder.decode_image().map_err(fault)?.into_vec();
    if inks {
        pixels = from_inks(&pixels);
    }
    RgbImage::from_raw(width as u32, height as u32, pixels)
        .ok_or_else(|| ImageFault::Refused("fewer pixels than its header says".into()))
}

/// RGB from inverted CMYK (255 = no ink): R = C·K/255 and so on, rounded.
fn from_inks(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<4>();
    let paper = |ink: u8, black: u8| ((u32::from(ink) * u32::from(black) + 127) / 255) as u8;
    let colours = pixels
        .iter()
        .map(|&[c, m, y, k]| [paper(c, k), paper(m, k), paper(y, k)]);
    colours.flatten().collect()
}

fn fault(error: JpegError) -> ImageFault {
    match error {
        JpegError::UnexpectedEof => ImageFault::Truncated("the data ends early".into()),
        other => ImageFault::Refused(other.to_string()),
    }
}

/// A decoder may fill the missing rest of a cut file with grey. In the entropy-coded data an
/// 0xFF is followed by 0x00 or a restart marker, so the first FF D9 behind the first scan's
/// header is the end marker, and a cut file has none.
fn check_whole(bytes: &[u8]) -> Result<(), ImageFault> {
    let cut = |what: &str| ImageFault::Truncated(format!("no {what}"));
    let mut at = 2;
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(0xFF), Some(0xFF)) => at += 1,
            (Some(0xFF), Some(0x01 | 0xD0..=0xD7)) => at += 2,
            (Some(0xFF), Some(0xD9)) => return Err(cut("picture before its end marker")),
            (Some(0xFF), Some(marker)) => {
                let length = match (bytes.get(at + 2), bytes.get(at + 3)) {
                    (Some(&high), Some(&low)) => usize::from(u16::from_be_bytes([high, low])),
                    _ => return Err(cut("whole header")),
                };
                at += 2 + length;
                if *marker == 0xDA {
                    break;
                }
            }
            // bytes between segments: the strict decoder has its own word on them
            (Some(_), Some(_)) => at += 1,
            _ => return Err(cut("picture data")),
        }
    }
    let scans = bytes.get(at..).unwrap_or_default();
    // From the end, where it is in every whole file.
    match scans.windows(2).rev().any(|pair| pair == [0xFF, 0xD9]) {
        true => Ok(()),
        false => Err(cut("end marker")),
    }
}
