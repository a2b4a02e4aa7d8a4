//! WebP through libwebp. Its decoder forgives what its reader of files does not (and with it Pillow): so the file's
//! chunks are checked here. Of an animation the first frame is taken out and read like a still image.

use ::webp::{BitstreamFeatures, Decoder};

use super::held::{Held, decode_into};
use super::pixels::Layout;
use crate::fault::ImageFault;
use crate::limits::check_dimensions;

/// Behind `RIFF`, the length, `WEBP`.
const FIRST: usize = 12;
/// Flags in `VP8X`.
const ANIMATED: u8 = 0x02;
const ALPHA: u8 = 0x10;
/// Bytes of an animation's frame before its chunks.
const FRAME: usize = 16;
/// Bytes a pixel that libwebp takes: its output, a lossless image's colours, alpha and rows.
const BYTES: usize = 9;

/// Decodes a WebP to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    let end = match bytes.get(4..8) {
        Some(&[a, b, c, d]) => (u32::from_le_bytes([a, b, c, d]) as usize).saturating_add(8),
        _ => usize::MAX,
    };
    let file = bytes
        .get(..end)
        .ok_or_else(|| ImageFault::Truncated("shorter than its RIFF header says".into()))?;
    match contents(file)? {
        Contents::Still => still(file),
        Contents::Frame(canvas, frame) => animation(&canvas, frame),
    }
}

fn refused(reason: &str) -> ImageFault {
    ImageFault::Refused(reason.into())
}

fn features(file: &[u8]) -> Result<BitstreamFeatures, ImageFault> {
    BitstreamFeatures::new(file).ok_or_else(|| refused("its header is damaged"))
}

fn still(file: &[u8]) -> Result<Held, ImageFault> {
    let found = features(file)?;
    let (width, height) = (found.width() as usize, found.height() as usize);
    check_dimensions(width, height)?;
    let layout = if found.has_alpha() {
        Layout::Rgba8
    } else {
        Layout::Rgb8
    };
    let extra = (BYTES * width * height) as u64;
    decode_into(width, height, layout, extra, |buffer| {
        let image = Decoder::new(file).decode();
        let image = image.filter(|image| image.len() == buffer.len());
        let image = image.ok_or_else(|| refused("its pixels are damaged"))?;
        buffer.copy_from_slice(&image);
        Ok(())
    })
}

/// A frame on a canvas that is transparent elsewhere.
fn animation(canvas: &Canvas, frame: &[u8]) -> Result<Held, ImageFault> {
    let number = |at: usize| match frame.get(at..at + 3) {
        Some(&[a, b, c]) => Ok(u32::from_le_bytes([a, b, c, 0]) as usize),
        _ => Err(refused("its first frame is damaged")),
    };
    let Canvas { width, height, .. } = *canvas;
    check_dimensions(width, height)?;
    let (x, y) = (2 * number(0)?, 2 * number(3)?);
    let (wide, high) = (number(6)? + 1, number(9)? + 1);
    if x + wide > width || y + high > height {
        return Err(refused("its first frame lies outside its canvas"));
    }
    let file = as_still(wide, high, frame)?;
    let found = features(&file)?;
    if (found.width() as usize, found.height() as usize) != (wide, high) {
        return Err(refused("its first frame has two sizes"));
    }
    // Programs do not agree on whether it counts.
    if found.has_alpha() && !canvas.alpha {
        return Err(refused("its first frame has alpha that its header denies"));
    }
    let extra = (BYTES * wide * high + file.len()) as u64;
    decode_into(width, height, Layout::Rgba8, extra, |buffer| {
        let image = Decoder::new(&file).decode();
        let image = image.ok_or_else(|| refused("its pixels are damaged"))?;
        let each = if found.has_alpha() { 4 } else { 3 };
        for (row, line) in image.chunks_exact(each * wide).enumerate() {
            let start = 4 * ((y + row) * width + x);
            let target = &mut buffer[start..start + 4 * wide];
            for (to, from) in target
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .zip(line.chunks(each))
            {
                to[3] = 255;
                to[..each].copy_from_slice(from);
            }
        }
        Ok(())
    })
}

/// A frame's chunks as a file of their own.
fn as_still(wide: usize, high: usize, frame: &[u8]) -> Result<Vec<u8>, ImageFault> {
    let chunks = frame.get(FRAME..).unwrap_or_default();
    let mut order = Order::default();
    let mut at = 0;
    while at < chunks.len() {
        let (kind, data) = chunk(chunks, at)?;
        order.take(kind)?;
        at = behind(at, data);
    }
    if order.images != 1 {
        return Err(refused("its first frame holds no image"));
    }
    let mut body = b"WEBP".to_vec();
    if order.alpha {
        let side = |pixels: usize| (pixels as u32 - 1).to_le_bytes();
        body.extend_from_slice(b"VP8X\x0A\0\0\0");
        body.extend_from_slice(&[ALPHA, 0, 0, 0]);
        body.extend_from_slice(&side(wide)[..3]);
        body.extend_from_slice(&side(high)[..3]);
    }
    body.extend_from_slice(chunks);
    let length = u32::try_from(body.len()).map_err(|_| refused("its first frame is too large"))?;
    Ok([b"RIFF", &length.to_le_bytes()[..], &body].concat())
}

/// What a file holds.
enum Contents<'a> {
    Still,
    /// The canvas of an animation, and its first frame.
    Frame(Canvas, &'a [u8]),
}

/// What the header of an animation says.
struct Canvas {
    width: usize,
    height: usize,
    alpha: bool,
}

/// Checks that a file's chunks fill it, and stand as libwebp wants them.
fn contents(file: &[u8]) -> Result<Contents<'_>, ImageFault> {
    let (first, header) = chunk(file, FIRST)?;
    let extended = first == b"VP8X";
    if !extended && !matches!(first, b"VP8 " | b"VP8L") {
        return Err(refused("it begins with no image"));
    }
    let mut order = Order::default();
    let (mut frame, mut frames) = (None, 0);
    let mut at = FIRST;
    while at < file.len() {
        let (kind, data) = chunk(file, at)?;
        if kind == b"ANMF" {
            frames += 1;
            frame = frame.or(Some(data));
        } else {
            order.take(kind)?;
        }
        at = behind(at, data);
    }
    let animated = extended && header.first().is_some_and(|flags| flags & ANIMATED != 0);
    match (animated, frames, order.images, frame) {
        (false, 0, 1, _) => Ok(Contents::Still),
        (true, 1.., 0, Some(frame)) => match header {
            [flags, _, _, _, a, b, c, d, e, f, ..] => {
                let side = |bytes: [u8; 3]| {
                    let [a, b, c] = bytes;
                    u32::from_le_bytes([a, b, c, 0]) as usize + 1
                };
                let canvas = Canvas {
                    width: side([*a, *b, *c]),
                    height: side([*d, *e, *f]),
                    alpha: flags & ALPHA != 0,
                };
                Ok(Contents::Frame(canvas, frame))
            }
            _ => Err(refused("its header is damaged")),
        },
        _ => Err(refused(
            "it holds no image, or more than one that is no animation",
        )),
    }
}

/// What has been met of an image.
#[derive(Default)]
struct Order {
    /// Alpha, which belongs right before the lossy image that it is of.
    alpha: bool,
    images: usize,
}

impl Order {
    fn take(&mut self, kind: &[u8; 4]) -> Result<(), ImageFault> {
        let waiting = self.alpha && self.images == 0;
        match kind {
            b"ALPH" if self.alpha || self.images > 0 => Err(refused("its alpha is out of place")),
            b"ALPH" => {
                self.alpha = true;
                Ok(())
            }
            b"VP8L" if waiting => Err(refused("its alpha is out of place")),
            b"VP8 " | b"VP8L" => {
                self.images += 1;
                Ok(())
            }
            _ if waiting => Err(refused("its alpha is out of place")),
            _ => Ok(()),
        }
    }
}

/// The kind of the chunk at an offset, and its data.
fn chunk(file: &[u8], at: usize) -> Result<(&[u8; 4], &[u8]), ImageFault> {
    let cut = || refused("its chunks do not fill it");
    let head = file.get(at..at + 8).ok_or_else(cut)?;
    let (Some(kind), &[_, _, _, _, a, b, c, d]) = (head.first_chunk(), head) else {
        return Err(cut());
    };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let padded = file
        .get(at + 8..at + 8 + length + length % 2)
        .ok_or_else(cut)?;
    Ok((kind, &padded[..length]))
}

fn behind(at: usize, data: &[u8]) -> usize {
    at + 8 + data.len() + data.len() % 2
}
