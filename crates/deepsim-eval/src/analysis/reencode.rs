//! Re-encoding (the paper's Fig. 5): original image → features → image → features → image …

use deepsim_data::spread;
use deepsim_data::terminal::one_line;
use deepsim_experiment::evaluate::reconstruct;
use deepsim_experiment::{Clip, ExperimentError};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::measure::photos::{BATCH, from_data};
use crate::measure::scale::{Scale, distances, mean};
use crate::run::loaded::Loaded;
use crate::show::format::{Format, columns, csv, json};
use crate::show::sheet::{Sheet, images};

/// Mean distances of one iteration's images, in percent of the mean distance between different
/// held-out images, as in Table 2. (Iteration 1 is the usual reconstruction.)
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Drift {
    /// Run directory.
    pub run: String,
    /// Iteration, from 1.
    pub iteration: usize,
    /// Images, to the original images.
    pub image_to_original: f64,
    /// Features at the inverted layer, to the original images'.
    pub feature_to_original: f64,
    /// Images, to those of the iteration before (of the original images for iteration 1).
    pub image_to_previous: f64,
    /// Features, to those of the iteration before.
    pub feature_to_previous: f64,
    /// Images.
    pub n: usize,
    /// Held-out images whose pairs the distance between different images is the mean of.
    pub n_pairs_from: usize,
}

/// Which images are encoded again and again.
#[derive(Debug)]
pub enum Photos {
    /// Held-out ones of the run, by index.
    HeldOut(Vec<usize>),
    /// Any, `[N,3,S,S]` in Caffe units.
    Given(Tensor),
}

impl Photos {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Photos::HeldOut(chosen) => chosen.len(),
            Photos::Given(photos) => usize::try_from(photos.size()[0]).unwrap_or(0),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Images encoded and reconstructed again and again.
#[derive(Debug)]
pub struct Reencoded {
    /// Places of the images that are shown, spread evenly over all.
    pub shown: Vec<usize>,
    /// They, `[N,3,S,S]` in Caffe units.
    pub photos: Tensor,
    /// Kept iterations and their images of those, as `photos`.
    pub reconstructions: Vec<(usize, Tensor)>,
    /// Every iteration up to the last one kept, over all images; empty without a scale.
    pub drift: Vec<Drift>,
}

/// Iterates on original images up to the largest of `keep`; images are kept of `show` of them. Images are clipped to the
/// displayable range before they are encoded again. `progress` is told each image-iteration.
///
/// # Errors
/// Unreadable images, or what the networks refuse.
pub fn compute(
    run: &Loaded,
    photos: &Photos,
    (keep, show): (&[usize], usize),
    scale: Option<&Scale>,
    mut progress: impl FnMut(u64),
    device: Device,
) -> Result<Reencoded> {
    let _guard = tch::no_grad_guard();
    let n = photos.len();
    let shown = spread(show, n);
    let last = keep.iter().copied().max().unwrap_or(1).max(1);
    let mut kept: Vec<(usize, Vec<Tensor>)> = keep.iter().map(|&k| (k, Vec::new())).collect();
    kept.sort_by_key(|(k, _)| *k);
    kept.dedup_by_key(|(k, _)| *k);
    let mut originals = Vec::new();
    let data = match photos {
        Photos::HeldOut(_) => Some(run.test_data()?),
        Photos::Given(_) => None,
    };
    // [iteration][which distance] → of every image
    let mut all: Vec<[Vec<f64>; 4]> = vec![Default::default(); last];
    for from in (0..n).step_by(BATCH) {
        let to = n.min(from + BATCH);
        let x = match (photos, &data) {
            (Photos::HeldOut(chosen), Some(data)) => {
                from_data(data, &chosen[from..to], &run.experiment.augment(), device)?
            }
            (Photos::Given(photos), _) => photos.f_narrow(0, from as i64, (to - from) as i64)?,
            (Photos::HeldOut(_), None) => continue,
        };
        let here: Vec<i64> = shown
            .iter()
            .filter(|place| (from..to).contains(place))
            .map(|place| (place - from) as i64)
            .collect();
        let here = Tensor::f_from_slice(&here)?.f_to_device(device)?;
        let few = |x: &Tensor| x.f_index_select(0, &here)?.f_to_device(Device::Cpu);
        originals.push(few(&x)?);
        let wanted = run.perception.encode(&x)?;
        let (mut before, mut before_features) = (x.shallow_clone(), wanted.shallow_clone());
        for (i, found) in all.iter_mut().enumerate() {
            let y = reconstruct(&run.perception, &run.generator, &before, Clip::Displayable)?;
            let features = run.perception.encode(&y)?;
            let pairs = [
                (&y, &x),
                (&features, &wanted),
                (&y, &before),
                (&features, &before_features),
            ];
            for (list, (a, b)) in found.iter_mut().zip(pairs) {
                list.extend(distances(a, b)?);
            }
            for (_, parts) in kept.iter_mut().filter(|(k, _)| *k == i + 1) {
                parts.push(few(&y)?);
            }
            progress((to - from) as u64);
            (before, before_features) = (y, features);
        }
    }
    let drift = |scale: &Scale| {
        (1..)
            .zip(&all)
            .map(
                |(iteration, [image, feature, image_before, feature_before])| Drift {
                    run: run.path.display().to_string(),
                    iteration,
                    image_to_original: scale.image_percent(mean(image)),
                    feature_to_original: scale.feature_percent(mean(feature)),
                    image_to_previous: scale.image_percent(mean(image_before)),
                    feature_to_previous: scale.feature_percent(mean(feature_before)),
                    n: image.len(),
                    n_pairs_from: scale.n,
                },
            )
            .collect()
    };
    let reconstructions = kept
        .into_iter()
        .filter(|(_, parts)| !parts.is_empty())
        .map(|(k, parts)| Ok((k, Tensor::f_cat(&parts, 0).map_err(ExperimentError::from)?)))
        .collect::<Result<_>>()?;
    Ok(Reencoded {
        shown,
        photos: Tensor::f_cat(&originals, 0)?,
        reconstructions,
        drift: scale.map(drift).unwrap_or_default(),
    })
}

impl Reencoded {
    /// Adds a row of images (unless they stand there already) and one for each kept iteration.
    ///
    /// # Errors
    /// None of ours.
    pub fn onto(&self, sheet: &mut Sheet) -> Result<()> {
        if !sheet.rows.iter().any(|r| r.label == "photo") {
            sheet.row("photo", images(&self.photos)?);
        }
        for (iteration, reconstructions) in &self.reconstructions {
            sheet.row(&iteration.to_string(), images(reconstructions)?);
        }
        Ok(())
    }
}

/// The drift in a format.
///
/// # Errors
/// None of ours.
pub fn render(rows: &[Drift], format: Format) -> Result<String> {
    match format {
        Format::Json => json(rows),
        Format::Csv => csv(rows),
        Format::Text => {
            let mut out = String::from(
                "Drift while re-encoding, in % of the mean distance between different photos\n\
                 (image / feature: to the photo; step: to the iteration before)\n",
            );
            let mut runs: Vec<&str> = rows.iter().map(|r| r.run.as_str()).collect();
            runs.dedup();
            for run in runs {
                let cells: Vec<Vec<String>> = rows
                    .iter()
                    .filter(|r| r.run == run)
                    .map(|r| {
                        let two = |v: f64| format!("{v:.1}");
                        vec![
                            r.iteration.to_string(),
                            two(r.image_to_original),
                            two(r.feature_to_original),
                            two(r.image_to_previous),
                            two(r.feature_to_previous),
                        ]
                    })
                    .collect();
                let first = rows.iter().find(|r| r.run == run);
                let (n, pairs) = first.map_or((0, 0), |r| (r.n, r.n_pairs_from));
                let head = [
                    "iteration",
                    "image",
                    "feature",
                    "image step",
                    "feature step",
                ];
                let from = if pairs == n {
                    String::new()
                } else {
                    format!("; distances relative to the pairs of {pairs} held-out images")
                };
                out.push_str(&format!(
                    "\n{} ({n} photos{from})\n{}",
                    one_line(run),
                    columns(&head, &cells)
                ));
            }
            Ok(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text() {
        let row = |iteration, v: f64| Drift {
            run: "runs/a".into(),
            iteration,
            image_to_original: v,
            feature_to_original: v * 2.0,
            image_to_previous: v / 2.0,
            feature_to_previous: v / 4.0,
            n: 38,
            n_pairs_from: 38,
        };
        insta::assert_snapshot!(render(&[row(1, 41.25), row(2, 50.0)], Format::Text).unwrap());
    }
}
