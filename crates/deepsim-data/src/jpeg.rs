//! JPEG through zune-jpeg in strict mode, and the check that the file is whole.

use image::RgbImage;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::decode::{MAX_SIDE, check_dimensions};
use crate::fault::ImageFault;

/// Every JPEG starts with these bytes.
pub(crate) const MAGIC: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// Most scans of a progressive JPEG, which has ten as a rule: each costs a pass over the whole picture, however few its
/// bytes are.
const MAX_SCANS: usize = 100;

/// Decodes a JPEG to RGB. Colour: see the conversions in [`crate::decode`].
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    check_whole(bytes)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        // one more than allowed: our own check words the refusal
        .set_max_width(MAX_SIDE + 1)
        .set_max_height(MAX_SIDE + 1)
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(fault)?;
    let (width, height) = decoder
        .dimensions()
        .ok_or_else(|| ImageFault::Refused("no dimensions in its header".into()))?;
    check_dimensions(width, height)?;
    if let Some(ColorSpace::MultiBand(bands)) = decoder.input_colorspace() {
        return Err(ImageFault::Refused(format!("{bands} colour components")));
    }
    let pixels = decoder.decode().map_err(fault)?;
    RgbImage::from_raw(width as u32, height as u32, pixels)
        .ok_or_else(|| ImageFault::Refused("fewer pixels than its header says".into()))
}

fn fault(error: DecodeErrors) -> ImageFault {
    match error {
        DecodeErrors::LargeDimensions(_) => {
            ImageFault::Refused(format!("wider or higher than {MAX_SIDE} pixels: {error:?}"))
        }
        DecodeErrors::ExhaustedData => ImageFault::Truncated("the data ends early".into()),
        other => ImageFault::Refused(format!("{other:?}")),
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
