//! What is compared: two sets of images, or a run's held-out images and its reconstructions of them.

use std::collections::BTreeMap;

use deepsim_data::{DataError, Dataset, DatasetKind, Orientation, decode_rgb8, decode_upright};
use deepsim_experiment::Clip;
use deepsim_experiment::evaluate::{decode, held_out_features};
use deepsim_experiment::measure::BATCH;
use deepsim_nets::images::caffe_to_rgb;
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::measure::photos::from_data;
use crate::run::loaded::{HeldOutImages, Loaded};

/// Images of both sides at the same places, or of one side where the sides are not paired. RGB, 0–255, `[N,3,H,W]`,
/// fp32, each side of one size.
#[derive(Debug)]
pub struct Group {
    /// Of A, then of B.
    pub sides: [Option<Tensor>; 2],
}

/// One side, for the protocol.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Side {
    /// A path, or what the images are.
    pub images: String,
    /// How many.
    pub n: usize,
    /// Digest of the images: of a prepared dataset's manifest, or of a folder's names and sizes; none of what is made
    /// here.
    pub digest: Option<String>,
    /// How they come to their pixels.
    pub read: &'static str,
}

/// Images of two sides, batch by batch.
pub trait Compared {
    /// Both sides.
    fn sides(&self) -> [Side; 2];

    /// Whether images of the two sides belong together, one to one.
    fn is_paired(&self) -> bool;

    /// How many batches there are.
    fn batches(&self) -> usize;

    /// The images of a batch, by their size.
    ///
    /// # Errors
    /// Unreadable images; pairs of different sizes.
    fn read(&self, batch: usize) -> Result<Vec<Group>>;
}

/// Two folders or prepared datasets.
pub struct Sets {
    data: [Dataset; 2],
    /// Indices of what is read together.
    places: Vec<[Option<usize>; 2]>,
    paired: bool,
    device: Device,
}

/// Images of a batch before they are tensors.
type Images = [Option<RgbImage>; 2];

impl Sets {
    /// Images of the same name in both.
    ///
    /// # Errors
    /// [`EvalError::Unpaired`] that names an image which only one of them has.
    pub fn paired(a: Dataset, b: Dataset, device: Device) -> Result<Sets> {
        let named = |data: &Dataset| -> BTreeMap<String, usize> {
            let all = (0..data.len()).map(|index| (data.name(index).to_owned(), index));
            all.collect()
        };
        let (of_a, of_b) = (named(&a), named(&b));
        for (has, lacks, [with, without]) in [(&of_a, &of_b, [&a, &b]), (&of_b, &of_a, [&b, &a])] {
            let mut missing = has.keys().filter(|name| !lacks.contains_key(*name));
            if let Some(name) = missing.next() {
                return Err(EvalError::Unpaired {
                    with: with.path().to_owned(),
                    without: without.path().to_owned(),
                    name: name.clone(),
                    others: missing.count(),
                });
            }
        }
        let both = of_a.values().zip(of_b.values());
        let places = both.map(|(&a, &b)| [Some(a), Some(b)]).collect();
        Ok(Sets {
            data: [a, b],
            places,
            paired: true,
            device,
        })
    }

    /// All images of both, as two sets.
    pub fn unpaired(a: Dataset, b: Dataset, device: Device) -> Sets {
        let of_a = (0..a.len()).map(|index| [Some(index), None]);
        let of_b = (0..b.len()).map(|index| [None, Some(index)]);
        Sets {
            places: of_a.chain(of_b).collect(),
            data: [a, b],
            paired: false,
            device,
        }
    }

    fn images(&self, place: [Option<usize>; 2]) -> std::result::Result<Images, DataError> {
        let [a, b] = &self.data;
        let read = |data, index: Option<usize>| index.map(|index| whole(data, index)).transpose();
        Ok([read(a, place[0])?, read(b, place[1])?])
    }

    /// Where the images of a place are named.
    fn name(&self, place: [Option<usize>; 2]) -> String {
        let found = place.iter().zip(&self.data).find_map(|(index, data)| {
            let index = (*index)?;
            Some(data.name(index).to_owned())
        });
        found.unwrap_or_default()
    }
}

/// An image of a plain folder as large as its file has it, or one of a prepared dataset as it is stored.
fn whole(data: &Dataset, index: usize) -> std::result::Result<RgbImage, DataError> {
    let file = || data.path().join(data.name(index));
    match (data.kind(), data.framing().orientation) {
        (DatasetKind::Prepared(_), _) => data.image(index),
        (DatasetKind::Folder, Orientation::Apply) => decode_upright(&file()),
        (DatasetKind::Folder, Orientation::Ignore) => decode_rgb8(&file()),
    }
}

fn size(image: &Option<RgbImage>) -> Option<(u32, u32)> {
    image.as_ref().map(RgbImage::dimensions)
}

impl Compared for Sets {
    fn sides(&self) -> [Side; 2] {
        self.data.each_ref().map(|data| Side {
            images: data.path().display().to_string(),
            n: data.len(),
            digest: Some(data.digest()),
            read: match (data.kind(), data.framing().orientation) {
                (DatasetKind::Prepared(_), _) => "as prepared",
                (DatasetKind::Folder, Orientation::Apply) => "at their size, turned upright",
                (DatasetKind::Folder, Orientation::Ignore) => "at their size, as stored",
            },
        })
    }

    fn is_paired(&self) -> bool {
        self.paired
    }

    fn batches(&self) -> usize {
        self.places.len().div_ceil(BATCH)
    }

    fn read(&self, batch: usize) -> Result<Vec<Group>> {
        let places = self.places.chunks(BATCH).nth(batch).unwrap_or_default();
        let images: Vec<Images> = places
            .par_iter()
            .map(|place| self.images(*place))
            .collect::<std::result::Result<_, DataError>>()?;
        for (place, pair) in places.iter().zip(&images) {
            if let (Some(a), Some(b)) = (size(&pair[0]), size(&pair[1]))
                && a != b
            {
                let name = self.name(*place);
                return Err(EvalError::OtherSize { name, a, b });
            }
        }
        let alike = |p: &Images, q: &Images| p.each_ref().map(size) == q.each_ref().map(size);
        let groups = images.chunk_by(alike);
        groups
            .map(|group| {
                let side = |side: usize| {
                    let images: Vec<&RgbImage> = group
                        .iter()
                        .filter_map(|pair| pair[side].as_ref())
                        .collect();
                    (!images.is_empty())
                        .then(|| tensor(&images, self.device))
                        .transpose()
                };
                Ok(Group {
                    sides: [side(0)?, side(1)?],
                })
            })
            .collect()
    }
}

/// Images of one size, RGB 0–255 `[N,3,H,W]`, fp32.
fn tensor(images: &[&RgbImage], device: Device) -> Result<Tensor> {
    let mut planes = Vec::with_capacity(images.len());
    for image in images {
        let (width, height) = image.dimensions();
        let shape = [i64::from(height), i64::from(width), 3];
        let rows = Tensor::f_from_data_size(image.as_raw(), &shape, Kind::Uint8)?;
        planes.push(rows.f_permute([2, 0, 1])?);
    }
    let all = Tensor::f_stack(&planes, 0)?.f_contiguous()?;
    Ok(all.f_to_device(device)?.f_to_kind(Kind::Float)?)
}

/// A run's held-out images, and what its generator makes of their features: clipped and rounded to 8 bits, as an image
/// file would have it.
pub struct Reconstructions<'a> {
    /// The run.
    pub run: &'a Loaded,
    /// Its held-out images.
    pub held: &'a HeldOutImages,
}

impl Compared for Reconstructions<'_> {
    fn sides(&self) -> [Side; 2] {
        let n = self.held.chosen.len();
        let crop = self.held.augment.crop;
        let data = &self.held.data;
        [
            Side {
                images: format!("{}, images cut to {crop} px", data.path().display()),
                n,
                digest: Some(data.digest()),
                read: "as the run's evaluation cuts them",
            },
            Side {
                images: format!(
                    "their reconstructions by {}, step {}",
                    self.run.path.display(),
                    self.run.checkpoint.manifest.step
                ),
                n,
                digest: None,
                read: "clipped to 0-255 and rounded to 8 bits",
            },
        ]
    }

    fn is_paired(&self) -> bool {
        true
    }

    fn batches(&self) -> usize {
        self.held.chosen.len().div_ceil(BATCH)
    }

    fn read(&self, batch: usize) -> Result<Vec<Group>> {
        let _guard = tch::no_grad_guard();
        let Reconstructions { run, held } = self;
        let indices = held.chosen.chunks(BATCH).nth(batch).unwrap_or_default();
        let x = from_data(&held.data, indices, &held.augment, held.device)?;
        let features = held_out_features(&run.perception, &held.data, indices, &x)?;
        let made = decode(&run.generator, &features, Clip::Displayable)?;
        let bytes = |caffe: &Tensor| -> Result<Tensor> { Ok(caffe_to_rgb(caffe)?.f_round()?) };
        Ok(vec![Group {
            sides: [Some(bytes(&x)?), Some(bytes(&made)?)],
        }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(at: &std::path::Path, images: &[(&str, u32, u32)]) -> Dataset {
        for (i, (name, width, height)) in images.iter().enumerate() {
            let file = at.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let colour = image::Rgb([i as u8, 100, 200]);
            RgbImage::from_pixel(*width, *height, colour)
                .save(file)
                .unwrap();
        }
        Dataset::open(at).unwrap()
    }

    #[test]
    fn images_of_one_name_are_read_together_at_their_size() {
        let tmp = tempfile::tempdir().unwrap();
        let a = [("x/2.png", 20, 30), ("1.png", 40, 30), ("x/3.png", 20, 30)];
        let b = [("1.png", 40, 30), ("x/2.png", 20, 30), ("x/3.png", 20, 30)];
        let sets = Sets::paired(
            folder(&tmp.path().join("a"), &a),
            folder(&tmp.path().join("b"), &b),
            Device::Cpu,
        )
        .unwrap();
        assert_eq!(sets.batches(), 1);
        let groups = sets.read(0).unwrap();
        let sizes: Vec<Vec<i64>> = groups
            .iter()
            .map(|g| g.sides[0].as_ref().unwrap().size())
            .collect();
        assert_eq!(sizes, [[1, 3, 30, 40], [2, 3, 30, 20]]);
        let first = |group: usize, side: usize| {
            let x = groups[group].sides[side].as_ref().unwrap();
            x.double_value(&[0, 0, 0, 0])
        };
        // 1.png is the second of A and the first of B.
        assert_eq!((first(0, 0), first(0, 1)), (1.0, 0.0));
        assert_eq!((first(1, 0), first(1, 1)), (0.0, 1.0));
    }

    #[test]
    fn unequal_sets_and_sizes_are_told_by_name() {
        let tmp = tempfile::tempdir().unwrap();
        let open = |name: &str, images: &[(&str, u32, u32)]| folder(&tmp.path().join(name), images);
        let a = [("1.png", 20, 20), ("2.png", 20, 20)];
        let paired = |a, b| Sets::paired(a, b, Device::Cpu);
        let fewer = open("fewer", &a[..1]);
        let error = paired(fewer, open("a", &a)).err().unwrap().to_string();
        assert!(
            error.contains("2.png") && error.contains("fewer"),
            "{error}"
        );
        let other = open("other", &[("1.png", 20, 20), ("2.png", 20, 21)]);
        let sets = paired(open("a", &a), other).unwrap();
        let error = sets.read(0).unwrap_err();
        assert!(error.to_string().contains("2.png"), "{error}");
        assert_eq!(error.exit_code(), 2);
        let sets = Sets::unpaired(open("a", &a), open("fewer", &a[..1]), Device::Cpu);
        let groups = sets.read(0).unwrap();
        let there: Vec<[bool; 2]> = groups
            .iter()
            .map(|g| g.sides.each_ref().map(Option::is_some))
            .collect();
        assert_eq!(there, [[true, false], [false, true]]);
    }
}
