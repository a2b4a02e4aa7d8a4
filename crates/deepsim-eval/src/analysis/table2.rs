//! Table 2 of the paper, with our runs beside the paper's numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_data::{Augment, Dataset, DatasetKind, Part};
use deepsim_experiment::evaluate::held_out_among;
use deepsim_experiment::measure::{self, Images, Norm};
use deepsim_experiment::run_dir::find_runs;
use deepsim_experiment::source::Source;
use deepsim_experiment::{Clip, Consent, Experiment, HeldOut, Processes};
use deepsim_nets::images::clip_caffe;
use serde::Serialize;
use tch::{Device, Tensor};

use crate::analysis::mv;
use crate::analysis::paper;
use crate::analysis::recipe::{apart, printed, recipe, trained_on};
use crate::error::{EvalError, Result};
use crate::measure::metrics::{MetricValues, Metrics, Score};
use crate::measure::sample::packages;
use crate::run::catalog::{self, Loss, decoded_name};
use crate::run::loaded::Loaded;

/// One method at one layer. Errors are percent on held-out images; null where not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// `mv`, `db`, `image-loss`, `deepsim` or `other`.
    pub method: String,
    /// `conv5`, `fc6`, `fc7`, `fc8` of CaffeNet, else `NET:TAP`.
    pub layer: String,
    /// `NET:TAP`; empty where the loss has no feature term.
    pub comparator: String,
    /// Normalised error of pixels.
    pub image_error: Option<f64>,
    /// Normalised error of the inverted features.
    pub feature_error: Option<f64>,
    /// Gradient energy relative to the images'.
    pub gradient_energy: Option<f64>,
    /// Held-out images: their path, and of sample photos the packages they are from where some are missing.
    pub data: Option<String>,
    /// Which part of the data: `train` where all of the images are training images, else the part of a split that a
    /// prepared dataset says to be (`test`, `val`, `train`), else `test`.
    pub split: Option<String>,
    /// Side of the crops, pixels.
    pub crop: Option<u32>,
    /// Weights of the encoder.
    pub weights: Option<String>,
    /// Images.
    pub n: Option<usize>,
    /// Whether reconstructions were clipped to 0–255.
    pub clipped: Option<bool>,
    /// Run directory.
    pub run: Option<String>,
    /// Iterations of the checkpoint.
    pub step: Option<u64>,
    /// What the paper prints for this cell.
    pub paper_image_error: Option<f64>,
    /// What the paper prints for this cell.
    pub paper_feature_error: Option<f64>,
    /// LPIPS by a network that had no part in the run; 0 is the same image. Here and below: null
    /// where not measured, `shared` where its network is one that the run was trained with.
    pub lpips: Score,
    /// The network of LPIPS.
    pub lpips_net: Option<String>,
    /// Structural similarity; 1 is the same image.
    pub ssim: Score,
    /// Peak signal-to-noise ratio, decibels.
    pub psnr: Score,
    /// Share of reconstructions to which EfficientNet-Lite0 gives the original image's label.
    pub label_top1: Score,
    /// Share whose five best labels have it.
    pub label_top5: Score,
    /// Images whose pairs the normalisation is the mean distance of: all `n` up to 2,000, so many of more.
    pub n_pairs_from: Option<usize>,
    /// Those of the `n` images that are training images too; null where it cannot be told.
    pub held_out_overlap: Option<usize>,
    /// Digest of which images, and how they are cut: rows are comparable where it is the same.
    pub image_set: Option<String>,
    /// What the generator was trained by: the terms of its loss and its adversary, joined by ` + `, and how it was where
    /// that is not the paper's iteration (`one-pass`, `vaegan`); null where none was.
    pub recipe: Option<String>,
    /// Whether the inverted features' own network is a comparator of the run: then the feature error is of what was trained
    /// on. Null where no generator was trained.
    pub feature_error_trained: Option<bool>,
    /// What errors are relative to.
    #[serde(skip)]
    pub norm: Option<Norm>,
    /// The features of the encoder come from a file.
    #[serde(skip)]
    pub recorded: bool,
    /// Terms of the loss, for labels.
    #[serde(skip)]
    pub loss: Option<Loss>,
    /// What sets it apart from other runs of the same terms, for labels: comparators with random weights and pixels that
    /// are compared otherwise than in the paper are told.
    #[serde(skip)]
    pub apart: String,
}

/// What to evaluate on.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Held-out images: all, or so many spread evenly.
    pub images: usize,
    /// Other images than those that each run was held out on.
    pub data: Option<&'a Path>,
    /// Clipping.
    pub clip: Clip,
    /// Which TorchScript modules may be run.
    pub consent: &'a Consent,
    /// Device.
    pub device: Device,
    /// Further metrics, if they are asked for.
    pub metrics: Option<&'a Metrics>,
    /// The processes that share the batches.
    pub processes: &'a Processes,
}

impl Row {
    /// A row of which nothing is measured yet.
    fn named(method: &str, layer: &str, comparator: &str) -> Row {
        Row {
            method: method.to_owned(),
            layer: layer.to_owned(),
            comparator: comparator.to_owned(),
            ..Row::default()
        }
    }

    fn with_metrics(mut self, values: MetricValues) -> Row {
        self.lpips = values.lpips;
        self.lpips_net = values.lpips_net.map(|n| n.to_string());
        self.ssim = values.ssim;
        self.psnr = values.psnr;
        self.label_top1 = values.label_top1;
        self.label_top5 = values.label_top5;
        self
    }

    /// With what was measured of `experiment` on the images.
    fn measured(self, e: &Experiment, images: Images<'_>, clip: Clip, errors: &HeldOut) -> Row {
        Row {
            image_error: Some(errors.image_error),
            feature_error: errors.feature_error,
            gradient_energy: Some(errors.gradient_energy),
            data: Some(named(images.data.path())),
            split: Some(part(images.data).to_owned()),
            crop: Some(e.config.data.crop),
            weights: Some(e.encoder.origin()),
            n: Some(errors.n),
            clipped: Some(clip == Clip::Displayable),
            n_pairs_from: Some(errors.norm.pairs_from),
            image_set: Some(image_set(images)),
            norm: Some(errors.norm),
            recorded: matches!(e.encoder, Source::Recorded(_)),
            ..self
        }
    }
}

/// See [`Row::data`].
fn named(path: &Path) -> String {
    match packages(path) {
        Some(packages) => format!("{} (of {packages})", path.display()),
        None => path.display().to_string(),
    }
}

/// See [`Row::split`].
fn part(data: &Dataset) -> &'static str {
    let part = match data.kind() {
        DatasetKind::Prepared(manifest) => manifest.holdout.as_ref().map(|held| held.part),
        DatasetKind::Folder => None,
    };
    part.unwrap_or(Part::Test).name()
}

/// Digest of which images of which dataset, and how they are cut.
fn image_set(images: Images<'_>) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(images.data.digest().as_bytes());
    let Augment { crop, scale, .. } = images.augment;
    hash.update(format!("{crop} {scale:?}").as_bytes());
    for &index in images.chosen {
        hash.update(&(index as u64).to_le_bytes());
    }
    hash.finalize().to_hex().as_str()[..16].to_owned()
}

/// Evaluates one run, in one pass over its held-out images. Of several processes the first one alone tells how many of them
/// are training images too, and only its row says it.
///
/// # Errors
/// A run that cannot be opened, or whose weights or images changed; other images for recorded features; those of another
/// process.
pub fn evaluate(path: &Path, options: Options<'_>, warn: impl FnMut(String)) -> Result<Row> {
    let run = Loaded::open(path, options.consent, options.device)?;
    let processes = options.processes;
    processes.agree::<EvalError>(&run.facts()?)?;
    let e = &run.experiment;
    let held = match options.data {
        Some(path) => run.images_at(path, options.images)?,
        None => run.held_out(options.images)?,
    };
    // Features of the same names would be those of other images.
    if let (Source::Recorded(_), Some(path)) = (&e.encoder, options.data)
        && held.data.digest() != run.checkpoint.manifest.test_data
    {
        let reason =
            "the run's features were recorded of its own images: nothing here can encode others";
        return Err(EvalError::usage("--data", shown(path), reason));
    }
    let overlap = if processes.leads() {
        run.overlap(&held, warn)?
    } else {
        None
    };
    let mut measuring = options.metrics.map(|j| j.of(e));
    let (errors, found) = held_out_among(
        processes,
        held.images(),
        &run.perception,
        &run.generator,
        options.clip,
        |batch| match &measuring {
            Some(measuring) => measuring.numbers(&batch.images, &batch.made),
            None => Ok(Vec::new()),
        },
    )?;
    if let Some(measuring) = &mut measuring {
        for numbers in &found {
            measuring.take(numbers);
        }
    }
    let loss = Loss::of(e);
    let comparator = e.compared_in(ToString::to_string);
    let (paper_image_error, paper_feature_error) = printed(e);
    let row = Row::named(loss.method(e), &decoded_name(e), &comparator);
    let row = row.measured(e, held.images(), options.clip, &errors);
    let verdict = measuring.map(|j| j.values()).unwrap_or_default();
    Ok(Row {
        run: Some(path.display().to_string()),
        step: Some(run.checkpoint.manifest.step),
        paper_image_error,
        paper_feature_error,
        split: if overlap == Some(held.chosen.len()) {
            Some(Part::Train.name().to_owned())
        } else {
            row.split
        },
        held_out_overlap: overlap,
        recipe: Some(recipe(e)),
        feature_error_trained: Some(trained_on(e)),
        loss: Some(loss),
        apart: apart(e),
        ..row
    }
    .with_metrics(verdict))
}

/// Evaluates a record of Mahendran & Vedaldi's method: on the images of every other row where it has them all, else on
/// its own.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_mv(path: &Path, options: Options<'_>) -> Result<Row> {
    if let Some(data) = options.data {
        let reason = "the images of a record are reconstructions of its own held-out images alone";
        return Err(EvalError::usage("--data", shown(data), reason));
    }
    let record = mv::Record::open(path)?;
    options
        .processes
        .agree::<EvalError>(&record_facts(&record)?)?;
    let e = &record.experiment;
    let held = record.held_out(options.images, options.device)?;
    let perception = record.perception(options.consent, options.device)?;
    let reconstructions = record.reconstructions(Device::Cpu)?;
    let mut measuring = options.metrics.map(|j| j.of_encoder(e));
    let encode = |x: &Tensor| -> Result<Tensor> { Ok(perception.encode(x)?) };
    let (errors, found) = measure::measure_among(
        options.processes,
        held.images(),
        &|indices, _| {
            let y = record
                .of(&reconstructions, indices)?
                .f_to_device(options.device)?;
            Ok(match options.clip {
                Clip::Displayable => (clip_caffe(&y)?, None),
                Clip::Off => (y, None),
            })
        },
        Some(&encode),
        |batch| match &measuring {
            Some(measuring) => measuring.numbers(&batch.images, &batch.made),
            None => Ok(Vec::new()),
        },
    )?;
    if let Some(measuring) = &mut measuring {
        for numbers in &found {
            measuring.take(numbers);
        }
    }
    let layer = decoded_name(e);
    let trained = e.encoder.learned();
    let (paper_image_error, paper_feature_error) = paper::errors("mv", "", &layer)
        .filter(|_| trained)
        .unwrap_or((None, None));
    let row = Row::named("mv", &layer, "").measured(e, held.images(), options.clip, &errors);
    Ok(Row {
        run: Some(path.display().to_string()),
        step: Some(record.manifest.settings.steps() as u64),
        paper_image_error,
        paper_feature_error,
        ..row
    }
    .with_metrics(measuring.map(|j| j.values()).unwrap_or_default()))
}

/// What processes must agree on of a record: its name, and the digest of what it says of itself, its files among it.
fn record_facts(record: &mv::Record) -> Result<BTreeMap<String, String>> {
    let text = serde_json::to_vec(&record.manifest);
    let text = text.map_err(|e| EvalError::Format(e.to_string()))?;
    Ok(BTreeMap::from([
        ("the record".to_owned(), catalog::name(&record.path)),
        (
            "the digest of the record".to_owned(),
            blake3::hash(&text).to_hex().to_string(),
        ),
    ]))
}

/// Runs and records that the table will look at.
///
/// # Errors
/// A folder of runs that cannot be read.
pub fn count(runs: Option<&Path>) -> Result<u64> {
    match runs {
        Some(parent) => Ok((find_runs(parent)?.len() + mv::find(parent)?.len()) as u64),
        None => Ok(0),
    }
}

/// The whole table: a row for each run below `runs` that has a checkpoint, then the paper's
/// cells that no run stands for. What cannot be evaluated is told through `warn`; `progress` is
/// told of each run.
///
/// # Errors
/// A folder of runs that cannot be read; processes that cannot go on together.
pub fn rows(
    runs: Option<&Path>,
    options: Options<'_>,
    mut warn: impl FnMut(String),
    mut progress: impl FnMut(u64),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(parent) = runs {
        let (runs, records) = (find_runs(parent)?, mv::find(parent)?);
        let all: Vec<PathBuf> = runs.iter().chain(&records).cloned().collect();
        options
            .processes
            .agree::<EvalError>(&catalog::facts(&all))?;
        let runs = runs.into_iter().map(|path| (path, false));
        let records = records.into_iter().map(|path| (path, true));
        for (path, is_record) in runs.chain(records) {
            let row = if is_record {
                evaluate_mv(&path, options)
            } else {
                evaluate(&path, options, &mut warn)
            };
            match options.processes.settled(row, EvalError::ends_all)? {
                Ok(row) => rows.push(row),
                Err(error) => warn(format!("{} left out: {error}", shown(path))),
            }
            progress(1);
        }
    }
    for (method, comparator, layer, image, feature) in paper::TABLE_2 {
        let stands = |r: &Row| {
            r.method == *method
                && r.layer == *layer
                && r.paper_image_error.is_some()
                && (comparator.is_empty() || r.comparator == *comparator)
        };
        if !rows.iter().any(stands) {
            rows.push(Row {
                paper_image_error: *image,
                paper_feature_error: *feature,
                ..Row::named(method, layer, comparator)
            });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::format::{Format, render};
    use crate::show::table2_text::text;

    #[test]
    fn a_prepared_set_says_which_part_of_a_split_it_is() {
        use deepsim_data::{Flow, Prepare, prepare};
        let folder = tempfile::tempdir().unwrap();
        let (photos, out) = (folder.path().join("photos"), folder.path().join("out"));
        std::fs::create_dir(&photos).unwrap();
        for n in 0..40u8 {
            let image = image::RgbImage::from_pixel(8, 8, image::Rgb([n; 3]));
            image.save(photos.join(format!("{n}.png"))).unwrap();
        }
        let request = Prepare {
            holdout: Some(0.3),
            validation: Some(0.3),
            ..Prepare::new(&photos, &out, 8)
        };
        prepare(&request, &mut |_| Flow::Continue).unwrap();
        for name in ["train", "val", "test"] {
            assert_eq!(part(&Dataset::open(&out.join(name)).unwrap()), name);
        }
        assert_eq!(part(&Dataset::open(&photos).unwrap()), "test");
    }

    fn options<'a>(consent: &'a Consent, processes: &'a Processes) -> Options<'a> {
        Options {
            consent,
            images: 10,
            data: None,
            clip: Clip::Displayable,
            device: Device::Cpu,
            metrics: None,
            processes,
        }
    }

    #[test]
    fn without_runs_the_paper_s_cells_stand_alone() {
        let rows = rows(
            None,
            options(&Consent::none(), &Processes::alone()),
            |_| {},
            |_| {},
        )
        .unwrap();
        assert_eq!(rows.len(), 14);
        assert!(
            rows.iter()
                .all(|r| r.image_error.is_none() && r.paper_image_error.is_some())
        );
        let value: serde_json::Value =
            serde_json::from_str(&render(&rows, Format::Json, text).unwrap()).unwrap();
        let fc6 = &value[9];
        assert_eq!(fc6["method"], "deepsim");
        assert_eq!(fc6["paper_feature_error"], 37.0);
        assert!(fc6["image_error"].is_null());
        assert_eq!(
            render(&rows, Format::Csv, text).unwrap().lines().count(),
            15
        );
    }

    #[test]
    fn the_text_fits_eighty_columns() {
        let rows = rows(
            None,
            options(&Consent::none(), &Processes::alone()),
            |_| {},
            |_| {},
        )
        .unwrap();
        let text = text(&rows);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(
            text.contains("DeePSiM, AlexNet CONV5   43/37  55/48  61/45  63/29"),
            "{text}"
        );
    }
}
