//! What distances are divided by: the N of the paper's Table 2.

use deepsim_experiment::Processes;
use deepsim_experiment::measure::{self, Norm};
use deepsim_nets::metrics::sample_distances;
use serde::Serialize;
use tch::{Device, Tensor};

use crate::error::{EvalError, Result};
use crate::run::loaded::{HeldOutImages, Loaded};

/// Mean distances over pairs of different held-out images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Between images, Caffe units.
    pub image: f64,
    /// Between their features at the inverted layer.
    pub feature: f64,
    /// Images whose pairs they are means over.
    pub n: usize,
}

impl Scale {
    /// Measures held-out images of a run, of which at least two must differ: the ones that the numbers are of.
    ///
    /// # Errors
    /// Fewer than two images, unreadable ones, or images that are all the same; features that were recorded elsewhere.
    pub fn measure(run: &Loaded, of: &HeldOutImages) -> Result<Scale> {
        Scale::measure_among(&Processes::alone(), run, of)
    }

    /// The same by several processes.
    ///
    /// # Errors
    /// As [`Scale::measure`], and those of another process.
    pub fn measure_among(processes: &Processes, run: &Loaded, of: &HeldOutImages) -> Result<Scale> {
        let encode = |x: &Tensor| -> Result<Tensor> { Ok(run.perception.encode(x)?) };
        Scale::of(measure::norm_among(processes, of.images(), Some(&encode))?)
    }

    /// From the normalisation of an evaluation that had an encoder.
    ///
    /// # Errors
    /// One that had none.
    pub fn of(norm: Norm) -> Result<Scale> {
        Ok(Scale {
            image: norm.image,
            feature: norm.feature.ok_or_else(|| {
                EvalError::Format(
                    "features are not encoded here: they have no distances".to_owned(),
                )
            })?,
            n: norm.pairs_from,
        })
    }

    /// A distance between images in percent of the mean one.
    pub fn image_percent(&self, distance: f64) -> f64 {
        100.0 * distance / self.image
    }

    /// A distance between features in percent of the mean one.
    pub fn feature_percent(&self, distance: f64) -> f64 {
        100.0 * distance / self.feature
    }
}

/// Euclidean distances between samples of the same index, of images or features.
///
/// # Errors
/// Tensors of different shapes.
pub fn distances(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let d = sample_distances(a, b)?.f_to_device(Device::Cpu)?;
    let mut out = vec![0.0; d.numel()];
    d.f_copy_data(&mut out, d.numel())?;
    Ok(out)
}

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / (values.len().max(1)) as f64
}
