//! Table 2 of the paper, with our runs beside the paper's numbers.

use std::path::Path;

use deepsim_experiment::config::Source;
use deepsim_experiment::evaluate::held_out;
use deepsim_experiment::run_dir::find_runs;
use deepsim_experiment::{Clip, Experiment};
use deepsim_nets::{NetKind, Tap};
use serde::Serialize;
use tch::Device;

use crate::error::Result;
use crate::format::{Format, columns, csv, json};
use crate::loaded::Loaded;
use crate::paper;

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
}

/// What to evaluate on.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Photographs at most.
    pub images: usize,
    /// Clipping.
    pub clip: Clip,
    /// Device.
    pub device: Device,
}

fn layer_name(source: &Source) -> String {
    let Source::Network(network) = source else {
        return source.to_string();
    };
    match (network.net, network.tap) {
        (NetKind::CaffeNet, Tap::Pool5) => "conv5".to_owned(),
        (NetKind::CaffeNet, Tap::Relu6) => "fc6".to_owned(),
        (NetKind::CaffeNet, Tap::Relu7) => "fc7".to_owned(),
        (NetKind::CaffeNet, Tap::Fc8) => "fc8".to_owned(),
        (net, tap) => format!("{net}:{tap}"),
    }
}

fn method_name(experiment: &Experiment) -> &'static str {
    let l = &experiment.raw.loss;
    match (l.feat > 0.0, l.adv > 0.0, l.img > 0.0) {
        (true, true, _) => "deepsim",
        (false, false, true) => "image-loss",
        _ => "other",
    }
}

/// Evaluates one run.
///
/// # Errors
/// A run that cannot be opened, or whose weights or photographs changed.
pub fn evaluate(path: &Path, options: Options) -> Result<Row> {
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
    let method = method_name(e);
    let layer = layer_name(&e.encoder);
    let comparator = match e.raw.loss.feat > 0.0 {
        true => e.comparator.to_string(),
        false => String::new(),
    };
    // The paper's cell is for trained weights: a run with random ones is another experiment.
    let trained = e.encoder.learned();
    let (paper_image_error, paper_feature_error) = paper::errors(method, &comparator, &layer)
        .filter(|_| trained)
        .unwrap_or((None, None));
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
    })
}

/// The whole table: a row for each run below `runs` that has a checkpoint, then the paper's
/// cells that no run stands for. What cannot be evaluated is told through `warn`.
///
/// # Errors
/// A folder of runs that cannot be read.
pub fn rows(
    runs: Option<&Path>,
    options: Options,
    mut warn: impl FnMut(String),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(parent) = runs {
        for path in find_runs(parent)? {
            match evaluate(&path, options) {
                Ok(row) => rows.push(row),
                Err(error) => warn(format!("{} left out: {error}", path.display())),
            }
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
        Format::Text => Ok(text(rows)),
    }
}

fn text(rows: &[Row]) -> String {
    let percent = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.1}"));
    let whole = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.0}"));
    let mut out = String::from(
        "Normalised inversion error in % (image / feature); 100 = a random other photo.\n",
    );
    let ours: Vec<&Row> = rows.iter().filter(|r| r.run.is_some()).collect();
    if !ours.is_empty() {
        let cells: Vec<Vec<String>> = ours
            .iter()
            .map(|r| {
                let run = r.run.as_deref().unwrap_or_default();
                let name = Path::new(run)
                    .file_name()
                    .map_or(run.into(), |n| n.to_string_lossy());
                let paper = match (r.paper_image_error, r.paper_feature_error) {
                    (None, None) => "-".to_owned(),
                    (i, f) => format!("{}/{}", whole(i), whole(f)),
                };
                vec![
                    name.into_owned(),
                    r.method.clone(),
                    r.layer.clone(),
                    percent(r.image_error),
                    percent(r.feature_error),
                    r.gradient_energy
                        .map_or("-".to_owned(), |v| format!("{v:.2}")),
                    r.step.map_or("-".to_owned(), |s| s.to_string()),
                    paper,
                ]
            })
            .collect();
        let head = [
            "run", "method", "layer", "image", "feature", "energy", "step", "paper",
        ];
        out.push_str(&format!("\n{}", columns(&head, &cells)));
        let mut notes: Vec<String> = ours
            .iter()
            .map(|r| {
                format!(
                    "  {} held-out photos of {}, {} px crops,\n    weights {}{}",
                    r.n.unwrap_or(0),
                    r.data.as_deref().unwrap_or("-"),
                    r.crop.unwrap_or(0),
                    r.weights.as_deref().unwrap_or("-"),
                    if r.clipped == Some(true) {
                        ", clipped to 0-255"
                    } else {
                        ", not clipped"
                    }
                )
            })
            .collect();
        notes.dedup();
        out.push_str(&format!("\nmeasured on\n{}\n", notes.join("\n")));
        out.push_str(
            "energy: gradient energy relative to the photos (1 = as sharp, less = blur)\n",
        );
    }
    out.push_str(
        "\nThe paper's Table 2 (CaffeNet, ILSVRC-2012 validation; not measured here):\n\n",
    );
    let layers = ["conv5", "fc6", "fc7", "fc8"];
    let mut cells = Vec::new();
    for (title, method, comparator) in [
        ("M&V", "mv", ""),
        ("D&B", "db", ""),
        ("image loss only", "image-loss", ""),
        ("DeePSiM, AlexNet CONV5", "deepsim", "caffenet:pool5"),
        ("DeePSiM, VideoNet CONV5", "deepsim", "videonet:pool5"),
    ] {
        let mut line = vec![title.to_owned()];
        for layer in layers {
            let cell = paper::TABLE_2
                .iter()
                .find(|(m, c, l, _, _)| *m == method && *c == comparator && *l == layer);
            line.push(cell.map_or("-".to_owned(), |(_, _, _, i, f)| {
                format!("{}/{}", whole(*i), whole(*f))
            }));
        }
        cells.push(line);
    }
    out.push_str(&columns(&["", "CONV5", "FC6", "FC7", "FC8"], &cells));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            images: 10,
            clip: Clip::Displayable,
            device: Device::Cpu,
        }
    }

    #[test]
    fn without_runs_the_paper_s_cells_stand_alone() {
        let rows = rows(None, options(), |_| {}).unwrap();
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
        let rows = rows(None, options(), |_| {}).unwrap();
        let text = render(&rows, Format::Text).unwrap();
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(
            text.contains("DeePSiM, AlexNet CONV5   43/37  55/48  61/45  63/29"),
            "{text}"
        );
    }
}
