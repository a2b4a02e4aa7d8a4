//! Errors on held-out images, the same for training and for tables.

use std::fmt::Display;

use deepsim_data::{Augment, Dataset, Part};
use deepsim_nets::{Generator, images};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::error::{ExperimentError, Result};
use crate::measure::{self, Batch, HeldOut, Images};
use crate::networks::Networks;
use crate::processes::Processes;

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

/// Reconstructs images in Caffe units from their own features.
///
/// # Errors
/// Images of a size that the networks were not built for.
pub fn reconstruct<'a>(
    networks: impl Into<Networks<'a>>,
    generator: &Generator,
    caffe: &Tensor,
    clip: Clip,
) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    decode(generator, &networks.into().encode(caffe)?, clip)
}

/// Features of held-out images, as the generator takes them: recorded, or encoded here.
///
/// # Errors
/// An image without recorded features, or of a size that the encoder was not built for.
pub fn held_out_features<'a>(
    networks: impl Into<Networks<'a>>,
    data: &Dataset,
    indices: &[usize],
    caffe: &Tensor,
) -> Result<Tensor> {
    let networks = networks.into();
    match networks.recorded(Part::Test, data, indices)? {
        Some(features) => Ok(features),
        None => networks.encode(caffe),
    }
}

/// Images from features, in Caffe units.
///
/// # Errors
/// Features that are not the generator's.
pub fn decode(generator: &Generator, features: &Tensor, clip: Clip) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let made = generator.forward(features)?;
    Ok(match clip {
        Clip::Displayable => images::clip_caffe(&made)?,
        Clip::Off => made.f_contiguous().map_err(deepsim_nets::NetError::from)?,
    })
}

/// Measures a generator on held-out images: all of `data`, or `limit` of them spread evenly.
///
/// # Errors
/// Unreadable images, fewer than two, or what the networks refuse.
pub fn held_out<'a>(
    data: &Dataset,
    augment: &Augment,
    networks: impl Into<Networks<'a>>,
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
    held_out_of(images, networks, generator, clip, |_| Ok(()))
}

/// The same on given images; `look` is shown every batch.
///
/// # Errors
/// As [`held_out`], and what `look` refuses.
pub fn held_out_of<'a, E: From<ExperimentError> + Display>(
    images: Images<'_>,
    networks: impl Into<Networks<'a>>,
    generator: &Generator,
    clip: Clip,
    mut look: impl FnMut(&Batch) -> std::result::Result<(), E>,
) -> std::result::Result<HeldOut, E> {
    let alone = Processes::alone();
    let (errors, _) = held_out_among(&alone, images, networks, generator, clip, |batch| {
        look(batch).map(|()| Vec::new())
    })?;
    Ok(errors)
}

/// The same by several processes, each of which is shown its own batches. `look` gives numbers of a batch; all get those of
/// all batches, in their order.
///
/// # Errors
/// As [`held_out_of`] and [`Processes::gathered`].
pub fn held_out_among<'a, E: From<ExperimentError> + Display>(
    processes: &Processes,
    images: Images<'_>,
    networks: impl Into<Networks<'a>>,
    generator: &Generator,
    clip: Clip,
    look: impl FnMut(&Batch) -> std::result::Result<Vec<f64>, E>,
) -> std::result::Result<(HeldOut, Vec<Vec<f64>>), E> {
    let networks = networks.into();
    let encode = |x: &Tensor| -> std::result::Result<Tensor, E> { Ok(networks.encode(x)?) };
    measure::measure_among(
        processes,
        images,
        &|indices, x| {
            let features = held_out_features(networks, images.data, indices, x)?;
            let made = decode(generator, &features, clip)?;
            Ok((made, Some(features)))
        },
        networks
            .encodes()
            .then_some(&encode as measure::Encode<'_, E>),
        look,
    )
}
