//! What all contenders of a training work start from: weights and images in one safetensors
//! file, sizes and settings in one JSON file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use deepsim_experiment::Experiment;
use deepsim_nets::init::{derive_seed, he_deviation, normal, seeded, zeros};
use deepsim_nets::layers::op::{Op, Rounding, Row};
use deepsim_nets::loss::TermKind;
use deepsim_nets::params::{NamedTensors, Params, f32_bytes, read_safetensors};
use deepsim_nets::{NetKind, images};
use deepsim_train::method::iteration_seed;
use deepsim_train::state::State;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::networks::{discriminator, networks};

/// Seed of the frozen networks' weights: `random:1` in the experiment.
const NET_SEED: u64 = 1;
/// Iterations before the first timed one; their losses are compared between the contenders.
pub const WARM_UP: u64 = 2;
/// Size of the random fields that the images are enlarged from, so that they are smooth as
/// photos are.
const FIELD: i64 = 15;

/// Where the tensors are, in a work's folder.
pub fn tensors_file(folder: &Path) -> PathBuf {
    folder.join("tensors.safetensors")
}

/// Writes both files into `folder`.
///
/// # Errors
/// A full or unwritable disk.
pub fn write(experiment: &Experiment, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let state = State::new(experiment, None, Device::Cpu)?;
    let mut tensors: Vec<(String, Tensor)> = vec![("x".to_owned(), batch(experiment)?)];
    for (name, shape) in NetKind::weight_shapes(rows(experiment)?) {
        let values = match shape.as_slice() {
            [_] => zeros(&shape)?,
            [_, inputs @ ..] => {
                let deviation = he_deviation(inputs.iter().product());
                normal(&name, &shape, deviation, NET_SEED)?
            }
            [] => continue,
        };
        tensors.push((format!("net/{name}"), values));
    }
    for (prefix, params) in [
        ("g", state.generator.params()),
        ("d", discriminator(&state)?.params()),
    ] {
        tensors.extend(named(prefix, params));
    }
    let path = tensors_file(folder);
    save(&tensors, &path)?;
    let settings = serde_json::to_vec_pretty(&settings(experiment, &state)?)?;
    let path = folder.join("settings.json");
    std::fs::write(&path, settings).with_context(|| format!("writing {}", path.display()))
}

/// The images out of a work's folder, in Caffe units.
///
/// # Errors
/// A missing or damaged file.
pub fn images(folder: &Path) -> Result<Tensor> {
    let mut all: NamedTensors = read_safetensors(&tensors_file(folder))?;
    all.remove("x").context("no images in the inputs")
}

/// Smooth random images in Caffe units.
pub(crate) fn batch(experiment: &Experiment) -> Result<Tensor> {
    let n = i64::try_from(experiment.config.train.batch_size)?;
    let crop = i64::from(experiment.config.data.crop);
    let options = (Kind::Float, Device::Cpu);
    let rgb = seeded(
        derive_seed(experiment.config.train.seed, "bench", 0),
        || {
            let coarse = Tensor::f_rand([n, 3, FIELD, FIELD], options)?
                .f_mul_scalar(255.0)?
                .f_upsample_bicubic2d([crop, crop], false, None, None)?;
            let grain = Tensor::f_randn([n, 3, crop, crop], options)?.f_mul_scalar(8.0)?;
            coarse.f_add(&grain)?.f_clamp(0.0, 255.0)?.f_round()
        },
    )?;
    Ok(images::rgb_to_caffe(&rgb)?)
}

/// The rows of the frozen network up to the deeper of the two taps.
fn rows(experiment: &Experiment) -> Result<&'static [Row]> {
    let (e, c) = networks(experiment)?;
    let (encoder, comparator) = (e.net.rows_to(e.tap)?, c.net.rows_to(c.tap)?);
    Ok(if comparator.len() > encoder.len() {
        comparator
    } else {
        encoder
    })
}

fn named(prefix: &str, params: &Params) -> Vec<(String, Tensor)> {
    params
        .iter()
        .map(|p| (format!("{prefix}/{}", p.name), p.tensor.shallow_clone()))
        .collect()
}

fn save(tensors: &[(String, Tensor)], path: &Path) -> Result<()> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        stored.push((name, tensor.size(), f32_bytes(tensor)?));
    }
    let mut views = Vec::with_capacity(stored.len());
    for (name, size, bytes) in &stored {
        let shape = size.iter().map(|&d| d.unsigned_abs() as usize).collect();
        views.push((name.as_str(), TensorView::new(Dtype::F32, shape, bytes)?));
    }
    let none = None::<HashMap<String, String>>;
    safetensors::serialize_to_file(views, none, path)
        .with_context(|| format!("writing {}", path.display()))
}

fn settings(experiment: &Experiment, state: &State) -> Result<Value> {
    let config = &experiment.config;
    let seeds: Vec<i64> = (0..WARM_UP)
        .map(|step| iteration_seed(config.train.seed, step))
        .collect();
    let row = |(tap, op): &Row| {
        Ok(match *op {
            Op::Conv {
                key,
                stride,
                pad,
                groups,
                ..
            } => json!({ "tap": tap.name(), "op": "conv", "key": key, "stride": stride, "pad": pad,
                     "groups": groups }),
            Op::Fc { key, .. } => json!({ "tap": tap.name(), "op": "fc", "key": key }),
            Op::Relu => json!({ "tap": tap.name(), "op": "relu" }),
            Op::Lrn => json!({ "tap": tap.name(), "op": "lrn" }),
            // The scripts' pooling is CaffeNet's and AlexNet's.
            Op::MaxPool(window) if (window.kernel, window.stride, window.pad) == (3, 2, 0) => {
                json!({ "tap": tap.name(), "op": "pool", "ceil": window.rounding == Rounding::Ceil })
            }
            Op::MaxPool(_)
            | Op::MeanAround
            | Op::ConvNorm(_)
            | Op::MbConv(_)
            | Op::Bottleneck(_)
            | Op::ConvNext(_)
            | Op::LayerNorm { .. }
            | Op::Vit(..)
            | Op::Decoder(..)
            | Op::GlobalAverage
            | Op::Branches(_)
            | Op::SpectralConv { .. }
            | Op::Double { .. }
            | Op::Keep { .. }
            | Op::LeakyRelu(_)
            | Op::Tanh
            | Op::BatchNorm { .. }
            | Op::Dropout(_)
            | Op::Crop(_) => {
                bail!("the benchmark's scripts do not know the layer {tap}")
            }
        })
    };
    let generator: Vec<Value> = experiment
        .generator
        .layers()?
        .iter()
        .filter_map(|op| {
            let (kind, key, input, output, stride, pad) = match *op {
                Op::Fc {
                    key, input, output, ..
                } => ("fc", key, input, output, 1, 0),
                Op::Conv {
                    key,
                    input,
                    output,
                    pad,
                    ..
                } => ("conv", key, input, output, 1, pad),
                Op::Double {
                    key, input, output, ..
                } => ("deconv", key, input, output, 2, 1),
                Op::Keep { key, input, output } => ("deconv", key, input, output, 1, 1),
                Op::LeakyRelu(_) | Op::Crop(_) => return None,
                _ => {
                    let words = "the benchmark's scripts do not know the layer";
                    return Some(Err(anyhow::anyhow!("{words} {op:?}")));
                }
            };
            Some(Ok(
                json!({ "name": key, "op": kind, "input": input, "output": output,
                            "stride": stride, "pad": pad }),
            ))
        })
        .collect::<Result<_>>()?;
    let discriminator: Vec<Value> = discriminator(state)?
        .spec()
        .layers()?
        .iter()
        .filter_map(|op| {
            let stride = match op {
                Op::Conv { stride, .. } => *stride,
                _ => 1,
            };
            Some(json!({ "name": op.key()?, "stride": stride }))
        })
        .collect();
    let (encoder, comparator) = networks(experiment)?;
    Ok(json!({
        "net": encoder.net.to_string(),
        "rows": rows(experiment)?.iter().map(row).collect::<Result<Vec<_>>>()?,
        "encoder_tap": encoder.tap.name(),
        "comparator_tap": comparator.tap.name(),
        "crop": config.data.crop,
        "generator": generator,
        "discriminator": discriminator,
        "loss": { "feat": config.loss.weight(TermKind::Feature), "adv": config.loss.weight(TermKind::Adversarial), "img": config.loss.weight(TermKind::Image) },
        "adam_g": config.optimizer.generator,
        "adam_d": config.optimizer.discriminator,
        "dropout_seeds": seeds,
    }))
}
