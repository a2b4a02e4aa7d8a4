//! BMP through `image`. Samples of five and six bits become eight as Pillow makes them, rounded
//! down.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::bmp::BmpDecoder;

use super::held::{Held, OVERHEAD, decode_into, fault};
use super::pixels::Layout;
use crate::fault::ImageFault;
use crate::limits::check_dimensions;

/// Decodes a BMP to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    check_start(bytes)?;
    let scales = narrow(bytes)?;
    check_runs(bytes)?;
    check_indices(bytes)?;
    let mut decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(fault)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_dimensions(width, height)?;
    let layout = Layout::try_from(decoder.color_type())?;
    if scales.is_some() && layout != Layout::Rgb8 {
        return Err(ImageFault::Refused("a BMP of 16 bits with alpha".into()));
    }
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(OVERHEAD);
    decoder.set_limits(limits).map_err(fault)?;
    decode_into(width, height, layout, 0, |buffer| {
        decoder.read_image(buffer).map_err(fault)?;
        if let Some(most) = scales {
            for pixel in buffer.as_chunks_mut::<3>().0 {
                for (value, most) in pixel.iter_mut().zip(most) {
                    // The stored value. From it `image` computed stored · 255 / most, rounded.
                    let stored = (u32::from(*value) * most + 127) / 255;
                    *value = (stored * 255 / most) as u8;
                }
            }
        }
        Ok(())
    })
}

/// Refuses pixels that would begin within the header or the palette: programs read them from different places.
fn check_start(bytes: &[u8]) -> Result<(), ImageFault> {
    let at = |at: usize| match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => 0,
    };
    let (start, header) = (at(10), at(14));
    let (bits, compression, used) = if header >= 40 {
        (at(28) & 0xFFFF, at(30), at(46))
    } else {
        (at(22) >> 16, 0, 0)
    };
    let masks = match (header, compression) {
        (40, 3) => 12,
        (40, 6) => 16,
        _ => 0,
    };
    let entry = if header >= 40 { 4 } else { 3 };
    let colours = match bits {
        1..=8 if used == 0 => 1 << bits,
        1..=8 => used,
        _ => 0,
    };
    if start < 14 + header + masks + entry * colours {
        return Err(ImageFault::Refused(
            "a BMP whose pixels begin within its header or palette".into(),
        ));
    }
    Ok(())
}

/// Refuses pixels of colours that the palette does not have: programs give them different ones.
fn check_indices(bytes: &[u8]) -> Result<(), ImageFault> {
    let number = |at: usize| match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => 0,
    };
    let (bits, compression, used) = (number(28) & 0xFFFF, number(30), number(46));
    if number(14) < 40 || !matches!(bits, 1 | 2 | 4 | 8) || used == 0 || used >= 1 << bits {
        return Ok(());
    }
    if compression != 0 {
        return Ok(());
    }
    let width = number(18);
    let row = (width * bits).div_ceil(32) * 4;
    let rows = bytes.get(number(10)..).unwrap_or_default();
    let each = 8 / bits;
    let beyond = |row: &[u8]| {
        // The width is what a header says: it may be of any size.
        (0..width.min(row.len() * each)).any(|x| {
            let shift = 8 - bits * (x % each + 1);
            row.get(x / each)
                .is_some_and(|byte| (usize::from(*byte) >> shift) & ((1 << bits) - 1) >= used)
        })
    };
    let height = (number(22) as u32).cast_signed().unsigned_abs() as usize;
    if row > 0 && rows.chunks(row).take(height).any(beyond) {
        return Err(beyond_palette());
    }
    Ok(())
}

fn beyond_palette() -> ImageFault {
    ImageFault::Refused("a BMP with colours beyond its palette".into())
}

/// The largest red, green and blue of a BMP with 16 bits a pixel; `None` for others.
fn narrow(bytes: &[u8]) -> Result<Option<[u32; 3]>, ImageFault> {
    let at = |at: usize| match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    let (header, bits, compression) = (at(14), at(28) & 0xFFFF, at(30));
    let masks = [at(54), at(58), at(62)];
    let fields = compression == 3 || compression == 6;
    match (header >= 40, bits, fields) {
        (true, 16, false) => Ok(Some([31, 31, 31])),
        (true, 16, true) => match masks {
            [0x7C00, 0x03E0, 0x001F] => Ok(Some([31, 31, 31])),
            [0xF800, 0x07E0, 0x001F] => Ok(Some([31, 63, 31])),
            _ => Err(ImageFault::Refused(
                "a BMP of 16 bits with unusual colour masks".into(),
            )),
        },
        (true, 32, true) if !are_bytes(masks) => Err(ImageFault::Refused(
            "a BMP whose colours are no bytes of their own".into(),
        )),
        _ => Ok(None),
    }
}

/// Whether the colours are three different bytes of four.
fn are_bytes([red, green, blue]: [u32; 3]) -> bool {
    let byte = |mask: u32| (0..4).any(|place| mask == 0xFF << (8 * place));
    [red, green, blue].into_iter().all(byte) && red != green && green != blue && blue != red
}

/// Refuses run lengths that leave pixels out: programs fill them with different colours, or call
/// the file cut.
fn check_runs(bytes: &[u8]) -> Result<(), ImageFault> {
    let number = |at: usize| match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => 0,
    };
    // Two pixels in a byte of RLE4, one in a byte of RLE8.
    let per_byte = match (number(14) >= 40, number(30)) {
        (true, 1) => 1,
        (true, 2) => 2,
        _ => return Ok(()),
    };
    let used = match number(46) {
        0 => 256,
        used => used,
    };
    let is_beyond = |byte: u8, pixels: usize| match per_byte {
        1 => usize::from(byte) >= used,
        _ => usize::from(byte >> 4) >= used || pixels > 1 && usize::from(byte & 15) >= used,
    };
    let (width, height) = (number(18), number(22));
    let runs = bytes.get(number(10)..).unwrap_or_default();
    let (mut x, mut y, mut at) = (0, 0, 0);
    while y < height {
        let (fits, ends_line, length) = match runs.get(at..at + 2) {
            Some(&[0, 0]) => (x == width, true, 0),
            Some(&[0, 1]) => (x == width && y + 1 == height, true, 0),
            Some(&[0, 2]) | None => (false, true, 0),
            Some(&[0, count]) => {
                x += usize::from(count);
                let bytes = usize::from(count).div_ceil(per_byte);
                let stored = runs.get(at + 2..at + 2 + bytes).unwrap_or_default();
                let left = |i: usize| usize::from(count) - i * per_byte;
                if stored
                    .iter()
                    .enumerate()
                    .any(|(i, &byte)| is_beyond(byte, left(i)))
                {
                    return Err(beyond_palette());
                }
                (x <= width, false, bytes + bytes % 2)
            }
            Some(&[count, byte]) => {
                if is_beyond(byte, usize::from(count)) {
                    return Err(beyond_palette());
                }
                x += usize::from(count);
                (x <= width, false, 0)
            }
            Some(_) => (false, true, 0),
        };
        if !fits {
            return Err(ImageFault::Refused(
                "a BMP whose run lengths leave pixels out".into(),
            ));
        }
        at += 2 + length;
        if ends_line {
            (x, y) = (0, y + 1);
        }
    }
    Ok(())
}
