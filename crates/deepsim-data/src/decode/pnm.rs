//! PBM, PGM, PPM and PAM through `image`, which scales samples to the whole range, but rounds
//! otherwise than Pillow: so its scaling is undone and done again.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::pnm::{PnmDecoder, PnmHeader, PnmSubtype, SampleEncoding};

use super::held::{Held, decode_into, fault};
use super::pixels::Layout;
use crate::fault::ImageFault;
use crate::limits::check_dimensions;

/// Decodes a PNM to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    let open = || PnmDecoder::new(Cursor::new(bytes)).map_err(fault);
    let decoder = open()?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_dimensions(width, height)?;
    let layout = Layout::try_from(decoder.color_type())?;
    let (rest, header) = open()?.into_inner();
    let start = usize::try_from(rest.position()).unwrap_or(usize::MAX);
    let samples = width * height * layout.channels();
    if has_more_than_its_most(&header, bytes.get(start..).unwrap_or_default(), samples) {
        return Err(ImageFault::Refused(
            "a PNM with a value above the largest that it names".into(),
        ));
    }
    let most = header.maximal_sample();
    if (32_768..65_535).contains(&most) {
        return Err(ImageFault::Refused(format!(
            "a PNM whose largest value is {most}: at most 32767, or 65535"
        )));
    }
    decode_into(width, height, layout, 0, |buffer| {
        decoder.read_image(buffer).map_err(fault)?;
        match layout {
            _ if most == 1 || most == 255 || most == 65_535 => {}
            Layout::Gray8 | Layout::GrayAlpha8 | Layout::Rgb8 | Layout::Rgba8 => {
                for value in buffer {
                    *value = scaled(f64::from(*value), most, 255.0, 255.0) as u8;
                }
            }
            // Pillow makes sixteen bits of a grey of more than eight, and eight of a colour.
            Layout::Gray16 | Layout::GrayAlpha16 => sixteen(buffer, |value| {
                scaled(value, most, 65_535.0, 65_535.0) as u16
            }),
            _ => sixteen(buffer, |value| {
                scaled(value, most, 65_535.0, 255.0) as u16 * 257
            }),
        }
        Ok(())
    })
}

/// Whether one of the samples behind the header is larger than the header allows: programs do not agree about such.
fn has_more_than_its_most(header: &PnmHeader, rest: &[u8], samples: usize) -> bool {
    use PnmSubtype::{ArbitraryMap, Bitmap, Graymap, Pixmap};
    let most = header.maximal_sample();
    match header.subtype() {
        Bitmap(_) => false,
        Graymap(SampleEncoding::Ascii) | Pixmap(SampleEncoding::Ascii) => {
            let numbers = rest.split(u8::is_ascii_whitespace);
            let value = |digits: &[u8]| str::from_utf8(digits).ok()?.parse::<u32>().ok();
            numbers.filter_map(value).any(|value| value > most)
        }
        Graymap(_) | Pixmap(_) | ArbitraryMap if most < 256 => rest
            .iter()
            .take(samples)
            .any(|&value| u32::from(value) > most),
        Graymap(_) | Pixmap(_) | ArbitraryMap => {
            let values = rest.as_chunks::<2>().0.iter().take(samples);
            values
                .map(|&pair| u32::from(u16::from_be_bytes(pair)))
                .any(|value| value > most)
        }
    }
}

/// A sample that was scaled from 0 to `most` to 0 to `from`, scaled to 0 to `to` as Pillow does.
fn scaled(value: f64, most: u32, from: f64, to: f64) -> f64 {
    let most = f64::from(most);
    let stored = (value * most / from).round();
    (stored / most * to).round_ties_even()
}

fn sixteen(buffer: &mut [u8], scale: impl Fn(f64) -> u16) {
    for value in buffer.as_chunks_mut::<2>().0 {
        *value = scale(f64::from(u16::from_ne_bytes(*value))).to_ne_bytes();
    }
}
