//! One pass over held-out images feeds every number of an evaluation, and nothing is kept of an image
//! but what the normalisation needs.
//!
//! The normalisation N is the mean distance over all pairs of the evaluated images, above [`PAIRS`] of them over the
//! pairs of so many, spread evenly. For it at most [`ROOM`] bytes of images and as many of features are in memory,
//! whatever is evaluated: features that take more are computed again, block by block.
//!
//! Several processes share a pass batch by batch ([`measure_among`], [`norm_among`]). Each number of a batch is computed
//! alone, and the batches are added up in their order, so that the numbers are those of one process bit for bit.

use std::fmt::Display;

use deepsim_data::spread;
use deepsim_nets::metrics::{gradient_energy, sample_distances};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::{ExperimentError, Result};
use crate::interrupt;
use crate::processes::Processes;

mod pairs;
mod pass;

use pairs::Pairs;
pub use pairs::{Encode, Norm, PAIRS, ROOM};
pub use pass::{BATCH, Images, batch_sizes, batches, chosen, in_batches, in_batches_among};

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

/// Reconstructions of images with given indices, and the images' features where that takes them.
pub type Make<'a, E> =
    &'a dyn Fn(&[usize], &Tensor) -> std::result::Result<(Tensor, Option<Tensor>), E>;

/// Measures reconstructions. `look` is shown every batch: it feeds what else is to be known of the same images.
///
/// # Errors
/// Unreadable images, fewer than two, images or features that are all the same, and what `make`, `encode` and `look`
/// refuse.
pub fn measure<E: From<ExperimentError> + Display>(
    images: Images<'_>,
    make: Make<'_, E>,
    encode: Option<Encode<'_, E>>,
    mut look: impl FnMut(&Batch) -> std::result::Result<(), E>,
) -> std::result::Result<HeldOut, E> {
    let alone = Processes::alone();
    let (errors, _) = measure_among(&alone, images, make, encode, |batch| {
        look(batch).map(|()| Vec::new())
    })?;
    Ok(errors)
}

/// The same by several processes, each of which is shown its own batches. `look` gives numbers of a batch; all get those of
/// all batches, in their order.
///
/// # Errors
/// As [`measure`] and [`Processes::gathered`].
pub fn measure_among<E: From<ExperimentError> + Display>(
    processes: &Processes,
    images: Images<'_>,
    make: Make<'_, E>,
    encode: Option<Encode<'_, E>>,
    mut look: impl FnMut(&Batch) -> std::result::Result<Vec<f64>, E>,
) -> std::result::Result<(HeldOut, Vec<Vec<f64>>), E> {
    let _guard = tch::no_grad_guard();
    let mut pairs = Pairs::new(processes, images, ROOM);
    let n = images.chosen.len();
    // Distances of images and features, energies of images and reconstructions, and what `look` gives.
    let mut numbers_of = |batch: usize, part: &[usize]| -> std::result::Result<Vec<f64>, E> {
        interrupt::check()?;
        let bytes = images.read(part)?;
        let x = images.caffe(&bytes)?;
        let (made, features) = make(part, &x)?;
        let far = sum_of_distances(&x, &made)?;
        let energy = gradient_energy(&x).map_err(ExperimentError::from)?;
        let energy_made = gradient_energy(&made).map_err(ExperimentError::from)?;
        let features = match (features, encode) {
            (None, Some(encode)) => Some(encode(&x)?),
            (features, _) => features,
        };
        let wanted = features.as_ref().filter(|_| encode.is_some());
        let feature_far = match (encode, wanted) {
            (Some(encode), Some(wanted)) => sum_of_distances(wanted, &encode(&made)?)?,
            _ => 0.0,
        };
        pairs.add(batch * BATCH, &bytes, wanted)?;
        let mut numbers = vec![far, feature_far, energy, energy_made];
        numbers.extend(look(&Batch {
            images: x,
            made,
            features,
        })?);
        Ok(numbers)
    };
    let own: std::result::Result<Vec<(usize, Vec<f64>)>, E> = images
        .chosen
        .chunks(BATCH)
        .enumerate()
        .filter(|(batch, _)| processes.is_own(*batch))
        .map(|(batch, part)| numbers_of(batch, part).map(|numbers| (batch, numbers)))
        .collect();
    let mut numbers = processes.gathered(own, batches(n).count())?;
    let [mut far, mut feature_far, mut energy, mut energy_made] = [0.0; 4];
    for of_batch in &numbers {
        if let [image, feature, own, made, ..] = of_batch[..] {
            far += image;
            feature_far += feature;
            energy += own;
            energy_made += made;
        }
    }
    let looked = numbers
        .iter_mut()
        .map(|of_batch| of_batch.split_off(of_batch.len().min(4)))
        .collect();
    let norm = pairs.finish(encode)?;
    let percent = |sum: f64, unit: f64| 100.0 * sum / n as f64 / unit;
    let errors = HeldOut {
        n,
        image_error: percent(far, norm.image),
        feature_error: norm.feature.map(|unit| percent(feature_far, unit)),
        gradient_energy: energy_made / energy.max(f64::MIN_POSITIVE),
        norm,
    };
    Ok((errors, looked))
}

/// The normalisation alone.
///
/// # Errors
/// As [`measure`].
pub fn norm<E: From<ExperimentError> + Display>(
    images: Images<'_>,
    encode: Option<Encode<'_, E>>,
) -> std::result::Result<Norm, E> {
    norm_among(&Processes::alone(), images, encode)
}

/// The same by several processes.
///
/// # Errors
/// As [`measure`] and [`Processes::gathered`].
pub fn norm_among<E: From<ExperimentError> + Display>(
    processes: &Processes,
    images: Images<'_>,
    encode: Option<Encode<'_, E>>,
) -> std::result::Result<Norm, E> {
    norm_in(processes, images, encode, ROOM)
}

fn norm_in<E: From<ExperimentError> + Display>(
    processes: &Processes,
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
    let mut pairs = Pairs::new(processes, images, room);
    let mut pass = || -> std::result::Result<(), E> {
        let parts = few.chunks(BATCH).enumerate();
        for (batch, part) in parts.filter(|(batch, _)| processes.is_own(*batch)) {
            interrupt::check()?;
            let bytes = images.read(part)?;
            let features = match encode {
                Some(encode) => Some(encode(&images.caffe(&bytes)?)?),
                None => None,
            };
            pairs.add(batch * BATCH, &bytes, features.as_ref())?;
        }
        Ok(())
    };
    let passed = pass();
    processes.together(passed)?;
    pairs.finish(encode)
}

/// Sum of the distances between samples of the same index, of images or features.
///
/// # Errors
/// Tensors of different shapes.
pub fn sum_of_distances(a: &Tensor, b: &Tensor) -> Result<f64> {
    let sum = sample_distances(a, b)?.f_sum(Kind::Double)?;
    Ok(sum.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::upload;
    use deepsim_data::{
        Augment, Dataset, Flow, Mirror, Place, Prepare, Resize, Store, eval_batch, prepare,
    };
    use deepsim_nets::images;
    use deepsim_nets::metrics::{mean_pair_distance, normalised_error};
    use std::cell::{Cell, RefCell};
    use tch::Device;

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
            let norm =
                norm_in::<ExperimentError>(&Processes::alone(), images, Some(&counted), room)
                    .unwrap();
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
