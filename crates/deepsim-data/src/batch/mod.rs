//! Batches: the pure functions from (dataset, specification, step) to pixels; [`loader`] makes them ahead.

pub(crate) mod loader;
pub mod sampling;

use image::RgbImage;
use ndarray::Array4;
use rayon::prelude::*;

use crate::batch::sampling::{Draw, permutation, place, scaled_side};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::square::{Window, resample};

/// Are training crops mirrored left to right?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// Half of them, at random.
    Random,
    /// None.
    Off,
}

/// Where the windows of training crops lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere in the stored image, at random.
    Random,
    /// In its centre, as in an evaluation.
    Centre,
}

/// What happens to a stored image on its way into a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    /// Side of the images in the batch, in pixels; at most the stored size.
    pub crop: u32,
    /// Mirroring (training only).
    pub mirror: Mirror,
    /// Where windows lie (training only: an evaluation takes the centre).
    pub place: Place,
    /// `None`: a `crop`×`crop` window is cut pixel for pixel, as the paper does.
    /// `Some((low, high))`: the window's side is round(u·stored) with u uniform in
    /// [low, high], 0 < low ≤ high ≤ 1, and the window is resized to `crop`×`crop` with the
    /// filter of [`square`](mod@crate::square) (larger or smaller).
    pub scale: Option<(f32, f32)>,
}

impl Augment {
    /// Checks the settings against a dataset's stored size.
    ///
    /// # Errors
    /// [`DataError::CropSize`], [`DataError::ScaleRange`].
    pub fn check(&self, stored: u32) -> Result<(), DataError> {
        if self.crop == 0 || self.crop > stored {
            return Err(DataError::CropSize {
                crop: self.crop,
                stored,
            });
        }
        match self.scale {
            Some((low, high)) if !(low > 0.0 && low <= high && high <= 1.0) => {
                Err(DataError::ScaleRange { low, high })
            }
            _ => Ok(()),
        }
    }

    fn random_window(&self, draw: Draw, stored: u32) -> Window {
        let side = match self.scale {
            None => self.crop,
            Some(range) => draw.side(range, stored),
        };
        draw.window(side, stored)
    }

    fn centre_window(&self, stored: u32) -> Window {
        let side = match self.scale {
            None => self.crop,
            Some((_, high)) => scaled_side(f64::from(high), stored),
        };
        let offset = (stored - side) / 2;
        Window {
            x: offset,
            y: offset,
            width: side,
            height: side,
        }
    }

    fn bytes(&self) -> usize {
        3 * self.crop as usize * self.crop as usize
    }
}

/// Everything that decides which pixels are in which batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchSpec {
    /// Images in a batch, N.
    pub batch_size: usize,
    /// Crop, mirror, scale.
    pub augment: Augment,
    /// Seed of the order and of the augmentation: see [`sampling`].
    pub seed: u64,
}

impl BatchSpec {
    /// Checks the specification against a dataset.
    ///
    /// # Errors
    /// [`DataError::EmptyBatch`], [`DataError::TooFewImages`] and those of [`Augment::check`].
    pub fn check(&self, data: &Dataset) -> Result<(), DataError> {
        if self.batch_size == 0 {
            return Err(DataError::EmptyBatch);
        }
        self.augment.check(data.stored_size())?;
        if data.len() < self.batch_size {
            return Err(DataError::TooFewImages {
                have: data.len(),
                batch: self.batch_size,
                path: data.path().into(),
            });
        }
        Ok(())
    }
}

/// One batch of training images.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The step it belongs to.
    pub step: u64,
    /// RGB, 0–255, shape [N, 3, H, W] with H = W = crop, in standard layout.
    pub images: Array4<u8>,
    /// Index in the dataset of each image.
    pub indices: Vec<usize>,
}

/// The batch of one step: the same for every call, thread count and machine.
///
/// # Errors
/// Those of [`BatchSpec::check`]; [`DataError::BadImage`] or [`DataError::BadSample`] naming
/// the first unusable image of the batch.
pub fn training_batch(data: &Dataset, spec: &BatchSpec, step: u64) -> Result<Batch, DataError> {
    spec.check(data)?;
    let slots = Order::default().slots(spec, data.len(), step);
    let mut pixels = vec![0; spec.batch_size * spec.augment.bytes()];
    let filled = fill(data, spec, &slots, &mut pixels, |index| {
        pick_strictly(data, index)
    })?;
    let indices = filled.into_iter().map(|found| found.index).collect();
    Ok(Batch {
        step,
        images: shaped(pixels, spec.augment.crop)?,
        indices,
    })
}

/// Centre crops without mirroring, shape [len of `indices`, 3, crop, crop], RGB, 0–255. With a
/// scale the centred window of side round(high·stored) is resized.
///
/// # Errors
/// [`DataError::Range`], those of [`Augment::check`], and [`DataError::BadImage`] or
/// [`DataError::BadSample`] naming the first unusable image.
pub fn eval_batch(
    data: &Dataset,
    indices: &[usize],
    augment: &Augment,
) -> Result<Array4<u8>, DataError> {
    let stored = data.stored_size();
    augment.check(stored)?;
    let window = augment.centre_window(stored);
    let mut pixels = vec![0; indices.len() * augment.bytes()];
    let results: Vec<Result<(), DataError>> = pixels
        .par_chunks_mut(augment.bytes())
        .zip(indices)
        .map(|(slot, &index)| {
            let image = data.pixels(index)?;
            cut(&image, stored, window, augment.crop, Side::AsIs, slot)
        })
        .collect();
    results.into_iter().collect::<Result<(), DataError>>()?;
    shaped(pixels, augment.crop)
}

/// The same centre crop of a square image that is in memory, shape [1, 3, crop, crop]: what
/// [`eval_batch`] gives of a dataset that holds this image.
///
/// # Errors
/// Those of [`Augment::check`]; [`DataError::Resize`] for an image that is not square.
pub fn eval_image(image: &RgbImage, augment: &Augment) -> Result<Array4<u8>, DataError> {
    let (stored, height) = image.dimensions();
    if stored != height {
        return Err(DataError::Resize {
            reason: format!("a crop is taken of square images, this one is {stored}x{height}"),
        });
    }
    augment.check(stored)?;
    let window = augment.centre_window(stored);
    let mut pixels = vec![0; augment.bytes()];
    let side = Side::AsIs;
    cut(
        image.as_raw(),
        stored,
        window,
        augment.crop,
        side,
        &mut pixels,
    )?;
    shaped(pixels, augment.crop)
}

/// Where one slot's image comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    index: usize,
    draw: Draw,
}

/// The permutations of the epochs in use (a batch touches at most two).
#[derive(Default)]
pub(crate) struct Order {
    epochs: Vec<(u64, Vec<usize>)>,
}

impl Order {
    /// The slots of one batch.
    pub fn slots(&mut self, spec: &BatchSpec, len: usize, step: u64) -> Vec<Slot> {
        let places = (0..spec.batch_size).map(|slot| place(step, spec.batch_size, slot, len));
        let places: Vec<(u64, usize)> = places.collect();
        self.epochs
            .retain(|(epoch, _)| places.iter().any(|(wanted, _)| wanted == epoch));
        places
            .into_iter()
            .map(|(epoch, position)| Slot {
                index: self.epoch(spec.seed, epoch, len)[position],
                draw: Draw::new(spec.seed, epoch, position),
            })
            .collect()
    }

    fn epoch(&mut self, seed: u64, epoch: u64, len: usize) -> &[usize] {
        let known = self.epochs.iter().position(|(number, _)| *number == epoch);
        let at = known.unwrap_or_else(|| {
            self.epochs.push((epoch, permutation(seed, epoch, len)));
            self.epochs.len() - 1
        });
        &self.epochs[at].1
    }
}

/// An image found for a slot, and the unusable ones met on the way to it.
pub(crate) struct Found {
    pub index: usize,
    pub pixels: Vec<u8>,
    pub bad: Vec<(usize, DataError)>,
}

/// The slot's own image or its error.
pub(crate) fn pick_strictly(data: &Dataset, index: usize) -> Result<Found, DataError> {
    Ok(Found {
        index,
        pixels: data.pixels(index)?,
        bad: Vec::new(),
    })
}

/// Fills a slab of N·3·crop·crop bytes, in parallel; the first error in slot order wins, so
/// that a message does not depend on the threads.
pub(crate) fn fill(
    data: &Dataset,
    spec: &BatchSpec,
    slots: &[Slot],
    slab: &mut [u8],
    pick: impl Fn(usize) -> Result<Found, DataError> + Sync,
) -> Result<Vec<Found>, DataError> {
    let stored = data.stored_size();
    let augment = &spec.augment;
    let results: Vec<Result<Found, DataError>> = slab
        .par_chunks_mut(augment.bytes())
        .zip(slots)
        .map(|(target, slot)| {
            let mut found = pick(slot.index)?;
            let side = if augment.mirror == Mirror::Random && slot.draw.mirrored() {
                Side::Mirrored
            } else {
                Side::AsIs
            };
            let window = match augment.place {
                Place::Random => augment.random_window(slot.draw, stored),
                Place::Centre => augment.centre_window(stored),
            };
            cut(&found.pixels, stored, window, augment.crop, side, target)?;
            found.pixels = Vec::new();
            Ok(found)
        })
        .collect();
    results.into_iter().collect()
}

/// A slab as [N, 3, crop, crop].
pub(crate) fn shaped(pixels: Vec<u8>, crop: u32) -> Result<Array4<u8>, DataError> {
    let side = crop as usize;
    let count = pixels.len() / (3 * side * side).max(1);
    Array4::from_shape_vec((count, 3, side, side), pixels).map_err(|error| DataError::Resize {
        reason: error.to_string(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    AsIs,
    Mirrored,
}

/// Cuts a window out of a stored image (rows of RGB pixels) into planes [3, crop, crop].
fn cut(
    image: &[u8],
    stored: u32,
    window: Window,
    crop: u32,
    side: Side,
    target: &mut [u8],
) -> Result<(), DataError> {
    let resized;
    let (source, stride, x0, y0) = if window.width == crop {
        (image, stored as usize, window.x as usize, window.y as usize)
    } else {
        resized = resample(image, (stored, stored), window, crop)?;
        (resized.as_slice(), crop as usize, 0, 0)
    };
    let crop = crop as usize;
    let (red, rest) = target.split_at_mut(crop * crop);
    let (green, blue) = rest.split_at_mut(crop * crop);
    let planes = red
        .chunks_exact_mut(crop)
        .zip(green.chunks_exact_mut(crop))
        .zip(blue.chunks_exact_mut(crop));
    // One pass over the pixels for all three planes: a pass for each would read them three times.
    for (y, ((red, green), blue)) in planes.enumerate() {
        let start = ((y0 + y) * stride + x0) * 3;
        let (pixels, _) = source[start..start + crop * 3].as_chunks::<3>();
        let line = red.iter_mut().zip(green).zip(blue);
        match side {
            Side::AsIs => line.zip(pixels).for_each(split),
            Side::Mirrored => line.zip(pixels.iter().rev()).for_each(split),
        }
    }
    Ok(())
}

/// A pixel's colours, each to its plane.
#[inline]
fn split((((red, green), blue), pixel): (((&mut u8, &mut u8), &mut u8), &[u8; 3])) {
    (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
}
