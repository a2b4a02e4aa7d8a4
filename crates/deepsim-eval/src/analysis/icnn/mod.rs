//! iCNN (Shen, Horikawa, Majima & Kamitani, PLoS Computational Biology 2019): the input of a generator is optimised until
//! its image has wanted features in several layers of a network. No network is trained.
//!
//! Constants and the order of an update are those of the authors' script `icnn_dgn_gd.py` (github.com/KamitaniLab/icnn).
//! Unlike there, the image is that of the input with the smallest loss, and made after that input's update.

mod optimise;
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_experiment::features_file::FeaturesFile;
use deepsim_experiment::{Clip, evaluate, sheet};
use deepsim_nets::{FeatureNet, Tap, init};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

pub use optimise::{Found, Settings, invert, loss, update, weights};
pub use targets::{Place, Targets, centre, of_folder, of_images};

use crate::analysis::decode::file_name;
use crate::error::{EvalError, Result, WhileRunning as _};
use crate::run::ready::Ready;
use crate::show::format::table;
use crate::show::output;

/// What was made of one stimulus.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Its label.
    pub label: String,
    /// Loss of the input that the optimisation began with: 1 is that of an image without any features.
    pub start: f64,
    /// Loss of the best input.
    pub best: f64,
    /// The PNG.
    pub picture: String,
}

/// How an optimisation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With zeros.
    Zeros,
    /// With numbers from N(0, 1) of this seed.
    Noise(u64),
}

/// What is asked for.
pub struct Request<'a> {
    /// The generator.
    pub ready: &'a Ready,
    /// The network, built at least up to its deepest layer.
    pub net: &'a FeatureNet,
    /// The layers.
    pub taps: &'a [Tap],
    /// Side of the images that it is shown.
    pub side: i64,
    /// The update.
    pub settings: Settings,
    /// The start.
    pub start: Start,
    /// Stimuli that are optimised together.
    pub batch: usize,
    /// Where to compute.
    pub device: Device,
}

/// The most that each value of a generator's input may be, out of a file with a single array: one number for each value,
/// or for each channel.
///
/// # Errors
/// Another number of arrays or values.
pub fn upper_bounds(file: &Path, ready: &Ready, device: Device) -> Result<Tensor> {
    let wrong = |reason: String| EvalError::usage("--upper", shown(file), reason);
    let found = FeaturesFile::read_loosely(file)?.entries;
    let all: Vec<&Tensor> = found.values().collect();
    let [bounds] = all.as_slice() else {
        return Err(wrong(format!("holds {} arrays, not one", all.len())));
    };
    let bounds = bounds.f_to_kind(Kind::Float)?;
    let least = bounds.f_nan_to_num(-1.0, -1.0, -1.0)?.f_min()?;
    if bounds.numel() > 0 && least.f_double_value(&[])? < 0.0 {
        return Err(wrong("holds numbers below 0, NaN or infinity".to_owned()));
    }
    let mut shape = ready.generator.spec().input.sizes();
    let (values, channels) = (shape.iter().product::<i64>(), shape[0]);
    let count = i64::try_from(bounds.numel()).unwrap_or(i64::MAX);
    if count == channels {
        shape.iter_mut().skip(1).for_each(|size| *size = 1);
    } else if count != values {
        return Err(wrong(format!(
            "holds {count} numbers; the generator takes {values}, of {channels} channels"
        )));
    }
    Ok(bounds.f_view(shape.as_slice())?.f_to_device(device)?)
}

/// Optimises an input for each stimulus and writes its image into `out`. `progress` is told of the stimuli in each step.
///
/// # Errors
/// What the networks refuse; files that cannot be written.
pub fn compute(
    request: &Request<'_>,
    targets: &Targets,
    out: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Row>> {
    let Request { ready, device, .. } = request;
    let generate = |input: &Tensor| -> Result<Tensor> {
        let input = match &ready.scale {
            Some(scale) => scale.apply(input)?,
            None => input.shallow_clone(),
        };
        Ok(ready.generator.forward(&input)?)
    };
    let features = |input: &Tensor| -> Result<Vec<Tensor>> {
        let seen = centre(&generate(input)?, request.side)?;
        Ok(request.net.features(&seen, request.taps)?)
    };
    let sizes = ready.generator.spec().input.sizes();
    let mut taken = BTreeSet::new();
    let pictures: Vec<PathBuf> = (targets.labels.iter())
        .map(|label| out.join(format!("{}.png", file_name(label, &mut taken))))
        .collect();
    for picture in &pictures {
        output::check("--out", picture, output::Kind::Image)?;
    }
    let mut rows = Vec::new();
    for (labels, from) in targets
        .labels
        .chunks(request.batch)
        .zip((0..).step_by(request.batch))
    {
        let count = labels.len() as i64;
        let wanted: Vec<Tensor> = targets
            .layers
            .iter()
            .map(|all| Ok(all.f_narrow(0, from, count)?.f_to_device(*device)?))
            .collect::<Result<_>>()?;
        let start = starts(request.start, from, count, &sizes)?.f_to_device(*device)?;
        let told = || progress(labels.len() as u64);
        let found = invert(&features, &wanted, &start, &request.settings, told).while_running()?;
        let scaled = match &ready.scale {
            Some(scale) => scale.apply(&found.input)?,
            None => found.input.shallow_clone(),
        };
        let images = evaluate::decode(&ready.generator, &scaled, Clip::Displayable)?;
        for (at, label) in labels.iter().enumerate() {
            let picture = &pictures[rows.len()];
            output::write(picture, &sheet::single(&images.f_get(at as i64)?)?.bytes)?;
            rows.push(Row {
                label: label.clone(),
                start: found.start[at],
                best: found.best[at],
                picture: picture.display().to_string(),
            });
        }
    }
    Ok(rows)
}

/// Inputs `[count,…]` to begin with, those of the stimuli from `from` on: functions of the seed and the stimulus alone.
fn starts(start: Start, from: i64, count: i64, sizes: &[i64]) -> Result<Tensor> {
    let shape = [&[1i64][..], sizes].concat();
    let of = |index: i64| -> Result<Tensor> {
        Ok(match start {
            Start::Zeros => Tensor::f_zeros(shape.as_slice(), (Kind::Float, Device::Cpu))?,
            Start::Noise(seed) => init::normal(&format!("icnn.{index}"), &shape, 1.0, seed)?,
        })
    };
    let all = (from..from + count).map(of).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::f_cat(&all, 0)?)
}

/// For people.
pub fn text(rows: &[Row]) -> String {
    let columns = table(
        rows,
        &[
            ("stimulus", &|r: &Row| r.label.clone()),
            ("start", &|r: &Row| format!("{:.4}", r.start)),
            ("best", &|r: &Row| format!("{:.4}", r.best)),
        ],
    );
    format!(
        "{columns}start, best: sum over layers of w |features - targets|^2, w = 1/|targets|^2 scaled to add up to 1.\n"
    )
}
