//! Several pictures of the same features: how far they are apart, and whether each still has the features.

use std::path::Path;

use deepsim_experiment::evaluate::held_out_features;
use deepsim_nets::init::{derive_seed, seeded};
use deepsim_nets::metrics::{gradient_energy, mean_distance, mean_pair_distance, normalised_error};
use deepsim_nets::{Mode, pictures};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::format::{Format, columns, csv, json};
use crate::loaded::Loaded;
use crate::photos::{BATCH, from_data, spread};

/// Factor by which the sheet's maps of deviations are brightened.
pub const BRIGHTER: f64 = 4.0;

/// What is said of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Numbers {
    /// Run directory.
    pub run: String,
    /// Random numbers that enter beside the features (at each place of a map).
    pub noise: i64,
    /// Weight of the reward for diversity; 0 without.
    pub diversity: f64,
    /// Whether the discriminator sees the features.
    pub conditioned: bool,
    /// Held-out photographs.
    pub n: usize,
    /// Pictures of each one's features.
    pub draws: usize,
    /// Mean distance of two pictures of the same features, in percent of the mean distance of two photographs.
    pub spread: f64,
    /// The same of their features, in percent of the mean distance of two photographs' features; none where
    /// features were recorded elsewhere, as in the other errors of features.
    pub feature_spread: Option<f64>,
    /// Normalised error of the features of pictures with noise, percent.
    pub feature_error: Option<f64>,
    /// The same of pictures with all noise at zero.
    pub feature_error_of_mean: Option<f64>,
    /// Normalised error of pictures with noise, percent.
    pub image_error: f64,
    /// The same of pictures with all noise at zero.
    pub image_error_of_mean: f64,
    /// Gradient energy of pictures with noise, relative to the photographs'.
    pub gradient_energy: f64,
}

/// Numbers and pictures of one run.
#[derive(Debug)]
pub struct Drawn {
    /// The numbers.
    pub numbers: Numbers,
    /// The photographs, Caffe units.
    pub photos: Tensor,
    /// Pictures with all noise at zero.
    pub mean: Tensor,
    /// Pictures with noise: of each draw, one of every photograph's features.
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
        Ok(pictures::rgb_to_caffe(&grey.f_repeat([1, 3, 1, 1])?)?)
    }
}

/// `count` pictures of each of at most `images` held-out photographs' features.
///
/// # Errors
/// A generator that takes no noise; unreadable photographs, or fewer than two.
pub fn draw(run: &Loaded, images: usize, count: usize, seed: u64, device: Device) -> Result<Drawn> {
    let _guard = tch::no_grad_guard();
    let spec = run.generator.spec();
    if spec.noise == 0 {
        return Err(EvalError::NoNoise {
            run: run.path.clone(),
        });
    }
    let data = run.test_data()?;
    let chosen = spread(&data, images, &[])?;
    let (mut photos, mut mean, mut wanted) = (vec![], vec![], vec![]);
    let mut draws: Vec<Vec<Tensor>> = (0..count).map(|_| Vec::new()).collect();
    for part in chosen.chunks(BATCH) {
        let x = from_data(&data, part, &run.experiment.augment(), device)?;
        let features = held_out_features(&run.perception, &data, part, &x)?;
        let make = |noise: Option<&Tensor>| -> Result<Tensor> {
            let made = run
                .generator
                .forward_in(Mode::Evaluation, &features, noise)?;
            Ok(pictures::clip_caffe(&made)?)
        };
        mean.push(make(None)?);
        for (i, draws) in draws.iter_mut().enumerate() {
            // Each picture has noise of its own, wherever batches begin.
            let mut noise = Vec::new();
            for &photo in part {
                let stream = derive_seed(seed, "pre-image", i as u64);
                let own = derive_seed(stream.unsigned_abs(), "photograph", photo as u64);
                noise.extend(seeded(own, || run.generator.draw_noise(1, Device::Cpu))?);
            }
            let noise = Tensor::f_cat(&noise, 0)?.f_to_device(device)?;
            draws.push(make(Some(&noise))?);
        }
        photos.push(x);
        wanted.push(features.f_flatten(1, -1)?);
    }
    let joined = |parts: &[Tensor]| Tensor::f_cat(parts, 0);
    let photos = joined(&photos)?;
    let mean = joined(&mean)?;
    let draws: Vec<Tensor> = draws
        .iter()
        .map(|parts| Ok(joined(parts)?))
        .collect::<Result<_>>()?;
    let flat = |x: &Tensor| -> Result<Tensor> { Ok(x.f_flatten(1, -1)?) };
    let features = |x: &Tensor| -> Result<Tensor> {
        let n = x.size()[0];
        let mut all = Vec::new();
        for from in (0..n).step_by(BATCH) {
            let part = x.f_narrow(0, from, (n - from).min(BATCH as i64))?;
            all.push(flat(&run.perception.encode(&part)?)?);
        }
        Ok(joined(&all)?)
    };
    let real = flat(&photos)?;
    let made: Vec<Tensor> = draws.iter().map(flat).collect::<Result<_>>()?;
    let mut image_error = 0.0;
    let mut energy = 0.0;
    for (draw, made) in draws.iter().zip(&made) {
        image_error += normalised_error(&real, made)? / count as f64;
        energy += gradient_energy(draw)? / count as f64;
    }
    let mut numbers = Numbers {
        run: run.path.display().to_string(),
        noise: spec.noise,
        diversity: run.experiment.raw.diversity.map_or(0.0, |d| d.weight),
        conditioned: run.experiment.raw.discriminator.features,
        n: chosen.len(),
        draws: count,
        spread: apart(&made, mean_pair_distance(&real)?)?,
        feature_spread: None,
        feature_error: None,
        feature_error_of_mean: None,
        image_error,
        image_error_of_mean: normalised_error(&real, &flat(&mean)?)?,
        gradient_energy: energy / gradient_energy(&photos)?.max(f64::MIN_POSITIVE),
    };
    if run.perception.encodes() {
        let wanted = joined(&wanted)?;
        let seen: Vec<Tensor> = draws.iter().map(features).collect::<Result<_>>()?;
        let mut error = 0.0;
        for seen in &seen {
            error += normalised_error(&wanted, seen)? / count as f64;
        }
        numbers.feature_error = Some(error);
        numbers.feature_error_of_mean = Some(normalised_error(&wanted, &features(&mean)?)?);
        numbers.feature_spread = Some(apart(&seen, mean_pair_distance(&wanted)?)?);
    }
    Ok(Drawn {
        numbers,
        photos,
        mean,
        draws,
    })
}

/// Mean distance of rows of the same index over all pairs of draws, in percent of `unit`.
fn apart(draws: &[Tensor], unit: f64) -> Result<f64> {
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (i, a) in draws.iter().enumerate() {
        for b in &draws[..i] {
            sum += mean_distance(a, b)?;
            pairs += 1.0;
        }
    }
    Ok(100.0 * sum / pairs / unit.max(f64::MIN_POSITIVE))
}

/// Numbers of several runs, in a format.
///
/// # Errors
/// None of ours.
pub fn render(rows: &[Numbers], format: Format) -> Result<String> {
    match format {
        Format::Json => json(&rows.iter().collect::<Vec<_>>()),
        Format::Csv => csv(&rows.iter().collect::<Vec<_>>()),
        Format::Text => Ok(text(rows)),
    }
}

fn text(rows: &[Numbers]) -> String {
    let optional = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.1}"));
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                crate::runs::name(Path::new(&r.run)),
                match r.conditioned {
                    true => "yes".to_owned(),
                    false => "no".to_owned(),
                },
                format!("{}", r.diversity),
                format!("{:.1}", r.spread),
                optional(r.feature_spread),
                optional(r.feature_error),
                optional(r.feature_error_of_mean),
                format!("{:.1}", r.image_error),
                format!("{:.2}", r.gradient_energy),
            ]
        })
        .collect();
    let head = [
        "run", "D sees", "reward", "spread", "of feat.", "feature", "at mean", "image", "sharp",
    ];
    format!(
        "{}spread: distance of two pictures of the same features, % of that of two photographs; of feat.: the \
         same\nof their features. feature, image: errors of pictures with noise (at mean: noise zero), %.\n\
         D sees: whether the discriminator sees the features; reward: weight of diversity.\n",
        columns(&head, &cells)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_over_all_pairs() {
        let rows = |v: f64| Tensor::full([2, 4], v, (Kind::Float, Device::Cpu));
        // Distances 2·|difference|: 2, 6 and 4.
        let draws = [rows(0.0), rows(1.0), rows(3.0)];
        assert_eq!(apart(&draws, 8.0).unwrap(), 50.0);
    }
}
