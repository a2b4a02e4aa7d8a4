//! From runs to what the page shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use deepsim_data::terminal::path as shown;
use deepsim_data::{Dataset, only_measured};
use deepsim_experiment::config::Gate;
use deepsim_experiment::evaluate::{decode, held_out_features};
use deepsim_experiment::measure::{self, Images, Norm};
use deepsim_experiment::{Checkpoint, Clip, Consent, Processes};
use deepsim_nets::images::clip_caffe;
use tch::{Device, Tensor};

use super::closer;
use super::data::{Group, Headline, Made, NOT_SHOWN, Part, Photo, Reconstruction, Report, RunCard};
use super::embedded::embed_all;
use super::options::{Options, label};
use super::{again, history, names};
use crate::analysis::mv;
use crate::analysis::table2;
use crate::error::{EvalError, Result};
use crate::measure::photos::{from_data, short_name, some};
use crate::measure::scale::distances;
use crate::run::catalog::{self, Entry, Loss, Origin, best, net_name};
use crate::run::loaded::Loaded;

/// Columns of the image on top.
const COLUMNS: usize = 6;

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A part begins, of so many things.
    Begin(&'a str, u64),
    /// So many more things are done.
    Did(u64),
}

/// Computes everything. What cannot be computed becomes a reason on the page, not an error.
///
/// # Errors
/// A folder that cannot be read, or without any run that opens.
pub fn collect(options: &Options<'_>, mut tell: impl FnMut(Progress<'_>)) -> Result<Report> {
    let _guard = tch::no_grad_guard();
    let mut left_out = Vec::new();
    let entries = catalog::read(options.runs, |why| left_out.push(why))?;
    if entries.is_empty() {
        let path = options.runs.to_owned();
        return Err(if left_out.is_empty() {
            EvalError::NoRunIn { path }
        } else {
            EvalError::NoneUsable {
                path,
                count: left_out.len(),
                why: left_out,
            }
        });
    }
    tell(Progress::Begin("table", entries.len() as u64));
    let alone = Processes::alone();
    let asked = table2::Options {
        images: options.images,
        data: None,
        clip: Clip::Displayable,
        consent: options.consent,
        device: options.device,
        metrics: options.metrics,
        processes: &alone,
    };
    let table = table2::rows(
        Some(options.runs),
        asked,
        |why| {
            if !left_out.contains(&why) {
                left_out.push(why);
            }
        },
        |n| tell(Progress::Did(n)),
    )?;
    let mut judged_on = entries
        .iter()
        .map(|entry| &entry.experiment.config.data.test);
    let barred = judged_on.find(|path| only_measured(path));
    if let (true, Some(path)) = (options.shown, barred) {
        left_out.push(format!(
            "all images: those of {} may be measured on and not shown (name other runs by --runs)",
            shown(path)
        ));
    }
    let shows = options.shown && barred.is_none();
    tell(Progress::Begin("reconstructions", entries.len() as u64));
    let mut sets: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
    for entry in &entries {
        sets.entry(entry.photos_key()).or_default().push(entry);
    }
    let mut sets: Vec<Vec<&Entry>> = sets.into_values().collect();
    sets.sort_by_key(|s| std::cmp::Reverse(s.len()));
    // The run that the reader meets on top is the first of every choice.
    let chosen = closer::choose(&entries);
    for set in &mut sets {
        set.sort_by_key(|entry| !chosen.first().is_some_and(|top| std::ptr::eq(*top, *entry)));
    }
    let (mut groups, mut shown) = (Vec::new(), Vec::new());
    for set in sets.iter().filter(|_| shows) {
        match group(set, options, &table, &mut left_out, |n| {
            tell(Progress::Did(n));
        }) {
            Ok((made, of)) => {
                groups.push(made);
                shown.push(of);
            }
            Err(error) => {
                left_out.push(format!("no reconstructions by {}: {error}", label(set[0])))
            }
        }
    }
    let headline = match (groups.first(), shown.first()) {
        (Some(group), Some(of)) => headline(group, of),
        _ if !shows => Err(NOT_SHOWN.to_owned()),
        _ => Err("no run could be opened".to_owned()),
    };
    tell(Progress::Begin("a closer look", chosen.len() as u64 * 3));
    let closer = chosen
        .into_iter()
        .map(|entry| {
            let known = known(&table, entry);
            let looked = closer::look(entry, options, known, |n| tell(Progress::Did(n)));
            if shows {
                looked
            } else {
                looked.without_images()
            }
        })
        .collect();
    let cards = sets.iter().flatten().map(|entry| card(entry)).collect();
    Ok(Report {
        made: made(options),
        runs: cards,
        left_out,
        table,
        missing_weights: options.metrics.map_or_else(Vec::new, |j| j.missing.clone()),
        headline,
        groups,
        closer,
        shown: shows,
    })
}

fn made(options: &Options<'_>) -> Made {
    let now = time::OffsetDateTime::now_utc();
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map(|text| text.trim().to_owned());
    Made {
        when: format!("{} {:02}:{:02} UTC", now.date(), now.hour(), now.minute()),
        commit,
        version: env!("CARGO_PKG_VERSION"),
        command: options.command.clone(),
        runs: options.runs.to_owned(),
        images: options.images,
    }
}

fn card(entry: &Entry) -> RunCard {
    let e = &entry.experiment;
    let config = &e.config;
    let count = |path: &Path| Dataset::open(path).map(|d| d.len()).ok();
    let (step, seconds, history, command) = match entry.origin {
        Origin::Generator(step) => {
            let checkpoint = Checkpoint::newest(&entry.path.join("checkpoints"));
            let seconds = checkpoint
                .ok()
                .flatten()
                .map_or(0.0, |c| c.manifest.seconds);
            let mut stages = vec![(0, e.weights())];
            stages.extend(e.stages());
            let history = history::read(
                &entry.path.join("metrics.jsonl"),
                &stages,
                config.gate.unwrap_or(Gate::OPEN),
            );
            (step, seconds, Some(history), again::train(&entry.path, e))
        }
        Origin::MahendranVedaldi => {
            let record = mv::Record::open(&entry.path);
            let (steps, seconds, command) = record.map_or((0, 0.0, String::new()), |r| {
                let steps = r.manifest.settings.steps() as u64;
                (steps, r.manifest.seconds, again::record(&r))
            });
            (steps, seconds, None, command)
        }
    };
    RunCard {
        name: catalog::name(&entry.path),
        loss: entry
            .loss()
            .map_or("Mahendran & Vedaldi", Loss::words)
            .to_owned(),
        encoder: net_name(&e.encoder),
        comparator: match entry.loss() {
            Some(_) => e.compared_in(net_name),
            None => String::new(),
        },
        weights: names::weights(&e.encoder),
        data: names::data(&config.data.test),
        crop: config.data.crop,
        counts: count(&config.data.train).zip(count(&config.data.test)),
        steps: (
            step,
            match entry.origin {
                Origin::Generator(_) => config.train.steps,
                Origin::MahendranVedaldi => step,
            },
        ),
        batch: config.train.batch_size,
        seconds,
        precision: format!("{:?}", config.train.precision).to_lowercase(),
        command,
        history,
    }
}

/// Features of images, where they can be computed.
type Encode = dyn Fn(&Tensor) -> Result<Option<Tensor>>;
/// Reconstructions of a dataset's images by index; the images are given as well.
type Make = dyn Fn(&Dataset, &[usize], &Tensor) -> Result<Tensor>;

/// What makes reconstructions, and features of images.
struct Maker {
    encodes: bool,
    encode: Box<Encode>,
    make: Box<Make>,
}

fn maker(entry: &Entry, consent: &Consent, device: Device) -> Result<Maker> {
    match entry.origin {
        Origin::Generator(_) => {
            let run = std::rc::Rc::new(Loaded::open(&entry.path, consent, device)?);
            run.test_data()?;
            let other = std::rc::Rc::clone(&run);
            Ok(Maker {
                encodes: run.perception.encodes(),
                encode: Box::new(move |x| {
                    if other.perception.encodes() {
                        Ok(Some(other.perception.encode(x)?))
                    } else {
                        Ok(None)
                    }
                }),
                make: Box::new(move |data, indices, x| {
                    let features = held_out_features(&run.perception, data, indices, x)?;
                    Ok(decode(&run.generator, &features, Clip::Displayable)?)
                }),
            })
        }
        Origin::MahendranVedaldi => {
            let record = mv::Record::open(&entry.path)?;
            record.test_data()?;
            let perception = record.perception(consent, device)?;
            Ok(Maker {
                encodes: true,
                encode: Box::new(move |x| Ok(Some(perception.encode(x)?))),
                make: Box::new(move |_, indices, _| {
                    let some = record.of(&record.reconstructions(Device::Cpu)?, indices)?;
                    Ok(clip_caffe(&some.f_to_device(device)?)?)
                }),
            })
        }
    }
}

/// What the table's errors of an entry are relative to.
fn known(table: &[table2::Row], entry: &Entry) -> Option<Norm> {
    let path = entry.path.display().to_string();
    let row = table.iter().find(|r| r.run.as_ref() == Some(&path));
    row.and_then(|r| r.norm)
}

/// The images of a set and what each of its runs makes of them; and those runs.
fn group<'a>(
    set: &[&'a Entry],
    options: &Options<'_>,
    table: &[table2::Row],
    left_out: &mut Vec<String>,
    mut did: impl FnMut(u64),
) -> Result<(Group, Vec<&'a Entry>)> {
    let first = &set[0].experiment;
    let data = Dataset::open_and_tell(&first.config.data.test)?;
    // A record has reconstructions of some images only: all runs show these then.
    let mut candidates: Vec<usize> = (0..data.len()).collect();
    for entry in set.iter().filter(|e| e.origin == Origin::MahendranVedaldi) {
        let record = mv::Record::open(&entry.path)?;
        let has = |i: &usize| record.manifest.photos.iter().any(|p| p.index == *i);
        candidates.retain(has);
    }
    let chosen = some(&candidates, options.photos);
    if chosen.len() < options.photos.min(data.len()) {
        left_out.push(format!(
            "{} of {} photos of {}: a record has reconstructions of no others",
            chosen.len(),
            options.photos.min(data.len()),
            shown(&first.config.data.test)
        ));
    }
    if chosen.is_empty() {
        return Err(EvalError::Format("no image that all runs show".to_owned()));
    }
    let augment = first.augment();
    let x = from_data(&data, &chosen, &augment, options.device)?;
    let photos = embed_all(&x)?
        .into_iter()
        .zip(&chosen)
        .map(|(embedded, &i)| Photo {
            name: short_name(data.name(i)),
            embedded,
        })
        .collect();
    let (mut runs, mut of) = (Vec::new(), Vec::new());
    for &entry in set {
        match reconstructions(entry, &data, (&chosen, &x), known(table, entry), options) {
            Ok(made) => {
                runs.push((catalog::name(&entry.path), label(entry), made));
                of.push(entry);
            }
            Err(error) => {
                let why = format!("{} left out: {error}", shown(&entry.path));
                if !left_out.contains(&why) {
                    left_out.push(why);
                }
            }
        }
        did(1);
    }
    let label = format!(
        "{}, {} px",
        names::data(&first.config.data.test),
        first.config.data.crop
    );
    Ok((
        Group {
            label,
            photos,
            runs,
            paths: of.iter().map(|entry| entry.path.clone()).collect(),
        },
        of,
    ))
}

fn reconstructions(
    entry: &Entry,
    data: &Dataset,
    (chosen, x): (&[usize], &Tensor),
    known: Option<Norm>,
    options: &Options<'_>,
) -> Result<Vec<Reconstruction>> {
    let maker = maker(entry, options.consent, options.device)?;
    let Norm { image, feature, .. } = match known {
        Some(norm) => norm,
        None => {
            let images = Images {
                data,
                augment: &entry.experiment.augment(),
                chosen: &measure::chosen(data, options.images),
                device: options.device,
            };
            let encode = |x: &Tensor| -> Result<Tensor> {
                let none = || EvalError::Format("nothing encodes an image here".to_owned());
                (maker.encode)(x)?.ok_or_else(none)
            };
            let encode: measure::Encode<'_, EvalError> = &encode;
            measure::norm(images, maker.encodes.then_some(encode))?
        }
    };
    let made = (maker.make)(data, chosen, x)?;
    let far = distances(&made, x)?;
    let features = match ((maker.encode)(&made)?, (maker.encode)(x)?) {
        (Some(got), Some(wanted)) => Some(distances(&got, &wanted)?),
        _ => None,
    };
    Ok(embed_all(&made)?
        .into_iter()
        .enumerate()
        .map(|(i, embedded)| Reconstruction {
            embedded,
            image: 100.0 * far[i] / image,
            feature: features
                .as_ref()
                .zip(feature)
                .map(|(f, n)| 100.0 * f[i] / n),
        })
        .collect())
}

/// Images, the full loss, the image loss alone, and other methods at the same layer.
fn headline(group: &Group, of: &[&Entry]) -> Part<Headline> {
    let by = |loss: Option<Loss>, like: Option<&Entry>| {
        best(of.iter().copied().filter(|e| {
            e.loss() == loss && like.is_none_or(|l| l.encoder_key() == e.encoder_key())
        }))
    };
    let lead = by(Some(Loss::Full), None)
        .or_else(|| best(of.iter().copied()))
        .ok_or("no run could be opened")?;
    let mut rows = vec![(
        "photo".to_owned(),
        few(group.photos.iter().map(|p| &p.embedded)),
    )];
    let mut panels = vec![lead];
    for loss in [Some(Loss::Image), None] {
        panels.extend(by(loss, Some(lead)).filter(|e| e.path != lead.path));
    }
    for entry in panels {
        let at = of.iter().position(|e| e.path == entry.path);
        let Some((_, _, made)) = at.and_then(|i| group.runs.get(i)) else {
            continue;
        };
        let words = match entry.loss() {
            None => "Mahendran & Vedaldi".to_owned(),
            Some(Loss::Full) => "DeePSiM: feature + adversarial + image loss".to_owned(),
            Some(loss) => loss.words().to_owned(),
        };
        rows.push((words, few(made.iter().map(|m| &m.embedded))));
    }
    Ok(Headline {
        encoder: net_name(&lead.experiment.encoder),
        names: few(group.photos.iter().map(|p| &p.name)),
        rows,
    })
}

/// Some of a list, spread evenly.
fn few<'a, T: Clone + 'a>(all: impl Iterator<Item = &'a T>) -> Vec<T> {
    some(&all.cloned().collect::<Vec<T>>(), COLUMNS)
}
