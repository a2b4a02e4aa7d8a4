//! Several images of the same features: how far they are apart, and whether each still has the features.

use deepsim_data::spread;
use deepsim_experiment::Clip;
use deepsim_experiment::evaluate::held_out_of;
use deepsim_experiment::measure::{Batch, sum_of_distances};
use deepsim_nets::init::{derive_seed, seeded};
use deepsim_nets::metrics::gradient_energy;
use deepsim_nets::{Mode, images};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::measure::photos::{picked, within};
use crate::run::catalog;
use crate::run::loaded::{HeldOutImages, Loaded};
use crate::show::format::{number, table};

/// Factor by which the sheet's maps of deviations are brightened.
pub const BRIGHTER: f64 = 4.0;

/// What is said of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Numbers {
    /// Run directory.
    pub run: String,
    /// Random numbers that enter beside the features (at each place of a map).
    pub noise: i64,
    /// Weight of the reward for diversity; 0 without.
    pub diversity: f64,
    /// Whether the discriminator sees the features.
    pub conditioned: bool,
    /// Held-out images.
    pub n: usize,
    /// Images of each one's features.
    pub draws: usize,
    /// Mean distance of two images made from the same features, in percent of the mean distance of two held-out images.
    pub spread: f64,
    /// The same of their features, in percent of the mean distance of two images' features; none where
    /// features were recorded elsewhere, as in the other errors of features.
    pub feature_spread: Option<f64>,
    /// Normalised error of the features of images with noise, percent.
    pub feature_error: Option<f64>,
    /// The same of images with all noise at zero.
    pub feature_error_of_mean: Option<f64>,
    /// Normalised error of images with noise, percent.
    pub image_error: f64,
    /// The same of images with all noise at zero.
    pub image_error_of_mean: f64,
    /// Gradient energy of images with noise, relative to the original images'.
    pub gradient_energy: f64,
    /// Images whose pairs distances are relative to.
    pub n_pairs_from: usize,
}

/// Numbers and images of one run.
#[derive(Debug)]
pub struct Drawn {
    /// The numbers.
    pub numbers: Numbers,
    /// The images that are shown, Caffe units.
    pub photos: Tensor,
    /// Images with all noise at zero.
    pub mean: Tensor,
    /// Images with noise: of each draw, one from every held-out image's features.
    pub draws: Vec<Tensor>,
}

impl Drawn {
    /// Standard deviation of each pixel over the draws, [`BRIGHTER`] times, as grey levels in Caffe units.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn deviation(&self) -> Result<Tensor> {
        let all = Tensor::f_stack(&self.draws, 0)?;
        let grey = all
            .f_std_dim(0i64, true, false)?
            .f_mean_dim(1i64, true, Kind::Float)?
            .f_mul_scalar(BRIGHTER)?
            .f_clamp(0.0, 255.0)?;
        Ok(images::rgb_to_caffe(&grey.f_repeat([1, 3, 1, 1])?)?)
    }
}

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Images of each one's features.
    pub draws: usize,
    /// Held-out images whose generated images are kept.
    pub show: usize,
    /// Seed of the noise.
    pub seed: u64,
}

/// Images made from the features of held-out images.
///
/// # Errors
/// A generator that takes no noise; unreadable images, or fewer than two.
pub fn draw(run: &Loaded, of: &HeldOutImages, request: Draw) -> Result<Drawn> {
    let _guard = tch::no_grad_guard();
    let spec = run.generator.spec();
    if spec.noise == 0 {
        return Err(EvalError::NoNoise {
            run: run.path.clone(),
        });
    }
    let chosen = &of.chosen;
    let shown = spread(request.show, chosen.len());
    let encodes = run.perception.encodes();
    let (mut photos, mut mean) = (vec![], vec![]);
    let mut draws: Vec<Vec<Tensor>> = (0..request.draws).map(|_| Vec::new()).collect();
    let (mut far, mut feature_far, mut energy, mut real) = (0.0, 0.0, 0.0, 0.0);
    let (mut apart, mut features_apart) = (0.0, 0.0);
    let mut at = 0;
    let look = |batch: &Batch| -> Result<()> {
        let x = &batch.images;
        let places = at..at + x.size()[0] as usize;
        at = places.end;
        real += gradient_energy(x)?;
        let Some(features) = &batch.features else {
            return Err(EvalError::Format(
                "no features to generate an image from".to_owned(),
            ));
        };
        let here = within(&places, &shown);
        photos.push(picked(x, &here)?);
        mean.push(picked(&batch.made, &here)?);
        let (mut made, mut made_features) = (Vec::new(), Vec::new());
        for (i, kept) in draws.iter_mut().enumerate() {
            // Each image has noise of its own, wherever batches begin.
            let mut noise = Vec::new();
            for &photo in &chosen[places.clone()] {
                let stream = derive_seed(request.seed, "pre-image", i as u64);
                let own = derive_seed(stream.unsigned_abs(), "photograph", photo as u64);
                noise.extend(seeded(own, || run.generator.draw_noise(1, Device::Cpu))?);
            }
            let noise = Tensor::f_cat(&noise, 0)?.f_to_device(run.device)?;
            let y = run
                .generator
                .forward_in(Mode::Evaluation, features, Some(&noise))?;
            let y = images::clip_caffe(&y)?;
            far += sum_of_distances(x, &y)?;
            energy += gradient_energy(&y)?;
            if encodes {
                let own = run.perception.encode(&y)?;
                feature_far += sum_of_distances(features, &own)?;
                made_features.push(own);
            }
            kept.push(picked(&y, &here)?);
            made.push(y);
        }
        apart += sum_of_pairs(&made)?;
        features_apart += sum_of_pairs(&made_features)?;
        Ok(())
    };
    let (perception, clip) = (&run.perception, Clip::Displayable);
    let of_mean = held_out_of(of.images(), perception, &run.generator, clip, look)?;
    let norm = of_mean.norm;
    let (n, count) = (chosen.len() as f64, request.draws as f64);
    let pairs = count * (count - 1.0) / 2.0;
    let percent = |sum: f64, of: f64, unit: f64| 100.0 * sum / (n * of) / unit;
    let numbers = Numbers {
        run: run.path.display().to_string(),
        noise: spec.noise,
        diversity: run.experiment.config.diversity.map_or(0.0, |d| d.weight),
        conditioned: run
            .experiment
            .config
            .discriminator
            .as_ref()
            .is_some_and(|d| d.features),
        n: chosen.len(),
        draws: request.draws,
        spread: percent(apart, pairs, norm.image),
        feature_spread: norm
            .feature
            .map(|unit| percent(features_apart, pairs, unit)),
        feature_error: norm.feature.map(|unit| percent(feature_far, count, unit)),
        feature_error_of_mean: of_mean.feature_error,
        image_error: percent(far, count, norm.image),
        image_error_of_mean: of_mean.image_error,
        gradient_energy: energy / count / real.max(f64::MIN_POSITIVE),
        n_pairs_from: norm.pairs_from,
    };
    let joined = |parts: &[Tensor]| Tensor::f_cat(parts, 0);
    Ok(Drawn {
        numbers,
        photos: joined(&photos)?,
        mean: joined(&mean)?,
        draws: draws
            .iter()
            .map(|parts| Ok(joined(parts)?))
            .collect::<Result<_>>()?,
    })
}

/// Sum of the distances of samples of the same index, over all pairs of draws.
fn sum_of_pairs(draws: &[Tensor]) -> Result<f64> {
    let mut all = 0.0;
    for (i, a) in draws.iter().enumerate() {
        for b in &draws[..i] {
            all += sum_of_distances(a, b)?;
        }
    }
    Ok(all)
}

/// Numbers of several runs as a table.
pub fn text(rows: &[Numbers]) -> String {
    let table = table(
        rows,
        &[
            ("run", &|r| catalog::name(&r.run)),
            ("D sees", &|r| {
                (if r.conditioned { "yes" } else { "no" }).to_owned()
            }),
            ("reward", &|r| r.diversity.to_string()),
            ("spread", &|r| format!("{:.1}", r.spread)),
            ("of feat.", &|r| number(r.feature_spread, 1)),
            ("feature", &|r| number(r.feature_error, 1)),
            ("at mean", &|r| number(r.feature_error_of_mean, 1)),
            ("image", &|r| format!("{:.1}", r.image_error)),
            ("sharp", &|r| format!("{:.2}", r.gradient_energy)),
        ],
    );
    format!(
        "{table}spread: distance of two images of the same features, % of that of two held-out images; of feat.: the \
         same\nof their features. feature, image: errors of images with noise (at mean: noise zero), %.\n\
         D sees: whether the discriminator sees the features; reward: weight of diversity.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_over_all_pairs() {
        let rows = |v: f64| Tensor::full([2, 4], v, (Kind::Float, Device::Cpu));
        // Distances 2·|difference| of two rows each: 2, 6 and 4.
        let draws = [rows(0.0), rows(1.0), rows(3.0)];
        assert_eq!(sum_of_pairs(&draws).unwrap(), 24.0);
    }
}
