//! Held-out images above what several runs make of them.

use std::path::{Path, PathBuf};

use deepsim_experiment::evaluate::{decode, held_out_features};
use deepsim_experiment::{Clip, Consent, sheet};
use tch::{Device, Tensor};

use crate::error::{EvalError, Result, WhileRunning as _};
use crate::measure::photos::{from_data, spread};
use crate::run::loaded::Loaded;
use crate::show::output::{self, Kind};

/// Held-out images and what runs make of them.
#[derive(Debug)]
pub struct Rows {
    /// The images' names.
    pub names: Vec<String>,
    /// They, `[N,3,S,S]` in Caffe units.
    pub photos: Tensor,
    /// The same of each run, in order.
    pub made: Vec<Tensor>,
}

/// `n` held-out images, spread evenly over those whose name contains one of `filters` (all, if there is
/// none), and what each run makes of them.
///
/// # Errors
/// Runs that cannot be opened, or that were held out on other images or crops.
pub fn rows(
    runs: &[PathBuf],
    n: usize,
    filters: &[String],
    consent: &Consent,
    device: Device,
) -> Result<Rows> {
    let mut loaded = Vec::new();
    for path in runs {
        loaded.push(Loaded::open(path, consent, device)?);
    }
    let Some((first, others)) = loaded.split_first() else {
        return Err(EvalError::Format("no run was named".to_owned()));
    };
    for other in others {
        let (a, b) = (&first.checkpoint.manifest, &other.checkpoint.manifest);
        let crops = (first.experiment.augment(), other.experiment.augment());
        if a.test_data != b.test_data
            || crops.0.crop != crops.1.crop
            || crops.0.scale != crops.1.scale
        {
            return Err(EvalError::NotComparable {
                a: first.path.clone(),
                b: other.path.clone(),
            });
        }
    }
    let data = first.test_data()?;
    let chosen = spread(&data, n, filters)?;
    let augment = first.experiment.augment();
    let x = from_data(&data, &chosen, &augment, device).while_running()?;
    let mut made = Vec::new();
    for run in &loaded {
        let features = held_out_features(&run.perception, &data, &chosen, &x).while_running()?;
        made.push(decode(&run.generator, &features, Clip::Displayable).while_running()?);
    }
    Ok(Rows {
        names: chosen
            .into_iter()
            .map(|i| data.name(i).to_owned())
            .collect(),
        photos: x,
        made,
    })
}

/// Writes one PNG: the images of [`rows`], then a row for each run, in order. Returns the images'
/// names.
///
/// # Errors
/// As for [`rows`], and an unwritable file.
pub fn compare(
    runs: &[PathBuf],
    n: usize,
    filters: &[String],
    out: &Path,
    consent: &Consent,
    device: Device,
) -> Result<Vec<String>> {
    output::check("--out", out, Kind::Image)?;
    let rows = rows(runs, n, filters, consent, device)?;
    let all: Vec<&Tensor> = std::iter::once(&rows.photos).chain(&rows.made).collect();
    let png = sheet::rows(&all)?;
    output::write(out, &png.bytes)?;
    Ok(rows.names)
}
