//! Table 2 of the paper, with our runs beside the paper's numbers.

use std::path::Path;

use deepsim_experiment::evaluate::{decode, held_out, held_out_features};
use deepsim_experiment::run_dir::find_runs;
use deepsim_experiment::{Clip, Experiment};
use deepsim_nets::PixelDistance;
use deepsim_nets::metrics;
use deepsim_nets::pictures::clip_caffe;
use serde::Serialize;
use tch::{Device, Tensor};

use crate::catalog::{Loss, decoded_name, net_name};
use crate::error::Result;
use crate::format::{Format, csv, json};
use crate::judges::{Judges, Score, Verdict};
use crate::loaded::Loaded;
use crate::photos::{BATCH, from_data};
use crate::{mv, paper, table2_text};

/// One method at one layer. Errors are percent on held-out photographs; null where not run.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// Gradient energy relative to the photographs'.
    pub gradient_energy: Option<f64>,
    /// Held-out photographs.
    pub data: Option<String>,
    /// Which part of the data: always `test`.
    pub split: Option<String>,
    /// Side of the crops, pixels.
    pub crop: Option<u32>,
    /// Weights of the encoder.
    pub weights: Option<String>,
    /// Photographs.
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
    /// LPIPS by a network that had no part in the run; 0 is the same picture. Here and below: null
    /// where not judged, `shared` where the judge is a network that the run was trained with.
    pub lpips: Score,
    /// The network of LPIPS.
    pub lpips_net: Option<String>,
    /// Structural similarity; 1 is the same picture.
    pub ssim: Score,
    /// Peak signal-to-noise ratio, decibels.
    pub psnr: Score,
    /// Share of reconstructions to which EfficientNet-Lite0 gives the photograph's label.
    pub label_top1: Score,
    /// Share whose five best labels have it.
    pub label_top5: Score,
    /// Terms of the loss, for labels.
    #[serde(skip)]
    pub loss: Option<Loss>,
    /// What sets it apart from other runs of the same terms, for labels: comparators with random weights and pixels that
    /// are compared otherwise than in the paper are told.
    #[serde(skip)]
    pub apart: String,
}

/// The paper's numbers for a run: image and feature error. They are of trained weights and of the losses that it
/// prints; others are other experiments.
fn printed(e: &Experiment) -> (Option<f64>, Option<f64>) {
    let loss = Loss::of(e);
    let trained = e.encoder.learned() && (e.raw.loss.feat == 0.0 || e.comparator.learned());
    let comparator = match e.raw.loss.feat > 0.0 {
        true => e.comparator.to_string(),
        false => String::new(),
    };
    paper::errors(loss.method(e), &comparator, &decoded_name(e))
        .filter(|_| trained && loss != Loss::FeatureAdversarial)
        .unwrap_or((None, None))
}

/// See [`Row::apart`].
fn apart(e: &Experiment) -> String {
    let compared = match e.raw.loss.feat > 0.0 {
        true => net_name(&e.comparator),
        false => String::new(),
    };
    let pixels = match e.raw.pixels.distance {
        _ if e.raw.loss.img == 0.0 => "",
        PixelDistance::Squared => "",
        PixelDistance::Absolute => "L1",
        PixelDistance::Ssim => "SSIM",
        PixelDistance::MsSsim => "MS-SSIM",
    };
    let both = [compared.as_str(), pixels];
    let told: Vec<&str> = both.into_iter().filter(|t| !t.is_empty()).collect();
    told.join(", ")
}

/// What to evaluate on.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Photographs at most.
    pub images: usize,
    /// Clipping.
    pub clip: Clip,
    /// Device.
    pub device: Device,
    /// Further judges, if they are asked.
    pub judges: Option<&'a Judges>,
}

impl Row {
    fn judged(mut self, verdict: Verdict) -> Row {
        self.lpips = verdict.lpips;
        self.lpips_net = verdict.lpips_net.map(|n| n.to_string());
        self.ssim = verdict.ssim;
        self.psnr = verdict.psnr;
        self.label_top1 = verdict.label_top1;
        self.label_top5 = verdict.label_top5;
        self
    }
}

/// Evaluates one run.
///
/// # Errors
/// A run that cannot be opened, or whose weights or photographs changed.
pub fn evaluate(path: &Path, options: Options<'_>) -> Result<Row> {
    let run = Loaded::open(path, options.device)?;
    let (e, data) = (&run.experiment, run.test_data()?);
    let errors = held_out(
        &data,
        &e.augment(),
        &run.perception,
        &run.generator,
        options.images,
        options.clip,
        options.device,
    )?;
    let mut verdict = Verdict::default();
    if let Some(judges) = options.judges {
        let mut judging = judges.of(e);
        let n = data.len().min(options.images);
        for from in (0..n).step_by(BATCH) {
            let indices: Vec<usize> = (from..n.min(from + BATCH)).collect();
            let x = from_data(&data, &indices, &e.augment(), options.device)?;
            let features = held_out_features(&run.perception, &data, &indices, &x)?;
            let y = decode(&run.generator, &features, options.clip)?;
            judging.add(&x, &y)?;
        }
        verdict = judging.verdict();
    }
    let loss = Loss::of(e);
    let method = loss.method(e);
    let layer = decoded_name(e);
    let comparator = match e.raw.loss.feat > 0.0 {
        true => e.comparator.to_string(),
        false => String::new(),
    };
    let (paper_image_error, paper_feature_error) = printed(e);
    Ok(Row {
        method: method.to_owned(),
        layer,
        comparator,
        image_error: Some(errors.image_error),
        feature_error: errors.feature_error,
        gradient_energy: Some(errors.gradient_energy),
        data: Some(e.raw.data.test.display().to_string()),
        split: Some("test".to_owned()),
        crop: Some(e.raw.data.crop),
        weights: Some(e.encoder.origin()),
        n: Some(errors.n),
        clipped: Some(options.clip == Clip::Displayable),
        run: Some(path.display().to_string()),
        step: Some(run.checkpoint.manifest.step),
        paper_image_error,
        paper_feature_error,
        lpips: Score::Missing,
        lpips_net: None,
        ssim: Score::Missing,
        psnr: Score::Missing,
        label_top1: Score::Missing,
        label_top5: Score::Missing,
        loss: Some(loss),
        apart: apart(e),
    }
    .judged(verdict))
}

/// Evaluates a record of Mahendran & Vedaldi's method.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_mv(path: &Path, options: Options<'_>) -> Result<Row> {
    let _guard = tch::no_grad_guard();
    let record = mv::Record::open(path)?;
    let (e, data) = (&record.experiment, record.test_data()?);
    let perception = record.perception(options.device)?;
    let stored = record.pictures(options.device)?;
    let n = record.manifest.photos.len().min(options.images);
    let (mut real, mut made, mut wanted, mut got) = (vec![], vec![], vec![], vec![]);
    let (mut energy_real, mut energy_made) = (0.0, 0.0);
    let mut judging = options.judges.map(|j| j.of_encoder(e));
    for from in (0..n).step_by(BATCH) {
        let photos = &record.manifest.photos[from..n.min(from + BATCH)];
        let indices: Vec<usize> = photos.iter().map(|p| p.index).collect();
        let x = from_data(&data, &indices, &e.augment(), options.device)?;
        let y = stored.f_narrow(0, from as i64, photos.len() as i64)?;
        let y = match options.clip {
            Clip::Displayable => clip_caffe(&y)?,
            Clip::Off => y,
        };
        if let Some(judging) = &mut judging {
            judging.add(&x, &y)?;
        }
        energy_real += metrics::gradient_energy(&x)?;
        energy_made += metrics::gradient_energy(&y)?;
        wanted.push(perception.encode(&x)?.f_flatten(1, -1)?);
        got.push(perception.encode(&y)?.f_flatten(1, -1)?);
        real.push(x.f_flatten(1, -1)?);
        made.push(y.f_flatten(1, -1)?);
    }
    let error = |a: &[Tensor], b: &[Tensor]| -> Result<f64> {
        Ok(metrics::normalised_error(
            &Tensor::f_cat(a, 0)?,
            &Tensor::f_cat(b, 0)?,
        )?)
    };
    let layer = decoded_name(e);
    let trained = e.encoder.learned();
    let (paper_image_error, paper_feature_error) = paper::errors("mv", "", &layer)
        .filter(|_| trained)
        .unwrap_or((None, None));
    Ok(Row {
        method: "mv".to_owned(),
        layer,
        comparator: String::new(),
        image_error: Some(error(&real, &made)?),
        feature_error: Some(error(&wanted, &got)?),
        gradient_energy: Some(energy_made / energy_real.max(f64::MIN_POSITIVE)),
        data: Some(e.raw.data.test.display().to_string()),
        split: Some("test".to_owned()),
        crop: Some(e.raw.data.crop),
        weights: Some(e.encoder.origin()),
        n: Some(n),
        clipped: Some(options.clip == Clip::Displayable),
        run: Some(path.display().to_string()),
        step: Some(record.manifest.settings.steps() as u64),
        paper_image_error,
        paper_feature_error,
        lpips: Score::Missing,
        lpips_net: None,
        ssim: Score::Missing,
        psnr: Score::Missing,
        label_top1: Score::Missing,
        label_top5: Score::Missing,
        loss: None,
        apart: String::new(),
    }
    .judged(judging.map(|j| j.verdict()).unwrap_or_default()))
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
/// A folder of runs that cannot be read.
pub fn rows(
    runs: Option<&Path>,
    options: Options<'_>,
    mut warn: impl FnMut(String),
    mut progress: impl FnMut(u64),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(parent) = runs {
        for path in find_runs(parent)? {
            match evaluate(&path, options) {
                Ok(row) => rows.push(row),
                Err(error) => warn(format!("{} left out: {error}", path.display())),
            }
            progress(1);
        }
        for path in mv::find(parent)? {
            match evaluate_mv(&path, options) {
                Ok(row) => rows.push(row),
                Err(error) => warn(format!("{} left out: {error}", path.display())),
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
                method: (*method).to_owned(),
                layer: (*layer).to_owned(),
                comparator: (*comparator).to_owned(),
                image_error: None,
                feature_error: None,
                gradient_energy: None,
                data: None,
                split: None,
                crop: None,
                weights: None,
                n: None,
                clipped: None,
                run: None,
                step: None,
                paper_image_error: *image,
                paper_feature_error: *feature,
                lpips: Score::Missing,
                lpips_net: None,
                ssim: Score::Missing,
                psnr: Score::Missing,
                label_top1: Score::Missing,
                label_top5: Score::Missing,
                loss: None,
                apart: String::new(),
            });
        }
    }
    Ok(rows)
}

/// The table in a format.
///
/// # Errors
/// None of ours.
pub fn render(rows: &[Row], format: Format) -> Result<String> {
    match format {
        Format::Json => json(rows),
        Format::Csv => csv(rows),
        Format::Text => Ok(table2_text::text(rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(name: &str) -> Experiment {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        Experiment::load(&root.join(name), &[]).unwrap()
    }

    #[test]
    fn the_papers_numbers_stand_beside_the_papers_experiments_alone() {
        for (file, expected) in [
            ("fc6.toml", (Some(55.0), Some(48.0))),
            ("comparators/fc6-videonet.toml", (Some(51.0), Some(57.0))),
            ("image-loss/fc6.toml", (Some(46.0), Some(79.0))),
            ("db/fc6.toml", (Some(51.0), None)),
            ("comparators/fc6-random.toml", (None, None)),
            ("ablations/fc6-feat-adv.toml", (None, None)),
            ("sample/pool5.toml", (None, None)),
        ] {
            assert_eq!(printed(&experiment(file)), expected, "{file}");
        }
    }

    #[test]
    fn lines_of_the_table_tell_comparators_and_distances_apart() {
        for (file, expected) in [
            ("fc6.toml", "caffenet:pool5"),
            (
                "comparators/fc6-random.toml",
                "caffenet:pool5 (random weights)",
            ),
            ("image-loss/fc6.toml", ""),
            ("sample/ae-l1.toml", "L1"),
            ("sample/ae-l2.toml", ""),
            ("sample/ae-ms-ssim.toml", "MS-SSIM"),
        ] {
            assert_eq!(apart(&experiment(file)), expected, "{file}");
        }
    }

    fn options() -> Options<'static> {
        Options {
            images: 10,
            clip: Clip::Displayable,
            device: Device::Cpu,
            judges: None,
        }
    }

    #[test]
    fn without_runs_the_paper_s_cells_stand_alone() {
        let rows = rows(None, options(), |_| {}, |_| {}).unwrap();
        assert_eq!(rows.len(), 14);
        assert!(
            rows.iter()
                .all(|r| r.image_error.is_none() && r.paper_image_error.is_some())
        );
        let value: serde_json::Value =
            serde_json::from_str(&render(&rows, Format::Json).unwrap()).unwrap();
        let fc6 = &value[9];
        assert_eq!(fc6["method"], "deepsim");
        assert_eq!(fc6["paper_feature_error"], 37.0);
        assert!(fc6["image_error"].is_null());
        assert_eq!(render(&rows, Format::Csv).unwrap().lines().count(), 15);
    }

    #[test]
    fn the_text_fits_eighty_columns() {
        let rows = rows(None, options(), |_| {}, |_| {}).unwrap();
        let text = render(&rows, Format::Text).unwrap();
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(
            text.contains("DeePSiM, AlexNet CONV5   43/37  55/48  61/45  63/29"),
            "{text}"
        );
    }
}
