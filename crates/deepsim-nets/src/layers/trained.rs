//! Networks that learn: operations that follow each other, and their weights before training.

use tch::Device;

use super::decoder_init;
use super::init::untrained;
use super::layer::Layer;
use super::op::{Op, learns};
use crate::error::{NetError, Result};
use crate::params::{Param, Params};

/// How the weights of an operation begin, and what training does to them. Biases begin at zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Initial {
    /// Standard deviation of the weight.
    pub deviation: f64,
    /// Whether the bias learns.
    pub bias_learns: bool,
    /// What weight decay applies to.
    pub decays: Decays,
}

/// What weight decay applies to. It never applies to normalisations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decays {
    Nothing,
    Weight,
    WeightAndBias,
}

/// Builds operations with random weights; `net` names the network for the draws. The tensors are in the layers and,
/// named, in [`Params`]: a weight before its bias, running statistics of batch normalisation among them.
///
/// # Errors
/// An operation with weights that are not learnt in this form; what libtorch refuses (out of memory).
pub(crate) fn build(
    net: &str,
    ops: &[Op],
    initial: impl Fn(&Op) -> Initial,
    seed: u64,
    device: Device,
) -> Result<(Vec<Layer>, Params)> {
    let mut params = Params::default();
    let mut layers = Vec::with_capacity(ops.len());
    let mut channels = 0;
    for op in ops {
        let affine = op.affine().is_some() || matches!(op, Op::SpectralConv { .. });
        let tensors = op.tensors();
        let decoder = match op {
            Op::Decoder(decoder, _) => Some(decoder),
            _ => None,
        };
        let learnt = affine || decoder.is_some() || matches!(op, Op::BatchNorm { .. });
        if !(learnt || tensors.is_empty()) {
            return Err(NetError::Spec(format!("no network that learns has {op:?}")));
        }
        let Initial {
            deviation,
            bias_learns,
            decays,
        } = initial(op);
        let draw = |name: &str, shape: &[i64]| {
            let name = format!("{net}.{name}");
            match decoder {
                Some(decoder) => decoder_init::initial(decoder, &name, shape, seed),
                None => untrained(&name, shape, deviation, seed),
            }
        };
        let layer = Layer::new(*op, channels, &draw, device)?;
        channels = op.channels(channels);
        let names = tensors.into_iter().map(|(name, _)| name);
        for (name, tensor) in weight_first(names.zip(layer.tensors()).collect()) {
            let (trains, decays) = match (affine && learns(&name), is_weight(&name)) {
                (true, true) => (true, decays != Decays::Nothing),
                (true, false) => (bias_learns, decays == Decays::WeightAndBias),
                (false, _) => {
                    let matrix = decoder.is_some() && tensor.dim() == 2;
                    (learns(&name), matrix && decays != Decays::Nothing)
                }
            };
            params.push(Param {
                tensor: tensor.f_set_requires_grad(trains)?,
                name,
                trains,
                decays,
            });
        }
        layers.push(layer);
    }
    Ok((layers, params))
}

/// Names and shapes of the tensors of [`build`], in its order.
pub(crate) fn shapes(ops: &[Op]) -> Vec<(String, Vec<i64>)> {
    let tensors = ops.iter().map(|op| weight_first(op.tensors()));
    tensors.flatten().collect()
}

/// An operation's tensors by name, a weight before its bias.
fn weight_first<T>(mut named: Vec<(String, T)>) -> Vec<(String, T)> {
    named.sort_by_key(|(name, _)| !is_weight(name));
    named
}

fn is_weight(name: &str) -> bool {
    name.ends_with(".weight") || name.ends_with(".weight_orig")
}
