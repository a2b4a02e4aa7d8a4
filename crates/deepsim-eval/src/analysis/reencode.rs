//! Re-encoding (the paper's Fig. 5): original image → features → image → features → image …

use std::ops::Range;

use deepsim_data::spread;
use deepsim_data::terminal::one_line;
use deepsim_experiment::evaluate::reconstruct;
use deepsim_experiment::measure::batches;
use deepsim_experiment::{Clip, Processes};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::error::{EvalError, Result};
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
    kept: (&[usize], usize),
    scale: Option<&Scale>,
    progress: impl FnMut(u64),
) -> Result<Reencoded> {
    compute_among(&Processes::alone(), run, photos, kept, scale, progress)
}

/// The same by several processes, each of which has some of the batches. `progress` is told all image-iterations.
///
/// # Errors
/// As [`compute`]; those of another process.
pub fn compute_among(
    processes: &Processes,
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
    let mut kept: Vec<usize> = keep.iter().copied().filter(|&k| k > 0).collect();
    kept.sort_unstable();
    kept.dedup();
    let of_run = Iterated {
        run,
        photos,
        kept: &kept,
        shown: &shown,
        last,
    };
    let (mut own_distances, mut own_images) = (Vec::new(), Vec::new());
    let mut pass = || -> Result<()> {
        for (number, batch) in batches(n).enumerate() {
            if processes.is_own(number) {
                let (distances, images) = of_run.batch(&batch, &mut progress)?;
                own_distances.push((number, distances));
                own_images.push((number, images));
            } else {
                progress((batch.len() * last) as u64);
            }
        }
        Ok(())
    };
    let passed = pass();
    let distances = passed.map(|()| own_distances);
    let distances = processes.gathered(distances, batches(n).count())?;
    // [iteration][which distance] → of every image
    let mut all: Vec<[Vec<f64>; 4]> = vec![Default::default(); last];
    for (batch, of_batch) in batches(n).zip(&distances) {
        let lists = all.iter_mut().flatten();
        for (list, values) in lists.zip(of_batch.chunks(batch.len())) {
            list.extend_from_slice(values);
        }
    }
    // The images, then their reconstructions at each kept iteration.
    let blocks = 1 + kept.len();
    let here: Vec<usize> = batches(n)
        .map(|batch| within(&batch, &shown).len())
        .collect();
    let rows: Vec<usize> = here.iter().map(|here| blocks * here).collect();
    let parts = processes.parts(Ok::<_, EvalError>(own_images), &rows)?;
    let block = |which: usize| -> Result<Tensor> {
        let parts: Vec<Tensor> = parts
            .iter()
            .zip(&here)
            .map(|(part, &here)| narrowed(part, &(which * here..(which + 1) * here)))
            .collect::<Result<_>>()?;
        Ok(Tensor::f_cat(&parts, 0)?)
    };
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
        .iter()
        .enumerate()
        .map(|(at, &k)| Ok((k, block(1 + at)?)))
        .collect::<Result<_>>()?;
    let photos = block(0)?;
    Ok(Reencoded {
        shown,
        photos,
        reconstructions,
        drift: scale.map(drift).unwrap_or_default(),
    })
}

/// What is iterated on.
struct Iterated<'a> {
    run: &'a Loaded,
    photos: &'a Photos<'a>,
    /// Iterations whose images are kept, ascending.
    kept: &'a [usize],
    /// Places of the images that are kept.
    shown: &'a [usize],
    /// The last iteration.
    last: usize,
}

impl Iterated<'_> {
    /// Iterates on one batch. Gives four distances of its images for each iteration, one list behind the other; and those of
    /// its images that are shown, followed by what they have become at each kept iteration.
    fn batch(
        &self,
        batch: &Range<usize>,
        progress: &mut impl FnMut(u64),
    ) -> Result<(Vec<f64>, Tensor)> {
        let run = self.run;
        let x = match self.photos {
            Photos::HeldOut(of) => {
                from_data(&of.data, &of.chosen[batch.clone()], &of.augment, run.device)?
            }
            Photos::Given(photos) => narrowed(photos, batch)?,
        };
        let here = within(batch, self.shown);
        let few =
            |x: &Tensor| -> Result<Tensor> { Ok(picked(x, &here)?.f_to_device(Device::Cpu)?) };
        let (mut all, mut parts) = (Vec::new(), vec![few(&x)?]);
        let wanted = run.perception.encode(&x)?;
        let (mut before, mut before_features) = (x.shallow_clone(), wanted.shallow_clone());
        for iteration in 1..=self.last {
            let y = reconstruct(&run.perception, &run.generator, &before, Clip::Displayable)?;
            let features = run.perception.encode(&y)?;
            let pairs = [
                (&y, &x),
                (&features, &wanted),
                (&y, &before),
                (&features, &before_features),
            ];
            for (a, b) in pairs {
                all.extend(distances(a, b)?);
            }
            if self.kept.contains(&iteration) {
                parts.push(few(&y)?);
            }
            progress(batch.len() as u64);
            (before, before_features) = (y, features);
        }
        Ok((all, Tensor::f_cat(&parts, 0)?))
    }
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
