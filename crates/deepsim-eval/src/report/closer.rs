//! A closer look at some runs: between images, again and again, and what is nearest.

use deepsim_data::Dataset;
use deepsim_experiment::measure::Norm;
use tch::Tensor;

use super::data::{
    Beside, Closer, Interpolation, Neighbor, Neighbors, Part, Photo, Reconstruction, Reencoding,
};
use super::embedded::embed_all;
use super::options::{Options, label};
use crate::analysis::interpolate;
use crate::analysis::neighbors;
use crate::analysis::reencode;
use crate::error::Result;
use crate::measure::photos::{from_data, picked, short_name, spread};
use crate::measure::scale::{Scale, distances};
use crate::run::catalog::{self, Entry, Loss, Origin, best};
use crate::run::loaded::{HeldOutImages, Loaded};

/// Runs at most: each adds about half a megabyte.
const RUNS: usize = 4;
/// Frames between two images.
const FRAMES: usize = 13;
/// Pairs of images.
const PAIRS: usize = 2;
/// Rounds of re-encoding.
const ROUNDS: usize = 8;
/// Held-out images whose re-encoding is shown; the drift is measured over more.
const REENCODED: usize = 3;
/// Images whose neighbours are shown; they are counted over more.
const NEIGHBORS: usize = 5;

/// The run of every inverted layer that stands for it: of the full loss, where there is one.
pub(super) fn choose(entries: &[Entry]) -> Vec<&Entry> {
    let trained = |e: &&Entry| matches!(e.origin, Origin::Generator(_));
    let mut keys: Vec<String> = entries
        .iter()
        .filter(trained)
        .map(Entry::encoder_key)
        .collect();
    keys.sort();
    keys.dedup();
    let mut chosen: Vec<&Entry> = keys
        .iter()
        .filter_map(|key| {
            let here = || {
                let mine = entries.iter().filter(trained);
                mine.filter(|e| e.encoder_key() == *key)
            };
            let full = here().filter(|e| e.loss() == Some(Loss::Full));
            best(full).or_else(|| best(here()))
        })
        .collect();
    let rank = |e: &&Entry| {
        let step = match e.origin {
            Origin::Generator(step) => step,
            Origin::MahendranVedaldi => 0,
        };
        (e.loss() != Some(Loss::Full), std::cmp::Reverse(step))
    };
    chosen.sort_by_key(rank);
    chosen.truncate(RUNS);
    chosen
}

/// Looks at one run, whose normalisation may be known. `did` is told of each of the three parts.
pub(super) fn look(
    entry: &Entry,
    options: &Options<'_>,
    known: Option<Norm>,
    mut did: impl FnMut(u64),
) -> Closer {
    let opened = open(entry, options, known);
    let mut part = |work: &mut dyn FnMut(&Loaded, &HeldOutImages, &Scale) -> Result<()>| {
        let done = match &opened {
            Ok((run, held, scale)) => work(run, held, scale).map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        did(1);
        done
    };
    let (mut between, mut again, mut nearest) = (None, None, None);
    let interpolations = part(&mut |run, held, _| {
        between = Some(interpolations(run, &held.data)?);
        Ok(())
    });
    let reencoding = part(&mut |run, held, scale| {
        again = Some(reencoding(run, held, scale)?);
        Ok(())
    });
    let neighbors = part(&mut |run, held, scale| {
        nearest = Some(neighborhood(run, held, scale)?);
        Ok(())
    });
    Closer {
        name: catalog::name(&entry.path),
        path: entry.path.clone(),
        label: label(entry),
        interpolations: given(interpolations, between),
        reencoding: given(reencoding, again),
        neighbors: given(neighbors, nearest),
    }
}

fn given<T>(done: Part<()>, value: Option<T>) -> Part<T> {
    done.and(value.ok_or_else(|| "nothing was made".to_owned()))
}

fn open(
    entry: &Entry,
    options: &Options<'_>,
    known: Option<Norm>,
) -> Part<(Loaded, HeldOutImages, Scale)> {
    let opened = || -> Result<(Loaded, HeldOutImages)> {
        let run = Loaded::open(&entry.path, options.consent, options.device)?;
        let held = run.held_out(options.images)?;
        Ok((run, held))
    };
    let (run, held) = opened().map_err(|e| e.to_string())?;
    if !run.perception.encodes() {
        return Err(
            "its features were recorded from a file: no encoder is there that could look at \
             a reconstruction or at other images"
                .to_owned(),
        );
    }
    // The normalisation of the table, where it was measured there.
    let known = known.and_then(|norm| Scale::of(norm).ok());
    let scale = match known {
        Some(scale) => scale,
        None => Scale::measure(&run, &held).map_err(|e| e.to_string())?,
    };
    Ok((run, held, scale))
}

fn photo(data: &Dataset, index: usize, x: &Tensor) -> Result<Photo> {
    let mut made = embed_all(x)?;
    let embedded = made.pop().ok_or_else(|| {
        crate::EvalError::Format(format!("held-out image {index} could not be embedded"))
    })?;
    Ok(Photo {
        name: short_name(data.name(index)),
        embedded,
    })
}

fn interpolations(run: &Loaded, data: &Dataset) -> Result<Vec<Interpolation>> {
    let chosen = spread(data, 2 * PAIRS, &[])?;
    let augment = run.experiment.augment();
    let mut all = Vec::new();
    for pair in chosen.chunks_exact(2) {
        let a = from_data(data, &pair[..1], &augment, run.device)?;
        let b = from_data(data, &pair[1..], &augment, run.device)?;
        let made = interpolate::compute(run, &a, &b, FRAMES, |_| {})?;
        let frames = embed_all(&made.frames)?
            .into_iter()
            .zip(&made.steps)
            .map(|(embedded, step)| (step.t, embedded, step.step))
            .collect();
        all.push(Interpolation {
            ends: [photo(data, pair[0], &a)?, photo(data, pair[1], &b)?],
            frames,
            max_over_mean: made.smoothness.max_over_mean,
            path_over_ends: made.smoothness.path_over_ends,
        });
    }
    if all.is_empty() {
        return Err(crate::EvalError::Format(
            "an interpolation needs two held-out images".to_owned(),
        ));
    }
    Ok(all)
}

fn reencoding(run: &Loaded, held: &HeldOutImages, scale: &Scale) -> Result<Reencoding> {
    let keep: Vec<usize> = (1..=ROUNDS).collect();
    let made = reencode::compute(
        run,
        &reencode::Photos::HeldOut(held),
        (&keep, REENCODED),
        Some(scale),
        |_| {},
    )?;
    let mut photos = Vec::new();
    for (at, &place) in made.shown.iter().enumerate() {
        let one = |x: &Tensor| -> Result<Tensor> { Ok(x.f_narrow(0, at as i64, 1)?) };
        let mut rounds = Vec::new();
        for (_, x) in &made.reconstructions {
            rounds.extend(embed_all(&one(x)?)?);
        }
        let shown = photo(&held.data, held.chosen[place], &one(&made.photos)?)?;
        photos.push((shown, rounds));
    }
    Ok(Reencoding {
        photos,
        drift: made.drift,
    })
}

fn neighborhood(run: &Loaded, held: &HeldOutImages, scale: &Scale) -> Result<Neighbors> {
    let made = neighbors::compute(run, held, 1, scale, |_| {})?;
    let places = deepsim_data::spread(NEIGHBORS, held.chosen.len());
    let few = |x: &Tensor| picked(x, &places);
    let photos = few(&made.photos)?;
    let features = run.perception.encode(&photos)?;
    let reconstructions = |x: &Tensor| -> Result<Vec<Reconstruction>> {
        let image = distances(x, &photos)?;
        let feature = distances(&run.perception.encode(x)?, &features)?;
        Ok(embed_all(x)?
            .into_iter()
            .enumerate()
            .map(|(i, embedded)| Reconstruction {
                embedded,
                image: scale.image_percent(image[i]),
                feature: Some(scale.feature_percent(feature[i])),
            })
            .collect())
    };
    let own = reconstructions(&few(&made.reconstructions)?)?;
    let mut spaces = Vec::new();
    for ((space, found), x) in made.spaces.iter().zip(&made.nearest) {
        spaces.push((space, found, reconstructions(&few(x)?)?));
    }
    let shown = embed_all(&photos)?
        .into_iter()
        .zip(own)
        .enumerate()
        .map(|(i, (embedded, own))| {
            let at = places[i];
            let beside = |(space, found, nearest): &(
                &String,
                &Vec<Vec<neighbors::Found>>,
                Vec<Reconstruction>,
            )| {
                let first = found.get(at)?.first()?;
                Some(Beside {
                    space: (*space).clone(),
                    name: short_name(&first.name),
                    mirrored: first.mirrored,
                    found: nearest.get(i)?.clone(),
                })
            };
            Neighbor {
                photo: Photo {
                    name: short_name(&made.names[at]),
                    embedded,
                },
                own,
                nearest: spaces.iter().filter_map(beside).collect(),
            }
        })
        .collect();
    Ok(Neighbors {
        shown,
        rows: made.rows,
    })
}
