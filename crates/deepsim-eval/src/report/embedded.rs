//! Images inside the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use tch::Tensor;

use super::data::EmbeddedImage;
use crate::error::{EvalError, Result};
use crate::show::sheet::images;

/// Quality of the JPEGs: full colour resolution, artefacts below what reconstructions show.
const QUALITY: u8 = 90;

/// Images `[N,3,H,W]` in Caffe units, clipped to 0–255.
pub(super) fn embed_all(caffe: &Tensor) -> Result<Vec<EmbeddedImage>> {
    images(caffe)?.iter().map(embed).collect()
}

fn embed(image: &RgbImage) -> Result<EmbeddedImage> {
    let bad = |e: &dyn std::fmt::Display| EvalError::Format(format!("JPEG: {e}"));
    let (width, height) = image.dimensions();
    let (w, h) = (
        u16::try_from(width).map_err(|e| bad(&e))?,
        u16::try_from(height).map_err(|e| bad(&e))?,
    );
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.set_optimized_huffman_tables(true);
    encoder
        .encode(image.as_raw(), w, h, ColorType::Rgb)
        .map_err(|e| bad(&e))?;
    Ok(EmbeddedImage {
        address: format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)),
        width,
        height,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_comes_back_nearly_as_it_was() {
        let image = RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb([(x * 6) as u8, (y * 8) as u8, 90])
        });
        let made = embed(&image).unwrap();
        assert_eq!((made.width, made.height), (40, 30));
        let data = made
            .address
            .strip_prefix("data:image/jpeg;base64,")
            .unwrap();
        let file = tempfile::Builder::new().suffix(".jpg").tempfile().unwrap();
        std::fs::write(file.path(), STANDARD.decode(data).unwrap()).unwrap();
        let back = deepsim_data::decode_rgb8(file.path()).unwrap();
        let most = back.as_raw().iter().zip(image.as_raw());
        let most = most.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(most < 16, "{most}");
    }
}
