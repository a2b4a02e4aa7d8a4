//! Errors on held-out photographs, the same for training and for tables.

use deepsim_data::{Augment, Dataset, Part};
use deepsim_nets::{Generator, pictures, pinned};
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{ExperimentError, Result};
use crate::measure::{self, Batch, Images, Norm};
use crate::networks::Perception;

/// Whether reconstructions are clipped to the displayable range before they are judged. The
/// paper does not say; we clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clip {
    /// To RGB 0–255.
    Displayable,
    /// Not at all.
    Off,
}

/// Errors of a generator on held-out photographs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Photographs.
    pub n: usize,
    /// Normalised error of pixels, percent.
    pub image_error: f64,
    /// Normalised error of the inverted features, percent; none where they were recorded
    /// elsewhere, since the reconstruction's cannot be.
    pub feature_error: Option<f64>,
    /// Gradient energy relative to the photographs': 1 is as sharp, below is blur.
    pub gradient_energy: f64,
    /// What errors are relative to.
    pub norm: Norm,
}

/// RGB bytes `[N,3,H,W]` as a tensor on a device.
///
/// # Errors
/// What libtorch refuses.
pub fn upload(images: &Array4<u8>, device: Device) -> Result<Tensor> {
    let shape: Vec<i64> = images.shape().iter().map(|&d| d as i64).collect();
    let bytes = images.as_standard_layout();
    let flat = bytes.as_slice().unwrap_or(&[]);
    let host = Tensor::f_from_data_size(flat, &shape, Kind::Uint8)?;
    Ok(match device {
        // From pinned memory the copy runs beside whatever the GPU is doing; libtorch frees the
        // pinned bytes only when it is over.
        Device::Cuda(_) => pinned(&host)
            .map_err(deepsim_nets::NetError::from)?
            .f_to_device_(device, Kind::Uint8, true, false)?,
        _ => host.f_to_device(device)?,
    })
}

/// RGB bytes `[N,3,H,W]` → Caffe units on a device.
///
/// # Errors
/// What libtorch refuses.
pub fn to_caffe(images: &Array4<u8>, device: Device) -> Result<Tensor> {
    Ok(pictures::rgb_to_caffe(&upload(images, device)?)?)
}

/// Reconstructs pictures in Caffe units from their own features.
///
/// # Errors
/// Pictures of a size that the networks were not built for.
pub fn reconstruct(
    perception: &Perception,
    generator: &Generator,
    caffe: &Tensor,
    clip: Clip,
) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    decode(generator, &perception.encode(caffe)?, clip)
}

/// Features of held-out pictures, as the generator takes them: recorded, or encoded here.
///
/// # Errors
/// A picture without recorded features, or of a size that the encoder was not built for.
pub fn held_out_features(
    perception: &Perception,
    data: &Dataset,
    indices: &[usize],
    caffe: &Tensor,
) -> Result<Tensor> {
    match perception.recorded(Part::Test, data, indices)? {
        Some(features) => Ok(features),
        None => perception.encode(caffe),
    }
}

/// Pictures from features, in Caffe units.
///
/// # Errors
/// Features that are not the generator's.
pub fn decode(generator: &Generator, features: &Tensor, clip: Clip) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let made = generator.forward(features)?;
    Ok(match clip {
        Clip::Displayable => pictures::clip_caffe(&made)?,
        Clip::Off => made.f_contiguous().map_err(deepsim_nets::NetError::from)?,
    })
}

/// Measures a generator on held-out images: all of `data`, or `limit` of them spread evenly.
///
/// # Errors
/// Unreadable images, fewer than two, or what the networks refuse.
pub fn held_out(
    data: &Dataset,
    augment: &Augment,
    perception: &Perception,
    generator: &Generator,
    limit: usize,
    clip: Clip,
    device: Device,
) -> Result<HeldOut> {
    let chosen = measure::chosen(data, limit);
    let images = Images {
        data,
        augment,
        chosen: &chosen,
        device,
    };
    held_out_of(images, perception, generator, clip, |_| Ok(()))
}

/// The same on given images; `look` is shown every batch.
///
/// # Errors
/// As [`held_out`], and what `look` refuses.
pub fn held_out_of<E: From<ExperimentError>>(
    images: Images<'_>,
    perception: &Perception,
    generator: &Generator,
    clip: Clip,
    look: impl FnMut(&Batch) -> std::result::Result<(), E>,
) -> std::result::Result<HeldOut, E> {
    let encode = |x: &Tensor| -> std::result::Result<Tensor, E> { Ok(perception.encode(x)?) };
    measure::measure(
        images,
        &|indices, x| {
            let features = held_out_features(perception, images.data, indices, x)?;
            let made = decode(generator, &features, clip)?;
            Ok((made, Some(features)))
        },
        perception
            .encodes()
            .then_some(&encode as measure::Encode<'_, E>),
        look,
    )
}
