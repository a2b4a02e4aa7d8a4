//! Convolutions with the batch normalisation of evaluation folded into them, as EfficientNets have them.
//!
//! Padding is TensorFlow's SAME: an output has ⌈size/stride⌉ positions, and where the padding that
//! this needs is odd, the right and lower edges get more of it. Batch normalisation is that of
//! evaluation and folded into the convolutions when weights are loaded.

use tch::{Device, Kind, Tensor};

use super::blocks::{After, Part};
use super::convolution::{Geometry, Rectifier, convolution};
use crate::error::Result;
use crate::kinks;
use crate::precision::at_least_fp32;

/// What batch normalisation adds to variances.
pub const NORM_EPSILON: f64 = 1e-3;

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
        let variance = norm("running_var")?.f_add_scalar(NORM_EPSILON)?;
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
            kernel,
            stride,
            groups,
            after,
            ..
        } = self.part;
        let size = x.size();
        let (top, bottom) = same_padding(size[2], kernel, stride);
        let (left, right) = same_padding(size[3], kernel, stride);
        let (x, padding) = if [bottom, left, right] == [top; 3] {
            (x.shallow_clone(), top)
        } else {
            (x.f_constant_pad_nd([left, right, top, bottom])?, 0)
        };
        let y = if groups == 1 {
            let geometry = Geometry::Convolution {
                stride,
                padding,
                groups,
            };
            convolution(
                &x,
                &self.weight,
                Some(&self.bias),
                geometry,
                Rectifier::None,
            )?
        } else {
            // Depthwise: nothing for a matrix unit or Winograd's algorithm to gain.
            let (bias, pads) = (Some(&self.bias), [padding; 2]);
            x.f_conv2d(&self.weight, bias, [stride; 2], pads, [1, 1], groups)?
        };
        Ok(match after {
            After::Relu6 => kinks::relu6(&y)?,
            After::Nothing => y,
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
