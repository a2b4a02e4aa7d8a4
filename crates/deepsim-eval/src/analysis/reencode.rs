//! Re-encoding (the paper's Fig. 5): original image → features → image → features → image …

use deepsim_data::spread;
use deepsim_data::terminal::one_line;
use deepsim_experiment::evaluate::reconstruct;
use deepsim_experiment::measure::batches;
use deepsim_experiment::{Clip, ExperimentError};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::measure::photos::{from_data, narrowed, picked, within};
use crate::measure::scale::{Scale, distances, mean};
use crate::run::loaded::{HeldOutImages, Loaded};
use crate::show::format::table;

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
pub enum Photos<'a> {
    /// Held-out ones of the run.
    HeldOut(&'a HeldOutImages),
    /// Any, `[N,3,S,S]` in Caffe units.
    Given(Tensor),
}

impl Photos<'_> {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Photos::HeldOut(of) => of.chosen.len(),
            Photos::Given(photos) => usize::try_from(photos.size()[0]).unwrap_or(0),
        }
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
    photos: &Photos<'_>,
    (keep, show): (&[usize], usize),
    scale: Option<&Scale>,
    mut progress: impl FnMut(u64),
) -> Result<Reencoded> {
    let _guard = tch::no_grad_guard();
    let n = photos.count();
    let shown = spread(show, n);
    let last = keep.iter().copied().max().unwrap_or(1).max(1);
    let mut kept: Vec<(usize, Vec<Tensor>)> = keep.iter().map(|&k| (k, Vec::new())).collect();
    kept.sort_by_key(|(k, _)| *k);
    kept.dedup_by_key(|(k, _)| *k);
    let mut originals = Vec::new();
    // [iteration][which distance] → of every image
    let mut all: Vec<[Vec<f64>; 4]> = vec![Default::default(); last];
    for batch in batches(n) {
        let x = match photos {
            Photos::HeldOut(of) => {
                from_data(&of.data, &of.chosen[batch.clone()], &of.augment, run.device)?
            }
            Photos::Given(photos) => narrowed(photos, &batch)?,
        };
        let here = within(&batch, &shown);
        let few =
            |x: &Tensor| -> Result<Tensor> { Ok(picked(x, &here)?.f_to_device(Device::Cpu)?) };
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
            progress(batch.len() as u64);
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

/// The drift as a table for each run.
pub fn text(rows: &[Drift]) -> String {
    let mut out = String::from(
        "Drift while re-encoding, in % of the mean distance between different photos\n\
         (image / feature: to the photo; step: to the iteration before)\n",
    );
    for of_run in rows.chunk_by(|a, b| a.run == b.run) {
        let table = table(
            of_run,
            &[
                ("iteration", &|r| r.iteration.to_string()),
                ("image", &|r| format!("{:.1}", r.image_to_original)),
                ("feature", &|r| format!("{:.1}", r.feature_to_original)),
                ("image step", &|r| format!("{:.1}", r.image_to_previous)),
                ("feature step", &|r| format!("{:.1}", r.feature_to_previous)),
            ],
        );
        let (run, n, pairs) = of_run
            .first()
            .map_or(("", 0, 0), |r| (r.run.as_str(), r.n, r.n_pairs_from));
        let from = if pairs == n {
            String::new()
        } else {
            format!("; distances relative to the pairs of {pairs} held-out images")
        };
        out.push_str(&format!("\n{} ({n} photos{from})\n{table}", one_line(run)));
    }
    out
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
        insta::assert_snapshot!(text(&[row(1, 41.25), row(2, 50.0)]));
    }
}
