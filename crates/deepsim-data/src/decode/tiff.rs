//! TIFF and BigTIFF through the crate `tiff`.

use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{ChunkType, Decoder, Limits};
use tiff::tags::{CompressionMethod, ExtraSamples, PlanarConfiguration, SampleFormat, Tag};

use super::held::{Held, decode_into};
use super::pixels::Layout;
use super::tiff_jpeg;
use super::tiff_reader::{Tiff, fault, refused};
use crate::fault::ImageFault;
use crate::limits::{MAX_MEMORY, check_dimensions};

/// Decodes a TIFF's first image to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    let mut tiff = Decoder::new(Cursor::new(bytes)).map_err(fault)?;
    let (width, height) = tiff.dimensions().map_err(fault)?;
    let (width, height) = (width as usize, height as usize);
    check_dimensions(width, height)?;
    let planes = check(&mut tiff)?;
    let compression = tiff
        .find_tag_unsigned::<u16>(Tag::Compression)
        .map_err(fault)?;
    if compression == Some(CompressionMethod::ModernJPEG.to_u16()) {
        return tiff_jpeg::decode(bytes, &mut tiff, width, height, planes);
    }
    let alpha = alpha(&mut tiff)?;
    let color = tiff.colortype().map_err(fault)?;
    // Bits of a grey sample that shares its byte with others.
    let (layout, packed) = match (color, alpha) {
        (ColorType::Gray(bits @ (1 | 2 | 4)), _) => (Layout::Gray8, Some(bits)),
        (ColorType::Gray(8), _) => (Layout::Gray8, None),
        (ColorType::Gray(16), _) => (Layout::Gray16, None),
        (
            ColorType::Multiband {
                bit_depth: 8,
                num_samples: 2,
            },
            Alpha::Straight,
        ) => (Layout::GrayAlpha8, None),
        (
            ColorType::Multiband {
                bit_depth: 16,
                num_samples: 2,
            },
            Alpha::Straight,
        ) => (Layout::GrayAlpha16, None),
        (ColorType::RGB(8), _) => (Layout::Rgb8, None),
        (ColorType::RGB(16), _) => (Layout::Rgb16, None),
        (ColorType::RGBA(8), Alpha::Premultiplied) => (Layout::RgbaPremultiplied8, None),
        (ColorType::RGBA(8), _) => (Layout::Rgba8, None),
        (ColorType::RGBA(16), Alpha::None | Alpha::Straight) => (Layout::Rgba16, None),
        (ColorType::CMYK(8), _) => (Layout::Cmyk8, None),
        (other, _) => {
            return Err(ImageFault::Refused(format!(
                "a TIFF with samples of kind {other:?}"
            )));
        }
    };
    let mut limits = Limits::unlimited();
    limits.ifd_value_size = 1 << 20;
    limits.intermediate_buffer_size = MAX_MEMORY as usize;
    let mut tiff = tiff.with_limits(limits);
    let output = layout.buffer(width, height);
    match (packed, planes) {
        (Some(bits), _) => decode_into(width, height, layout, output as u64, |buffer| {
            let row = (width * usize::from(bits)).div_ceil(8);
            let mut rows = vec![0; row * height];
            tiff.read_image_bytes(&mut rows).map_err(fault)?;
            let lines = rows.chunks_exact(row);
            for (packed, line) in lines.zip(buffer.chunks_exact_mut(width)) {
                unpack(packed, bits, line);
            }
            Ok(())
        }),
        (None, false) => decode_into(width, height, layout, 0, |buffer| {
            tiff.read_image_bytes(buffer).map_err(fault)
        }),
        (None, true) => decode_into(width, height, layout, output as u64, |buffer| {
            let mut planes = vec![0; output];
            tiff.read_image_bytes(&mut planes).map_err(fault)?;
            interleave(&planes, buffer, layout, width * height);
            Ok(())
        }),
    }
}

/// Refuses what the crate would read wrong, or by panicking; whether planes are separate.
fn check(tiff: &mut Tiff) -> Result<bool, ImageFault> {
    let no = |what| Err(refused(what));
    let mut tag = |tag| tiff.find_tag_unsigned::<u16>(tag).map_err(fault);
    if tag(Tag::FillOrder)?.is_some_and(|order| order != 1) {
        return no("bits in reversed order");
    }
    let photometric = tag(Tag::PhotometricInterpretation)?;
    if photometric == Some(3) {
        return no("a palette");
    }
    let compression = tag(Tag::Compression)?.map(CompressionMethod::from_u16_exhaustive);
    match compression {
        Some(CompressionMethod::JPEG) => return no("JPEG inside, in its first form"),
        Some(CompressionMethod::WebP) => return no("WebP inside"),
        // The compression has no checksum, and the crate fills unreadable parts differently from libtiff.
        Some(CompressionMethod::Huffman | CompressionMethod::Fax3 | CompressionMethod::Fax4) => {
            return no("the compression of fax machines");
        }
        _ => {}
    }
    let formats = tiff
        .find_tag_unsigned_vec::<u16>(Tag::SampleFormat)
        .map_err(fault)?
        .unwrap_or_default();
    let unsigned = SampleFormat::Uint.to_u16();
    if formats.iter().any(|format| *format != unsigned) {
        return no("samples that are signed or floating-point");
    }
    let planes = tiff
        .find_tag_unsigned::<u16>(Tag::PlanarConfiguration)
        .map_err(fault)?
        == Some(PlanarConfiguration::Planar.to_u16());
    let samples = tiff
        .find_tag_unsigned::<u16>(Tag::SamplesPerPixel)
        .map_err(fault)?
        .unwrap_or(1);
    let planes = planes && samples > 1;
    let predicted = tiff
        .find_tag_unsigned::<u16>(Tag::Predictor)
        .map_err(fault)?
        .is_some_and(|predictor| predictor != 1);
    if predicted && !may_be_predicted(compression) {
        return no("a predictor where its compression has none");
    }
    // The crate leaves such a sample out of a pixel, but neither out of a sum nor out of a tile's rows.
    let colours = match photometric {
        Some(2 | 6 | 8 | 9) => 3,
        Some(5) => 4,
        _ => 1,
    };
    let tiled = tiff.get_chunk_type() == ChunkType::Tile;
    if samples > colours && alpha(tiff)? == Alpha::None && !planes && (predicted || tiled) {
        return no("samples beyond its colours, predicted or in tiles");
    }
    if planes && samples > colours && alpha(tiff)? == Alpha::None {
        return no("planes beyond its colours that it says nothing of");
    }
    if planes && tiff.get_chunk_type() == ChunkType::Tile {
        return no("its planes in tiles");
    }
    Ok(planes)
}

/// Whether a compression has a predictor: elsewhere the tag means nothing, and programs do not agree about it.
fn may_be_predicted(compression: Option<CompressionMethod>) -> bool {
    use CompressionMethod::{Deflate, LZW, OldDeflate, ZSTD};
    matches!(compression, Some(LZW | Deflate | OldDeflate | ZSTD))
}

/// What the samples beyond the colour are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alpha {
    None,
    Straight,
    Premultiplied,
}

fn alpha(tiff: &mut Tiff) -> Result<Alpha, ImageFault> {
    let extra = tiff
        .find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)
        .map_err(fault)?
        .unwrap_or_default();
    match extra.as_slice() {
        [] => Ok(Alpha::None),
        [one] => match ExtraSamples::from_u16(*one) {
            Some(ExtraSamples::AssociatedAlpha) => Ok(Alpha::Premultiplied),
            Some(ExtraSamples::UnassociatedAlpha) => Ok(Alpha::Straight),
            Some(ExtraSamples::Unspecified) => Ok(Alpha::None),
            _ => Err(refused("a sample of an unknown kind beyond its colours")),
        },
        more => Err(ImageFault::Refused(format!(
            "a TIFF with {} samples beyond its colours",
            more.len()
        ))),
    }
}

/// Grey samples of 1, 2 or 4 bits to eight.
fn unpack(packed: &[u8], bits: u8, line: &mut [u8]) {
    let each = 8 / usize::from(bits);
    let most = (1_u16 << bits) - 1;
    for (x, value) in line.iter_mut().enumerate() {
        let shift = 8 - usize::from(bits) * (x % each + 1);
        let sample = u16::from(packed[x / each]) >> shift & most;
        *value = (sample * 255 / most) as u8;
    }
}

/// Plane behind plane to pixel behind pixel.
fn interleave(planes: &[u8], buffer: &mut [u8], layout: Layout, pixels: usize) {
    let sample = match layout {
        Layout::Gray16 | Layout::GrayAlpha16 | Layout::Rgb16 | Layout::Rgba16 => 2,
        _ => 1,
    };
    let pixel = layout.bytes();
    for (channel, plane) in planes.chunks_exact(pixels * sample).enumerate() {
        for (index, value) in plane.chunks_exact(sample).enumerate() {
            buffer[index * pixel + channel * sample..][..sample].copy_from_slice(value);
        }
    }
}
