//! What reading TIFFs needs, whatever is in them.

use std::io::{Cursor, ErrorKind};

use tiff::TiffError;
use tiff::decoder::Decoder;

use crate::fault::ImageFault;

/// What TIFFs begin with; the latter two are BigTIFF.
pub(crate) const MAGIC: [[u8; 4]; 4] = [*b"II\x2A\0", *b"MM\0\x2A", *b"II\x2B\0", *b"MM\0\x2B"];

pub(super) type Tiff<'a> = Decoder<Cursor<&'a [u8]>>;

/// The refusal of a TIFF with something that is not read.
pub(super) fn refused(what: &str) -> ImageFault {
    ImageFault::Refused(format!("a TIFF with {what}: store it as PNG"))
}

/// What the crate says, in our words.
pub(super) fn fault(error: TiffError) -> ImageFault {
    match error {
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageFault::Truncated("the data ends early".into())
        }
        other => ImageFault::Refused(other.to_string()),
    }
}
