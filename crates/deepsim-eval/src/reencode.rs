//! Re-encoding (the paper's Fig. 5): photograph → features → picture → features → picture …

use deepsim_experiment::evaluate::reconstruct;
use deepsim_experiment::{Clip, ExperimentError};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::format::{Format, columns, csv, json};
use crate::loaded::Loaded;
use crate::photos::BATCH;
use crate::scale::{Scale, distances, mean};
use crate::sheet::{Sheet, images};

/// Mean distances of one iteration's pictures, in percent of the mean distance between different
/// held-out photographs, as in Table 2. (Iteration 1 is the usual reconstruction.)
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Run directory.
    pub run: String,
    /// Iteration, from 1.
    pub iteration: usize,
    /// Pictures, to the photographs.
    pub image_to_original: f64,
    /// Features at the inverted layer, to the photographs'.
    pub feature_to_original: f64,
    /// Pictures, to those of the iteration before (of the photographs for iteration 1).
    pub image_to_previous: f64,
    /// Features, to those of the iteration before.
    pub feature_to_previous: f64,
    /// Photographs.
    pub n: usize,
}

/// Photographs encoded and reconstructed again and again.
#[derive(Debug)]
pub struct Reencoded {
    /// The photographs, `[N,3,S,S]` in Caffe units.
    pub photos: Tensor,
    /// Kept iterations and their pictures, as `photos`.
    pub pictures: Vec<(usize, Tensor)>,
    /// Every iteration up to the last one kept.
    pub drift: Vec<Drift>,
}

/// Iterates on `photos` (Caffe units) up to the largest of `keep`. Pictures are clipped to the
/// displayable range before they are encoded again. `progress` is told each photograph-iteration.
///
/// # Errors
/// What the networks refuse.
pub fn compute(
    run: &Loaded,
    photos: &Tensor,
    keep: &[usize],
    scale: &Scale,
    mut progress: impl FnMut(u64),
) -> Result<Reencoded> {
    let _guard = tch::no_grad_guard();
    let n = photos.size()[0];
    let last = keep.iter().copied().max().unwrap_or(1).max(1);
    let mut kept: Vec<(usize, Vec<Tensor>)> = keep.iter().map(|&k| (k, Vec::new())).collect();
    kept.sort_by_key(|(k, _)| *k);
    kept.dedup_by_key(|(k, _)| *k);
    // [iteration][which distance] → of every photograph
    let mut all: Vec<[Vec<f64>; 4]> = vec![Default::default(); last];
    for from in (0..n).step_by(BATCH) {
        let x = photos.f_narrow(0, from, (BATCH as i64).min(n - from))?;
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
                parts.push(y.f_to_device(Device::Cpu)?);
            }
            progress(x.size()[0] as u64);
            (before, before_features) = (y, features);
        }
    }
    let drift = (1..)
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
            },
        )
        .collect();
    let pictures = kept
        .into_iter()
        .filter(|(_, parts)| !parts.is_empty())
        .map(|(k, parts)| Ok((k, Tensor::f_cat(&parts, 0).map_err(ExperimentError::from)?)))
        .collect::<Result<_>>()?;
    Ok(Reencoded {
        photos: photos.shallow_clone(),
        pictures,
        drift,
    })
}

impl Reencoded {
    /// Adds a row of photographs (unless they stand there already) and one for each kept iteration.
    ///
    /// # Errors
    /// None of ours.
    pub fn onto(&self, sheet: &mut Sheet, shown: usize) -> Result<()> {
        let few = |x: &Tensor| -> Result<_> {
            let n = x.size()[0].min(shown as i64);
            images(&x.f_narrow(0, 0, n)?)
        };
        if !sheet.rows.iter().any(|r| r.label == "photo") {
            sheet.row("photo", few(&self.photos)?);
        }
        for (iteration, pictures) in &self.pictures {
            sheet.row(&iteration.to_string(), few(pictures)?);
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
                let n = rows.iter().find(|r| r.run == run).map_or(0, |r| r.n);
                let head = [
                    "iteration",
                    "image",
                    "feature",
                    "image step",
                    "feature step",
                ];
                out.push_str(&format!("\n{run} ({n} photos)\n{}", columns(&head, &cells)));
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
        };
        insta::assert_snapshot!(render(&[row(1, 41.25), row(2, 50.0)], Format::Text).unwrap());
    }
}
