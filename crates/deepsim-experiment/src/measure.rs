//! One pass over held-out images feeds every number of an evaluation, and nothing is kept of an image
//! but what the normalisation needs.
//!
//! The normalisation N is the mean distance over all pairs of the evaluated images, above [`PAIRS`] of them over the
//! pairs of so many, spread evenly. For it at most [`ROOM`] bytes of images and as many of features are in memory,
//! whatever is evaluated: features that take more are computed again, block by block.

use std::ops::Range;

use deepsim_data::{Augment, Dataset, eval_batch, spread};
use deepsim_nets::metrics::{
    gradient_energy, mean_pair_distance, mean_pair_distance_in_blocks, sample_distances,
};
use deepsim_nets::{NetError, images};
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{ExperimentError, Result};
use crate::interrupt;
use crate::upload::upload;

/// Images in a batch of an evaluation.
pub const BATCH: usize = 16;

/// Sizes of the batches that a measurement of `n` images makes.
pub fn batch_sizes(n: usize) -> Vec<i64> {
    let sizes = [n.min(BATCH), n % BATCH];
    let some = sizes.into_iter().filter(|size| *size > 0);
    some.map(|size| size as i64).collect()
}

/// Batches of `n` images, as ranges of their places.
pub fn batches(n: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..n).step_by(BATCH);
    starts.map(move |from| from..n.min(from + BATCH))
}

/// What is made of `n` images batch by batch, as one tensor.
///
/// # Errors
/// What `make` refuses; no images at all.
pub fn in_batches<E: From<ExperimentError>>(
    n: usize,
    make: impl FnMut(Range<usize>) -> std::result::Result<Tensor, E>,
) -> std::result::Result<Tensor, E> {
    let parts: Vec<Tensor> = batches(n)
        .map(make)
        .collect::<std::result::Result<_, E>>()?;
    Ok(Tensor::f_cat(&parts, 0).map_err(ExperimentError::from)?)
}

/// Images whose pairs the normalisation is exactly measured over: all up to here, so many of more.
pub const PAIRS: usize = 2000;
/// Bytes that images, and as many that features may take in memory for the normalisation.
pub const ROOM: usize = 512 << 20;

/// The held-out images of every number of every command: all, or `limit` of them spread evenly.
pub fn chosen(data: &Dataset, limit: usize) -> Vec<usize> {
    spread(limit, data.len())
}

/// What distances are divided by: N of the paper's Table 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    /// Mean distance between different images.
    pub image: f64,
    /// The same of their features; none where nothing here encodes an image.
    pub feature: Option<f64>,
    /// Images whose pairs it is the mean over.
    pub pairs_from: usize,
}

/// Errors of a generator on held-out images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Images.
    pub n: usize,
    /// Normalised error of pixels, percent.
    pub image_error: f64,
    /// Normalised error of the inverted features, percent; none where they were recorded
    /// elsewhere, since the reconstruction's cannot be.
    pub feature_error: Option<f64>,
    /// Gradient energy relative to the images': 1 is as sharp, below is blur.
    pub gradient_energy: f64,
    /// What errors are relative to.
    pub norm: Norm,
}

/// Which images are measured, and how.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// The dataset.
    pub data: &'a Dataset,
    /// How an image is cut.
    pub augment: &'a Augment,
    /// Indices of the images; see [`chosen`].
    pub chosen: &'a [usize],
    /// Where to compute.
    pub device: Device,
}

/// What is made of a batch of images.
#[derive(Debug)]
pub struct Batch {
    /// The images, `[N,3,S,S]` in Caffe units.
    pub images: Tensor,
    /// What the generator makes of them.
    pub made: Tensor,
    /// The images' features, where they are there already.
    pub features: Option<Tensor>,
}

/// Features of images `[N,3,S,S]` in Caffe units.
pub type Encode<'a, E> = &'a dyn Fn(&Tensor) -> std::result::Result<Tensor, E>;
/// Reconstructions of images with given indices, and the images' features where that takes them.
pub type Make<'a, E> =
    &'a dyn Fn(&[usize], &Tensor) -> std::result::Result<(Tensor, Option<Tensor>), E>;

/// Measures reconstructions. `look` is shown every batch: it feeds what else is to be known of the same images.
///
/// # Errors
/// Unreadable images, fewer than two, images or features that are all the same, and what `make`, `encode` and `look`
/// refuse.
pub fn measure<E: From<ExperimentError>>(
    images: Images<'_>,
    make: Make<'_, E>,
    encode: Option<Encode<'_, E>>,
    mut look: impl FnMut(&Batch) -> std::result::Result<(), E>,
) -> std::result::Result<HeldOut, E> {
    let _guard = tch::no_grad_guard();
    let mut pairs = Pairs::new(images, ROOM);
    let (mut far, mut feature_far) = (0.0, 0.0);
    let (mut energy, mut energy_made) = (0.0, 0.0);
    let n = images.chosen.len();
    for part in images.chosen.chunks(BATCH) {
        interrupt::check()?;
        let bytes = images.read(part)?;
        let x = images.caffe(&bytes)?;
        let (made, features) = make(part, &x)?;
        far += sum_of_distances(&x, &made)?;
        energy += gradient_energy(&x).map_err(ExperimentError::from)?;
        energy_made += gradient_energy(&made).map_err(ExperimentError::from)?;
        let features = match (features, encode) {
            (None, Some(encode)) => Some(encode(&x)?),
            (features, _) => features,
        };
        let wanted = features.as_ref().filter(|_| encode.is_some());
        if let (Some(encode), Some(wanted)) = (encode, wanted) {
            feature_far += sum_of_distances(wanted, &encode(&made)?)?;
        }
        pairs.add(&bytes, wanted)?;
        look(&Batch {
            images: x,
            made,
            features,
        })?;
    }
    let norm = pairs.finish(encode)?;
    let percent = |sum: f64, unit: f64| 100.0 * sum / n as f64 / unit;
    Ok(HeldOut {
        n,
        image_error: percent(far, norm.image),
        feature_error: norm.feature.map(|unit| percent(feature_far, unit)),
        gradient_energy: energy_made / energy.max(f64::MIN_POSITIVE),
        norm,
    })
}

/// The normalisation alone.
///
/// # Errors
/// As [`measure`].
pub fn norm<E: From<ExperimentError>>(
    images: Images<'_>,
    encode: Option<Encode<'_, E>>,
) -> std::result::Result<Norm, E> {
    norm_in(images, encode, ROOM)
}

fn norm_in<E: From<ExperimentError>>(
    images: Images<'_>,
    encode: Option<Encode<'_, E>>,
    room: usize,
) -> std::result::Result<Norm, E> {
    let _guard = tch::no_grad_guard();
    let few: Vec<usize> = spread(PAIRS, images.chosen.len())
        .into_iter()
        .map(|place| images.chosen[place])
        .collect();
    let images = Images {
        chosen: &few,
        ..images
    };
    let mut pairs = Pairs::new(images, room);
    for part in few.chunks(BATCH) {
        interrupt::check()?;
        let bytes = images.read(part)?;
        let features = match encode {
            Some(encode) => Some(encode(&images.caffe(&bytes)?)?),
            None => None,
        };
        pairs.add(&bytes, features.as_ref())?;
    }
    pairs.finish(encode)
}

impl Images<'_> {
    /// Bytes of some of them, RGB `[N,3,S,S]`.
    fn read(&self, indices: &[usize]) -> Result<Array4<u8>> {
        Ok(eval_batch(self.data, indices, self.augment)?)
    }

    fn caffe(&self, bytes: &Array4<u8>) -> Result<Tensor> {
        Ok(images::rgb_to_caffe(&upload(bytes, self.device)?)?)
    }
}

/// Sum of the distances between samples of the same index, of images or features.
///
/// # Errors
/// Tensors of different shapes.
pub fn sum_of_distances(a: &Tensor, b: &Tensor) -> Result<f64> {
    let sum = sample_distances(a, b)?.f_sum(Kind::Double)?;
    Ok(sum.f_double_value(&[])?)
}

/// Rows of the normalisation from the bytes of images.
type Row<'a, E> = &'a dyn Fn(&Array4<u8>) -> std::result::Result<Tensor, E>;

/// What the normalisation is measured over, collected while the images pass.
struct Pairs<'a> {
    images: Images<'a>,
    room: usize,
    /// Places among the chosen images, ascending.
    places: Vec<usize>,
    /// Images that have passed, and those of them that count.
    passed: usize,
    kept: usize,
    pixels: Rows,
    features: Rows,
}

/// Rows in memory, one for each image that counts.
enum Rows {
    /// None yet.
    Empty,
    /// `[places, length]`, filled from the top.
    Kept(Tensor),
    /// They would take too much room.
    Dropped,
}

impl<'a> Pairs<'a> {
    fn new(images: Images<'a>, room: usize) -> Pairs<'a> {
        Pairs {
            images,
            room,
            places: spread(PAIRS, images.chosen.len()),
            passed: 0,
            kept: 0,
            pixels: Rows::Empty,
            features: Rows::Empty,
        }
    }

    /// The next batch of the chosen images.
    fn add(&mut self, bytes: &Array4<u8>, features: Option<&Tensor>) -> Result<()> {
        let n = bytes.shape()[0];
        let here: Vec<i64> = self.places[self.kept..]
            .iter()
            .take_while(|&&place| place < self.passed + n)
            .map(|&place| (place - self.passed) as i64)
            .collect();
        self.passed += n;
        if here.is_empty() {
            return Ok(());
        }
        let (at, of) = (self.kept, self.places.len());
        self.kept += here.len();
        let pixels = upload(bytes, self.images.device)?;
        self.pixels.put(&pixels, &here, at, of, self.room)?;
        if let Some(features) = features {
            self.features.put(features, &here, at, of, self.room)?;
        }
        Ok(())
    }

    fn finish<E: From<ExperimentError>>(
        self,
        encode: Option<Encode<'_, E>>,
    ) -> std::result::Result<Norm, E> {
        let Pairs {
            images,
            room,
            places,
            pixels,
            features,
            ..
        } = self;
        let n = places.len();
        // Rows of a range of places, in the batches of the pass.
        let rows = |range: Range<usize>, row: Row<'_, E>| -> std::result::Result<Tensor, E> {
            let indices: Vec<usize> = places[range].iter().map(|&p| images.chosen[p]).collect();
            let mut whole = None;
            for batch in batches(indices.len()) {
                let at = batch.start as i64;
                let part = flat(&row(&images.read(&indices[batch])?)?)?;
                whole = Some(put(whole, &part, at, indices.len() as i64)?);
            }
            whole.map_or_else(|| Ok(Tensor::new()), Ok)
        };
        // Distances of bytes are those of Caffe units, which are the same values with an offset.
        let image = match &pixels {
            Rows::Kept(rows) => mean_pair_distance(rows).map_err(ExperimentError::from)?,
            _ => mean_pair_distance_in_blocks(n, room, |range| {
                rows(range, &|bytes| Ok(upload(bytes, images.device)?)).map_err(Refused)
            })
            .map_err(|e| e.0)?,
        };
        drop(pixels);
        let feature = match (&features, encode) {
            (_, None) => None,
            (Rows::Kept(rows), _) => Some(mean_pair_distance(rows).map_err(ExperimentError::from)?),
            (_, Some(encode)) => Some(
                mean_pair_distance_in_blocks(n, room, |range| {
                    rows(range, &|bytes| encode(&images.caffe(bytes)?)).map_err(Refused)
                })
                .map_err(|e| e.0)?,
            ),
        };
        if image <= 0.0 || feature.is_some_and(|f| f <= 0.0) {
            return Err(E::from(NetError::AllAlike.into()));
        }
        Ok(Norm {
            image,
            feature,
            pairs_from: n,
        })
    }
}

/// An error of the caller's kind, through which the metrics can give their own.
struct Refused<E>(E);

impl<E: From<ExperimentError>> From<NetError> for Refused<E> {
    fn from(e: NetError) -> Refused<E> {
        Refused(E::from(e.into()))
    }
}

impl Rows {
    /// Takes some rows of a batch into places from `at` on, `of` in all.
    fn put(
        &mut self,
        batch: &Tensor,
        rows: &[i64],
        at: usize,
        of: usize,
        room: usize,
    ) -> Result<()> {
        let batch = flat(batch)?;
        let bytes = batch.size()[1] as usize * batch.kind().elt_size_in_bytes();
        if bytes.saturating_mul(of) > room {
            *self = Rows::Dropped;
            return Ok(());
        }
        let index = Tensor::f_from_slice(rows)?.f_to_device(batch.device())?;
        let part = batch.f_index_select(0, &index)?;
        let whole = match std::mem::replace(self, Rows::Empty) {
            Rows::Kept(whole) => Some(whole),
            _ => None,
        };
        *self = Rows::Kept(put(whole, &part, at as i64, of as i64)?);
        Ok(())
    }
}

/// Copies rows to their place among `of`, in a tensor that is made with the first ones.
fn put(whole: Option<Tensor>, part: &Tensor, at: i64, of: i64) -> Result<Tensor> {
    let whole = match whole {
        Some(whole) => whole,
        None => Tensor::f_empty([of, part.size()[1]], (part.kind(), part.device()))?,
    };
    let mut place = whole.f_narrow(0, at, part.size()[0])?;
    place.f_copy_(part)?;
    Ok(whole)
}

fn flat(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_flatten(1, -1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_data::{Flow, Mirror, Place, Prepare, Resize, Store, prepare};
    use deepsim_nets::metrics::normalised_error;
    use std::cell::{Cell, RefCell};

    const SIDE: u32 = 16;

    /// `n` different images of 16 pixels, in two parts that are nothing like each other.
    fn dataset(folder: &std::path::Path, n: u32) -> Dataset {
        let source = folder.join("source");
        std::fs::create_dir_all(&source).unwrap();
        for i in 0..n {
            let mut bytes = format!("P6 {SIDE} {SIDE} 255\n").into_bytes();
            let mut state = (i + 1).wrapping_mul(0x9E37_79B9) | 1;
            for place in 0..SIDE * SIDE * 3 {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let ground = if i < n / 2 { 20 } else { 20 + place % 150 };
                bytes.push((ground + state % 60) as u8);
            }
            std::fs::write(source.join(format!("{i:05}.ppm")), bytes).unwrap();
        }
        let out = folder.join("data");
        let request = Prepare {
            resize: Some(Resize::ShortCrop),
            store: Some(Store::Raw),
            ..Prepare::new(source, &out, SIDE)
        };
        prepare(&request, &mut |_| Flow::Continue).unwrap();
        Dataset::open(&out).unwrap()
    }

    fn augment() -> Augment {
        Augment {
            crop: SIDE,
            mirror: Mirror::Off,
            place: Place::Random,
            scale: None,
        }
    }

    fn all(data: &Dataset, chosen: &[usize]) -> Tensor {
        let bytes = eval_batch(data, chosen, &augment()).unwrap();
        images::rgb_to_caffe(&upload(&bytes, Device::Cpu).unwrap()).unwrap()
    }

    fn encode(x: &Tensor) -> Result<Tensor> {
        Ok(x.f_avg_pool2d([4, 4], [2, 2], [0, 0], false, true, None)?
            .f_square()?)
    }

    fn flip(x: &Tensor) -> Tensor {
        x.flip([3]) * 0.9
    }

    /// Mean over all pairs, by a double loop in double precision.
    fn plain_norm(x: &Tensor) -> f64 {
        let x = x.flatten(1, -1).to_kind(Kind::Double);
        let (n, mut sum) = (x.size()[0], 0.0);
        for i in 0..n {
            for j in i + 1..n {
                sum += (x.get(i) - x.get(j)).norm().double_value(&[]);
            }
        }
        sum / (n * (n - 1) / 2) as f64
    }

    #[test]
    fn streamed_numbers_are_those_of_a_direct_computation() {
        let folder = tempfile::tempdir().unwrap();
        let data = dataset(folder.path(), 50);
        let chosen = chosen(&data, 37);
        let images = Images {
            data: &data,
            augment: &augment(),
            chosen: &chosen,
            device: Device::Cpu,
        };
        let seen = RefCell::new(Vec::new());
        let found = measure::<ExperimentError>(
            images,
            &|_, x| Ok((flip(x), None)),
            Some(&encode),
            |batch| {
                seen.borrow_mut().push(batch.images.shallow_clone());
                Ok(())
            },
        )
        .unwrap();
        let x = all(&data, &chosen);
        assert_eq!(
            Tensor::cat(&seen.into_inner(), 0),
            x,
            "each is looked at once"
        );
        let (f, flat) = (encode(&x).unwrap(), |x: &Tensor| x.flatten(1, -1));
        let wide = |x: &Tensor| flat(x).to_kind(Kind::Double);
        let far = |a: &Tensor, b: &Tensor| {
            let d = (wide(a) - wide(b)).square();
            let d = d.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
            d.sqrt().mean(Kind::Double).double_value(&[])
        };
        let y = flip(&x);
        let (image, feature) = (plain_norm(&x), plain_norm(&f));
        let near = |what: &str, got: f64, want: f64| {
            assert!((got / want - 1.0).abs() < 1e-6, "{what}: {got} {want}");
        };
        near("N", found.norm.image, image);
        near("N of features", found.norm.feature.unwrap(), feature);
        near("image", found.image_error, 100.0 * far(&x, &y) / image);
        let want = 100.0 * far(&f, &encode(&y).unwrap()) / feature;
        near("feature", found.feature_error.unwrap(), want);
        let want = gradient_energy(&y).unwrap() / gradient_energy(&x).unwrap();
        near("energy", found.gradient_energy, want);
        // And those of the whole tensors at once.
        let whole = normalised_error(&flat(&x), &flat(&y)).unwrap();
        near("whole tensors", found.image_error, whole);
        assert_eq!((found.n, found.norm.pairs_from), (37, 37));

        // Where neither images nor features fit into the room they are read and encoded again, to the same end.
        for room in [0, 5_000, 20_000] {
            let calls = Cell::new(0);
            let counted = |x: &Tensor| {
                calls.set(calls.get() + x.size()[0]);
                encode(x)
            };
            let norm = norm_in::<ExperimentError>(images, Some(&counted), room).unwrap();
            near(&format!("N in {room} bytes"), norm.image, image);
            near("N of features", norm.feature.unwrap(), feature);
            assert!(calls.get() > 37, "{room} bytes keep all features");
        }
    }

    #[test]
    fn of_many_images_the_normalisation_is_of_2000_spread_evenly_and_random_pairs_score_a_hundred()
    {
        let folder = tempfile::tempdir().unwrap();
        let n = 3010;
        let data = dataset(folder.path(), n);
        let chosen = chosen(&data, n as usize);
        let images = Images {
            data: &data,
            augment: &augment(),
            chosen: &chosen,
            device: Device::Cpu,
        };
        // Another image in the place of each: 1009 has no factor in common with 3010.
        let found = measure::<ExperimentError>(
            images,
            &|indices, _| {
                let others: Vec<usize> = indices.iter().map(|i| (i * 1009 + 7) % 3010).collect();
                Ok((all(&data, &others), None))
            },
            Some(&encode),
            |_| Ok(()),
        )
        .unwrap();
        assert_eq!((found.n, found.norm.pairs_from), (3010, PAIRS));
        let feature = found.feature_error.unwrap();
        for (what, error) in [("image", found.image_error), ("feature", feature)] {
            assert!((error - 100.0).abs() < 3.0, "{what}: {error}");
        }
        // The pairs are those of both parts of the set: the first 2000 would be three of one for one of the other.
        let few: Vec<usize> = spread(PAIRS, 3010);
        let want = mean_pair_distance(&all(&data, &few).flatten(1, -1)).unwrap();
        assert!((found.norm.image / want - 1.0).abs() < 1e-6);
    }

    #[test]
    fn images_that_are_all_alike_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = dataset(folder.path(), 4);
        let images = Images {
            data: &data,
            augment: &augment(),
            chosen: &[1, 1, 1],
            device: Device::Cpu,
        };
        let error = norm::<ExperimentError>(images, None).unwrap_err();
        assert!(error.to_string().contains("all the same"), "{error}");
        let one = Images {
            chosen: &[1],
            ..images
        };
        assert!(norm::<ExperimentError>(one, None).is_err());
    }
}
