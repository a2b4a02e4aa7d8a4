//! Images of an evaluation, batch by batch.

use std::fmt::Display;
use std::ops::Range;

use deepsim_data::{Augment, Dataset, eval_batch, spread};
use deepsim_nets::images;
use ndarray::Array4;
use tch::{Device, Tensor};

use crate::error::{ExperimentError, Result};
use crate::processes::Processes;
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

/// The same by several processes: each makes its batches, and all get the tensor.
///
/// # Errors
/// As [`in_batches`] and [`Processes::parts`].
pub fn in_batches_among<E: From<ExperimentError> + Display>(
    processes: &Processes,
    n: usize,
    mut make: impl FnMut(Range<usize>) -> std::result::Result<Tensor, E>,
) -> std::result::Result<Tensor, E> {
    let own: std::result::Result<Vec<(usize, Tensor)>, E> = batches(n)
        .enumerate()
        .filter(|(batch, _)| processes.is_own(*batch))
        .map(|(batch, range)| make(range).map(|part| (batch, part)))
        .collect();
    let rows: Vec<usize> = batches(n).map(|range| range.len()).collect();
    let parts = processes.parts(own, &rows)?;
    Ok(Tensor::f_cat(&parts, 0).map_err(ExperimentError::from)?)
}

/// The held-out images of every number of every command: all, or `limit` of them spread evenly.
pub fn chosen(data: &Dataset, limit: usize) -> Vec<usize> {
    spread(limit, data.len())
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

impl Images<'_> {
    /// Bytes of some of them, RGB `[N,3,S,S]`.
    pub(super) fn read(&self, indices: &[usize]) -> Result<Array4<u8>> {
        Ok(eval_batch(self.data, indices, self.augment)?)
    }

    /// Such bytes in Caffe units.
    pub(super) fn caffe(&self, bytes: &Array4<u8>) -> Result<Tensor> {
        Ok(images::rgb_to_caffe(&upload(bytes, self.device)?)?)
    }
}
