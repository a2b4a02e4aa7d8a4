//! Operations with their tensors: what the rows of a table become when a network is built.

use deepsim_aten::{AutocastGuard, Precision};
use tch::{Device, Tensor};

use super::batch_norm::Norm;
use super::convolution::{convolution, to_images, window};
use super::folded::{self, Folded};
use super::geometry::{Geometry, Rectifier};
use super::linear::linear;
use super::lrn;
use super::mode::Mode;
use super::norm::{channel_norm, layer_norm};
use super::op::{Affine, Op};
use super::pools::{l2_pool, max_pool, mean_around};
use super::spectral::Spectral;
use super::transformer;
use crate::error::{NetError, Result};
use crate::kinks;
use crate::params::stored;
use crate::precision::{at_least_fp32, widened};

/// Where tensors come from: by name, and the shape that they must have.
pub(crate) type Source<'a> = &'a dyn Fn(&str, &[i64]) -> Result<Tensor>;

/// An operation and its tensors.
#[derive(Debug)]
pub(crate) struct Layer {
    op: Op,
    weights: Weights,
}

/// Tensors of one operation.
#[derive(Debug)]
enum Weights {
    None,
    Affine {
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Spectral(Spectral),
    Norm(Norm),
    Band(Tensor),
    Folded(Vec<Folded>),
    /// In the order of [`Op::tensors`].
    Listed(Vec<Tensor>),
    Branches(Vec<Vec<Layer>>),
}

/// Added to variances by [`Op::LayerNorm`], [`Op::ConvNext`] and taps' `layernorm(…)`.
pub(crate) const LAYER_NORM_EPSILON: f64 = 1e-6;

/// The rectifier that an operation is, if it is one.
pub(crate) fn rectifier(op: &Op) -> Option<Rectifier> {
    match *op {
        Op::Relu => Some(Rectifier::Leaky(0.0)),
        Op::LeakyRelu(slope) => Some(Rectifier::Leaky(slope)),
        _ => None,
    }
}

/// The geometry of a convolution.
fn geometry(op: &Op) -> Option<Geometry> {
    match *op {
        Op::Conv {
            stride,
            pad,
            groups,
            ..
        } => Some(Geometry::Convolution {
            stride,
            padding: pad,
            groups,
        }),
        Op::SpectralConv { stride, pad, .. } => Some(Geometry::Convolution {
            stride,
            padding: pad,
            groups: 1,
        }),
        Op::Double { kernel, .. } => Some(Geometry::Double { kernel }),
        Op::Keep { .. } => Some(Geometry::Keep),
        _ => None,
    }
}

/// Builds operations that follow each other, the first of which takes maps of `channels`.
///
/// # Errors
/// What `get` refuses.
pub(crate) fn build<'a>(
    ops: impl IntoIterator<Item = &'a Op>,
    mut channels: i64,
    get: Source,
    device: Device,
) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for op in ops {
        layers.push(Layer::new(*op, channels, get, device)?);
        channels = op.channels(channels);
    }
    Ok(layers)
}

/// How layers are computed, beside their input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    /// For batch normalisation and dropout.
    pub mode: Mode,
    /// Masks of dropout in training, one for each [`Op::Dropout`] in turn. Without them, libtorch draws masks.
    pub masks: Option<&'a [Tensor]>,
    /// Side that a map is averaged to in front of a fully connected layer.
    pub averaged_to: Option<i64>,
    /// Whether pools take roots of weighted means of squares instead of maxima, as DISTS has them.
    pub l2_pools: bool,
    /// Whether libtorch computes fully connected layers in bf16 too, instead of our kernel. The two round differently:
    /// discriminators and VAE/GAN keep the one that they have been trained with.
    pub libtorch_fc: bool,
}

impl Pass<'_> {
    /// Of networks that average nothing, by our kernels.
    pub(crate) fn of(mode: Mode) -> Pass<'static> {
        Pass {
            mode,
            masks: None,
            averaged_to: None,
            l2_pools: false,
            libtorch_fc: false,
        }
    }

    /// As [`Pass::of`], but for fully connected layers, which libtorch computes.
    pub(crate) fn with_libtorch_fc(mode: Mode) -> Pass<'static> {
        Pass {
            libtorch_fc: true,
            ..Pass::of(mode)
        }
    }
}

/// `x` through layers in turn. A layer with weights is computed as one with what follows it: a rectifier, the
/// crop to an image, or a hyperbolic tangent.
///
/// # Errors
/// What libtorch refuses; a single image where its batch's statistics are asked for.
pub(crate) fn forward(layers: &[Layer], x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
    let mut x = x.shallow_clone();
    let mut rest = layers;
    let mut masks = pass.masks.map(<[Tensor]>::iter);
    while let [layer, after @ ..] = rest {
        if let (Op::Dropout(_), Some(masks)) = (layer.op, &mut masks)
            && pass.mode != Mode::Evaluation
        {
            let mask = masks.next();
            let mask = mask.ok_or_else(|| NetError::Spec("a mask of dropout is missing".into()))?;
            x = x.f_mul(&mask.f_to_kind(x.kind())?)?;
            rest = after;
            continue;
        }
        let next = after.first().map(|l| l.op);
        let rectifier = match next {
            Some(op) if layer.rectifies() => rectifier(&op),
            _ => None,
        };
        (x, rest) = match (next, rectifier) {
            (_, Some(rectifier)) => (layer.forward(&x, pass, rectifier)?, &after[1..]),
            (Some(Op::Crop(side)), _) if matches!(layer.op, Op::Double { .. }) => {
                (layer.cropped(&x, side)?, &after[1..])
            }
            (Some(Op::Tanh), _) => {
                // An image's grey levels need more than bf16's eight bits.
                let _exact = AutocastGuard::new(x.device(), Precision::Fp32)?;
                let y = layer.forward(&widened(&x)?, pass, Rectifier::None)?;
                (y.f_tanh()?, &after[1..])
            }
            _ => (layer.forward(&x, pass, Rectifier::None)?, after),
        };
    }
    Ok(x)
}

impl Layer {
    pub(crate) fn new(op: Op, channels: i64, get: Source, device: Device) -> Result<Layer> {
        if let Some(Affine { key, weight, bias }) = op.affine() {
            let weight = stored(&get(&format!("{key}.weight"), &weight)?, device)?;
            let bias = match bias {
                Some(values) => Some(stored(&get(&format!("{key}.bias"), &[values])?, device)?),
                None => None,
            };
            let weights = Weights::Affine { weight, bias };
            return Ok(Layer { op, weights });
        }
        let weights = match op {
            Op::SpectralConv { key, .. } => {
                let parts = op.tensors().into_iter();
                let parts = parts.map(|(name, shape)| stored(&get(&name, &shape)?, device));
                let parts = parts.collect::<Result<Vec<Tensor>>>()?;
                let Ok([bias, weight, u, v]) = <[Tensor; 4]>::try_from(parts) else {
                    return Err(NetError::Spec(format!("{key} has other tensors")));
                };
                Weights::Spectral(Spectral { bias, weight, u, v })
            }
            Op::BatchNorm {
                key,
                channels,
                epsilon,
            } => {
                let part = |name: &str| -> Result<Tensor> {
                    stored(&get(&format!("{key}.{name}"), &[channels])?, device)
                };
                Weights::Norm(Norm {
                    weight: part("weight")?,
                    bias: part("bias")?,
                    running_mean: part("running_mean")?,
                    running_var: part("running_var")?,
                    epsilon,
                })
            }
            Op::Lrn => Weights::Band(lrn::band(channels, device)?),
            Op::ConvNorm(_) | Op::MbConv(_) | Op::Bottleneck(_) => {
                Weights::Folded(folded::fold(op.parts(), &get, device)?)
            }
            Op::ConvNext(_) | Op::LayerNorm { .. } | Op::Vit(..) | Op::Decoder(..) => Weights::Listed(
                op.tensors()
                    .iter()
                    .map(|(name, shape)| stored(&get(name, shape)?, device))
                    .collect::<Result<_>>()?,
            ),
            Op::Branches(branches) => Weights::Branches(
                branches
                    .iter()
                    .map(|branch| build(*branch, channels, get, device))
                    .collect::<Result<_>>()?,
            ),
            Op::Relu
            | Op::LeakyRelu(_)
            | Op::Tanh
            | Op::Dropout(_)
            | Op::Crop(_)
            | Op::MaxPool(_)
            | Op::MeanAround
            | Op::GlobalAverage
            // These were built above.
            | Op::Conv { .. }
            | Op::Double { .. }
            | Op::Keep { .. }
            | Op::Fc { .. } => Weights::None,
        };
        Ok(Layer { op, weights })
    }

    /// What it computes.
    pub(crate) fn op(&self) -> &Op {
        &self.op
    }

    /// Whether a rectifier behind this layer can be computed with it.
    pub(crate) fn rectifies(&self) -> bool {
        matches!(
            self.weights,
            Weights::Affine { .. } | Weights::Spectral(_) | Weights::Norm(_)
        )
    }

    /// One step of the power iteration, where there is one.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn iterate(&self) -> Result<()> {
        match &self.weights {
            Weights::Spectral(spectral) => spectral.iterate(),
            _ => Ok(()),
        }
    }

    /// Its tensors, in the order of [`Op::tensors`]; none where batch normalisation is folded into them.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        match &self.weights {
            Weights::Affine { weight, bias } => bias.iter().chain([weight]).collect(),
            Weights::Spectral(spectral) => spectral.tensors().into(),
            Weights::Norm(norm) => norm.tensors().into(),
            Weights::Branches(branches) => {
                let layers = branches.iter().flatten();
                layers.flat_map(Layer::tensors).collect()
            }
            Weights::Listed(tensors) => tensors.iter().collect(),
            Weights::None | Weights::Band(_) | Weights::Folded(_) => Vec::new(),
        }
    }

    /// The layer's output for `x`, and the rectifier behind it where the layer [`Layer::rectifies`]. A vector in
    /// front of a convolution becomes the square map that it holds.
    ///
    /// # Errors
    /// What libtorch refuses; a single image where its batch's statistics are asked for.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        pass: Pass<'_>,
        rectifier: Rectifier,
    ) -> Result<Tensor> {
        Ok(match (self.op, &self.weights) {
            (Op::Fc { .. }, Weights::Affine { weight, bias }) => {
                let map = match (x.dim(), pass.averaged_to) {
                    (4, Some(side)) => x.f_adaptive_avg_pool2d([side, side])?,
                    _ => x.shallow_clone(),
                };
                let x = map.f_flatten(1, -1)?;
                if pass.libtorch_fc {
                    rectifier.apply(x.f_linear(weight, bias.as_ref())?)?
                } else {
                    linear(&x, weight, bias.as_ref(), rectifier)?
                }
            }
            (op, Weights::Affine { weight, bias }) => {
                let geometry = geometry(&op)
                    .ok_or_else(|| NetError::Spec(format!("{op:?} is no convolution")))?;
                convolution(&self.as_map(x)?, weight, bias.as_ref(), geometry, rectifier)?
            }
            (op, Weights::Spectral(spectral)) => {
                let geometry = geometry(&op)
                    .ok_or_else(|| NetError::Spec(format!("{op:?} is no convolution")))?;
                let weight = spectral.normalised()?;
                convolution(x, &weight, Some(&spectral.bias), geometry, rectifier)?
            }
            (_, Weights::Norm(norm)) => rectifier.apply(norm.forward(x, pass.mode)?)?,
            (Op::Relu, _) => kinks::relu(x)?,
            (Op::LeakyRelu(slope), _) => {
                kinks::rectified(x.f_to_dtype(x.kind(), false, true)?, slope)?
            }
            (Op::Tanh, _) => widened(x)?.f_tanh()?,
            (Op::Dropout(p), _) => x.f_dropout(p, pass.mode != Mode::Evaluation)?,
            (Op::Crop(side), _) => window(x, (x.size()[2] - side) / 2, side)?,
            (Op::MaxPool(_), _) if pass.l2_pools => l2_pool(x)?,
            (Op::MaxPool(window), _) => max_pool(x, window)?,
            (Op::MeanAround, _) => mean_around(x)?,
            (Op::ConvNorm(_), Weights::Folded(parts)) => folded::forward(parts, x)?,
            (Op::MbConv(block), Weights::Folded(parts)) => {
                let y = folded::forward(parts, x)?;
                if block.has_skip() { y.f_add(x)? } else { y }
            }
            (Op::Bottleneck(_), Weights::Folded(parts)) => folded::bottleneck(parts, x)?,
            (Op::ConvNext(_), Weights::Listed(tensors)) => conv_next(tensors, x)?,
            (Op::LayerNorm { .. }, Weights::Listed(tensors)) => {
                let affine = tensors.first().zip(tensors.get(1));
                channel_norm(x, affine, LAYER_NORM_EPSILON)?
            }
            (Op::Vit(vit, part), Weights::Listed(tensors)) => {
                transformer::forward(vit, part, tensors, x)?
            }
            (Op::Decoder(decoder, part), Weights::Listed(tensors)) => {
                transformer::decode(&decoder, part, tensors, x)?
            }
            // fp32 whatever the map's precision, so that a mean of hundreds of values is not
            // rounded to bf16.
            (Op::GlobalAverage, _) => {
                x.f_mean_dim([2i64, 3].as_slice(), false, at_least_fp32(x))?
            }
            (Op::Lrn, Weights::Band(band)) => lrn::lrn(x, band)?,
            (Op::Branches(_), Weights::Branches(branches)) => {
                let mut ends = Vec::with_capacity(branches.len());
                for branch in branches {
                    ends.push(forward(branch, x, pass)?);
                }
                match ends.len() {
                    1 => ends.remove(0),
                    _ => Tensor::f_cat(&ends, 1)?,
                }
            }
            (op, _) => return Err(NetError::Spec(format!("no tensors for {op:?}"))),
        })
    }

    /// The central square of what a doubling layer computes.
    fn cropped(&self, x: &Tensor, side: i64) -> Result<Tensor> {
        match (self.op, &self.weights) {
            (Op::Double { kernel, .. }, Weights::Affine { weight, bias }) => {
                to_images(&self.as_map(x)?, weight, bias.as_ref(), kernel, side)
            }
            (op, _) => Err(NetError::Spec(format!("{op:?} makes no images"))),
        }
    }

    /// `x` `[N,C,H,W]`, or the square map that a vector `[N,C·H·W]` holds.
    fn as_map(&self, x: &Tensor) -> Result<Tensor> {
        let (Op::Conv { input, .. } | Op::Double { input, .. } | Op::Keep { input, .. }) = self.op
        else {
            return Ok(x.shallow_clone());
        };
        if x.dim() != 2 {
            return Ok(x.shallow_clone());
        }
        let side = (x.size()[1] / input).isqrt();
        Ok(x.f_view([-1, input, side, side])?)
    }
}

/// A block of ConvNeXt, with tensors in the order of [`Op::tensors`].
fn conv_next(tensors: &[Tensor], x: &Tensor) -> Result<Tensor> {
    let [scale, weight, bias, gain, shift, w1, b1, w2, b2] = tensors else {
        return Err(NetError::Spec("a block of ConvNeXt has 9 tensors".into()));
    };
    let groups = x.size()[1];
    let y = x.f_conv2d(weight, Some(bias), [1, 1], [3, 3], [1, 1], groups)?;
    let y = y.f_permute([0, 2, 3, 1])?;
    let y = layer_norm(&y, Some((gain, shift)), LAYER_NORM_EPSILON)?;
    let y = y.f_linear(w1, Some(b1))?.f_gelu("none")?;
    let y = y.f_linear(w2, Some(b2))?.f_permute([0, 3, 1, 2])?;
    Ok(x.f_add(&y.f_mul(scale)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;
    use crate::layers::op::{Rounding, conv, max_pool};
    use crate::layers::shape::Extent;

    /// A sequence, and two branches behind it of which one changes nothing.
    const FORK: Op = Op::Branches(&[&[
        conv("a", (3, 2), (1, 1, 0), 1),
        Op::Relu,
        Op::Branches(&[&[conv("b", (2, 4), (3, 1, 1), 1), Op::Relu], &[Op::Relu]]),
    ]]);

    fn built() -> Layer {
        let draw = |name: &str, shape: &[i64]| normal(name, shape, 1.0, 1);
        build([&FORK], 3, &draw, Device::Cpu).unwrap().remove(0)
    }

    #[test]
    fn branches_are_concatenated_in_the_order_of_the_table() {
        let layer = built();
        let x = normal("x", &[2, 3, 5, 6], 1.0, 1).unwrap();
        let y = layer
            .forward(&x, Pass::of(Mode::Evaluation), Rectifier::None)
            .unwrap();
        let [bias_a, a, bias_b, b] = layer.tensors()[..] else {
            panic!("four tensors");
        };
        let squeezed = x.conv2d(a, Some(bias_a), 1, 0, 1, 1).relu();
        let expanded = squeezed.conv2d(b, Some(bias_b), 1, 1, 1, 1).relu();
        let expected = Tensor::cat(&[expanded, squeezed], 1);
        assert_eq!(y.size(), [2, 6, 5, 6]);
        let far = (y - expected).abs().max().double_value(&[]);
        assert!(far < 1e-5, "{far}");
        let extent = FORK.output(Extent::image(5, 6)).unwrap();
        assert_eq!(
            (extent.channels, extent.height, extent.width, extent.flat),
            (6, 5, 6, false)
        );
        assert_eq!(FORK.channels(3), 6);
    }

    #[test]
    fn layers_computed_with_what_follows_equal_layers_computed_one_by_one() {
        let double = Op::Double {
            key: "a",
            input: 2,
            output: 3,
            kernel: 5,
            bias: true,
        };
        let norm = Op::BatchNorm {
            key: "n",
            channels: 3,
            epsilon: 1e-6,
        };
        let tables = [
            vec![double, Op::LeakyRelu(0.3), Op::Crop(7)],
            vec![double, Op::Crop(9)],
            vec![conv("a", (2, 3), (3, 1, 1), 1), norm, Op::Relu, Op::Tanh],
            vec![Op::Dropout(0.5), conv("a", (2, 3), (1, 1, 0), 1), Op::Tanh],
        ];
        let pass = Pass::of(Mode::Evaluation);
        // A vector is the map that it holds.
        let x = normal("x", &[2, 2 * 6 * 6], 1.0, 1).unwrap();
        for ops in tables {
            let draw = |name: &str, shape: &[i64]| {
                normal(name, shape, 1.0, 1)?.f_abs().map_err(Into::into)
            };
            let layers = build(&ops, 2, &draw, Device::Cpu).unwrap();
            let together = forward(&layers, &x, pass).unwrap();
            let mut y = x.view([2, 2, 6, 6]);
            for layer in &layers {
                y = layer.forward(&y, pass, Rectifier::None).unwrap();
            }
            let extent = ops.iter().try_fold(
                Extent {
                    channels: 72,
                    height: 1,
                    width: 1,
                    flat: true,
                },
                |x, op| op.output(x),
            );
            let Extent {
                channels, height, ..
            } = extent.unwrap();
            assert_eq!(together.size(), [2, channels, height, height], "{ops:?}");
            let far = (together - y).abs().max().double_value(&[]);
            assert!(far < 1e-5, "{ops:?}: {far}");
        }
    }

    #[test]
    fn tensors_of_branches_are_named_in_their_order() {
        let named = FORK.tensors();
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.bias", "a.weight", "b.bias", "b.weight"]);
        let layer = built();
        let sizes: Vec<Vec<i64>> = layer.tensors().iter().map(|t| t.size()).collect();
        let shapes: Vec<Vec<i64>> = named.into_iter().map(|(_, shape)| shape).collect();
        assert_eq!(sizes, shapes);
    }

    #[test]
    fn branches_of_different_sizes_have_no_output() {
        const UNEVEN: Op = Op::Branches(&[&[max_pool(3, 2, Rounding::Ceil)], &[Op::Relu]]);
        assert_eq!(UNEVEN.output(Extent::image(9, 9)), None);
        assert_eq!(FORK.output(Extent::image(0, 9)), None);
    }
}
