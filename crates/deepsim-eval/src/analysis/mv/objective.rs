//! What Mahendran & Vedaldi minimise, and how they step.

use deepsim_experiment::ExperimentError;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::Result;

/// Norm of a typical image of 227×227 pixels in Caffe units (published code).
const SIGMA_227: f64 = 27_098.115_7;
/// The crop that it belongs to.
const CROP: f64 = 227.0;

/// A part of the schedule: so many steps at one rate, starting without momentum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Steps.
    pub steps: usize,
    /// Learning rate, of x/σ.
    pub rate: f64,
}

/// Settings of the optimisation; all of them are in the record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// σ: norm of a typical image, Caffe units.
    pub sigma: f64,
    /// λ_TV of the total variation (β = 2).
    pub lambda_tv: f64,
    /// λ_α of the sixth powers.
    pub lambda_alpha: f64,
    /// Momentum.
    pub momentum: f64,
    /// The schedule.
    pub stages: Vec<Stage>,
    /// Seed of the noise that it starts from.
    pub seed: u64,
}

impl Settings {
    /// The published ones. σ follows the side of the crop: it is the norm of an image, and all
    /// terms then weigh the same at every size.
    pub fn published(crop: u32, lambda_tv: f64, seed: u64) -> Settings {
        let rate = 0.004;
        let stage = |steps, part: f64| Stage {
            steps,
            rate: rate * part,
        };
        Settings {
            sigma: SIGMA_227 * f64::from(crop) / CROP,
            lambda_tv,
            lambda_alpha: 8e-10,
            momentum: 0.9,
            stages: vec![stage(100, 1.0), stage(200, 0.1), stage(100, 0.01)],
            seed,
        }
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.stages.iter().map(|s| s.steps).sum()
    }
}

/// Terms of the objective for each image, `[N]`.
#[derive(Debug)]
pub struct Energy {
    /// ‖Φ(x)−Φ₀‖² / ‖Φ₀‖².
    pub feature: Tensor,
    /// \[λ_TV/2 Σ(dx²+dy²) + λ_α/2 Σx⁶\] / σ².
    pub regulariser: Tensor,
}

impl Energy {
    /// Sum over terms and images: its gradient with respect to one image is that of this
    /// image's own objective.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn total(&self) -> Result<Tensor> {
        let each = self.feature.f_add(&self.regulariser);
        Ok(each
            .and_then(|e| e.f_sum(Kind::Float))
            .map_err(ExperimentError::from)?)
    }
}

fn per_image(x: &Tensor) -> std::result::Result<Tensor, tch::TchError> {
    x.f_flatten(1, -1)?
        .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
}

/// The objective of images `x` `[N,3,H,W]` (Caffe units) with features `features` that should
/// become `target` (both `[N,...]`). Differences at the right and lower border are none.
///
/// # Errors
/// Tensors that do not fit each other.
pub fn energy(features: &Tensor, target: &Tensor, x: &Tensor, s: &Settings) -> Result<Energy> {
    let made = || -> std::result::Result<Energy, tch::TchError> {
        // Features that are all zero (a rectified layer on a plain image) would divide by nothing.
        let norm = per_image(&target.f_square()?)?.f_clamp_min(1e-12)?;
        let feature = per_image(&features.f_sub(target)?.f_square()?)?.f_div(&norm)?;
        let variation = |dim| per_image(&x.f_diff::<Tensor>(1, dim, None, None)?.f_square()?);
        let tv = variation(3)?.f_add(&variation(2)?)?;
        let sixth = per_image(&x.f_pow_tensor_scalar(6)?)?;
        let square = s.sigma * s.sigma;
        let regulariser = tv
            .f_mul_scalar(s.lambda_tv / 2.0 / square)?
            .f_add(&sixth.f_mul_scalar(s.lambda_alpha / 2.0 / square)?)?;
        Ok(Energy {
            feature,
            regulariser,
        })
    };
    Ok(made().map_err(ExperimentError::from)?)
}

/// One update, in place: m ← momentum·m − rate·σ²·∇E, x ← x + m.
///
/// # Errors
/// Tensors of different shapes.
pub fn update(
    x: &mut Tensor,
    moment: &mut Tensor,
    gradient: &Tensor,
    rate: f64,
    s: &Settings,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let mut step = || -> std::result::Result<(), tch::TchError> {
        let _ = moment
            .f_mul_scalar_(s.momentum)?
            .f_sub_(&gradient.f_mul_scalar(rate * s.sigma * s.sigma)?)?;
        let _ = x.f_add_(moment)?;
        Ok(())
    };
    Ok(step().map_err(ExperimentError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schedule() {
        let s = Settings::published(227, 100.0, 1);
        assert_eq!(s.steps(), 400);
        assert_eq!(s.sigma, 27_098.115_7);
        let rates: Vec<f64> = s.stages.iter().map(|s| s.rate).collect();
        assert!((rates[1] - 4e-4).abs() < 1e-12 && (rates[2] - 4e-5).abs() < 1e-12);
        // A pixel's typical value does not depend on the size.
        let small = Settings::published(64, 100.0, 1);
        let value = |s: &Settings, crop: f64| s.sigma / (3.0 * crop * crop).sqrt();
        assert!((value(&s, 227.0) - value(&small, 64.0)).abs() < 1e-9);
    }
}
