//! Stacks of layers with batch normalisation: the encoder, decoder and discriminator of VAE/GAN are
//! made of them.

use deepsim_aten::{AutocastGuard, Precision};
use tch::{Device, Tensor};

use crate::error::{NetError, Result};
use crate::kinks::rectified;
use crate::layers::convolution::{Geometry, Rectifier, convolution};
use crate::layers::init::{normal, zeros};
use crate::params::{Param, Params, stored};
use crate::precision::widened;

/// Added to variances before their root is taken (the authors' 1e-6).
const EPSILON: f64 = 1e-6;
/// Weight of a batch in the running statistics (the authors' momentum of 0.9, in libtorch's convention).
const NEWEST: f64 = 0.1;
/// Side of every kernel.
const KERNEL: i64 = 5;

/// The mode of a network that computes differently in training and in evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout is active. Batch normalisation uses the statistics of the batch and updates the running
    /// ones. Masks come from libtorch's generator, which the caller seeds.
    Training,
    /// As in training, but the running statistics stay as they are: for a second pass over a batch.
    Aside,
    /// No dropout; batch normalisation uses the running statistics. A pure function.
    Evaluation,
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Fully connected; maps are flattened before it.
    Fc,
    /// Convolution 5×5, padding 2.
    Convolution { stride: i64 },
    /// Transposed convolution 5×5 that doubles the size.
    Double,
}

/// What follows a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Batch normalisation and a ReLU; the layer itself has no bias.
    NormRelu,
    /// A ReLU.
    Relu,
    /// A hyperbolic tangent.
    Tanh,
    /// Nothing.
    Nothing,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Prefix of the tensors' names.
    pub name: &'static str,
    pub op: Op,
    /// Channels, or values.
    pub input: i64,
    pub output: i64,
    pub after: After,
}

impl Layer {
    fn weight_shape(&self) -> Vec<i64> {
        match self.op {
            Op::Fc => vec![self.output, self.input],
            Op::Convolution { .. } => vec![self.output, self.input, KERNEL, KERNEL],
            Op::Double => vec![self.input, self.output, KERNEL, KERNEL],
        }
    }

    /// Keeps the variance of activations. The authors fill weights in the same manner. The scale of
    /// weights before batch normalisation has no effect.
    fn deviation(&self) -> f64 {
        let taps = match self.op {
            Op::Fc => 1.0,
            Op::Convolution { .. } => (KERNEL * KERNEL) as f64,
            // At stride 2 a quarter of the kernel meets each pixel.
            Op::Double => (KERNEL * KERNEL) as f64 / 4.0,
        };
        let gain = match self.after {
            After::NormRelu | After::Relu => 2.0,
            After::Tanh | After::Nothing => 1.0,
        };
        (gain / (self.input as f64 * taps)).sqrt()
    }
}

/// The weights of a stack before training: `NAME.weight`; `NAME.bias` (zeros) where no normalisation
/// follows, otherwise `NAME.norm.weight` (ones), `NAME.norm.bias` (zeros), and the running statistics
/// `NAME.norm.running_mean` and `NAME.norm.running_var`, which no gradient changes. Weights of layers decay,
/// nothing else does.
pub(crate) fn weights(net: &str, layers: &[Layer], seed: u64, device: Device) -> Result<Params> {
    let mut params = Params::default();
    for layer in layers {
        let mut push = |part: &str, values: Tensor, trains: bool, decays: bool| -> Result<()> {
            params.push(Param {
                name: format!("{}.{part}", layer.name),
                tensor: stored(&values, device)?.f_set_requires_grad(trains)?,
                trains,
                decays,
            });
            Ok(())
        };
        let name = format!("{net}.{}.weight", layer.name);
        let values = normal(&name, &layer.weight_shape(), layer.deviation(), seed)?;
        push("weight", values, true, true)?;
        let flat = || zeros(&[layer.output]);
        let ones = || -> Result<Tensor> { Ok(flat()?.f_add_scalar(1.0)?) };
        match layer.after {
            After::NormRelu => {
                push("norm.weight", ones()?, true, false)?;
                push("norm.bias", flat()?, true, false)?;
                push("norm.running_mean", flat()?, false, false)?;
                push("norm.running_var", ones()?, false, false)?;
            }
            After::Relu | After::Tanh | After::Nothing => push("bias", flat()?, true, false)?,
        }
    }
    Ok(params)
}

/// Names and shapes of [`weights`].
pub(crate) fn shapes(layers: &[Layer]) -> Vec<(String, Vec<i64>)> {
    let mut out = Vec::new();
    for layer in layers {
        let parts: &[&str] = match layer.after {
            After::NormRelu => &[
                "norm.weight",
                "norm.bias",
                "norm.running_mean",
                "norm.running_var",
            ],
            After::Relu | After::Tanh | After::Nothing => &["bias"],
        };
        out.push((format!("{}.weight", layer.name), layer.weight_shape()));
        let flat = |part: &&str| (format!("{}.{part}", layer.name), vec![layer.output]);
        out.extend(parts.iter().map(flat));
    }
    out
}

/// `x` through the layers, up to what layer `last` computes before anything follows it, or through all.
/// Where a map follows a fully connected layer, `side` is its side.
///
/// # Errors
/// Inputs of another shape, or a single image where its batch's statistics are asked for.
pub(crate) fn forward(
    layers: &[Layer],
    params: &Params,
    x: &Tensor,
    side: i64,
    mode: Mode,
    last: Option<&str>,
) -> Result<Tensor> {
    let of = |layer: &Layer, part: &str| -> Result<&Tensor> {
        let name = format!("{}.{part}", layer.name);
        params
            .get(&name)
            .ok_or_else(|| NetError::Spec(format!("no tensor {name}")))
    };
    let mut x = x.shallow_clone();
    for layer in layers {
        let weight = of(layer, "weight")?;
        let bias = match layer.after {
            After::NormRelu => None,
            After::Relu | After::Tanh | After::Nothing => Some(of(layer, "bias")?),
        };
        let here = last == Some(layer.name);
        let rectifier = match layer.after {
            After::Relu if !here => Rectifier::Leaky(0.0),
            _ => Rectifier::None,
        };
        // An image's grey levels need more than bf16's eight bits.
        let _exact = match layer.after {
            After::Tanh => Some(AutocastGuard::new(x.device(), Precision::Fp32)?),
            _ => None,
        };
        if layer.after == After::Tanh {
            x = widened(&x)?;
        }
        if x.dim() == 2 && layer.op != Op::Fc {
            x = x.f_view([-1, layer.input, side, side])?;
        }
        x = match layer.op {
            Op::Fc => {
                let y = x.f_flatten(1, -1)?.f_linear(weight, bias)?;
                match rectifier {
                    Rectifier::Leaky(slope) => rectified(y, slope)?,
                    Rectifier::None => y,
                }
            }
            Op::Convolution { stride } => {
                let geometry = Geometry::Convolution {
                    stride,
                    padding: KERNEL / 2,
                    groups: 1,
                };
                convolution(&x, weight, bias, geometry, rectifier)?
            }
            Op::Double => {
                let geometry = Geometry::Double { kernel: KERNEL };
                convolution(&x, weight, bias, geometry, rectifier)?
            }
        };
        if here {
            return Ok(x);
        }
        x = match layer.after {
            After::NormRelu => normalise(&x, mode, |part| of(layer, &format!("norm.{part}")))?,
            After::Tanh => x.f_tanh()?,
            After::Relu | After::Nothing => x,
        };
    }
    Ok(x)
}

fn normalise<'a>(
    x: &Tensor,
    mode: Mode,
    of: impl Fn(&str) -> Result<&'a Tensor>,
) -> Result<Tensor> {
    let batch = mode != Mode::Evaluation;
    if batch && x.size().first().is_none_or(|&n| n < 2) {
        return Err(NetError::InputShape {
            what: "batch normalisation in training".to_owned(),
            expected: "a batch of at least 2 images".to_owned(),
            got: x.size(),
        });
    }
    // In bf16 libtorch's normalisation is slower on a CPU, and its results coarser.
    let x = widened(x)?;
    let (mean, variance) = match mode {
        Mode::Aside => (None, None),
        Mode::Training | Mode::Evaluation => (Some(of("running_mean")?), Some(of("running_var")?)),
    };
    let y = x.f_batch_norm(
        Some(of("weight")?),
        Some(of("bias")?),
        mean,
        variance,
        batch,
        NEWEST,
        EPSILON,
        true,
    )?;
    rectified(y, 0.0)
}
