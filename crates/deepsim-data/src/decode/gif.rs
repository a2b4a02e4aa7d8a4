//! GIF through the crate `gif`: the first frame on its screen. The rest of the screen is
//! transparent.

use std::io::{Cursor, ErrorKind};

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::held::{Held, decode_into};
use super::pixels::Layout;
use crate::fault::ImageFault;
use crate::limits::check_dimensions;

/// Decodes a GIF's first frame to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // Pixels are read into memory that is taken below.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut reader = options.read_info(Cursor::new(bytes)).map_err(fault)?;
    let (width, height) = (usize::from(reader.width()), usize::from(reader.height()));
    check_dimensions(width, height)?;
    let shared = reader.global_palette().map(<[u8]>::to_vec);
    let frame = reader
        .next_frame_info()
        .map_err(fault)?
        .ok_or_else(|| refused("without a frame"))?;
    let place = |pixels: u16| usize::from(pixels);
    let (left, top) = (place(frame.left), place(frame.top));
    let (wide, high) = (place(frame.width), place(frame.height));
    let clear = frame.transparent;
    let palette = frame.palette.clone().or(shared);
    // Programs do not agree on what these look like.
    if clear_colours(bytes).len() > 1 {
        return Err(refused("with several transparent colours for one frame"));
    }
    if left + wide > width || top + high > height {
        return Err(refused("whose frame reaches beyond its screen"));
    }
    let palette = palette.ok_or_else(|| refused("without a palette"))?;
    let (colours, _) = palette.as_chunks::<3>();
    decode_into(
        width,
        height,
        Layout::Rgb8,
        (wide * high) as u64,
        |buffer| {
            let mut indices = vec![0; wide * high];
            reader.read_into_buffer(&mut indices).map_err(fault)?;
            buffer.fill(255);
            for (number, line) in indices.chunks_exact(wide.max(1)).enumerate() {
                let row = &mut buffer[3 * ((top + number) * width + left)..][..3 * wide];
                for (pixel, index) in row.as_chunks_mut::<3>().0.iter_mut().zip(line) {
                    if clear != Some(*index) {
                        let colour = colours.get(usize::from(*index));
                        *pixel =
                            *colour.ok_or_else(|| refused("with colours beyond its palette"))?;
                    }
                }
            }
            Ok(())
        },
    )
}

/// The different transparent colours (or none) that the graphic controls before the first frame name.
fn clear_colours(bytes: &[u8]) -> Vec<Option<u8>> {
    const HEADER: usize = 13;
    const EXTENSION: u8 = 0x21;
    const CONTROL: u8 = 0xF9;
    const TRANSPARENT: u8 = 1;
    let palette = match bytes.get(10) {
        Some(flags) if flags & 0x80 != 0 => 3 << ((flags & 7) + 1),
        _ => 0,
    };
    let mut found = Vec::new();
    let mut rest = bytes.get(HEADER + palette..).unwrap_or_default();
    while let [EXTENSION, kind, blocks @ ..] = rest {
        if let (&CONTROL, [_, flags, _, _, index, ..]) = (kind, blocks) {
            found.push((flags & TRANSPARENT != 0).then_some(*index));
        }
        rest = blocks;
        while let [length, more @ ..] = rest
            && *length > 0
        {
            rest = more.get(usize::from(*length)..).unwrap_or_default();
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    found.dedup();
    found
}

fn refused(what: &str) -> ImageFault {
    ImageFault::Refused(format!("a GIF {what}"))
}

fn fault(error: DecodingError) -> ImageFault {
    match error {
        DecodingError::UnexpectedEof => ImageFault::Truncated("the data ends early".into()),
        DecodingError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageFault::Truncated("the data ends early".into())
        }
        other => ImageFault::Refused(other.to_string()),
    }
}
