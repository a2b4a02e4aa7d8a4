//! What a decoder gives, to RGB of eight bits: the rules of [`crate::decode`].

use image::RgbImage;

use crate::fault::ImageFault;

/// How samples lie in a decoder's output. Sixteen bits are in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Gray8,
    GrayAlpha8,
    Rgb8,
    Rgba8,
    /// Colour already multiplied by alpha.
    RgbaPremultiplied8,
    Gray16,
    GrayAlpha16,
    Rgb16,
    Rgba16,
    /// 255 is full ink.
    Cmyk8,
    /// 0 is full ink, as Adobe's JPEGs have it.
    CmykInverted8,
}

impl Layout {
    /// Bytes of a pixel.
    pub fn bytes(self) -> usize {
        match self {
            Self::Gray8 => 1,
            Self::GrayAlpha8 | Self::Gray16 => 2,
            Self::Rgb8 => 3,
            Self::Rgba8
            | Self::RgbaPremultiplied8
            | Self::GrayAlpha16
            | Self::Cmyk8
            | Self::CmykInverted8 => 4,
            Self::Rgb16 => 6,
            Self::Rgba16 => 8,
        }
    }

    /// Samples of a pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Gray8 | Self::Gray16 => 1,
            Self::GrayAlpha8 | Self::GrayAlpha16 => 2,
            Self::Rgb8 | Self::Rgb16 => 3,
            Self::Rgba8
            | Self::RgbaPremultiplied8
            | Self::Rgba16
            | Self::Cmyk8
            | Self::CmykInverted8 => 4,
        }
    }

    /// Bytes of an image.
    pub fn buffer(self, width: usize, height: usize) -> usize {
        self.bytes() * width * height
    }

    /// Bytes beyond the decoder's output that [`to_rgb8`] takes: pixels of fewer than three bytes
    /// do not become RGB in place.
    pub fn conversion(self, width: usize, height: usize) -> u64 {
        match self.bytes() {
            1 | 2 => 3 * (width * height) as u64,
            _ => 0,
        }
    }
}

impl TryFrom<image::ColorType> for Layout {
    type Error = ImageFault;

    fn try_from(color: image::ColorType) -> Result<Self, ImageFault> {
        use image::ColorType;
        Ok(match color {
            ColorType::L8 => Self::Gray8,
            ColorType::La8 => Self::GrayAlpha8,
            ColorType::Rgb8 => Self::Rgb8,
            ColorType::Rgba8 => Self::Rgba8,
            ColorType::L16 => Self::Gray16,
            ColorType::La16 => Self::GrayAlpha16,
            ColorType::Rgb16 => Self::Rgb16,
            ColorType::Rgba16 => Self::Rgba16,
            other => return Err(ImageFault::Refused(format!("samples of kind {other:?}"))),
        })
    }
}

/// A decoder's output as RGB, 0–255.
pub(super) fn to_rgb8(
    data: Vec<u8>,
    layout: Layout,
    width: usize,
    height: usize,
) -> Result<RgbImage, ImageFault> {
    let pixels = width * height;
    if data.len() != layout.buffer(width, height) {
        return Err(ImageFault::Refused(
            "fewer pixels than its header says".into(),
        ));
    }
    let rgb = match layout {
        Layout::Gray8 => convert(data, pixels, |[v]| [v; 3]),
        Layout::GrayAlpha8 => convert(data, pixels, |[v, a]| [over_white(v, a); 3]),
        Layout::Rgb8 => data,
        Layout::Rgba8 => convert(data, pixels, rgba),
        Layout::RgbaPremultiplied8 => convert(data, pixels, |[r, g, b, a]| {
            let colour = [r, g, b].map(|c| match a {
                0 | 255 => c,
                _ => (u16::from(c) * 255 / u16::from(a)).min(255) as u8,
            });
            rgba([colour[0], colour[1], colour[2], a])
        }),
        Layout::Gray16 => convert(data, pixels, |[a, b]| [eight(a, b); 3]),
        Layout::GrayAlpha16 => convert(data, pixels, |[a, b, c, d]| {
            [over_white(eight(a, b), eight(c, d)); 3]
        }),
        Layout::Rgb16 => convert(data, pixels, |[a, b, c, d, e, f]| {
            [eight(a, b), eight(c, d), eight(e, f)]
        }),
        Layout::Rgba16 => convert(data, pixels, |[a, b, c, d, e, f, g, h]| {
            rgba([eight(a, b), eight(c, d), eight(e, f), eight(g, h)])
        }),
        Layout::Cmyk8 => convert(data, pixels, |[c, m, y, k]| {
            [c, m, y].map(|ink| inked(ink, 255 - k))
        }),
        Layout::CmykInverted8 => convert(data, pixels, |[c, m, y, k]| {
            [c, m, y].map(|paper| inked(255 - paper, k))
        }),
    };
    RgbImage::from_raw(width as u32, height as u32, rgb)
        .ok_or_else(|| ImageFault::Refused("fewer pixels than its header says".into()))
}

/// Every pixel of `IN` bytes to three; in place where they fit.
fn convert<const IN: usize>(
    mut data: Vec<u8>,
    pixels: usize,
    rgb: impl Fn([u8; IN]) -> [u8; 3],
) -> Vec<u8> {
    if IN < 3 {
        let (pixels, _) = data.as_chunks::<IN>();
        return pixels.iter().flat_map(|pixel| rgb(*pixel)).collect();
    }
    for index in 0..pixels {
        let mut pixel = [0; IN];
        pixel.copy_from_slice(&data[index * IN..][..IN]);
        data[index * 3..][..3].copy_from_slice(&rgb(pixel));
    }
    data.truncate(3 * pixels);
    data.shrink_to_fit();
    data
}

/// Sixteen bits to eight, rounded.
fn eight(first: u8, second: u8) -> u8 {
    ((u32::from(u16::from_ne_bytes([first, second])) + 128) / 257) as u8
}

fn rgba([r, g, b, a]: [u8; 4]) -> [u8; 3] {
    [r, g, b].map(|c| over_white(c, a))
}

fn over_white(c: u8, a: u8) -> u8 {
    let (c, a) = (u32::from(c), u32::from(a));
    ((c * a + 255 * (255 - a) + 127) / 255) as u8
}

/// What is left of `light` under this much ink: Pillow's arithmetic.
fn inked(ink: u8, light: u8) -> u8 {
    let product = u32::from(ink) * u32::from(light) + 128;
    light.saturating_sub((((product >> 8) + product) >> 8) as u8)
}
