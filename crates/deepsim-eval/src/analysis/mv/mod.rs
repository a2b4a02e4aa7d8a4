//! The baseline of Mahendran & Vedaldi (CVPR 2015): images whose features are those of an
//! image, found by gradient descent from noise under a simple prior; no network is trained.

mod objective;
mod optimise;
mod record;

use std::time::Instant;

use deepsim_data::Dataset;
use deepsim_experiment::{Experiment, Perception, measure};
use tch::{Device, Tensor};

pub use objective::{Energy, Settings, Stage, energy, update};
pub use optimise::{Batch, invert, noise};
pub use record::{FILE, Made, Manifest, Photo, Record, check, find, write};

use crate::error::Result;
use crate::measure::photos::from_data;

/// λ_TV that goes with a layer: the published weights grow with the depth, 1 for the first two
/// stages of a network, 10 for the middle ones, 100 from the last pooling on. (Of EfficientNet-Lite0, whose layers are
/// numbered through: 1 down to an eighth of the image's side, 10 at a sixteenth, 100 below.)
pub fn total_variation_for(tap: &str) -> f64 {
    if tap == "stem" {
        return 1.0;
    }
    if let Some(block) = tap
        .strip_prefix("block")
        .and_then(|n| n.parse::<u32>().ok())
    {
        return match block {
            0..=4 => 1.0,
            5..=10 => 10.0,
            _ => 100.0,
        };
    }
    let number = tap.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = number.split(|c: char| !c.is_ascii_digit()).next();
    match number.and_then(|n| n.parse::<u32>().ok()) {
        Some(1 | 2) => 1.0,
        Some(3 | 4) => 10.0,
        Some(5) if !tap.starts_with("pool") => 10.0,
        _ => 100.0,
    }
}

/// Inverts the held-out images of an experiment, at most `limit` of them spread evenly, `batch` at a time.
/// `progress` is told of each step of each batch, with the images in it.
///
/// # Errors
/// Unreadable images, or what the networks refuse.
pub fn compute<'a>(
    experiment: &'a Experiment,
    perception: &'a Perception,
    data: &'a Dataset,
    settings: &Settings,
    (limit, batch): (usize, usize),
    device: Device,
    mut progress: impl FnMut(u64),
) -> Result<Made<'a>> {
    let begun = Instant::now();
    let crop = experiment.config.data.crop;
    let all = measure::chosen(data, limit);
    let (mut photos, mut originals, mut reconstructions) = (vec![], vec![], vec![]);
    for indices in all.chunks(batch.max(1)) {
        let x = from_data(data, indices, &experiment.augment(), device)?;
        let target = {
            let _guard = tch::no_grad_guard();
            perception.encode(&x)?
        };
        let starts: Vec<Tensor> = indices
            .iter()
            .map(|&i| Ok(noise(i, crop, settings)?.f_to_device(device)?))
            .collect::<Result<_>>()?;
        let made = invert(
            &|x| Ok(perception.encode(x)?),
            &target,
            &Tensor::f_cat(&starts, 0)?,
            settings,
            || progress(indices.len() as u64),
        )?;
        for (at, &index) in indices.iter().enumerate() {
            photos.push(Photo {
                index,
                name: data.name(index).to_owned(),
                feature_start: made.feature_start[at],
                feature_end: made.feature_end[at],
            });
        }
        originals.push(x);
        reconstructions.push(made.images);
    }
    Ok(Made {
        experiment,
        perception,
        data,
        settings: settings.clone(),
        photos,
        originals: Tensor::f_cat(&originals, 0)?,
        reconstructions: Tensor::f_cat(&reconstructions, 0)?,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_layers_are_smoothed_more() {
        for (tap, weight) in [
            ("relu1", 1.0),
            ("pool2", 1.0),
            ("conv4", 10.0),
            ("relu5", 10.0),
            ("pool5", 100.0),
            ("fc6", 100.0),
            ("conv1_2", 1.0),
            ("fire4", 10.0),
            ("conv10", 100.0),
            ("stem", 1.0),
            ("block0", 1.0),
            ("block5", 10.0),
            ("block10", 10.0),
            ("block15", 100.0),
            ("logits", 100.0),
            ("pooled", 100.0),
        ] {
            assert_eq!(total_variation_for(tap), weight, "{tap}");
        }
    }
}
