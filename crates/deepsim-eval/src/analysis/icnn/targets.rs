//! The features that iCNN is to match: of bdpy's folders, or of images.

use std::collections::BTreeMap;
use std::path::Path;

use deepsim_data::terminal::path as shown;
use deepsim_experiment::features_file::FeaturesFile;
use deepsim_nets::{FeatureNet, Tap};
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};

/// Features of several layers of the same stimuli.
#[derive(Debug)]
pub struct Targets {
    /// What the stimuli are called.
    pub labels: Vec<String>,
    /// Of each layer those of all stimuli, `[N,…]`, on the CPU.
    pub layers: Vec<Tensor>,
}

/// Where features lie: `ROOT/LAYER/WITHIN/LABEL.mat`, or any other file of features for each layer.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The folder of layers.
    pub root: &'a Path,
    /// Below a layer: `SUBJECT/ROI` for decoded features.
    pub within: Option<&'a Path>,
}

impl Place<'_> {
    fn read(&self, tap: Tap) -> Result<BTreeMap<String, Tensor>> {
        let layer = self.root.join(tap.name());
        let folder = self
            .within
            .map_or(layer.clone(), |within| layer.join(within));
        Ok(FeaturesFile::read(&folder)?.entries)
    }
}

/// Features of these layers for images of `side` pixels. Where `like` is given, the deviation of each target becomes the
/// mean one of the features there: that of its values, or for maps of each channel's values, averaged over channels (both
/// with n − 1).
///
/// # Errors
/// Layers whose stimuli are not the same, or whose features are not of the shape that the network has there.
pub fn of_folder(
    place: Place<'_>,
    like: Option<Place<'_>>,
    net: &FeatureNet,
    taps: &[Tap],
    side: i64,
) -> Result<Targets> {
    let mut labels: Option<Vec<String>> = None;
    let mut layers = Vec::with_capacity(taps.len());
    for &tap in taps {
        let found = place.read(tap)?;
        let wrong = |reason: String| {
            let layer = shown(place.root.join(tap.name()));
            EvalError::usage("--features", layer, reason)
        };
        let expected = net.net().shape_at(tap, side, side)?;
        let sizes = found.values().next().map(Tensor::size).unwrap_or_default();
        if sizes != expected {
            return Err(wrong(format!(
                "holds features {sizes:?}, but {} has {expected:?} at `{tap}` for images of {side} px; --side sets another \
                 size",
                net.net().name
            )));
        }
        let own: Vec<String> = found.keys().cloned().collect();
        if let Some(first) = &labels
            && *first != own
        {
            let other = first.iter().find(|label| !found.contains_key(*label));
            let other = other.or_else(|| own.iter().find(|label| !first.contains(label)));
            let other = other.map_or("", String::as_str);
            return Err(wrong(format!(
                "has other labels than `{}`: only one of them has `{other}`",
                taps[0]
            )));
        }
        labels = Some(own);
        let mut rows: Vec<Tensor> = found.into_values().collect();
        if let Some(like) = like {
            let wanted = mean_deviation(&like.read(tap)?)?;
            if !wanted.is_finite() {
                let layer = shown(like.root.join(tap.name()));
                let reason = "holds features without a deviation: NaN, infinity or a single number";
                return Err(EvalError::usage("--scale-to", layer, reason));
            }
            for row in &mut rows {
                let own = deviation(row)?.max(f64::from(f32::MIN_POSITIVE));
                *row = row.f_mul_scalar(wanted / own)?;
            }
        }
        layers.push(Tensor::f_stack(&rows, 0)?);
    }
    Ok(Targets {
        labels: labels.unwrap_or_default(),
        layers,
    })
}

/// Features of images `[N,3,S,S]` in Caffe units, which are called `labels`; the network is shown `batch` of them at once.
///
/// # Errors
/// What the network refuses.
pub fn of_images(
    labels: Vec<String>,
    caffe: &Tensor,
    net: &FeatureNet,
    taps: &[Tap],
    side: i64,
    batch: usize,
) -> Result<Targets> {
    let _guard = tch::no_grad_guard();
    let mut parts: Vec<Vec<Tensor>> = taps.iter().map(|_| Vec::new()).collect();
    for images in caffe.f_split(batch as i64, 0)? {
        let layers = net.features(&centre(&images, side)?, taps)?;
        for (all, part) in parts.iter_mut().zip(layers) {
            all.push(part.f_to_device(Device::Cpu)?);
        }
    }
    let layers = parts.iter().map(|parts| Ok(Tensor::f_cat(parts, 0)?));
    let layers = layers.collect::<Result<_>>()?;
    Ok(Targets { labels, layers })
}

/// The central `side`×`side` pixels of images `[N,3,H,W]`, which are at least as large.
///
/// # Errors
/// Smaller images.
pub fn centre(images: &Tensor, side: i64) -> Result<Tensor> {
    let mut out = images.shallow_clone();
    for dim in [2, 3] {
        let from = (out.size()[dim] - side) / 2;
        out = out.f_narrow(dim as i64, from, side)?;
    }
    Ok(out)
}

/// Deviation of the features `[…]` of one stimulus. Maps of one position have none of their channels: all values count.
fn deviation(features: &Tensor) -> Result<f64> {
    let x = features.f_to_kind(Kind::Double)?;
    let each = match x.dim() {
        3 if x.size()[1] * x.size()[2] > 1 => {
            x.f_flatten(1, -1)?
                .f_std_dim([1i64].as_slice(), true, false)?
        }
        _ => x.f_std(true)?,
    };
    Ok(each.f_mean(Kind::Double)?.f_double_value(&[])?)
}

fn mean_deviation(all: &BTreeMap<String, Tensor>) -> Result<f64> {
    let mut sum = 0.0;
    for features in all.values() {
        sum += deviation(features)?;
    }
    Ok(sum / all.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_of_227_pixels_begins_at_the_second() {
        let x = Tensor::arange(227, (Kind::Float, Device::Cpu));
        let x = x.view([1, 1, 1, 227]).expand([1, 1, 227, 227], false);
        let cut = centre(&x, 224).unwrap();
        assert_eq!(cut.size(), [1, 1, 224, 224]);
        assert_eq!(cut.double_value(&[0, 0, 0, 0]), 1.0);
        assert!(centre(&x, 228).is_err());
    }

    #[test]
    fn maps_deviate_channel_by_channel() {
        let x = Tensor::from_slice(&[0.0f32, 2.0, 10.0, 16.0]);
        let of_channels = (2f64.sqrt() + 18f64.sqrt()) / 2.0;
        assert!((deviation(&x.view([2, 1, 2])).unwrap() - of_channels).abs() < 1e-9);
        let of_all = (x.var(true).double_value(&[])).sqrt();
        assert!((deviation(&x).unwrap() - of_all).abs() < 1e-5);
        let of_one_position = deviation(&x.view([4, 1, 1])).unwrap();
        assert!((of_one_position - of_all).abs() < 1e-5);
    }
}
