//! JPEG through libjpeg-turbo, which Pillow, torchvision and OpenCV use, so the pixels are the
//! same.
//!
//! After a warning the library goes on with grey or smeared blocks; here a warning is an error. It
//! does not warn of missing scans, so the headers are searched for them before.

use image::RgbImage;
use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use super::held::{Held, pixel_bytes, reserve};
use super::pixels::{Layout, to_rgb8};
use crate::fault::ImageFault;
use crate::limits::check_dimensions;

/// Every JPEG starts with these bytes.
pub(super) const MAGIC: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// Most scans of a progressive JPEG, which has ten as a rule: each costs a pass over the whole image, however few its
/// bytes are.
const MAX_SCANS: u32 = 100;

/// Decodes a JPEG to RGB. Colour: see the conversions in [`crate::decode`].
pub(super) fn decode(bytes: &[u8]) -> Result<Held, ImageFault> {
    let frame = Frame::read(bytes)?;
    let (width, height) = (frame.width, frame.height);
    check_dimensions(width, height)?;
    let mut reservation = reserve(frame.memory(), width * height)?;
    let image = decompress(bytes, &frame)?;
    reservation.shrink(pixel_bytes(width * height));
    Ok(Held { image, reservation })
}

/// What decoding a JPEG would take in bytes, its width and height, and how many components it has.
pub(super) fn cost(bytes: &[u8]) -> Result<Cost, ImageFault> {
    let frame = Frame::read(bytes)?;
    check_dimensions(frame.width, frame.height)?;
    let first = frame.components.first();
    let alike = |c: &Component| first.is_some_and(|f| (c.across, c.down) == (f.across, f.down));
    Ok(Cost {
        memory: frame.memory(),
        width: frame.width,
        height: frame.height,
        components: frame.components.len(),
        sampled_alike: frame.components.iter().all(alike),
    })
}

/// What a JPEG's headers say.
pub(super) struct Cost {
    /// Bytes that decoding takes.
    pub memory: u64,
    pub width: usize,
    pub height: usize,
    pub components: usize,
    /// Whether no component is stored at a lower resolution than another.
    pub sampled_alike: bool,
}

/// A JPEG's headers without what says how its colours are meant: a TIFF has a tag for that, which counts.
pub(super) fn without_colours(bytes: &[u8]) -> Result<Vec<u8>, ImageFault> {
    const APPLICATIONS: [u8; 2] = [0xE0, 0xEE];
    let mut kept = bytes.get(..2).unwrap_or_default().to_vec();
    let mut segments = Segments { bytes, at: 2 };
    loop {
        let from = segments.at;
        let (marker, _) = segments.next()?;
        let scan = marker == 0xDA;
        let to = if scan { bytes.len() } else { segments.at };
        if !APPLICATIONS.contains(&marker) {
            kept.extend_from_slice(&bytes[from..to]);
        }
        if scan || marker == 0xD9 {
            return Ok(kept);
        }
    }
}

/// A JPEG as RGB, by a caller that has taken the memory.
pub(super) fn decompressed(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    decompress(bytes, &Frame::read(bytes)?)
}

fn decompress(bytes: &[u8], frame: &Frame) -> Result<RgbImage, ImageFault> {
    let mut decompressor = Decompressor::new().map_err(fault)?;
    decompressor.set_scan_limit(MAX_SCANS).map_err(fault)?;
    let header = decompressor.read_header(bytes).map_err(fault)?;
    let (width, height) = (frame.width, frame.height);
    if (header.width, header.height) != (width, height) {
        return Err(refused("two sizes in its header"));
    }
    let (format, layout) = match header.colorspace {
        Colorspace::CMYK | Colorspace::YCCK => (PixelFormat::CMYK, Layout::CmykInverted8),
        Colorspace::Gray | Colorspace::RGB | Colorspace::YCbCr => (PixelFormat::RGB, Layout::Rgb8),
    };
    let mut pixels = vec![0; layout.buffer(width, height)];
    let output = Image {
        pixels: pixels.as_mut_slice(),
        width,
        pitch: layout.bytes() * width,
        height,
        format,
    };
    decompressor.decompress(bytes, output).map_err(fault)?;
    to_rgb8(pixels, layout, width, height)
}

fn refused(reason: impl Into<String>) -> ImageFault {
    ImageFault::Refused(reason.into())
}

fn cut(what: &str) -> ImageFault {
    ImageFault::Truncated(what.into())
}

fn fault(error: turbojpeg::Error) -> ImageFault {
    let reason = match error {
        turbojpeg::Error::TurboJpegError(reason) => reason,
        other => other.to_string(),
    };
    if reason.to_ascii_lowercase().contains("premature end") {
        ImageFault::Truncated(reason)
    } else {
        ImageFault::Refused(reason)
    }
}

/// A colour component of the frame.
#[derive(Debug)]
struct Component {
    id: u8,
    /// Sampling factors.
    across: usize,
    down: usize,
    /// For each coefficient of a block, whether it has come: `None`, or how many of its low bits
    /// have not.
    bits_missing: [Option<u8>; 64],
}

/// What the headers say, read before a byte of the image is.
#[derive(Debug)]
struct Frame {
    width: usize,
    height: usize,
    components: Vec<Component>,
    progressive: bool,
    /// False for one scan with all components. Otherwise libjpeg keeps the coefficients of the
    /// whole image.
    several_scans: bool,
}

impl Frame {
    /// Reads the frame and, where there is more than one, all scans' headers; refuses an image of
    /// which a scan is missing.
    fn read(bytes: &[u8]) -> Result<Self, ImageFault> {
        let mut frame: Option<Self> = None;
        let mut scans = 0;
        let mut segments = Segments { bytes, at: 2 };
        loop {
            let (marker, content) = segments.next()?;
            match marker {
                0xC4 | 0xC8 | 0xCC => {}
                0xC0..=0xCF if frame.is_some() => return Err(refused("two frame headers")),
                0xC0..=0xCF => frame = Some(Self::of(marker, content)?),
                0xD9 => break,
                0xDA => {
                    let frame = frame
                        .as_mut()
                        .ok_or_else(|| refused("a scan before the frame header"))?;
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err(refused(format!("more than {MAX_SCANS} scans")));
                    }
                    let all = frame.scan(content)?;
                    if all && !frame.progressive {
                        break;
                    }
                    frame.several_scans = true;
                    segments.skip_entropy_coded();
                }
                _ => {}
            }
        }
        let frame = frame.ok_or_else(|| cut("no image before its end marker"))?;
        if scans == 0 {
            return Err(cut("no image before its end marker"));
        }
        for component in &frame.components {
            let whole = component.bits_missing.iter().all(|bits| *bits == Some(0));
            if !whole {
                return Err(cut(
                    "scans are missing: not every coefficient comes in full",
                ));
            }
        }
        Ok(frame)
    }

    fn of(marker: u8, content: &[u8]) -> Result<Self, ImageFault> {
        let kind = match marker {
            0xC0..=0xC2 => None,
            0xC3 => Some("lossless coding"),
            0xC9 | 0xCA => Some("arithmetic coding"),
            _ => Some("hierarchical, or lossless arithmetic, coding"),
        };
        if let Some(kind) = kind {
            return Err(refused(format!("{kind}; store it as a usual JPEG")));
        }
        let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = content else {
            return Err(cut("no whole frame header"));
        };
        if precision != 8 {
            return Err(refused(format!("{precision} bits a sample")));
        }
        if ![1, 3, 4].contains(&count) {
            return Err(refused(format!("{count} colour components")));
        }
        let components: Vec<Component> = rest
            .as_chunks::<3>()
            .0
            .iter()
            .take(usize::from(count))
            .map(|[id, sampling, _]| Component {
                id: *id,
                across: usize::from(sampling >> 4),
                down: usize::from(sampling & 15),
                bits_missing: [None; 64],
            })
            .collect();
        if components.len() != usize::from(count) {
            return Err(cut("no whole frame header"));
        }
        let factors = 1..=4;
        if !components
            .iter()
            .all(|c| factors.contains(&c.across) && factors.contains(&c.down))
        {
            return Err(refused("impossible sampling factors"));
        }
        Ok(Self {
            width: usize::from(u16::from_be_bytes([w1, w0])),
            height: usize::from(u16::from_be_bytes([h1, h0])),
            components,
            progressive: marker == 0xC2,
            several_scans: false,
        })
    }

    /// Notes what a scan brings; whether it has all components.
    fn scan(&mut self, content: &[u8]) -> Result<bool, ImageFault> {
        let short = || cut("no whole scan header");
        let (&count, rest) = content.split_first().ok_or_else(short)?;
        let count = usize::from(count);
        let (Some(selectors), Some(&[first, last, bits])) =
            (rest.get(..2 * count), rest.get(2 * count..2 * count + 3))
        else {
            return Err(short());
        };
        let range = if self.progressive {
            usize::from(first)..usize::from(last).min(63) + 1
        } else {
            0..64
        };
        let low = if self.progressive { bits & 15 } else { 0 };
        for selector in selectors.as_chunks::<2>().0 {
            let component = self.components.iter_mut().find(|c| c.id == selector[0]);
            let component = component.ok_or_else(|| refused("a scan of an unknown component"))?;
            if let Some(coefficients) = component.bits_missing.get_mut(range.clone()) {
                coefficients.fill(Some(low));
            }
        }
        Ok(count == self.components.len())
    }

    /// What decoding takes, in bytes: the image, some rows of work, and with several scans two
    /// bytes for every coefficient.
    fn memory(&self) -> u64 {
        let most =
            |factor: fn(&Component) -> usize| self.components.iter().map(factor).max().unwrap_or(1);
        let (across, down) = (most(|c| c.across), most(|c| c.down));
        let units = (
            self.width.div_ceil(8 * across),
            self.height.div_ceil(8 * down),
        );
        let blocks: usize = if self.several_scans {
            self.components
                .iter()
                .map(|c| units.0 * c.across * units.1 * c.down)
                .sum()
        } else {
            0
        };
        let layout = match self.components.len() {
            4 => Layout::CmykInverted8,
            _ => Layout::Rgb8,
        };
        let rows = 64 * down * self.width * self.components.len();
        (layout.buffer(self.width, self.height) + 128 * blocks + rows) as u64
    }
}

/// The marker segments of a file, one after the other.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// The next marker and what its segment holds.
    fn next(&mut self) -> Result<(u8, &'a [u8]), ImageFault> {
        loop {
            match self.bytes.get(self.at..self.at + 2) {
                Some(&[0xFF, 0xFF]) => self.at += 1,
                Some(&[0xFF, 0x00 | 0x01 | 0xD0..=0xD8]) => self.at += 2,
                Some(&[0xFF, 0xD9]) => return Ok((0xD9, &[])),
                Some(&[0xFF, marker]) => {
                    let start = self.at + 4;
                    let length = match self.bytes.get(self.at + 2..start) {
                        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
                        _ => return Err(cut("no whole header")),
                    };
                    self.at += 2 + length;
                    let content = self.bytes.get(start..self.at);
                    return Ok((marker, content.ok_or_else(|| cut("no whole header"))?));
                }
                // Skip bytes between segments: the decoder reports them.
                Some(_) => self.at += 1,
                None => return Err(cut("no end marker")),
            }
        }
    }

    /// To the marker that ends entropy-coded data, in which an 0xFF is followed by 0x00 or belongs
    /// to a restart marker.
    fn skip_entropy_coded(&mut self) {
        while let Some(&[first, second]) = self.bytes.get(self.at..self.at + 2) {
            if first == 0xFF && !matches!(second, 0x00 | 0xD0..=0xD7) {
                return;
            }
            self.at += 1;
        }
    }
}
