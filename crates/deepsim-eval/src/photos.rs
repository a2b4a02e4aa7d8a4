//! Photographs as the networks see them: files of any size, or those held out by a run.

use std::path::PathBuf;

use deepsim_data::{Augment, Dataset, Resize, decode_rgb8, eval_batch, square};
use deepsim_experiment::evaluate::to_caffe;
use image::RgbImage;
use ndarray::Array4;
use tch::{Device, Tensor};

use crate::error::{EvalError, Result};

/// Stored size of photographs that were prepared as usual, of which crops are taken.
const STORED: u32 = 256;

/// Pictures in a batch that goes through networks.
pub const BATCH: usize = 16;

/// The crop of a stored square that a network sees, as in an evaluation batch.
fn crop(whole: &RgbImage, augment: &Augment) -> Result<RgbImage> {
    let stored = whole.width();
    augment.check(stored)?;
    let window = match augment.scale {
        None => augment.crop,
        Some((_, hi)) => ((hi * stored as f32).round() as u32).clamp(1, stored),
    };
    let from = (stored - window) / 2;
    let cut = image::imageops::crop_imm(whole, from, from, window, window).to_image();
    Ok(if window == augment.crop {
        cut
    } else {
        square(&cut, augment.crop, Resize::ShortCrop)?
    })
}

/// Photographs from files, `[N,3,S,S]` in Caffe units, S = `augment.crop`: the centre of each, as evaluations see the
/// photographs of `like`, which may have been prepared with a size, a window and a way to make squares of their own.
/// Without it: of squares of 256 pixels out of the middle.
///
/// # Errors
/// The first file that is no whole picture, or larger than the decoder's limits.
pub fn from_files(
    paths: &[PathBuf],
    like: Option<&Dataset>,
    augment: &Augment,
    device: Device,
) -> Result<Tensor> {
    let mut pictures = Vec::with_capacity(paths.len());
    for path in paths {
        let whole = match like {
            Some(data) => data.squared(path)?,
            None => square(&decode_rgb8(path)?, STORED, Resize::ShortCrop)?,
        };
        let crop = crop(&whole, augment)?;
        let side = crop.width() as usize;
        let mut bytes = Array4::<u8>::zeros((1, 3, side, side));
        for (x, y, pixel) in crop.enumerate_pixels() {
            for c in 0..3 {
                bytes[[0, c, y as usize, x as usize]] = pixel.0[c];
            }
        }
        pictures.push(to_caffe(&bytes, device)?);
    }
    Ok(Tensor::f_cat(&pictures, 0)?)
}

/// Photographs of a dataset by index, `[N,3,S,S]` in Caffe units.
///
/// # Errors
/// Unreadable photographs.
pub fn from_data(
    data: &Dataset,
    indices: &[usize],
    augment: &Augment,
    device: Device,
) -> Result<Tensor> {
    let mut pictures = Vec::with_capacity(indices.len());
    for &i in indices {
        pictures.push(to_caffe(&eval_batch(data, i..i + 1, augment)?, device)?);
    }
    Ok(Tensor::f_cat(&pictures, 0)?)
}

/// Indices of `n` photographs (fewer, if there are fewer), spread evenly over those whose name
/// contains one of `filters` (all, if there is none): names are sorted, so that the first ones
/// are all of a kind.
///
/// # Errors
/// No photograph of such a name.
pub fn spread(data: &Dataset, n: usize, filters: &[String]) -> Result<Vec<usize>> {
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f));
    let named: Vec<usize> = (0..data.len()).filter(|i| wanted(data.name(*i))).collect();
    if named.is_empty() {
        return Err(EvalError::NoPhotos {
            filter: filters.join("` or `"),
            data: data.describe(),
        });
    }
    let n = n.clamp(1, named.len());
    Ok((0..n).map(|i| named[i * named.len() / n]).collect())
}

/// What a photograph shows: its ILSVRC synset, else its file's name without ending and
/// numbers (`erase/goat2.webp` → `goat`), in small letters.
pub fn category(data: &Dataset, index: usize) -> String {
    if let Some(label) = data.label(index) {
        return label;
    }
    let name = data.name(index);
    let stem = name.rsplit('/').next().unwrap_or(name);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    stem.trim_end_matches(|c: char| c.is_ascii_digit() || "-_ ".contains(c))
        .to_lowercase()
}

/// A photograph's name without folders and ending, for labels.
pub fn short_name(name: &str) -> String {
    let stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
    stem.rsplit_once('.').map_or(stem, |(s, _)| s).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_and_short_names() {
        assert_eq!(short_name("erase/goat2.webp"), "goat2");
        assert_eq!(short_name("plain"), "plain");
        let folder = tempfile::tempdir().unwrap();
        for name in ["Fish12.png", "fish_3.png", "solar.png"] {
            RgbImage::from_pixel(20, 20, image::Rgb([9; 3]))
                .save(folder.path().join(name))
                .unwrap();
        }
        let data = Dataset::open(folder.path()).unwrap();
        let found: Vec<String> = (0..3).map(|i| category(&data, i)).collect();
        assert_eq!(found, ["fish", "fish", "solar"]);
        assert_eq!(spread(&data, 2, &["ish".into()]).unwrap().len(), 2);
        assert!(spread(&data, 2, &["dog".into()]).is_err());
    }
}
