//! PNG through the crate `png`: chunks that are no pixels are left out, so that they take no memory.

use std::io::{Cursor, ErrorKind};

use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::held::{Held, decode_into};
use super::pixels::Layout;
use crate::fault::ImageFault;
use crate::limits::check_dimensions;

/// For chunks that belong to the pixels: palettes and rows of at most 20,000 pixels.
const SMALL: usize = 4 << 20;

/// Decodes a PNG to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    check_whole(bytes)?;
    let mut options = DecodeOptions::default();
    // Check the checksum of the pixels. Without it, damage that leaves the stream readable would
    // not be found.
    options.set_ignore_adler32(false);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits { bytes: SMALL });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Fewer than eight bits and palettes become eight, a transparent colour becomes alpha.
    decoder.set_transformations(Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(fault)?;
    let (width, height) = (header.width as usize, header.height as usize);
    check_dimensions(width, height)?;
    let mut reader = decoder.read_info().map_err(fault)?;
    let layout = match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => Layout::Gray8,
        (ColorType::Grayscale, BitDepth::Sixteen) => Layout::Gray16,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => Layout::GrayAlpha8,
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => Layout::GrayAlpha16,
        (ColorType::Rgb, BitDepth::Eight) => Layout::Rgb8,
        (ColorType::Rgb, BitDepth::Sixteen) => Layout::Rgb16,
        (ColorType::Rgba, BitDepth::Eight) => Layout::Rgba8,
        (ColorType::Rgba, BitDepth::Sixteen) => Layout::Rgba16,
        other => return Err(ImageFault::Refused(format!("samples of kind {other:?}"))),
    };
    let sixteen = reader.output_color_type().1 == BitDepth::Sixteen;
    decode_into(width, height, layout, 0, |buffer| {
        reader.next_frame(buffer).map_err(fault)?;
        if sixteen {
            for sample in buffer.as_chunks_mut::<2>().0 {
                *sample = u16::from_be_bytes(*sample).to_ne_bytes();
            }
        }
        Ok(())
    })
}

fn fault(error: DecodingError) -> ImageFault {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageFault::Truncated("the data ends early".into())
        }
        other => ImageFault::Refused(other.to_string()),
    }
}

/// A PNG's chunks must end in IEND, because the decoder stops after the last row. The chunks before the pixels must
/// be intact, or a transparency chunk with a damaged name would be taken for an optional chunk. A transparency chunk
/// must also stand at its proper place: elsewhere the decoder would ignore it silently.
fn check_whole(bytes: &[u8]) -> Result<(), ImageFault> {
    let transparency = |what| Err(ImageFault::Refused(format!("its transparency {what}")));
    let kind_of_colour = bytes.get(25).copied();
    let (mut colours, mut data, mut transparent, mut exif) = (None, false, false, false);
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
        let chunk = &bytes[at - length - 8..at];
        let (named, sum) = chunk.split_at(length + 4);
        // The decoder looks at those of the pixels itself.
        if !data && kind != b"IDAT" && crc32fast::hash(named).to_be_bytes() != *sum {
            return Err(ImageFault::Refused(
                "a chunk before its pixels is damaged".into(),
            ));
        }
        match kind {
            b"IEND" => return Ok(()),
            b"IDAT" => data = true,
            b"PLTE" => colours = Some(length / 3),
            // Programs do not agree which of two says how to turn the image.
            b"eXIf" if exif => return Err(ImageFault::Refused("two eXIf chunks".into())),
            b"eXIf" => exif = true,
            b"tRNS" if data => return transparency("stands behind the pixels"),
            b"tRNS" if transparent => return transparency("is there twice"),
            b"tRNS" => {
                transparent = true;
                let fits = match kind_of_colour {
                    Some(0) => length == 2,
                    Some(2) => length == 6,
                    Some(3) => colours.is_some_and(|colours| length <= colours),
                    _ => true,
                };
                if !fits {
                    return transparency("does not fit its colours");
                }
            }
            _ => {}
        }
    }
}
