//! Which way up a photo is: the EXIF orientation.
//!
//! A camera that is held upright stores its rows as they come from the sensor, and a number between 1 and 8 that says
//! how to turn and mirror them. Every viewer does. The tools that prepared ILSVRC-2012 did not, and networks trained on
//! it saw a few images sideways; inside its layouts the pixels stay as they are stored, elsewhere photos are turned
//! ([`Orientation`], `--orientation`).
//!
//! The number is read from EXIF in JPEG, PNG (`eXIf`) and WebP, and from TIFF's own tag; not from XMP, nor from the text
//! that ImageMagick once wrote into PNGs: browsers do not look there either. Metadata that cannot be read, and
//! numbers that do not exist, count as upright: viewers do the same, and the pixels are whole all the same.

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use exif::{In, Tag, Value};
use image::{DynamicImage, RgbImage, metadata};
use serde::{Deserialize, Serialize};

use crate::decode::{
    Held, Reservation, TIFF_MAGIC, caught, decode_held, read_image, reserve_for_file,
};
use crate::error::DataError;
use crate::fault::ImageFault;
use crate::source::{Entry, Layout, Listing, Location};

/// The largest block of EXIF that is read: a thumbnail and more.
const LARGEST: usize = 4 << 20;

/// What to do about the EXIF orientation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orientation {
    /// Turn and mirror images as it says.
    Apply,
    /// Take the pixels as they are stored.
    #[default]
    Ignore,
}

impl Orientation {
    /// The usual choice for a source.
    #[must_use]
    pub fn of_layout(layout: Layout) -> Self {
        match layout {
            Layout::Images => Self::Apply,
            Layout::IlsvrcTrain | Layout::IlsvrcVal => Self::Ignore,
        }
    }

    /// The name on the command line and in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Ignore => "ignore",
        }
    }

    pub(crate) fn is_ignore(&self) -> bool {
        *self == Self::Ignore
    }
}

/// Decodes an image file to RGB, 0–255, the right way up.
///
/// # Errors
/// Those of [`decode_rgb8`](crate::decode_rgb8).
pub fn decode_upright(path: &Path) -> Result<RgbImage, DataError> {
    let _reservation = std::fs::metadata(path)
        .ok()
        .and_then(|metadata| reserve_for_file(metadata.len()));
    let bytes = read_image(path)?;
    let decoded = decode(&bytes, Orientation::Apply);
    decoded
        .map(|decoded| decoded.image)
        .map_err(|fault| DataError::BadImage {
            path: path.into(),
            fault,
        })
}

/// An image, and whether its file carries an orientation other than upright.
pub(crate) struct Decoded {
    pub image: RgbImage,
    pub oriented: bool,
    /// What it holds of the memory for decoding; to be kept as long as the pixels are.
    pub reservation: Reservation,
}

/// Decodes the bytes of an image file.
pub(crate) fn decode(bytes: &[u8], orientation: Orientation) -> Result<Decoded, ImageFault> {
    let how = find(Cursor::new(bytes));
    let oriented = how != metadata::Orientation::NoTransforms;
    let turns = orientation == Orientation::Apply && oriented;
    // Turning takes as much again as the pixels.
    let Held { image, reservation } = decode_held(bytes, if turns { 2 } else { 1 })?;
    let image = if turns {
        let mut image = DynamicImage::ImageRgb8(image);
        image.apply_orientation(how);
        image.into_rgb8()
    } else {
        image
    };
    Ok(Decoded {
        image,
        oriented,
        reservation,
    })
}

/// Does an image of a source carry an orientation other than upright? What cannot be read does not.
pub(crate) fn is_oriented(listing: &Listing, entry: &Entry) -> bool {
    let how = match &entry.location {
        Location::File(path) => match deepsim_files::open(path) {
            Ok(file) => find(BufReader::new(file)),
            Err(_) => return false,
        },
        Location::Span { .. } => match listing.read(entry) {
            Ok(bytes) => find(Cursor::new(bytes)),
            Err(_) => return false,
        },
    };
    how != metadata::Orientation::NoTransforms
}

fn find(mut file: impl BufRead + Seek) -> metadata::Orientation {
    // a reader's bug must not cost more than the orientation
    let found = caught(|| number(&mut file));
    found
        .ok()
        .flatten()
        .and_then(metadata::Orientation::from_exif)
        .unwrap_or(metadata::Orientation::NoTransforms)
}

fn number(file: &mut (impl BufRead + Seek)) -> Option<u8> {
    let head = file.fill_buf().ok()?;
    let begins = |magic: &[u8]| head.starts_with(magic);
    // The parts that hold it are found here: the EXIF reader would copy the whole file.
    let found = if TIFF_MAGIC.iter().any(|magic| begins(magic)) {
        let mut tiff = tiff::decoder::Decoder::new(file).ok()?;
        let value = tiff.find_tag(tiff::tags::Tag::Orientation).ok()??;
        // Of several the first; some writers take another type of number.
        let first = match value {
            tiff::decoder::ifd::Value::List(all) => all.into_iter().next()?,
            one => one,
        };
        let unsigned = first.clone().into_u64().ok();
        let number = unsigned.or_else(|| first.into_i64().ok()?.try_into().ok());
        return u8::try_from(number?).ok();
    } else if begins(&[0xFF, 0xD8, 0xFF]) {
        jpeg_metadata(file)
    } else if begins(b"\x89PNG") {
        png_metadata(file)
    } else if begins(b"RIFF") {
        webp_metadata(file)
    } else {
        None
    };
    let mut reader = exif::Reader::new();
    reader.continue_on_error(true);
    let metadata = reader
        .read_raw(found?)
        .or_else(|error| error.distill_partial_result(|_| {}))
        .ok()?;
    let field = metadata.get_field(Tag::Orientation, In::PRIMARY)?;
    // Some writers take another type of number.
    match &field.value {
        Value::SByte(all) => u8::try_from(*all.first()?).ok(),
        Value::SShort(all) => u8::try_from(*all.first()?).ok(),
        Value::SLong(all) => u8::try_from(*all.first()?).ok(),
        other => u8::try_from(other.get_uint(0)?).ok(),
    }
}

/// What some writers put before the block, though only JPEG has it so.
const NAME: &[u8] = b"Exif\0\0";

/// The block itself, if there is as much as the head of one.
fn unnamed(mut found: Vec<u8>) -> Option<Vec<u8>> {
    if found.starts_with(NAME) {
        found.drain(..NAME.len());
    }
    (found.len() >= 8).then_some(found)
}

/// So many bytes, if that many can be an EXIF block.
fn block(file: &mut impl BufRead, length: u32) -> Option<Vec<u8>> {
    let length = usize::try_from(length).ok().filter(|n| *n <= LARGEST)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).ok()?;
    unnamed(bytes)
}

/// The `eXIf` chunk of a PNG.
fn png_metadata(file: &mut (impl BufRead + Seek)) -> Option<Vec<u8>> {
    file.seek_relative(8).ok()?;
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let [a, b, c, d, kind @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]);
        match &kind {
            b"eXIf" => return block(file, length),
            b"IEND" => return None,
            _ => file.seek_relative(i64::from(length) + 4).ok()?,
        }
    }
}

/// The `EXIF` chunk of a WebP, where its header announces one.
fn webp_metadata(file: &mut (impl BufRead + Seek)) -> Option<Vec<u8>> {
    const ANNOUNCED: u8 = 0x08;
    let mut head = [0; 30];
    file.read_exact(&mut head).ok()?;
    if &head[8..16] != b"WEBPVP8X" || head[20] & ANNOUNCED == 0 {
        return None;
    }
    let first = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    file.seek_relative(i64::from(first.checked_next_multiple_of(2)?) - 10)
        .ok()?;
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let [kind @ .., a, b, c, d] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        if &kind == b"EXIF" {
            return block(file, length);
        }
        file.seek_relative(i64::from(length) + i64::from(length % 2))
            .ok()?;
    }
}

/// The EXIF block of a JPEG, which lies before its first scan: the crate's own search would go on through the whole file.
fn jpeg_metadata(file: &mut (impl BufRead + Seek)) -> Option<Vec<u8>> {
    // both readers are buffered
    file.seek_relative(2).ok()?;
    loop {
        let mut byte = || -> Option<u8> {
            let mut one = [0];
            file.read_exact(&mut one).ok()?;
            Some(one[0])
        };
        (byte()? == 0xFF).then_some(())?;
        let mut marker = byte()?;
        while marker == 0xFF {
            marker = byte()?;
        }
        match marker {
            0x01 | 0xD0..=0xD7 => continue,
            // a scan, the end, or what cannot be a marker here
            0 | 0xD8..=0xDA => return None,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([byte()?, byte()?])).checked_sub(2)?;
        if marker == 0xE1 {
            let mut segment = vec![0; length];
            file.read_exact(&mut segment).ok()?;
            // An empty one does not hide the next.
            if segment.starts_with(NAME)
                && let Some(block) = unnamed(segment)
            {
                return Some(block);
            }
        } else {
            file.seek_relative(i64::try_from(length).ok()?).ok()?;
        }
    }
}
