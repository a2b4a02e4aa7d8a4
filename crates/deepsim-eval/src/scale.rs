//! What distances are divided by: the N of the paper's Table 2.

use deepsim_experiment::evaluate::to_caffe;
use deepsim_nets::NetError;
use deepsim_nets::metrics::mean_pair_distance;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::loaded::Loaded;
use crate::photos::BATCH;

/// Mean distances over all pairs of different held-out photographs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Between pictures, Caffe units.
    pub image: f64,
    /// Between their features at the inverted layer.
    pub feature: f64,
    /// Photographs.
    pub n: usize,
}

impl Scale {
    /// Measures the first `limit` held-out photographs of a run.
    ///
    /// # Errors
    /// Fewer than two photographs, unreadable ones, or photographs that are all the same.
    pub fn measure(run: &Loaded, limit: usize, device: Device) -> Result<Scale> {
        let _guard = tch::no_grad_guard();
        let data = run.test_data()?;
        let n = data.len().min(limit.max(2));
        let (mut pictures, mut features) = (vec![], vec![]);
        for from in (0..n).step_by(BATCH) {
            let to = n.min(from + BATCH);
            let bytes = deepsim_data::eval_batch(&data, from..to, &run.experiment.augment())?;
            let x = to_caffe(&bytes, device)?;
            features.push(run.perception.encode(&x)?.f_flatten(1, -1)?);
            pictures.push(x.f_flatten(1, -1)?);
        }
        let scale = Scale {
            image: mean_pair_distance(&Tensor::f_cat(&pictures, 0)?)?,
            feature: mean_pair_distance(&Tensor::f_cat(&features, 0)?)?,
            n,
        };
        if scale.image <= 0.0 || scale.feature <= 0.0 {
            return Err(NetError::Spec(
                "the held-out photographs are all the same: there is no distance to normalise by"
                    .into(),
            )
            .into());
        }
        Ok(scale)
    }

    /// A distance between pictures in percent of the mean one.
    pub fn image_percent(&self, distance: f64) -> f64 {
        100.0 * distance / self.image
    }

    /// A distance between features in percent of the mean one.
    pub fn feature_percent(&self, distance: f64) -> f64 {
        100.0 * distance / self.feature
    }
}

/// Euclidean distances between samples of the same index, of pictures or features.
///
/// # Errors
/// Tensors of different shapes.
pub fn distances(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    if a.size() != b.size() || a.dim() < 2 {
        return Err(NetError::InputShape {
            what: "distances".to_owned(),
            expected: format!("two tensors [N,...]; the first has {:?}", a.size()),
            got: b.size(),
        }
        .into());
    }
    let d = a
        .f_to_kind(Kind::Float)?
        .f_sub(&b.f_to_kind(Kind::Float)?)?
        .f_flatten(1, -1)?
        .f_square()?
        .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?
        .f_sqrt()?
        .f_to_device(Device::Cpu)?;
    let mut out = vec![0.0; d.numel()];
    d.f_copy_data(&mut out, d.numel())?;
    Ok(out)
}

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / (values.len().max(1)) as f64
}
