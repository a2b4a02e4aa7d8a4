//! Interpolation (the paper's Fig. 7): images from features between two images'.

use deepsim_data::terminal::one_line;
use deepsim_experiment::measure::in_batches;
use deepsim_nets::images::clip_caffe;
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::measure::scale::distances;
use crate::run::loaded::Loaded;
use crate::show::format::{number, table};

/// Frames at most: beyond it nobody looks, and memory would be the user's surprise.
pub const MAX_STEPS: usize = 1000;

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    /// Run directory.
    pub run: String,
    /// Frame, from 0.
    pub frame: usize,
    /// Share of the second image's features, 0–1.
    pub t: f64,
    /// Root mean squared difference of pixels from the frame before, grey levels; none for the
    /// first.
    pub step: Option<f64>,
    /// File of the frame, once written.
    pub file: String,
}

/// How evenly images change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Smoothness {
    /// Largest step over the mean step: 1 is perfectly even; as many as there are steps where
    /// everything changes at once.
    pub max_over_mean: f64,
    /// Length of the path over the distance of its ends: 1 is a straight line.
    pub path_over_ends: f64,
}

/// Frames between two images.
#[derive(Debug)]
pub struct Interpolated {
    /// `[steps,3,S,S]` in Caffe units, clipped to 0–255: reconstructions of the first original image,
    /// of features between, and of the second.
    pub frames: Tensor,
    /// One for each frame.
    pub steps: Vec<Step>,
    /// Of all frames.
    pub smoothness: Smoothness,
}

/// Interpolates linearly between the features of images `a` and `b`, each `[1,3,S,S]` in
/// Caffe units, in `steps` frames, both ends included.
///
/// # Errors
/// Fewer than two frames or more than [`MAX_STEPS`], or what the networks refuse.
pub fn compute(
    run: &Loaded,
    a: &Tensor,
    b: &Tensor,
    steps: usize,
    mut progress: impl FnMut(u64),
) -> Result<Interpolated> {
    if !(2..=MAX_STEPS).contains(&steps) {
        return Err(EvalError::Steps {
            got: steps,
            most: MAX_STEPS,
        });
    }
    let _guard = tch::no_grad_guard();
    let (from, to) = (run.perception.encode(a)?, run.perception.encode(b)?);
    let ts: Vec<f64> = (0..steps).map(|i| i as f64 / (steps - 1) as f64).collect();
    let frames = in_batches(steps, |batch| -> Result<Tensor> {
        let mut features = Vec::with_capacity(batch.len());
        for &t in &ts[batch.clone()] {
            // (1−t)a + tb rather than a + t(b−a): exact at both ends.
            features.push(from.f_mul_scalar(1.0 - t)?.f_add(&to.f_mul_scalar(t)?)?);
        }
        let made = clip_caffe(&run.generator.forward(&Tensor::f_cat(&features, 0)?)?)?;
        progress(batch.len() as u64);
        Ok(made)
    })?
    .f_to_kind(Kind::Float)?;
    let n = steps as i64;
    let pixels = frames.size()[1..].iter().product::<i64>() as f64;
    let per_pixel = |d: f64| d / pixels.sqrt();
    let between = distances(
        &frames.f_narrow(0, 0, n - 1)?,
        &frames.f_narrow(0, 1, n - 1)?,
    )?;
    let between: Vec<f64> = between.into_iter().map(per_pixel).collect();
    let ends = distances(&frames.f_narrow(0, 0, 1)?, &frames.f_narrow(0, n - 1, 1)?)?;
    let ends = ends.first().copied().map_or(0.0, per_pixel);
    let name = run.path.display().to_string();
    let step = |i: usize| i.checked_sub(1).and_then(|i| between.get(i).copied());
    Ok(Interpolated {
        steps: (0..)
            .zip(&ts)
            .map(|(frame, &t)| Step {
                run: name.clone(),
                frame,
                t,
                step: step(frame),
                file: String::new(),
            })
            .collect(),
        smoothness: smoothness(&between, ends),
        frames,
    })
}

/// Two images that are the same do not move: that counts as even and straight.
fn smoothness(steps: &[f64], ends: f64) -> Smoothness {
    let path: f64 = steps.iter().sum();
    let most = steps.iter().copied().fold(0.0, f64::max);
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 1.0 };
    Smoothness {
        max_over_mean: ratio(most, path / steps.len().max(1) as f64),
        path_over_ends: ratio(path, ends),
    }
}

/// Frames of several runs as tables, each with its smoothness.
pub fn text(runs: &[(Vec<Step>, Smoothness)]) -> String {
    let mut out = String::new();
    for (steps, smooth) in runs {
        let Some(first) = steps.first() else { continue };
        let table = table(
            steps,
            &[
                ("frame", &|s| s.frame.to_string()),
                ("t", &|s| format!("{:.3}", s.t)),
                ("step", &|s| number(s.step, 2)),
                ("file", &|s| s.file.clone()),
            ],
        );
        out.push_str(&format!(
            "{}\n{table}largest step / mean step {:.2}, path / distance of its ends {:.2}\n\
             (step: root mean squared change of pixels, grey levels)\n",
            one_line(&first.run),
            smooth.max_over_mean,
            smooth.path_over_ends
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_steps_are_one_and_a_jump_is_the_number_of_steps() {
        let even = smoothness(&[2.0, 2.0, 2.0], 6.0);
        assert_eq!((even.max_over_mean, even.path_over_ends), (1.0, 1.0));
        let jump = smoothness(&[0.0, 9.0, 0.0], 3.0);
        assert_eq!((jump.max_over_mean, jump.path_over_ends), (3.0, 3.0));
        assert_eq!(smoothness(&[0.0, 0.0], 0.0).max_over_mean, 1.0);
    }
}
