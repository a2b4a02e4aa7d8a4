//! Images as the networks see them: files of any size, or those held out by a run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use deepsim_data::{Augment, DataError, Dataset, Framing, eval_batch, eval_image, only_measured};
use deepsim_experiment::Experiment;
use deepsim_experiment::measure::BATCH;
use deepsim_experiment::upload::to_caffe;
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};

/// Images from files, `[N,3,S,S]` in Caffe units, S = `augment.crop`: made square by `framing` and cut as an evaluation
/// cuts those of a dataset of this framing.
///
/// # Errors
/// The first file that is no whole image, larger than the decoder's limits, or one that may only be measured on.
pub fn from_files(
    paths: &[PathBuf],
    framing: Framing,
    augment: &Augment,
    device: Device,
) -> Result<Tensor> {
    if let Some(path) = paths.iter().find(|path| only_measured(path)) {
        let path = path.clone();
        return Err(DataError::OnlyMeasured { path }.into());
    }
    let mut images = Vec::with_capacity(paths.len());
    for path in paths {
        let whole = framing.read(path)?;
        images.push(to_caffe(&eval_image(&whole, augment)?, device)?);
    }
    Ok(Tensor::f_cat(&images, 0)?)
}

/// Images of a dataset by index, `[N,3,S,S]` in Caffe units.
///
/// # Errors
/// Unreadable images.
pub fn from_data(
    data: &Dataset,
    indices: &[usize],
    augment: &Augment,
    device: Device,
) -> Result<Tensor> {
    Ok(to_caffe(&eval_batch(data, indices, augment)?, device)?)
}

/// Damaged training images that a run was allowed to leave out (`data.quarantine`).
#[derive(Debug)]
pub struct LeftOut {
    allowed: usize,
    found: usize,
}

impl LeftOut {
    /// None are allowed.
    pub fn none() -> LeftOut {
        LeftOut {
            allowed: 0,
            found: 0,
        }
    }

    /// None yet, of as many as a run of this experiment is allowed.
    pub fn of(experiment: &Experiment) -> LeftOut {
        LeftOut {
            allowed: experiment.config.data.quarantine,
            found: 0,
        }
    }

    /// How many were left out.
    pub fn found(&self) -> usize {
        self.found
    }

    /// How many may be.
    pub fn allowed(&self) -> usize {
        self.allowed
    }

    fn take(&mut self, error: DataError) -> Result<()> {
        if !error.is_bad_image() || self.found == self.allowed {
            return Err(error.into());
        }
        self.found += 1;
        tracing::warn!("left out, as in the training: {error}");
        Ok(())
    }
}

/// Training images of a run by index, as [`from_data`], and the indices of those that could be read.
///
/// # Errors
/// More damaged images than the run was allowed to leave out, or any other that cannot be read.
pub fn of_training(
    data: &Dataset,
    indices: &[usize],
    augment: &Augment,
    left_out: &mut LeftOut,
    device: Device,
) -> Result<(Vec<usize>, Tensor)> {
    match eval_batch(data, indices, augment) {
        Ok(batch) => return Ok((indices.to_vec(), to_caffe(&batch, device)?)),
        Err(error) if error.is_bad_image() && left_out.allowed > 0 => {}
        Err(error) => return Err(error.into()),
    }
    let (mut kept, mut parts) = (Vec::new(), Vec::new());
    for &index in indices {
        match eval_batch(data, &[index], augment) {
            Ok(one) => {
                kept.push(index);
                parts.push(to_caffe(&one, device)?);
            }
            Err(error) => left_out.take(error)?,
        }
    }
    let side = i64::from(augment.crop);
    let x = if parts.is_empty() {
        Tensor::f_zeros([0, 3, side, side], (Kind::Float, device))?
    } else {
        Tensor::f_cat(&parts, 0)?
    };
    Ok((kept, x))
}

/// What `encode` makes of images by index batch by batch, joined, and the indices of those that could be read.
///
/// # Errors
/// As [`of_training`], and what `encode` refuses.
pub fn encoded(
    data: &Dataset,
    indices: &[usize],
    augment: &Augment,
    mut left_out: LeftOut,
    device: Device,
    encode: impl Fn(&[usize], &Tensor) -> Result<Tensor>,
) -> Result<(Vec<usize>, Tensor)> {
    let (mut kept, mut codes) = (Vec::new(), Vec::new());
    for part in indices.chunks(BATCH) {
        let (part, x) = of_training(data, part, augment, &mut left_out, device)?;
        if !part.is_empty() {
            codes.push(encode(&part, &x)?);
            kept.extend(part);
        }
    }
    let codes = if codes.is_empty() {
        Tensor::f_zeros([0, 0], (Kind::Float, device))?
    } else {
        Tensor::f_cat(&codes, 0)?
    };
    Ok((kept, codes))
}

/// Samples of a tensor at some places.
///
/// # Errors
/// A place that is not there.
pub fn picked(x: &Tensor, places: &[usize]) -> Result<Tensor> {
    let places: Vec<i64> = places.iter().map(|&place| place as i64).collect();
    let places = Tensor::f_from_slice(&places)?.f_to_device(x.device())?;
    Ok(x.f_index_select(0, &places)?)
}

/// A batch of a tensor's samples.
///
/// # Errors
/// Places that are not there.
pub fn narrowed(x: &Tensor, batch: &Range<usize>) -> Result<Tensor> {
    Ok(x.f_narrow(0, batch.start as i64, batch.len() as i64)?)
}

/// Those of some places that lie in a batch, counted from its beginning.
pub fn within(batch: &Range<usize>, places: &[usize]) -> Vec<usize> {
    let here = places.iter().filter(|&&place| batch.contains(&place));
    here.map(|place| place - batch.start).collect()
}

/// Indices of `n` images (fewer, if there are fewer), spread evenly over those whose name
/// contains one of `filters` (all, if there is none): names are sorted, so that the first ones
/// are all of a kind.
///
/// # Errors
/// No image of such a name.
pub fn spread(data: &Dataset, n: usize, filters: &[String]) -> Result<Vec<usize>> {
    Ok(some(&named(data, filters)?, n))
}

/// Indices of all images whose name contains one of `filters` (of all, if there is none).
///
/// # Errors
/// No image of such a name.
pub fn named(data: &Dataset, filters: &[String]) -> Result<Vec<usize>> {
    let passes = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f));
    let named: Vec<usize> = (0..data.len()).filter(|i| passes(data.name(*i))).collect();
    if named.is_empty() {
        return Err(EvalError::NoPhotos {
            filter: filters.join("` or `"),
            data: data.describe(),
        });
    }
    Ok(named)
}

/// `n` of a list (all, where it has no more), spread evenly over it.
pub fn some<T: Clone>(all: &[T], n: usize) -> Vec<T> {
    let places = deepsim_data::spread(n, all.len()).into_iter();
    places.map(|i| all[i].clone()).collect()
}

/// Names that cameras and programs give to every image.
const NAMELESS: [&str; 14] = [
    "", "img", "image", "images", "photo", "photos", "pic", "pict", "picture", "dsc", "dscn",
    "dscf", "frame", "file",
];

/// What an image shows: its ILSVRC synset, else its file's name without ending and
/// numbers (`erase/goat2.webp` → `goat`), in small letters. Where that name says nothing (`cat/001.jpg`,
/// `cat/IMG_0001.jpg`) it is the folder's.
pub fn category(data: &Dataset, index: usize) -> String {
    data.label(index)
        .unwrap_or_else(|| shown_by(data.name(index)))
}

/// How many images of a dataset show what.
pub fn categories(data: &Dataset) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for i in 0..data.len() {
        *counts.entry(category(data, i)).or_default() += 1;
    }
    counts
}

fn shown_by(name: &str) -> String {
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let stem = stem
        .trim_end_matches(|c: char| c.is_ascii_digit() || "-_ ()".contains(c))
        .to_lowercase();
    let folder = folders
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_lowercase();
    if NAMELESS.contains(&stem.as_str()) {
        folder
    } else {
        stem
    }
}

/// An image's name without folders and ending, for labels.
pub fn short_name(name: &str) -> String {
    let stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
    stem.rsplit_once('.').map_or(stem, |(s, _)| s).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

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
        for (name, shows) in [
            ("erase/goat2.webp", "goat"),
            ("Cat/001.jpg", "cat"),
            ("train/dog/IMG_0001.jpg", "dog"),
            ("dog/dsc-17.jpg", "dog"),
            ("x/Dog (12).jpg", "dog"),
            ("001.jpg", ""),
            ("IMG_1.jpg", ""),
        ] {
            assert_eq!(shown_by(name), shows, "{name}");
        }
        assert_eq!(spread(&data, 2, &["ish".into()]).unwrap().len(), 2);
        assert!(spread(&data, 2, &["dog".into()]).is_err());
    }
}
