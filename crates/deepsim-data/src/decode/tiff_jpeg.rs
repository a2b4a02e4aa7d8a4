//! JPEG inside TIFF: every strip or tile is a JPEG that shares its tables with the others.

use tiff::tags::{PhotometricInterpretation, Tag};

use super::held::{Held, decode_into};
use super::jpeg;
use super::pixels::Layout;
use super::tiff_reader::{Tiff, fault, refused};
use crate::fault::ImageFault;

/// Adobe's marker, but for its last byte: how the colours are to be understood.
const ADOBE: [u8; 15] = *b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0";

/// Decodes a TIFF whose compression is JPEG (7).
pub(super) fn decode(
    bytes: &[u8],
    tiff: &mut Tiff,
    width: usize,
    height: usize,
    planes: bool,
) -> Result<Held, ImageFault> {
    let photometric = tiff
        .get_tag_unsigned::<u16>(Tag::PhotometricInterpretation)
        .map_err(fault)?;
    // A TIFF says by its own tag what others say by Adobe's marker.
    let colours: &[u8] = match PhotometricInterpretation::from_u16(photometric) {
        _ if planes => return Err(refused("JPEG inside, its planes apart")),
        Some(PhotometricInterpretation::BlackIsZero) => &[],
        Some(PhotometricInterpretation::RGB) => &[0],
        Some(PhotometricInterpretation::YCbCr) => &[1],
        _ => {
            return Err(refused(
                "JPEG inside, in colours other than grey, RGB and YCbCr",
            ));
        }
    };
    let components = if colours.is_empty() { 1 } else { 3 };
    let samples = tiff
        .find_tag_unsigned::<u16>(Tag::SamplesPerPixel)
        .map_err(fault)?;
    let adobe = match colours {
        [] => Vec::new(),
        [transform] => [&ADOBE[..], &[*transform]].concat(),
        _ => return Err(refused("JPEG inside")),
    };
    let tables = match tiff.find_tag(Tag::JPEGTables).map_err(fault)? {
        Some(value) => value.into_u8_vec().map_err(fault)?,
        None => Vec::new(),
    };
    // Between the markers of start and end.
    let tables = tables
        .get(2..tables.len().saturating_sub(2))
        .unwrap_or_default();
    let (wide, high) = tiff.chunk_dimensions();
    let (wide, high) = (wide as usize, (high as usize).min(height));
    let across = width.div_ceil(wide);
    let chunks = across * height.div_ceil(high);
    let outside =
        || ImageFault::Truncated("a strip or tile lies outside the file, or is no JPEG".into());
    let chunk = |place: (u64, u64)| {
        let end = place.0.checked_add(place.1)?;
        let chunk = bytes.get(usize::try_from(place.0).ok()?..usize::try_from(end).ok()?)?;
        chunk.strip_prefix(&[0xFF, 0xD8])
    };
    let stream = |place| {
        let rest = chunk(place).ok_or_else(outside)?;
        let all = jpeg::without_colours(&[&[0xFF, 0xD8][..], tables, rest].concat())?;
        let (start, rest) = all.split_at(2);
        Ok([start, &adobe, rest].concat())
    };
    let streams = places(tiff)?
        .into_iter()
        .take(chunks)
        .map(stream)
        .collect::<Result<Vec<_>, ImageFault>>()?;
    let mut most = streams.iter().map(|s| s.len() as u64).sum::<u64>();
    if streams.len() != chunks {
        return Err(ImageFault::Truncated("strips or tiles are missing".into()));
    }
    let mut largest = 0;
    for stream in &streams {
        let cost = jpeg::cost(stream)?;
        if cost.width != wide
            || cost.height > 2 * high.max(16)
            || cost.components != components
            || samples.is_some_and(|samples| usize::from(samples) != components)
        {
            return Err(refused("JPEG inside that does not fit its strip or tile"));
        }
        if colours == [0] && !cost.sampled_alike {
            return Err(refused("JPEG inside, RGB of several resolutions"));
        }
        largest = largest.max(cost.memory);
    }
    most += largest;
    decode_into(width, height, Layout::Rgb8, most, |buffer| {
        for (number, stream) in streams.iter().enumerate() {
            let (x, y) = (number % across * wide, number / across * high);
            let piece = jpeg::decompressed(stream)?;
            let (columns, rows) = (wide.min(width - x), high.min(height - y));
            if (piece.height() as usize) < rows {
                return Err(refused("JPEG inside that does not fill its strip or tile"));
            }
            let lines = piece.as_raw().chunks_exact(3 * wide).take(rows);
            for (line, row) in lines.zip(y..) {
                buffer[3 * (row * width + x)..][..3 * columns]
                    .copy_from_slice(&line[..3 * columns]);
            }
        }
        Ok(())
    })
}

/// Offset and length of every strip or tile.
fn places(tiff: &mut Tiff) -> Result<Vec<(u64, u64)>, ImageFault> {
    let (offsets, lengths) = match tiff.get_chunk_type() {
        tiff::decoder::ChunkType::Strip => (Tag::StripOffsets, Tag::StripByteCounts),
        tiff::decoder::ChunkType::Tile => (Tag::TileOffsets, Tag::TileByteCounts),
    };
    let mut all = |tag| tiff.get_tag_u64_vec(tag).map_err(fault);
    Ok(all(offsets)?.into_iter().zip(all(lengths)?).collect())
}
