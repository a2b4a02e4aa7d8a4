//! Convolutions with the batch normalisation of evaluation folded into them, as EfficientNets, Inception and ResNets
//! have them.
//!
//! With TensorFlow's SAME padding an output has ⌈size/stride⌉ positions, and where the padding that
//! this needs is odd, the right and lower edges get more of it. Batch normalisation is that of
//! evaluation and folded into the convolutions when weights are loaded.

use tch::{Device, Kind, Tensor};

use super::blocks::{After, Padding, Part};
use super::convolution::convolution;
use super::geometry::{Geometry, Rectifier};
use crate::error::Result;
use crate::kinks;
use crate::precision::at_least_fp32;

/// A convolution that has taken its normalisation in.
#[derive(Debug)]
pub(crate) struct Folded {
    part: Part,
    weight: Tensor,
    bias: Tensor,
}

/// Loads parts from tensors by name; γ/√(σ²+ε) goes into the weights, the rest into a bias, both
/// computed in fp64.
pub(crate) fn fold(
    parts: Vec<Part>,
    get: &impl Fn(&str, &[i64]) -> Result<Tensor>,
    device: Device,
) -> Result<Vec<Folded>> {
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        let norm = |name: &str| -> Result<Tensor> {
            let value = get(&format!("{}.{name}", part.norm), &[part.output])?;
            Ok(value.f_to_kind(Kind::Double)?)
        };
        let variance = norm("running_var")?.f_add_scalar(part.epsilon)?;
        let gain = norm("weight")?.f_div(&variance.f_sqrt()?)?;
        let bias = norm("bias")?.f_sub(&norm("running_mean")?.f_mul(&gain)?)?;
        let weight = get(&format!("{}.weight", part.conv), &part.kernel_shape())?
            .f_to_kind(Kind::Double)?
            .f_mul(&gain.f_view([-1, 1, 1, 1])?)?;
        let kind = at_least_fp32(&get(
            &format!("{}.weight", part.conv),
            &part.kernel_shape(),
        )?);
        let ready =
            |t: Tensor| -> Result<Tensor> { crate::params::stored(&t.f_to_kind(kind)?, device) };
        out.push(Folded {
            weight: ready(weight)?,
            bias: ready(bias)?,
            part,
        });
    }
    Ok(out)
}

/// TensorFlow's SAME padding before and after `size` values.
fn same_padding(size: i64, kernel: i64, stride: i64) -> (i64, i64) {
    let steps = (size + stride - 1) / stride - 1;
    let total = (steps * stride + kernel - size).max(0);
    (total / 2, total - total / 2)
}

impl Folded {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Part {
            kernel: [rows, columns],
            stride,
            padding,
            groups,
            after,
            ..
        } = self.part;
        let (x, pads) = match padding {
            Padding::Zeros(pads) => (x.shallow_clone(), pads),
            Padding::Same => {
                let size = x.size();
                let (top, bottom) = same_padding(size[2], rows, stride);
                let (left, right) = same_padding(size[3], columns, stride);
                if [bottom, left, right] == [top; 3] {
                    (x.shallow_clone(), [top; 2])
                } else {
                    (x.f_constant_pad_nd([left, right, top, bottom])?, [0; 2])
                }
            }
        };
        let rectifier = match after {
            After::Relu => Rectifier::Leaky(0.0),
            After::Relu6 | After::Nothing => Rectifier::None,
        };
        let (weight, bias) = (&self.weight, Some(&self.bias));
        let y = if groups == 1 && rows == columns && pads[0] == pads[1] {
            let geometry = Geometry::Convolution {
                stride,
                padding: pads[0],
                groups,
            };
            convolution(&x, weight, bias, geometry, rectifier)?
        } else {
            // Depthwise, or of one row or column: nothing for a matrix unit or Winograd's algorithm to gain.
            rectifier.apply(x.f_conv2d(weight, bias, [stride; 2], pads, [1, 1], groups)?)?
        };
        Ok(match after {
            After::Relu6 => kinks::relu6(&y)?,
            After::Relu | After::Nothing => y,
        })
    }
}

/// `x` `[N,C,H,W]` through the parts in turn.
pub(crate) fn forward(parts: &[Folded], x: &Tensor) -> Result<Tensor> {
    let mut x = x.shallow_clone();
    for part in parts {
        x = part.forward(&x)?;
    }
    Ok(x)
}

/// `x` through the first three parts, plus `x` through the others, if there are any; rectified.
pub(crate) fn bottleneck(parts: &[Folded], x: &Tensor) -> Result<Tensor> {
    let (main, shortcut) = parts.split_at(parts.len().min(3));
    let y = forward(main, x)?.f_add(&forward(shortcut, x)?)?;
    // In place: no sum needs its output for its backward pass.
    kinks::rectified(y, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_tensorflow_s() {
        // size, kernel, stride → before, after
        assert_eq!(same_padding(224, 3, 2), (0, 1));
        assert_eq!(same_padding(225, 3, 2), (1, 1));
        assert_eq!(same_padding(56, 5, 2), (1, 2));
        assert_eq!(same_padding(7, 5, 1), (2, 2));
        assert_eq!(same_padding(1, 5, 2), (2, 2));
        assert_eq!(same_padding(4, 1, 1), (0, 0));
    }
}
