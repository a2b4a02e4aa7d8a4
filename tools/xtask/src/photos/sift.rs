//! Which images are photos, by their pixels alone. The rule:
//!
//! - JPEG or PNG that can be decoded, at least [`SMALLEST`] pixels on the shorter side;
//! - nowhere transparent;
//! - not flat or drawn: of the pixels that are neither nearly white nor nearly black, the [`COLOURS`] most frequent colours
//!   (exact RGB values) have less than [`MOST`] percent. Drawings have few colours and large areas of each. Noise gives a
//!   photo thousands, and a photo of a thing before a white or black background keeps those of the thing.
//!
//! All is judged on a grid of at most [`GRID`] by [`GRID`] pixels, so that the answer does not depend on the image's size.
//! Of the folders that `data/manifests/photos.toml` names, the drawn images have 47 to 86 percent, and all photos but
//! three, which show almost nothing but grey, below 40. The rule does not know a smooth gradient from a sky: such
//! drawings are left out by name.

use std::collections::HashMap;
use std::fmt;
use std::io::Cursor;

use png::Transformations;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use super::look::image_kind;

/// Shortest side that a photo may have, in pixels.
pub const SMALLEST: usize = 200;
/// Rows and columns that are looked at, at most.
pub const GRID: usize = 256;
/// How many of the most frequent colours are counted.
pub const COLOURS: usize = 64;
/// From this percentage on the image is flat.
pub const MOST: usize = 45;

/// A pixel is nearly white if no channel is below this.
const WHITE: u8 = 235;
/// A pixel is nearly black if no channel is above this.
const BLACK: u8 = 20;
/// Fewer percent that are neither: there is nothing to see.
const LEAST: usize = 5;
/// Largest image that is decoded, in pixels.
const LARGEST: usize = 100_000_000;

/// Why an image is no photo.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be decoded.
    Unreadable(String),
    /// Its shorter side has so many pixels.
    Small(usize),
    /// Something shines through.
    Transparent,
    /// So many percent of its pixels have one of a few colours.
    Flat(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "unreadable: {why}"),
            Self::Small(side) => write!(f, "small: {side} px"),
            Self::Transparent => write!(f, "transparent"),
            Self::Flat(share) => write!(f, "flat: {COLOURS} colours fill {share} %"),
        }
    }
}

/// Why the file with these bytes is no photo; `None` if it is one.
pub fn fault(bytes: &[u8]) -> Option<Fault> {
    let image = match decode(bytes) {
        Ok(image) => image,
        Err(why) => return Some(Fault::Unreadable(why)),
    };
    let short = image.width.min(image.height);
    if short < SMALLEST {
        return Some(Fault::Small(short));
    }
    let mut colours: HashMap<[u8; 3], usize> = HashMap::new();
    let (mut looked_at, mut left) = (0, 0);
    for y in grid(image.height) {
        for x in grid(image.width) {
            let ([r, g, b], alpha) = image.pixel(x, y);
            if alpha < u8::MAX {
                return Some(Fault::Transparent);
            }
            looked_at += 1;
            if r.min(g).min(b) < WHITE && r.max(g).max(b) > BLACK {
                left += 1;
                *colours.entry([r, g, b]).or_default() += 1;
            }
        }
    }
    if 100 * left < LEAST * looked_at {
        return Some(Fault::Flat(100));
    }
    let mut counts: Vec<usize> = colours.into_values().collect();
    counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
    let frequent: usize = counts.iter().take(COLOURS).sum();
    let share = 100 * frequent / left;
    (share >= MOST).then_some(Fault::Flat(share))
}

/// Places at even distances along a side.
fn grid(side: usize) -> impl Iterator<Item = usize> {
    let n = side.min(GRID);
    (0..n).map(move |i| (i * side + side / 2) / n)
}

/// A decoded image: rows of pixels of 1 to 4 samples, which are grey, grey and alpha, RGB, or RGB and alpha.
struct Image {
    width: usize,
    height: usize,
    samples: usize,
    data: Vec<u8>,
}

impl Image {
    /// Colour and opacity of a pixel inside.
    fn pixel(&self, x: usize, y: usize) -> ([u8; 3], u8) {
        let at = (y * self.width + x) * self.samples;
        match self.data.get(at..at + self.samples) {
            Some(&[grey]) => ([grey; 3], u8::MAX),
            Some(&[grey, alpha]) => ([grey; 3], alpha),
            Some(&[r, g, b]) => ([r, g, b], u8::MAX),
            Some(&[r, g, b, alpha]) => ([r, g, b], alpha),
            _ => ([0; 3], u8::MAX),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Image, String> {
    match image_kind(bytes) {
        Some("jpg") => jpeg(bytes),
        Some("png") => png(bytes),
        _ => Err("neither JPEG nor PNG".to_owned()),
    }
}

fn check(width: usize, height: usize) -> Result<(), String> {
    if width.saturating_mul(height) > LARGEST {
        return Err(format!("{width}x{height} pixels"));
    }
    Ok(())
}

fn jpeg(bytes: &[u8]) -> Result<Image, String> {
    let mut decoder = JpegDecoder::new(ZCursor::new(bytes));
    decoder
        .decode_headers()
        .map_err(|error| error.to_string())?;
    let Some(info) = decoder.info() else {
        return Err("no header".to_owned());
    };
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check(width, height)?;
    let data = decoder.decode().map_err(|error| error.to_string())?;
    Ok(Image {
        width,
        height,
        samples: 3,
        data,
    })
}

fn png(bytes: &[u8]) -> Result<Image, String> {
    let failed = |error: png::DecodingError| error.to_string();
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check(width, height)?;
    let samples = reader.output_color_type().0.samples();
    let mut data = vec![0_u8; width * height * samples];
    reader.next_frame(&mut data).map_err(failed)?;
    Ok(Image {
        width,
        height,
        samples,
        data,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn png_of(
        side: usize,
        kind: png::ColorType,
        pixel: impl Fn(usize, usize) -> Vec<u8>,
    ) -> Vec<u8> {
        let data: Vec<u8> = (0..side * side)
            .flat_map(|i| pixel(i % side, i / side))
            .collect();
        let (mut out, size) = (Vec::new(), u32::try_from(side).unwrap());
        let mut encoder = png::Encoder::new(&mut out, size, size);
        encoder.set_color(kind);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&data).unwrap();
        writer.finish().unwrap();
        out
    }

    pub fn rgb(side: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Vec<u8> {
        png_of(side, png::ColorType::Rgb, |x, y| pixel(x, y).to_vec())
    }

    /// A sky that is not quite blue, above something with texture.
    pub fn photo(x: usize, y: usize) -> [u8; 3] {
        let noise = |seed: usize| (x * 31 + y * 57 + x * y * seed) % 23;
        [60 + noise(3) + y / 4, 70 + noise(5) + x / 4, 120 + noise(7)].map(|v| v.min(255) as u8)
    }

    /// Three areas, as in a drawing.
    pub fn drawing(x: usize, y: usize) -> [u8; 3] {
        match (x / 100, y / 150) {
            (_, 0) => [90, 160, 220],
            (0, _) => [200, 120, 60],
            _ => [60, 140, 70],
        }
    }

    #[test]
    fn photos_pass_at_any_size() {
        for side in [SMALLEST, 301, 600] {
            assert_eq!(fault(&rgb(side, photo)), None, "{side} px");
        }
    }

    #[test]
    fn drawings_are_flat_even_with_some_texture() {
        assert_eq!(fault(&rgb(300, drawing)), Some(Fault::Flat(100)));
        let half = |x, y| if x < 150 { drawing(x, y) } else { photo(x, y) };
        let Some(Fault::Flat(share)) = fault(&rgb(300, half)) else {
            panic!("half a drawing passes");
        };
        assert!((50..70).contains(&share), "{share}");
        let third = |x, y| if x < 100 { drawing(x, y) } else { photo(x, y) };
        assert_eq!(fault(&rgb(300, third)), None);
    }

    #[test]
    fn a_white_or_black_background_does_not_count() {
        for background in [[255; 3], [0; 3], [240, 250, 238], [12, 20, 3]] {
            let thing = |x: usize, y: usize| match (x, y) {
                (100..200, 100..200) => photo(x, y),
                _ => background,
            };
            assert_eq!(fault(&rgb(300, thing)), None, "{background:?}");
            let empty = rgb(300, |_, _| background);
            assert_eq!(fault(&empty), Some(Fault::Flat(100)), "{background:?}");
        }
    }

    #[test]
    fn transparent_and_small_images_and_other_files_are_told() {
        let cut_out = |x: usize, y: usize| {
            let [r, g, b] = photo(x, y);
            vec![r, g, b, if x < 30 { 254 } else { 255 }]
        };
        let cut_out = png_of(300, png::ColorType::Rgba, cut_out);
        assert_eq!(fault(&cut_out), Some(Fault::Transparent));
        let opaque = |x, y| [&photo(x, y)[..], &[255]].concat();
        assert_eq!(fault(&png_of(300, png::ColorType::Rgba, opaque)), None);
        let icon = rgb(SMALLEST - 1, photo);
        assert_eq!(fault(&icon), Some(Fault::Small(SMALLEST - 1)));
        let photo = rgb(300, photo);
        for bytes in [
            &b""[..],
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"\xff\xd8\xff\xe0",
            &photo[..photo.len() / 2],
        ] {
            let found = fault(bytes);
            assert!(matches!(found, Some(Fault::Unreadable(_))), "{found:?}");
        }
    }

    #[test]
    fn jpegs_are_decoded_too() {
        let jpeg = |pixel: fn(usize, usize) -> [u8; 3]| {
            let data: Vec<u8> = (0..300 * 300)
                .flat_map(|i| pixel(i % 300, i / 300))
                .collect();
            let mut out = Vec::new();
            jpeg_encoder::Encoder::new(&mut out, 90)
                .encode(&data, 300, 300, jpeg_encoder::ColorType::Rgb)
                .unwrap();
            out
        };
        assert_eq!(fault(&jpeg(photo)), None);
        assert!(matches!(fault(&jpeg(drawing)), Some(Fault::Flat(_))));
    }
}
