//! Images of a figure.

use std::path::PathBuf;

use deepsim_data::Dataset;
use deepsim_data::terminal::path as shown;
use deepsim_experiment::evaluate::{decode, held_out_features};
use deepsim_experiment::{Clip, Consent};
use deepsim_nets::images::clip_caffe;
use tch::{Device, Tensor};

use super::figure::Figure;
use super::material::Material;
use super::plan::{Panel, Plan};
use crate::analysis::interpolate;
use crate::analysis::mv;
use crate::analysis::reencode;
use crate::error::{EvalError, Result};
use crate::measure::photos::{from_data, named, short_name, some};
use crate::run::catalog::{Entry, Origin};
use crate::run::loaded::Loaded;
use crate::show::sheet::{Sheet, images};

/// Iterations of Fig. 5.
const ITERATIONS: [usize; 4] = [1, 2, 4, 8];
/// Frames of a row of Fig. 7.
const FRAMES: usize = 8;

/// A figure and what it was made of.
#[derive(Debug)]
pub struct Drawn {
    /// The sheet.
    pub sheet: Sheet,
    /// Label and folder of each run.
    pub runs: Vec<(String, PathBuf)>,
    /// What is otherwise than asked.
    pub remarks: Vec<String>,
}

/// Makes the images of a plan, of `count` held-out images whose name has one of `filters`.
/// `progress` is told of each panel.
///
/// # Errors
/// A plan without panels; runs that cannot be opened.
pub fn draw(
    figure: &Figure,
    plan: &Plan,
    count: usize,
    filters: &[String],
    consent: &Consent,
    device: Device,
    mut progress: impl FnMut(u64),
) -> Result<Drawn> {
    let Some(first) = plan.panels.first() else {
        return Err(EvalError::Format("a figure without runs".to_owned()));
    };
    let data = test_data(&first.entry)?;
    let mut candidates = named(&data, filters)?;
    let of = candidates.len();
    let mut remarks = Vec::new();
    for panel in &plan.panels {
        let other = test_data(&panel.entry)?;
        if other.digest() != data.digest() {
            return Err(EvalError::NotComparable {
                a: first.entry.path.clone(),
                b: panel.entry.path.clone(),
            });
        }
        // A record has reconstructions of some images only: the choice is spread over those that every row has.
        if panel.entry.origin == Origin::MahendranVedaldi {
            let record = mv::Record::open(&panel.entry.path)?;
            let has = |i: &usize| record.manifest.photos.iter().any(|p| p.index == *i);
            candidates.retain(has);
            let asked = count.min(of);
            if candidates.len() < asked {
                remarks.push(format!(
                    "figure {} shows {} of {asked} images: {} has reconstructions of no others \
                     (`baseline mv --images {asked} --fresh` makes more)",
                    figure.number,
                    candidates.len(),
                    shown(&panel.entry.path),
                ));
            }
        }
    }
    let chosen = some(&candidates, count);
    if chosen.is_empty() {
        return Err(EvalError::NoPhotos {
            filter: filters.join("` or `"),
            data: "those that all runs of the figure have".to_owned(),
        });
    }
    let held_out = &first.entry.experiment.config.data;
    let mut sheet = Sheet::new(&format!(
        "Fig. {}: {} ({}, {} px)",
        figure.number,
        figure.title,
        held_out.test.display(),
        held_out.crop
    ));
    let augment = first.entry.experiment.augment();
    let names: Vec<String> = chosen.iter().map(|&i| data.name(i).to_owned()).collect();
    let material = Material {
        plan,
        count,
        chosen: &chosen,
        names: &names,
        photos: &from_data(&data, &chosen, &augment, device)?,
        consent,
        device,
    };
    let on_it = (figure.rows)(&mut sheet, &material, &mut progress)?;
    if !on_it.is_empty() && chosen.len() < count && of < count {
        let which = if filters.is_empty() {
            ""
        } else {
            " of such a name"
        };
        remarks.push(format!(
            "figure {} shows {} images: there are no more{which}",
            figure.number,
            chosen.len()
        ));
    }
    let of = |p: &Panel| {
        let heading = p
            .heading
            .as_ref()
            .map_or(String::new(), |h| format!("{h}, "));
        (format!("{heading}{}", p.label), p.entry.path.clone())
    };
    Ok(Drawn {
        sheet,
        runs: plan.panels.iter().map(of).collect(),
        remarks,
    })
}

/// Held-out images, and below them what each run makes of them.
pub(super) fn reconstructed(
    sheet: &mut Sheet,
    of: &Material<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<String>> {
    below_photos(sheet, of, progress, |sheet, panel| {
        sheet.row(&panel.label, images(&reconstructions(&panel.entry, of)?)?);
        Ok(())
    })
}

/// The same of several iterations.
pub(super) fn reencoded(
    sheet: &mut Sheet,
    of: &Material<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<String>> {
    below_photos(sheet, of, progress, |sheet, panel| {
        let run = of.open(panel)?;
        let given = reencode::Photos::Given(of.photos.shallow_clone());
        let shown = (&ITERATIONS[..], of.chosen.len());
        let made = reencode::compute(&run, &given, shown, None, |_| {})?;
        for (iteration, reconstructions) in &made.reconstructions {
            let label = format!("{}, {iteration}", panel.label);
            sheet.row(&label, images(reconstructions)?);
        }
        Ok(())
    })
}

/// Held-out images in columns, and below them the rows of each panel.
fn below_photos(
    sheet: &mut Sheet,
    of: &Material<'_>,
    progress: &mut dyn FnMut(u64),
    rows: impl Fn(&mut Sheet, &Panel) -> Result<()>,
) -> Result<Vec<String>> {
    sheet.columns = of.names.iter().map(|n| short_name(n)).collect();
    sheet.row("photo", images(of.photos)?);
    for panel in &of.plan.panels {
        if let Some(heading) = &panel.heading {
            sheet.heading(heading);
        }
        rows(sheet, panel)?;
        progress(1);
    }
    Ok(of.names.to_vec())
}

fn test_data(entry: &Entry) -> Result<Dataset> {
    Ok(Dataset::open_and_tell(&entry.experiment.config.data.test)?)
}

fn reconstructions(entry: &Entry, of: &Material<'_>) -> Result<Tensor> {
    match entry.origin {
        Origin::Generator(_) => {
            let run = Loaded::open(&entry.path, of.consent, of.device)?;
            let data = run.test_data()?;
            let features = held_out_features(&run.perception, &data, of.chosen, of.photos)?;
            Ok(decode(&run.generator, &features, Clip::Displayable)?)
        }
        Origin::MahendranVedaldi => {
            let record = mv::Record::open(&entry.path)?;
            record.test_data()?;
            let some = record.of(&record.reconstructions(Device::Cpu)?, of.chosen)?;
            Ok(clip_caffe(&some.f_to_device(of.device)?)?)
        }
    }
}

/// Between images: neighbours in the choice are the pairs.
pub(super) fn interpolated(
    sheet: &mut Sheet,
    of: &Material<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<String>> {
    let pairs: Vec<i64> = (0..of.names.len() as i64 / 2).collect();
    if pairs.is_empty() {
        let reason = "an interpolation needs at least two images";
        return Err(EvalError::usage("--images", of.names.len(), reason));
    }
    sheet.columns = vec!["photo".to_owned()];
    let ts = (0..FRAMES).map(|i| format!("{:.2}", i as f64 / (FRAMES - 1) as f64));
    sheet.columns.extend(ts);
    sheet.columns.push("photo".to_owned());
    for panel in &of.plan.panels {
        sheet.heading(&format!("features of {}", panel.label));
        let run = of.open(panel)?;
        for &pair in &pairs {
            let [from, to] = [2 * pair, 2 * pair + 1];
            let (a, b) = (
                of.photos.f_narrow(0, from, 1)?,
                of.photos.f_narrow(0, to, 1)?,
            );
            let made = interpolate::compute(&run, &a, &b, FRAMES, |_| {})?;
            let row = Tensor::f_cat(&[&a, &made.frames, &b], 0)?;
            let [from, to] = [from, to].map(|i| short_name(&of.names[i as usize]));
            sheet.row(&format!("{from} – {to}"), images(&row)?);
        }
        progress(1);
    }
    Ok(of.names.iter().take(2 * pairs.len()).cloned().collect())
}
