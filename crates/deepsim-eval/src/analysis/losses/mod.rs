//! Training objectives against metrics: inversions, autoencoders and super-resolution, each trained with several losses,
//! each measured by all metrics (the argument of Snell, Ridgeway et al.: what is trained for is what is gained).
//!
//! A metric whose network, or one of its family, had a part in a run's training is silent for that run.

mod objective;
mod row;
mod summary;

use std::collections::BTreeMap;
use std::path::Path;

use deepsim_data::Dataset;
use deepsim_experiment::evaluate::{decode, held_out_features};
use deepsim_experiment::measure::{self, Batch, in_batches};
use deepsim_experiment::source::Source;
use deepsim_experiment::{Clip, Experiment};
use deepsim_nets::images::caffe_to_rgb;
use deepsim_nets::loss::ssim as structural;
use deepsim_nets::metrics::{kernel_distance, linear_probe};
use deepsim_nets::{FeatureNet, NetKind};
use tch::{Device, Kind, Tensor};

use crate::analysis::measure::{Metric, metrics};
use crate::analysis::recipe::trained_on;
use crate::analysis::sample::{self, REFERENCE_FILE, REFERENCE_NET, REFERENCE_TAP};
use crate::error::{EvalError, Result};
use crate::measure::metrics::{Score, features_at, used};
use crate::measure::photos::{LeftOut, categories, category, encoded, from_data, narrowed, some};
use crate::measure::scale::mean;
use crate::run::loaded::{HeldOutImages, Loaded};

pub use objective::{compares, task, trained_with};
pub use row::Row;
pub use summary::{planes, sort, text};

/// What runs are measured by beside the formulas of pixels.
pub struct Judges {
    /// LPIPS and DISTS, those whose weights are there and others.
    pairs: Vec<Metric>,
    reference: Option<FeatureNet>,
    /// What cannot be measured for want of a file, a line each.
    pub missing: Vec<String>,
}

impl Judges {
    /// Loads the metrics whose weights are in `folder`.
    ///
    /// # Errors
    /// Weights that are there and damaged.
    pub fn load(folder: &Path, device: Device) -> Result<Judges> {
        let mut pairs = metrics(folder, device)?;
        pairs.retain(|metric| metric.net.is_some());
        let reference = sample::reference(folder, device)?;
        let mut missing: Vec<String> = pairs
            .iter()
            .filter_map(|metric| {
                let reason = metric.protocol.reason.as_ref()?;
                Some(format!("{}: {reason}", metric.label))
            })
            .collect();
        if reference.is_none() {
            let file = deepsim_data::terminal::path(folder.join(REFERENCE_FILE));
            missing.push(format!(
                "kernel distance: no {file}: `cargo xtask setup` fetches it"
            ));
        }
        Ok(Judges {
            pairs,
            reference,
            missing,
        })
    }
}

/// Whether a network's family is among those that had a part.
fn is_related(net: NetKind, used: &[NetKind]) -> bool {
    used.iter().any(|b| net.info().family == b.info().family)
}

/// What the judges say of one run, batch by batch.
struct Hearing<'a> {
    judges: &'a Judges,
    used: Vec<NetKind>,
    /// Numbers of the pairs, by metric.
    numbers: Vec<Vec<f64>>,
    /// Features of photos and of what was made, batches of rows.
    features: [Vec<Tensor>; 2],
}

impl<'a> Hearing<'a> {
    fn of(judges: &'a Judges, experiment: &Experiment) -> Hearing<'a> {
        Hearing {
            judges,
            used: used(experiment),
            numbers: vec![Vec::new(); judges.pairs.len()],
            features: [Vec::new(), Vec::new()],
        }
    }

    /// Photos and what was made of them, both `[N,3,S,S]` in Caffe units.
    fn add(&mut self, photos: &Tensor, made: &Tensor) -> Result<()> {
        let (a, b) = (caffe_to_rgb(photos)?, caffe_to_rgb(made)?);
        for (metric, numbers) in self.judges.pairs.iter().zip(&mut self.numbers) {
            if metric.net.is_none_or(|net| !is_related(net, &self.used)) {
                numbers.extend(metric.numbers(&a, &b)?.unwrap_or_default());
            }
        }
        if let Some(net) = &self.judges.reference
            && !is_related(REFERENCE_NET, &self.used)
        {
            let [of_photos, of_made] = &mut self.features;
            of_photos.push(features_at(net, REFERENCE_TAP, photos)?);
            of_made.push(features_at(net, REFERENCE_TAP, made)?);
        }
        Ok(())
    }

    /// The mean of a metric of pairs.
    fn pairs(&self, key: &str) -> Score {
        let mut all = self.judges.pairs.iter().zip(&self.numbers);
        let Some((metric, numbers)) = all.find(|(metric, _)| metric.key == key) else {
            return Score::Missing;
        };
        let mean = mean(numbers);
        match metric.net {
            Some(net) if is_related(net, &self.used) => Score::Shared,
            // Images may be too small for it.
            _ if numbers.is_empty() || !mean.is_finite() => Score::Missing,
            _ => Score::Value(mean),
        }
    }

    fn kernel_distance(&self) -> Result<Score> {
        if is_related(REFERENCE_NET, &self.used) {
            return Ok(Score::Shared);
        }
        let [of_photos, of_made] = &self.features;
        if of_photos.is_empty() {
            return Ok(Score::Missing);
        }
        let (real, made) = (Tensor::f_cat(of_photos, 0)?, Tensor::f_cat(of_made, 0)?);
        Ok(Score::Value(kernel_distance(&made, &real)?))
    }
}

/// Images and what a run makes of them, both `[N,3,S,S]` in Caffe units.
///
/// # Errors
/// Unreadable images.
pub fn reconstructions(run: &Loaded, data: &Dataset, chosen: &[usize]) -> Result<(Tensor, Tensor)> {
    let real = from_data(data, chosen, &run.experiment.augment(), run.device)?;
    let made = in_batches(chosen.len(), |batch| -> Result<Tensor> {
        let x = narrowed(&real, &batch)?;
        let features = held_out_features(&run.perception, data, &chosen[batch], &x)?;
        Ok(decode(&run.generator, &features, Clip::Displayable)?)
    })?;
    Ok((real, made))
}

/// Training images that a category must have to be asked of the probe.
const FEW: usize = 5;
/// Most images of each side that the probe sees: it compares each with each.
const MANY: usize = 4096;

/// What a linear probe makes of the codes: share right, share by chance, images.
///
/// # Errors
/// Unreadable images.
fn classify(run: &Loaded) -> Result<(Option<f64>, Option<f64>, usize)> {
    let (train, test) = (run.train_data()?, run.test_data()?);
    let mut counts = categories(&train);
    counts.retain(|name, n| !name.is_empty() && *n >= FEW);
    let names: Vec<&String> = counts.keys().collect();
    let known = |data: &Dataset| -> (Vec<usize>, Vec<i64>) {
        let all: Vec<(usize, i64)> = (0..data.len())
            .filter_map(|i| {
                let class = names.binary_search(&&category(data, i)).ok()?;
                Some((i, class as i64))
            })
            .collect();
        some(&all, MANY).into_iter().unzip()
    };
    let (of_train, (of_test, wanted)) = (known(&train), known(&test));
    if names.len() < 2 || of_test.is_empty() {
        return Ok((None, None, 0));
    }
    let augment = run.experiment.augment();
    let codes = |data: &Dataset, of: &[usize], left_out: LeftOut| {
        encoded(data, of, &augment, left_out, run.device, |part, x| {
            Ok(held_out_features(&run.perception, data, part, x)?.f_flatten(1, -1)?)
        })
    };
    let class_of: BTreeMap<usize, i64> = of_train.0.iter().copied().zip(of_train.1).collect();
    let (kept, codes_of_train) = codes(&train, &of_train.0, LeftOut::of(&run.experiment))?;
    let classes: Vec<i64> = kept
        .iter()
        .filter_map(|i| class_of.get(i).copied())
        .collect();
    let (_, codes_of_test) = codes(&test, &of_test, LeftOut::none())?;
    let found = linear_probe(&codes_of_train, &classes, &codes_of_test)?;
    let share = |right: usize| Some(right as f64 / of_test.len() as f64);
    let commonest = counts.values().copied().max();
    let commonest = names
        .iter()
        .position(|n| counts.get(*n).copied() == commonest);
    let guessed = |w: &&i64| Some(**w) == commonest.map(|c| c as i64);
    Ok((
        share(found.iter().zip(&wanted).filter(|(a, b)| a == b).count()),
        share(wanted.iter().filter(guessed).count()),
        of_test.len(),
    ))
}

/// Measures a run on held-out images.
///
/// # Errors
/// Unreadable original images, fewer than two, or images below 11 pixels.
pub fn measure(run: &Loaded, of: &HeldOutImages, judges: &Judges) -> Result<Row> {
    let _guard = tch::no_grad_guard();
    let e = &run.experiment;
    let mut hearing = Hearing::of(judges, e);
    let n = of.chosen.len();
    let (mut ssim, mut ms_ssim, mut scales) = (0.0, 0.0, 0);
    let (mut l1, mut l2, mut values) = (0.0, 0.0, 0);
    let number = |x: Tensor| -> Result<f64> { Ok(x.f_sum(Kind::Double)?.f_double_value(&[])?) };
    let look = |batch: &Batch| -> Result<()> {
        let (x, y) = (&batch.images, &batch.made);
        hearing.add(x, y)?;
        let difference = x.f_sub(y)?;
        l1 += number(difference.f_abs()?)?;
        l2 += number(difference.f_square()?)?;
        values += difference.numel();
        let (x, y) = (caffe_to_rgb(x)?, caffe_to_rgb(y)?);
        ssim += number(structural::ssim(&x, &y)?)?;
        let several = structural::ms_ssim(&x, &y)?;
        scales = several.scales;
        ms_ssim += number(several.similarity)?;
        Ok(())
    };
    let encode = |x: &Tensor| -> Result<Tensor> { Ok(run.perception.encode(x)?) };
    // Of codes and small images only what is decoded is measured, and whether they tell categories. What is inverted is the
    // same for all objectives, and what was recorded cannot be encoded.
    let coded = e.config.latent.is_some() || matches!(e.encoder, Source::Downsampled(_));
    let inverted = !coded && !matches!(e.encoder, Source::Recorded(_));
    let held = measure::measure(
        of.images(),
        &|indices, x| {
            let features = held_out_features(&run.perception, &of.data, indices, x)?;
            let made = decode(&run.generator, &features, Clip::Displayable)?;
            Ok((made, inverted.then_some(features)))
        },
        inverted.then_some(&encode as measure::Encode<'_, EvalError>),
        look,
    )?;
    let (classified, classified_by_chance, n_classified) = if coded {
        classify(run)?
    } else {
        (None, None, 0)
    };
    let lpips_vgg16 = hearing.pairs("lpips_vgg16");
    let lpips_alex = hearing.pairs("lpips_alex");
    let manifest = &run.checkpoint.manifest;
    Ok(Row {
        run: run.path.display().to_string(),
        task: task(e),
        trained_with: trained_with(e),
        adversary: objective::has_adversary(e),
        seed: e.config.train.seed,
        steps: manifest.step,
        seconds: manifest.seconds,
        n,
        photos: format!(
            "{} {} {:?} {n}",
            manifest.test_data, e.config.data.crop, e.config.data.scale
        ),
        l1: l1 / values as f64,
        l2: (l2 / values as f64).sqrt(),
        ssim: ssim / n as f64,
        ms_ssim: ms_ssim / n as f64,
        scales,
        lpips: match lpips_vgg16 {
            Score::Shared => lpips_alex,
            heard => heard,
        },
        lpips_alex,
        lpips_vgg16,
        dists: hearing.pairs("dists"),
        kernel_distance: hearing.kernel_distance()?,
        image_error: held.image_error,
        feature_error: held.feature_error,
        feature_trained: trained_on(e),
        gradient_energy: held.gradient_energy,
        classified,
        classified_by_chance,
        n_classified,
        n_pairs_from: held.norm.pairs_from,
    })
}
