//! One image of a source, and how a file is known to be one.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::DataError;

/// Endings of images: the usual ones, JPEGs as browsers and social networks save them, kinds of PNG, BMP and PNM.
const EXTENSIONS: &str = "jpg jpeg png webp bmp ppm pgm gif tif tiff \
                          jfif jpe jfi jif pjpeg pjp jpg_large jpg_orig jpeg_large \
                          apng dib pnm pbm pam";

/// Bytes at the beginning of a file that tell whether it is an image.
pub(super) const HEAD: usize = 32;

/// Called with the number of images found so far while a source is listed; an error ends it.
pub(crate) type Step<'a> = &'a mut dyn FnMut(usize) -> Result<(), DataError>;

/// Where an image's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    File(PathBuf),
    /// A stretch of an archive that stays open.
    Span {
        archive: Arc<File>,
        offset: u64,
    },
}

/// One image of a source.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Relative to the source, '/'-separated.
    pub path: String,
    pub bytes: u64,
    pub location: Location,
}

/// What a file name says about its file.
pub(super) enum Named {
    Image,
    Archive,
    Hidden,
    /// Nothing: it has no ending.
    Unsaid,
    Other,
}

pub(super) fn named(path: &str) -> Named {
    if path.split('/').any(|part| part.starts_with('.')) {
        return Named::Hidden;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    match name
        .rsplit_once('.')
        .map(|(_, end)| end.to_ascii_lowercase())
    {
        Some(end) if end == "tar" => Named::Archive,
        Some(end) if EXTENSIONS.split(' ').any(|known| known == end) => Named::Image,
        Some(_) => Named::Other,
        None => Named::Unsaid,
    }
}

/// Do these first bytes belong to a format that is read here?
pub(super) fn is_image(head: &[u8]) -> bool {
    match head {
        [0xFF, 0xD8, 0xFF, ..]
        | [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..]
        | [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..]
        | [b'I', b'I', 42, 0, ..]
        | [b'M', b'M', 0, 42, ..] => true,
        [b'R', b'I', b'F', b'F', _, _, _, _, rest @ ..] => rest.starts_with(b"WEBP"),
        // a text may begin with BM: the size of the second header tells
        [b'B', b'M', rest @ ..] => rest
            .get(12..16)
            .is_some_and(|size| matches!(size, [12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])),
        // a text may begin with P1: digits or a comment follow in an image
        [b'P', b'1'..=b'6', b' ' | b'\t' | b'\n' | b'\r', rest @ ..] => rest
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .is_some_and(|byte| byte.is_ascii_digit() || *byte == b'#'),
        [b'P', b'7', b'\n', ..] => true,
        _ => false,
    }
}
