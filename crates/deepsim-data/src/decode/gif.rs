//! GIF through `image`: the first frame on its screen, what it leaves free being transparent.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::gif::GifDecoder;

use super::pixels::Layout;
use super::{Held, OVERHEAD, check_dimensions, decode_into, fault};
use crate::fault::ImageFault;

/// Decodes a GIF's first frame to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    let frame = Frame::first(bytes)
        .ok_or_else(|| ImageFault::Truncated("no whole header of a frame".into()))?;
    let [left, top, width, height] = frame.place;
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(fault)?;
    let (screen_width, screen_height) = decoder.dimensions();
    let screen = (screen_width as usize, screen_height as usize);
    check_dimensions(screen.0, screen.1)?;
    // Programs do not agree on either.
    if left + width > screen.0 || top + height > screen.1 {
        return Err(ImageFault::Refused(
            "a GIF whose frame reaches beyond its screen".into(),
        ));
    }
    if !frame.palette {
        return Err(ImageFault::Refused("a GIF without a palette".into()));
    }
    // A frame that does not fill the screen is decoded into memory of its own.
    let extra = 4 * (width * height) as u64;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(extra + OVERHEAD);
    decoder.set_limits(limits).map_err(fault)?;
    decode_into(screen.0, screen.1, Layout::Rgba8, extra, |buffer| {
        decoder.read_image(buffer).map_err(fault)
    })
}

struct Frame {
    /// Left, top, width, height.
    place: [usize; 4],
    /// Whether there is one, the screen's or the frame's own.
    palette: bool,
}

impl Frame {
    fn first(bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.get(10)?;
        let table = |flags: u8| match flags & 0x80 {
            0 => 0,
            _ => 3 << ((flags & 7) + 1),
        };
        let mut at = 13 + table(flags);
        loop {
            match *bytes.get(at)? {
                0x21 => {
                    at += 2;
                    loop {
                        let length = usize::from(*bytes.get(at)?);
                        at += 1 + length;
                        if length == 0 {
                            break;
                        }
                    }
                }
                0x2C => {
                    let head: &[u8; 9] = bytes.get(at + 1..at + 10)?.try_into().ok()?;
                    let [l0, l1, t0, t1, w0, w1, h0, h1, own] = *head;
                    let number = |low, high| usize::from(u16::from_le_bytes([low, high]));
                    return Some(Self {
                        place: [
                            number(l0, l1),
                            number(t0, t1),
                            number(w0, w1),
                            number(h0, h1),
                        ],
                        palette: (flags | own) & 0x80 != 0,
                    });
                }
                _ => return None,
            }
        }
    }
}
