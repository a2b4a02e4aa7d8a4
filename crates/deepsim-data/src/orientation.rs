//! Which way up a photo is: the EXIF orientation.
//!
//! A camera that is held upright stores its rows as they come from the sensor, and a number between 1 and 8 that says
//! how to turn and mirror them. Every viewer does. The tools that prepared ILSVRC-2012 did not, and networks trained on
//! it saw a few images sideways; inside its layouts the pixels stay as they are stored, elsewhere photos are turned
//! ([`Orientation`], `--orientation`).
//!
//! The number is read from JPEG, PNG (`eXIf`), WebP and TIFF. Metadata that cannot be read, and numbers that do not
//! exist, count as upright: viewers do the same, and the pixels are whole all the same.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use exif::{In, Tag};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage, metadata};
use serde::{Deserialize, Serialize};

use crate::decode::{Held, Room, TIFF_MAGIC, caught, decode_held, read_picture, room_for_file};
use crate::error::DataError;
use crate::fault::ImageFault;
use crate::source::{Entry, Layout, Listing, Location};

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
    let _room = std::fs::metadata(path)
        .ok()
        .and_then(|metadata| room_for_file(metadata.len()));
    let bytes = read_picture(path)?;
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
    pub room: Room,
}

/// Decodes the bytes of an image file.
pub(crate) fn decode(bytes: &[u8], orientation: Orientation) -> Result<Decoded, ImageFault> {
    let how = find(Cursor::new(bytes));
    let oriented = how != metadata::Orientation::NoTransforms;
    let turns = orientation == Orientation::Apply && oriented;
    // Turning takes as much again as the pixels.
    let Held { image, room } = decode_held(bytes, if turns { 2 } else { 1 })?;
    let image = match turns {
        true => {
            let mut image = DynamicImage::ImageRgb8(image);
            image.apply_orientation(how);
            image.into_rgb8()
        }
        false => image,
    };
    Ok(Decoded {
        image,
        oriented,
        room,
    })
}

/// Does an image of a source carry an orientation other than upright? What cannot be read does not.
pub(crate) fn is_oriented(listing: &Listing, entry: &Entry) -> bool {
    let how = match &entry.location {
        Location::File(path) => match File::open(path) {
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
    let is_tiff = TIFF_MAGIC.iter().any(|magic| head.starts_with(magic));
    let is_jpeg = head.starts_with(&[0xFF, 0xD8, 0xFF]);
    let has_exif = head.starts_with(b"\x89PNG") || head.starts_with(b"RIFF");
    if is_tiff {
        // the first directory alone is read; the EXIF reader would copy the whole file
        let reader = ImageReader::with_format(file, ImageFormat::Tiff);
        let orientation = reader.into_decoder().ok()?.orientation().ok()?;
        return Some(orientation.to_exif());
    }
    let mut reader = exif::Reader::new();
    reader.continue_on_error(true);
    let metadata = if is_jpeg {
        reader.read_raw(jpeg_metadata(file)?)
    } else if has_exif {
        reader.read_from_container(file)
    } else {
        return None;
    };
    let metadata = metadata
        .or_else(|error| error.distill_partial_result(|_| {}))
        .ok()?;
    let field = metadata.get_field(Tag::Orientation, In::PRIMARY)?;
    u8::try_from(field.value.get_uint(0)?).ok()
}

/// The EXIF block of a JPEG, which lies before its first scan: the crate's own search would go on through the whole file.
fn jpeg_metadata(file: &mut (impl BufRead + Seek)) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"Exif\0\0";
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
            if segment.starts_with(NAME) {
                return Some(segment.split_off(NAME.len()));
            }
        } else {
            file.seek_relative(i64::try_from(length).ok()?).ok()?;
        }
    }
}
