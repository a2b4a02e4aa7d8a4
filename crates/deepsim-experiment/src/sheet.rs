//! Contact sheets: rows of images as one PNG.

use deepsim_nets::NetError;
use deepsim_nets::images::{caffe_to_rgb, check_images};
use tch::{Device, Kind, Tensor};

use crate::error::{ExperimentError, Result};

/// Pixels between images.
const GAP: i64 = 2;

/// An encoded image.
#[derive(Clone, Debug)]
pub struct Png {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The file.
    pub bytes: Vec<u8>,
}

/// One row for each tensor of images `[N,3,H,W]` in Caffe units (all of one shape), on white.
///
/// # Errors
/// Tensors of different shapes.
pub fn rows(images: &[&Tensor]) -> Result<Png> {
    let mut lines = Vec::new();
    for x in images {
        check_images("a contact sheet", x)?;
        // [N,3,H,W] → bytes → gaps right and below → [3, H+gap, N·(W+gap)]
        let rgb = caffe_to_rgb(x)?
            .f_round()?
            .f_clamp(0.0, 255.0)?
            .f_to_kind(Kind::Uint8)?;
        let padded = rgb
            .f_to_device(Device::Cpu)?
            .f_constant_pad_nd([0, GAP, 0, GAP])?;
        let gaps = fill_gaps(&padded)?;
        let size = gaps.size();
        let line = gaps
            .f_permute([1, 2, 0, 3])?
            .f_reshape([3, size[2], size[0] * size[3]])?;
        lines.push(line);
    }
    let sheet = Tensor::f_cat(&lines, 1)?;
    // The last gap of both directions goes.
    let (h, w) = (sheet.size()[1] - GAP, sheet.size()[2] - GAP);
    let sheet = sheet.f_narrow(1, 0, h)?.f_narrow(2, 0, w)?;
    encode(&sheet)
}

fn fill_gaps(padded: &Tensor) -> Result<Tensor> {
    let size = padded.size();
    let (h, w) = (size[2], size[3]);
    let _ = padded.f_narrow(2, h - GAP, GAP)?.f_fill_(255.0)?;
    let _ = padded.f_narrow(3, w - GAP, GAP)?.f_fill_(255.0)?;
    Ok(padded.shallow_clone())
}

/// An image `[3,H,W]` of bytes as PNG.
///
/// # Errors
/// A tensor of another shape.
pub fn encode(rgb: &Tensor) -> Result<Png> {
    let size = rgb.size();
    let (Some(3), Some(&h), Some(&w)) = (size.first().copied(), size.get(1), size.get(2)) else {
        return Err(NetError::InputShape {
            what: "a PNG".into(),
            expected: "bytes [3,H,W]".into(),
            got: size,
        }
        .into());
    };
    let flat = rgb.f_permute([1, 2, 0])?.f_contiguous()?.f_view([-1])?;
    let mut bytes = vec![0u8; flat.numel()];
    let n = bytes.len();
    flat.f_copy_data(&mut bytes, n)?;
    let (width, height) = (u32::try_from(w).unwrap_or(0), u32::try_from(h).unwrap_or(0));
    let mut out = std::io::Cursor::new(Vec::new());
    image::write_buffer_with_format(
        &mut out,
        &bytes,
        width,
        height,
        image::ExtendedColorType::Rgb8,
        image::ImageFormat::Png,
    )
    .map_err(|e| {
        let source = std::io::Error::other(e);
        ExperimentError::Io {
            path: "PNG".into(),
            source,
        }
    })?;
    Ok(Png {
        width,
        height,
        bytes: out.into_inner(),
    })
}

/// An image `[1,3,H,W]` or `[3,H,W]` in Caffe units as PNG, clipped to 0–255.
///
/// # Errors
/// A tensor of another shape.
pub fn single(caffe: &Tensor) -> Result<Png> {
    let four = if caffe.dim() == 3 {
        caffe.f_unsqueeze(0)?
    } else {
        caffe.shallow_clone()
    };
    rows(&[&four])
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_nets::images::rgb_to_caffe;

    #[test]
    fn rows_stand_below_each_other_with_white_gaps() {
        let plain = |v: f64| {
            rgb_to_caffe(&Tensor::full([2, 3, 4, 5], v, (Kind::Float, Device::Cpu))).unwrap()
        };
        let png = rows(&[&plain(10.0), &plain(300.0)]).unwrap();
        let image = image::load_from_memory(&png.bytes).unwrap().to_rgb8();
        assert_eq!(image.dimensions(), (12, 10));
        assert_eq!(image.get_pixel(0, 0).0, [10; 3]);
        assert_eq!(image.get_pixel(5, 0).0, [255; 3]);
        assert_eq!(image.get_pixel(7, 3).0, [10; 3]);
        assert_eq!(image.get_pixel(0, 6).0, [255; 3]);
    }
}
