//! Images of a figure.

use std::path::PathBuf;

use deepsim_data::Dataset;
use deepsim_data::terminal::path as shown;
use deepsim_experiment::evaluate::{decode, held_out_features};
use deepsim_experiment::{Clip, Consent};
use deepsim_nets::images::clip_caffe;
use tch::{Device, Tensor};

use super::{Figure, Panel, Plan};
use crate::analysis::interpolate;
use crate::analysis::mv;
use crate::analysis::reencode;
use crate::analysis::sample;
use crate::error::{EvalError, Result};
use crate::measure::photos::{from_data, named, short_name, some};
use crate::run::catalog::{Entry, Origin};
use crate::run::loaded::Loaded;
use crate::show::sheet::{Sheet, images};

/// Iterations of Fig. 5.
const ITERATIONS: [usize; 4] = [1, 2, 4, 8];
/// Frames of a row of Fig. 7.
const FRAMES: usize = 8;
/// Rows of Fig. 8 for each run.
const SAMPLE_ROWS: usize = 2;
/// Seed of its codes, the default of the command that draws more of them.
const SAMPLE_SEED: u64 = 1;

/// A figure and what it was made of.
#[derive(Debug)]
pub struct Drawn {
    /// The sheet.
    pub sheet: Sheet,
    /// Label and folder of each run.
    pub runs: Vec<(String, PathBuf)>,
    /// Names of the images.
    pub photos: Vec<String>,
    /// What is otherwise than asked.
    pub remarks: Vec<String>,
}

/// Makes the images of a plan, of `count` held-out images whose name has one of `filters`.
/// `progress` is told of each panel.
///
/// # Errors
/// A plan without panels; runs that cannot be opened.
pub fn draw(
    figure: Figure,
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
            if candidates.len() < asked && figure != Figure::Samples {
                remarks.push(format!(
                    "figure {} shows {} of {asked} images: {} has reconstructions of no others \
                     (`baseline mv --images {asked} --fresh` makes more)",
                    figure.number(),
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
    if figure != Figure::Samples && chosen.len() < count && of < count {
        remarks.push(format!(
            "figure {} shows {} images: there are no more{}",
            figure.number(),
            chosen.len(),
            if filters.is_empty() {
                ""
            } else {
                " of such a name"
            }
        ));
    }
    let held_out = &first.entry.experiment.config.data;
    let mut sheet = Sheet::new(&format!(
        "Fig. {}: {} ({}, {} px)",
        figure.number(),
        figure.title(),
        held_out.test.display(),
        held_out.crop
    ));
    let augment = first.entry.experiment.augment();
    let names: Vec<String> = chosen.iter().map(|&i| data.name(i).to_owned()).collect();
    let photos = from_data(&data, &chosen, &augment, device)?;
    let mut shown = names.clone();
    if figure == Figure::Samples {
        shown = Vec::new();
        for panel in &plan.panels {
            let run = Loaded::open(&panel.entry.path, consent, device)?;
            let per_row = i64::try_from(count).unwrap_or(i64::MAX);
            let made = sample::draw(&run, SAMPLE_ROWS * count, SAMPLE_SEED, device)?;
            for row in 0..SAMPLE_ROWS as i64 {
                let label = if row == 0 { panel.label.as_str() } else { "" };
                sheet.row(label, images(&made.f_narrow(0, row * per_row, per_row)?)?);
            }
            progress(1);
        }
    } else if figure == Figure::Interpolation {
        shown = pairs(
            &mut sheet,
            plan,
            (&names, &photos),
            consent,
            device,
            &mut progress,
        )?;
    } else {
        sheet.columns = names.iter().map(|n| short_name(n)).collect();
        sheet.row("photo", images(&photos)?);
        for panel in &plan.panels {
            rows(
                &mut sheet,
                figure,
                panel,
                (&chosen, &photos),
                consent,
                device,
            )?;
            progress(1);
        }
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
        photos: shown,
        remarks,
    })
}

fn rows(
    sheet: &mut Sheet,
    figure: Figure,
    panel: &Panel,
    (chosen, photos): (&[usize], &Tensor),
    consent: &Consent,
    device: Device,
) -> Result<()> {
    if let Some(heading) = &panel.heading {
        sheet.heading(heading);
    }
    if figure != Figure::Reencoding {
        let made = reconstructions(&panel.entry, photos, chosen, consent, device)?;
        sheet.row(&panel.label, images(&made)?);
        return Ok(());
    }
    let run = Loaded::open(&panel.entry.path, consent, device)?;
    let given = reencode::Photos::Given(photos.shallow_clone());
    let shown = (&ITERATIONS[..], chosen.len());
    let made = reencode::compute(&run, &given, shown, None, |_| {}, device)?;
    for (iteration, reconstructions) in &made.reconstructions {
        sheet.row(
            &format!("{}, {iteration}", panel.label),
            images(reconstructions)?,
        );
    }
    Ok(())
}

fn test_data(entry: &Entry) -> Result<Dataset> {
    Ok(Dataset::open_and_tell(&entry.experiment.config.data.test)?)
}

fn reconstructions(
    entry: &Entry,
    photos: &Tensor,
    chosen: &[usize],
    consent: &Consent,
    device: Device,
) -> Result<Tensor> {
    match entry.origin {
        Origin::Generator(_) => {
            let run = Loaded::open(&entry.path, consent, device)?;
            let data = run.test_data()?;
            let features = held_out_features(&run.perception, &data, chosen, photos)?;
            Ok(decode(&run.generator, &features, Clip::Displayable)?)
        }
        Origin::MahendranVedaldi => {
            let record = mv::Record::open(&entry.path)?;
            record.test_data()?;
            let some = record.of(&record.reconstructions(Device::Cpu)?, chosen)?;
            Ok(clip_caffe(&some.f_to_device(device)?)?)
        }
    }
}

/// Rows of Fig. 7: neighbours in the choice of images are the pairs.
fn pairs(
    sheet: &mut Sheet,
    plan: &Plan,
    (names, photos): (&[String], &Tensor),
    consent: &Consent,
    device: Device,
    progress: &mut impl FnMut(u64),
) -> Result<Vec<String>> {
    let pairs: Vec<i64> = (0..names.len() as i64 / 2).collect();
    if pairs.is_empty() {
        return Err(EvalError::Usage {
            option: "--images",
            value: names.len().to_string(),
            reason: "an interpolation needs at least two images".to_owned(),
        });
    }
    sheet.columns = vec!["photo".to_owned()];
    let ts = (0..FRAMES).map(|i| format!("{:.2}", i as f64 / (FRAMES - 1) as f64));
    sheet.columns.extend(ts);
    sheet.columns.push("photo".to_owned());
    for panel in &plan.panels {
        sheet.heading(&format!("features of {}", panel.label));
        let run = Loaded::open(&panel.entry.path, consent, device)?;
        for &pair in &pairs {
            let (a, b) = (
                photos.f_narrow(0, 2 * pair, 1)?,
                photos.f_narrow(0, 2 * pair + 1, 1)?,
            );
            let made = interpolate::compute(&run, &a, &b, FRAMES, |_| {})?;
            let row = Tensor::f_cat(&[&a, &made.frames, &b], 0)?;
            let [from, to] = [2 * pair, 2 * pair + 1].map(|i| short_name(&names[i as usize]));
            sheet.row(&format!("{from} – {to}"), images(&row)?);
        }
        progress(1);
    }
    Ok(names.iter().take(2 * pairs.len()).cloned().collect())
}
