//! Training losses against metrics: autoencoders and super-resolution, each trained with several losses,
//! each measured by all metrics (the argument of Snell, Ridgeway et al.: what is trained for is what is gained).

use std::collections::BTreeMap;

use deepsim_data::Dataset;
use deepsim_data::terminal::one_line;
use deepsim_experiment::evaluate::{decode, held_out_features};
use deepsim_experiment::measure::{self, Batch, in_batches};
use deepsim_experiment::source::Source;
use deepsim_experiment::{Clip, Experiment};
use deepsim_nets::PixelDistance;
use deepsim_nets::images::caffe_to_rgb;
use deepsim_nets::loss::TermKind;
use deepsim_nets::loss::ssim as structural;
use deepsim_nets::metrics::linear_probe;
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::measure::metrics::{Metrics, Score};
use crate::measure::photos::{LeftOut, categories, category, encoded, from_data, narrowed, some};
use crate::run::catalog::{self, decoded_name};
use crate::run::loaded::{HeldOutImages, Loaded};
use crate::show::format::table;

/// What is said of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Run directory.
    pub run: String,
    /// What is decoded: codes (`NET:TAP>LENGTH`) or small images (`downsampled:FACTOR`).
    pub task: String,
    /// The training loss: L1, L2, SSIM, MS-SSIM or DeePSiM.
    pub trained_with: String,
    /// Held-out images.
    pub n: usize,
    /// Which ones, and how they are cut: runs are comparable where this is the same.
    #[serde(skip)]
    pub photos: String,
    /// Mean absolute difference of pixels, grey levels.
    pub l1: f64,
    /// Root of the mean squared difference of pixels, grey levels.
    pub l2: f64,
    /// Structural similarity; 1 is the same image.
    pub ssim: f64,
    /// The same over scales.
    pub ms_ssim: f64,
    /// Scales of it that the images allow.
    pub scales: usize,
    /// LPIPS; 0 is the same image.
    pub lpips: Score,
    /// Normalised error of pixels, percent.
    pub image_error: f64,
    /// Gradient energy relative to the images'.
    pub gradient_energy: f64,
    /// Share of held-out images whose category a linear probe reads from what is decoded.
    pub classified: Option<f64>,
    /// Share that always guessing the commonest category would get.
    pub classified_by_chance: Option<f64>,
    /// Those images: their categories have at least five training images.
    pub n_classified: usize,
    /// Images whose pairs `image_error` is relative to.
    pub n_pairs_from: usize,
}

/// Whether a run belongs to the comparison: an autoencoder with plain codes, or super-resolution.
pub fn compares(experiment: &Experiment) -> bool {
    let plain =
        experiment.config.latent.is_some() && !crate::analysis::sample::has_prior(experiment);
    plain || matches!(experiment.encoder, Source::Downsampled(_))
}

/// The training loss by its usual name.
pub fn trained_with(experiment: &Experiment) -> &'static str {
    let loss = experiment.config.heaviest_loss();
    if loss.weight(TermKind::Feature) > 0.0 || loss.weight(TermKind::Adversarial) > 0.0 {
        return "DeePSiM";
    }
    match experiment.config.pixels.distance {
        PixelDistance::Squared => "L2",
        PixelDistance::Absolute => "L1",
        PixelDistance::Ssim => "SSIM",
        PixelDistance::MsSsim => "MS-SSIM",
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
pub fn measure(run: &Loaded, of: &HeldOutImages, metrics: &Metrics) -> Result<Row> {
    let _guard = tch::no_grad_guard();
    let mut measuring = metrics.of(&run.experiment);
    let n = of.chosen.len();
    let (mut ssim, mut ms_ssim, mut scales) = (0.0, 0.0, 0);
    let (mut l1, mut l2, mut values) = (0.0, 0.0, 0);
    let number = |x: Tensor| -> Result<f64> { Ok(x.f_sum(Kind::Double)?.f_double_value(&[])?) };
    let look = |batch: &Batch| -> Result<()> {
        let (x, y) = (&batch.images, &batch.made);
        measuring.add(x, y)?;
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
    // Of what is decoded here only the images are measured.
    let held = measure::measure(
        of.images(),
        &|indices, x| {
            let features = held_out_features(&run.perception, &of.data, indices, x)?;
            Ok((decode(&run.generator, &features, Clip::Displayable)?, None))
        },
        None,
        look,
    )?;
    let e = &run.experiment;
    let (classified, classified_by_chance, n_classified) = classify(run)?;
    Ok(Row {
        run: run.path.display().to_string(),
        task: decoded_name(e),
        trained_with: trained_with(e).to_owned(),
        n,
        photos: format!(
            "{} {} {:?} {n}",
            run.checkpoint.manifest.test_data, e.config.data.crop, e.config.data.scale
        ),
        l1: l1 / values as f64,
        l2: (l2 / values as f64).sqrt(),
        ssim: ssim / n as f64,
        ms_ssim: ms_ssim / n as f64,
        scales,
        lpips: measuring.values().lpips,
        image_error: held.image_error,
        gradient_energy: held.gradient_energy,
        classified,
        classified_by_chance,
        n_classified,
        n_pairs_from: held.norm.pairs_from,
    })
}

/// Brings rows of one task next to each other.
pub fn sort(rows: &mut [Row]) {
    rows.sort_by_key(|r| {
        let of = (r.task.clone(), r.photos.clone());
        (of, r.trained_with.clone(), r.run.clone())
    });
}

/// Sorted rows as a table for each task.
pub fn text(rows: &[Row]) -> String {
    let share = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{:.0} %", 100.0 * v));
    let mut out = String::new();
    for of_task in rows.chunk_by(|a, b| a.task == b.task && a.photos == b.photos) {
        let table = table(
            of_task,
            &[
                ("trained with", &|r| r.trained_with.clone()),
                ("L1", &|r| format!("{:.2}", r.l1)),
                ("L2", &|r| format!("{:.2}", r.l2)),
                ("SSIM", &|r| format!("{:.3}", r.ssim)),
                ("MS-SSIM", &|r| format!("{:.3}", r.ms_ssim)),
                ("LPIPS", &|r| r.lpips.text(3)),
                ("sharp", &|r| format!("{:.2}", r.gradient_energy)),
                ("class", &|r| share(r.classified)),
                ("run", &|r| catalog::name(&r.run)),
            ],
        );
        let (task, n) = of_task.first().map_or(("", 0), |r| (r.task.as_str(), r.n));
        let scales = of_task.first().map_or(0, |r| r.scales);
        out.push_str(&format!(
            "{}, {n} held-out photos (MS-SSIM at {scales} scales)\n{table}\n",
            one_line(task)
        ));
    }
    if !rows.is_empty() {
        out.push_str(
            "L1, L2: mean absolute and root mean squared difference, grey levels. SSIM, MS-SSIM: 1 is equal.\n\
             LPIPS: 0 is equal. sharp: gradient energy, 1 is as photos. What people prefer: not asked.\n",
        );
        if let Some(chance) = rows.iter().find_map(|r| r.classified_by_chance) {
            let n = rows.iter().map(|r| r.n_classified).max().unwrap_or(0);
            out.push_str(&format!(
                "class: a linear probe on the codes finds the category of {n} photos (guessing: {:.0} %).\n",
                100.0 * chance
            ));
        }
    }
    out
}
