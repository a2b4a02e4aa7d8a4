//! Mahendran & Vedaldi's inversion of a batch of features.

use deepsim_experiment::ExperimentError;
use deepsim_nets::init;
use tch::{Device, Kind, Tensor};

use super::objective::{Settings, energy, update};
use crate::error::{EvalError, Result};

/// A batch that was inverted.
#[derive(Debug)]
pub struct Batch {
    /// Images `[N,3,S,S]` in Caffe units, not clipped.
    pub images: Tensor,
    /// Feature term of each image at the start.
    pub feature_start: Vec<f64>,
    /// The same at the end.
    pub feature_end: Vec<f64>,
}

/// The noise that image `index` starts from, `[1,3,S,S]`, of norm σ: a function of the seed and
/// the image alone, so that batches do not matter.
///
/// # Errors
/// What libtorch refuses.
pub fn noise(index: usize, crop: u32, s: &Settings) -> Result<Tensor> {
    let side = i64::from(crop);
    let x = init::normal(&format!("mv.{index}"), &[1, 3, side, side], 1.0, s.seed)?;
    let norm = x.f_norm().map_err(ExperimentError::from)?.double_value(&[]);
    Ok(x.f_mul_scalar(s.sigma / norm.max(f64::MIN_POSITIVE))
        .map_err(ExperimentError::from)?)
}

/// Minimises the objective from `start` `[N,3,S,S]`, for all images of the batch at once.
/// `encode` must let gradients pass. `progress` is told of each step.
///
/// # Errors
/// What `encode` refuses, or an optimisation that left all bounds.
pub fn invert(
    encode: &dyn Fn(&Tensor) -> Result<Tensor>,
    target: &Tensor,
    start: &Tensor,
    s: &Settings,
    mut progress: impl FnMut(),
) -> Result<Batch> {
    let target = target.f_detach().map_err(ExperimentError::from)?;
    let mut x = start.f_detach_copy().map_err(ExperimentError::from)?;
    let mut feature_start = None;
    for stage in &s.stages {
        let mut moment = x.f_zeros_like().map_err(ExperimentError::from)?;
        for _ in 0..stage.steps {
            let leaf = x
                .f_detach()
                .and_then(|x| x.f_set_requires_grad(true))
                .map_err(ExperimentError::from)?;
            let energy = energy(&encode(&leaf)?, &target, &leaf, s)?;
            if feature_start.is_none() {
                feature_start = Some(values(&energy.feature)?);
            }
            let gradients = Tensor::f_run_backward(&[energy.total()?], &[&leaf], false, false)
                .map_err(ExperimentError::from)?;
            let Some(gradient) = gradients.first() else {
                return Err(EvalError::Format("libtorch gave no gradient".to_owned()));
            };
            update(&mut x, &mut moment, gradient, stage.rate, s)?;
            progress();
        }
    }
    let _guard = tch::no_grad_guard();
    let feature_end = values(&energy(&encode(&x)?, &target, &x, s)?.feature)?;
    if feature_end.iter().any(|v| !v.is_finite()) {
        return Err(EvalError::Diverged);
    }
    Ok(Batch {
        images: x,
        feature_start: feature_start.unwrap_or_else(|| feature_end.clone()),
        feature_end,
    })
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    let read = || -> std::result::Result<Vec<f64>, tch::TchError> {
        let x = x.f_detach()?.f_to_kind(Kind::Double)?;
        let x = x.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut out = vec![0.0; x.numel()];
        x.f_copy_data(&mut out, x.numel())?;
        Ok(out)
    };
    Ok(read().map_err(ExperimentError::from)?)
}
