//! Operations with their tensors: what the rows of a table become when a network is built.

use tch::{Device, Tensor};

use super::convolution::{Geometry, Rectifier, convolution};
use super::folded::{self, Folded};
use super::linear::{linear, max_pool};
use super::lrn;
use super::op::{FcMap, Op};
use crate::error::{NetError, Result};
use crate::kinks;
use crate::params::stored;
use crate::precision::at_least_fp32;

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
    Affine { weight: Tensor, bias: Tensor },
    Band(Tensor),
    Folded(Vec<Folded>),
    Branches(Vec<Vec<Layer>>),
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

/// `x` through layers in turn; a layer with weights and the ReLU behind it are computed as one.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn forward(layers: &[Layer], x: &Tensor, fc_map: FcMap) -> Result<Tensor> {
    let mut x = x.shallow_clone();
    let mut rest = layers;
    while let [layer, after @ ..] = rest {
        let (rectifier, after) = match after {
            [relu, after @ ..] if layer.rectifies() && relu.op == Op::Relu => {
                (Rectifier::Leaky(0.0), after)
            }
            _ => (Rectifier::None, after),
        };
        x = layer.forward(&x, fc_map, rectifier)?;
        rest = after;
    }
    Ok(x)
}

impl Layer {
    fn new(op: Op, channels: i64, get: Source, device: Device) -> Result<Layer> {
        let weights = match op {
            Op::Conv { key, .. } | Op::Fc { key, .. } => {
                let mut found = Vec::new();
                for (name, shape) in op.tensors() {
                    found.push(stored(&get(&name, &shape)?, device)?);
                }
                // `tensors` gives the bias first.
                match (found.pop(), found.pop()) {
                    (Some(weight), Some(bias)) => Weights::Affine { weight, bias },
                    _ => return Err(NetError::Spec(format!("no tensors for layer {key}"))),
                }
            }
            Op::Lrn => Weights::Band(lrn::band(channels, device)?),
            Op::ConvNorm(_) | Op::MbConv(_) => {
                Weights::Folded(folded::fold(op.parts(), &get, device)?)
            }
            Op::Branches(branches) => Weights::Branches(
                branches
                    .iter()
                    .map(|branch| build(*branch, channels, get, device))
                    .collect::<Result<_>>()?,
            ),
            Op::Relu | Op::MaxPool(_) | Op::GlobalAverage => Weights::None,
        };
        Ok(Layer { op, weights })
    }

    /// Whether a ReLU behind this layer can be computed with it.
    pub(crate) fn rectifies(&self) -> bool {
        matches!(self.op, Op::Conv { .. } | Op::Fc { .. })
    }

    /// The tensors that can learn, in the order of [`Op::tensors`]; `None` where batch normalisation, whose
    /// statistics do not learn, is folded into them.
    pub(crate) fn learnable(&self) -> Option<Vec<&Tensor>> {
        match &self.weights {
            Weights::Affine { weight, bias } => Some(vec![bias, weight]),
            Weights::Folded(_) => None,
            Weights::Branches(branches) => {
                let mut all = Vec::new();
                for layer in branches.iter().flatten() {
                    all.extend(layer.learnable()?);
                }
                Some(all)
            }
            Weights::None | Weights::Band(_) => Some(Vec::new()),
        }
    }

    /// The layer's output for `x`, and the rectifier behind it where the layer [`Layer::rectifies`].
    /// A map before a fully connected layer becomes what `fc_map` says.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        fc_map: FcMap,
        rectifier: Rectifier,
    ) -> Result<Tensor> {
        Ok(match (self.op, &self.weights) {
            (
                Op::Conv {
                    stride,
                    pad,
                    groups,
                    ..
                },
                Weights::Affine { weight, bias },
            ) => {
                let geometry = Geometry::Convolution {
                    stride,
                    padding: pad,
                    groups,
                };
                convolution(x, weight, bias, geometry, rectifier)?
            }
            (Op::Fc { .. }, Weights::Affine { weight, bias }) => {
                let map = match (x.dim(), fc_map) {
                    (4, FcMap::AveragedTo(side)) => x.f_adaptive_avg_pool2d([side, side])?,
                    _ => x.shallow_clone(),
                };
                linear(&map.f_flatten(1, -1)?, weight, bias, rectifier)?
            }
            (Op::Relu, _) => kinks::relu(x)?,
            (Op::MaxPool(window), _) => max_pool(x, window)?,
            (Op::ConvNorm(_), Weights::Folded(parts)) => folded::forward(parts, x)?,
            (Op::MbConv(block), Weights::Folded(parts)) => {
                let y = folded::forward(parts, x)?;
                if block.has_skip() { y.f_add(x)? } else { y }
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
                    ends.push(forward(branch, x, fc_map)?);
                }
                match ends.len() {
                    1 => ends.remove(0),
                    _ => Tensor::f_cat(&ends, 1)?,
                }
            }
            (op, _) => return Err(NetError::Spec(format!("no tensors for {op:?}"))),
        })
    }
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
            .forward(&x, FcMap::AveragedTo(1), Rectifier::None)
            .unwrap();
        let [bias_a, a, bias_b, b] = layer.learnable().unwrap()[..] else {
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
    fn tensors_of_branches_are_named_and_ordered_as_the_learnable_ones_are() {
        let named = FORK.tensors();
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.bias", "a.weight", "b.bias", "b.weight"]);
        let layer = built();
        let sizes: Vec<Vec<i64>> = layer
            .learnable()
            .unwrap()
            .iter()
            .map(|t| t.size())
            .collect();
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
