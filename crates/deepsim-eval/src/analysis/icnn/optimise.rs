//! What iCNN minimises, and how it steps.

use deepsim_experiment::ExperimentError;
use tch::{Device, Kind, TchError, Tensor};

use crate::error::{EvalError, Result};

/// Settings of the optimisation.
#[derive(Debug)]
pub struct Settings {
    /// Steps.
    pub steps: usize,
    /// Learning rate of the first step; it falls linearly.
    pub first_rate: f64,
    /// What it falls to.
    pub last_rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// What the input loses in each step, as a share.
    pub decay: f64,
    /// The least that each value of the input may be.
    pub lower: Option<f64>,
    /// The most, a tensor that broadcasts to `[N,…]`.
    pub upper: Option<Tensor>,
}

impl Settings {
    /// Those of the authors' script `icnn_dgn_gd.py`, without upper bounds.
    pub fn published() -> Settings {
        Settings {
            steps: 200,
            first_rate: 2.0,
            last_rate: 1e-10,
            momentum: 0.9,
            decay: 0.01,
            lower: Some(0.0),
            upper: None,
        }
    }

    /// Learning rate of a step, from 0.
    pub fn rate(&self, step: usize) -> f64 {
        let part = step as f64 / self.steps.max(1) as f64;
        self.first_rate + (self.last_rate - self.first_rate) * part
    }
}

/// Sum over all but the first dimension, `[N]`.
fn per_image(x: &Tensor) -> std::result::Result<Tensor, TchError> {
    x.f_flatten(1, -1)?
        .f_sum_dim_intlist([1i64].as_slice(), false, x.kind())
}

/// Numbers `[N]` so that they multiply tensors like `x` `[N,…]`.
fn beside(each: &Tensor, x: &Tensor) -> std::result::Result<Tensor, TchError> {
    let mut shape = vec![1; x.dim()];
    if let Some(first) = shape.first_mut() {
        *first = -1;
    }
    each.f_view(shape.as_slice())
}

/// The weight of each layer for each image, `[N]` for each of `targets` `[N,…]`: w = 1/‖φ*‖², scaled so that the weights
/// of an image add up to 1.
///
/// # Errors
/// No layers, or layers of different numbers of images.
pub fn weights(targets: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut all = Vec::with_capacity(targets.len());
    for target in targets {
        // A target that is all zero would divide by nothing.
        let norm = per_image(&target.f_square()?)?.f_clamp_min(1e-12)?;
        all.push(norm.f_reciprocal()?);
    }
    let Some(mut sum) = all.first().map(Tensor::f_zeros_like).transpose()? else {
        return Err(EvalError::Format("no layer to match".to_owned()));
    };
    for weight in &all {
        sum = sum.f_add(weight)?;
    }
    all.iter().map(|weight| Ok(weight.f_div(&sum)?)).collect()
}

/// Σ_l w_l ‖φ_l − φ*_l‖² of each image, `[N]`. Features, targets (`[N,…]`) and weights (`[N]`) are of the same layers.
///
/// # Errors
/// Features of another shape than the targets, or of no layer.
pub fn loss(features: &[Tensor], targets: &[Tensor], weights: &[Tensor]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for ((found, target), weight) in features.iter().zip(targets).zip(weights) {
        let term = per_image(&found.f_sub(target)?.f_square()?)?.f_mul(weight)?;
        sum = Some(match sum {
            None => term,
            Some(sum) => sum.f_add(&term)?,
        });
    }
    sum.ok_or_else(|| EvalError::Format("no layer to match".to_owned()))
}

/// One step, in place: g ← g / mean|g|, Δ ← momentum·Δ + g, f ← (f − rate·Δ)(1 − decay), then into the bounds. The mean is
/// over the values of one image.
///
/// # Errors
/// Tensors of different shapes.
pub fn update(
    input: &mut Tensor,
    moment: &mut Tensor,
    gradient: &Tensor,
    rate: f64,
    s: &Settings,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let values = gradient.f_flatten(1, -1)?;
    let mean = values
        .f_abs()?
        .f_mean_dim([1i64].as_slice(), false, gradient.kind())?
        .f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    let gradient = gradient.f_div(&beside(&mean, gradient)?)?;
    *moment = moment.f_mul_scalar(s.momentum)?.f_add(&gradient)?;
    let mut next = input
        .f_sub(&moment.f_mul_scalar(rate)?)?
        .f_mul_scalar(1.0 - s.decay)?;
    if let Some(lower) = s.lower {
        next = next.f_clamp_min(lower)?;
    }
    if let Some(upper) = &s.upper {
        next = next.f_minimum(upper)?;
    }
    *input = next;
    Ok(())
}

/// Inputs that were found.
#[derive(Debug)]
pub struct Found {
    /// The best input of each image `[N,…]`: that of the smallest loss among all steps and the end.
    pub input: Tensor,
    /// Loss of each image at the start.
    pub start: Vec<f64>,
    /// Loss of each image at its best input.
    pub best: Vec<f64>,
}

/// Optimises inputs from `start` `[N,…]`, all images of the batch at once and each for itself. `features` gives those of an
/// input in the order of `targets`, and must let gradients pass. `progress` is told of each step.
///
/// # Errors
/// What `features` refuses, or an optimisation that left all bounds.
pub fn invert(
    features: &dyn Fn(&Tensor) -> Result<Vec<Tensor>>,
    targets: &[Tensor],
    start: &Tensor,
    s: &Settings,
    mut progress: impl FnMut(),
) -> Result<Found> {
    let weights = weights(targets)?;
    let mut input = start.f_detach_copy()?;
    let mut moment = input.f_zeros_like()?;
    let mut best = Best::default();
    for step in 0..s.steps {
        let leaf = input.f_detach()?.f_set_requires_grad(true)?;
        let each = loss(&features(&leaf)?, targets, &weights)?;
        best.keep(&input, &each)?;
        let total = each.f_sum(each.kind())?;
        let gradients = Tensor::f_run_backward(&[total], &[&leaf], false, false)?;
        let Some(gradient) = gradients.first() else {
            return Err(EvalError::Format("libtorch gave no gradient".to_owned()));
        };
        update(&mut input, &mut moment, gradient, s.rate(step), s)?;
        progress();
    }
    let each = {
        let _guard = tch::no_grad_guard();
        loss(&features(&input)?, targets, &weights)?
    };
    best.keep(&input, &each)?;
    best.found()
}

/// The best inputs so far.
#[derive(Debug, Default)]
struct Best {
    /// Inputs and their losses `[N]`.
    kept: Option<(Tensor, Tensor)>,
    start: Vec<f64>,
}

impl Best {
    fn keep(&mut self, input: &Tensor, each: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let each = each.f_detach()?;
        self.kept = Some(match self.kept.take() {
            None => {
                self.start = values(&each)?;
                (input.f_detach_copy()?, each)
            }
            Some((before, least)) => {
                let better = each.f_lt_tensor(&least)?;
                let inputs = input.f_where_self(&beside(&better, input)?, &before)?;
                (inputs, each.f_where_self(&better, &least)?)
            }
        });
        Ok(())
    }

    fn found(self) -> Result<Found> {
        let Some((input, least)) = self.kept else {
            return Err(EvalError::Format("no input was tried".to_owned()));
        };
        let best = values(&least)?;
        if best.iter().any(|loss| !loss.is_finite()) {
            return Err(EvalError::Diverged);
        }
        Ok(Found {
            input,
            start: self.start,
            best,
        })
    }
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    let read = || -> std::result::Result<Vec<f64>, TchError> {
        let x = x.f_detach()?.f_to_kind(Kind::Double)?;
        Vec::<f64>::try_from(x.f_to_device(Device::Cpu)?)
    };
    Ok(read().map_err(ExperimentError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_rates_fall_linearly() {
        let s = Settings::published();
        assert_eq!((s.steps, s.rate(0)), (200, 2.0));
        assert!((s.rate(100) - 1.0).abs() < 1e-9);
        assert!((s.rate(199) - 0.01).abs() < 1e-9);
    }

    #[test]
    fn each_image_keeps_its_own_best_input() {
        let mut best = Best::default();
        let of = |values: [f32; 2]| Tensor::from_slice(&values);
        for (input, loss) in [
            ([1.0, 1.0], [3.0, 3.0]),
            ([2.0, 2.0], [1.0, 4.0]),
            ([3.0, 3.0], [2.0, 1.0]),
        ] {
            best.keep(&of(input).view([2, 1]), &of(loss)).unwrap();
        }
        let found = best.found().unwrap();
        assert_eq!(found.input.view([2]), of([2.0, 3.0]));
        assert_eq!((found.start, found.best), (vec![3.0, 3.0], vec![1.0, 1.0]));
    }
}
