//! EfficientNet-Lite0 (Tan & Le 2019; the "lite" variants of 2020 without squeeze-excitation, with
//! ReLU6), with the tensor names of its PyTorch ports.
//!
//! Padding is TensorFlow's SAME: an output has ⌈size/stride⌉ positions, and where the padding that
//! this needs is odd, the right and lower edges get more of it. Batch normalisation is that of
//! evaluation and folded into the convolutions when weights are loaded.

use tch::{Device, Kind, Tensor};

use crate::convolution::{Geometry, Rectifier, convolution};
use crate::error::Result;
use crate::kinks;
use crate::precision::at_least_fp32;
use crate::tables::{Op, Row, Tap, fc};

/// What batch normalisation adds to variances.
pub const NORM_EPSILON: f64 = 1e-3;

/// Convolution without bias, batch normalisation, ReLU6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvNorm {
    /// Prefix of the convolution's tensor.
    pub conv: &'static str,
    /// Prefix of the normalisation's tensors.
    pub norm: &'static str,
    /// Input channels.
    pub input: i64,
    /// Output channels.
    pub output: i64,
    /// Kernel side.
    pub kernel: i64,
    /// Stride.
    pub stride: i64,
}

/// Inverted residual block (Sandler et al. 2018): a 1×1 convolution to `expand` times the channels
/// (none where `expand` is 1), a depthwise one, and a 1×1 one without rectifier; the input is
/// added where shapes allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbConv {
    /// Prefix of the tensors' names.
    pub key: &'static str,
    /// Input channels.
    pub input: i64,
    /// Output channels.
    pub output: i64,
    /// Channels inside, in units of input channels.
    pub expand: i64,
    /// Kernel side of the depthwise convolution.
    pub kernel: i64,
    /// Stride of the depthwise convolution.
    pub stride: i64,
}

const fn conv_norm(
    (conv, norm): (&'static str, &'static str),
    (input, output): (i64, i64),
    (kernel, stride): (i64, i64),
) -> Op {
    Op::ConvNorm(ConvNorm {
        conv,
        norm,
        input,
        output,
        kernel,
        stride,
    })
}

const fn mb(
    key: &'static str,
    (input, output): (i64, i64),
    expand: i64,
    (kernel, stride): (i64, i64),
) -> Op {
    Op::MbConv(MbConv {
        key,
        input,
        output,
        expand,
        kernel,
        stride,
    })
}

/// EfficientNet-Lite0. Sizes are for 224×224 pictures.
pub const EFFICIENTNET_LITE0: &[Row] = &[
    (
        Tap::Stem,
        conv_norm(("_conv_stem", "_bn0"), (3, 32), (3, 2)),
    ), // 112
    (Tap::Block0, mb("_blocks.0", (32, 16), 1, (3, 1))), // 112
    (Tap::Block1, mb("_blocks.1", (16, 24), 6, (3, 2))), // 56
    (Tap::Block2, mb("_blocks.2", (24, 24), 6, (3, 1))),
    (Tap::Block3, mb("_blocks.3", (24, 40), 6, (5, 2))), // 28
    (Tap::Block4, mb("_blocks.4", (40, 40), 6, (5, 1))),
    (Tap::Block5, mb("_blocks.5", (40, 80), 6, (3, 2))), // 14
    (Tap::Block6, mb("_blocks.6", (80, 80), 6, (3, 1))),
    (Tap::Block7, mb("_blocks.7", (80, 80), 6, (3, 1))),
    (Tap::Block8, mb("_blocks.8", (80, 112), 6, (5, 1))), // 14
    (Tap::Block9, mb("_blocks.9", (112, 112), 6, (5, 1))),
    (Tap::Block10, mb("_blocks.10", (112, 112), 6, (5, 1))),
    (Tap::Block11, mb("_blocks.11", (112, 192), 6, (5, 2))), // 7
    (Tap::Block12, mb("_blocks.12", (192, 192), 6, (5, 1))),
    (Tap::Block13, mb("_blocks.13", (192, 192), 6, (5, 1))),
    (Tap::Block14, mb("_blocks.14", (192, 192), 6, (5, 1))),
    (Tap::Block15, mb("_blocks.15", (192, 320), 6, (3, 1))), // 7
    (
        Tap::Head,
        conv_norm(("_conv_head", "_bn1"), (320, 1280), (1, 1)),
    ),
    (Tap::Pooled, Op::GlobalAverage),
    (Tap::Logits, fc("_fc", 1280, 1000)),
];

/// One convolution with its normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    conv: String,
    norm: String,
    input: i64,
    pub(crate) output: i64,
    kernel: i64,
    pub(crate) stride: i64,
    groups: i64,
    after: After,
}

/// What follows the normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Relu6,
    Nothing,
}

impl ConvNorm {
    pub(crate) fn part(&self) -> Part {
        Part {
            conv: self.conv.to_owned(),
            norm: self.norm.to_owned(),
            input: self.input,
            output: self.output,
            kernel: self.kernel,
            stride: self.stride,
            groups: 1,
            after: After::Relu6,
        }
    }
}

impl MbConv {
    pub(crate) fn parts(&self) -> Vec<Part> {
        let inside = self.input * self.expand;
        let part = |conv: &str, norm: &str| Part {
            conv: format!("{}.{conv}", self.key),
            norm: format!("{}.{norm}", self.key),
            input: inside,
            output: inside,
            kernel: 1,
            stride: 1,
            groups: 1,
            after: After::Relu6,
        };
        let expand = Part {
            input: self.input,
            ..part("_expand_conv", "_bn0")
        };
        let depthwise = Part {
            kernel: self.kernel,
            stride: self.stride,
            groups: inside,
            ..part("_depthwise_conv", "_bn1")
        };
        let project = Part {
            output: self.output,
            after: After::Nothing,
            ..part("_project_conv", "_bn2")
        };
        if self.expand == 1 {
            vec![depthwise, project]
        } else {
            vec![expand, depthwise, project]
        }
    }

    /// Whether the input is added to the output.
    pub(crate) fn has_skip(&self) -> bool {
        self.stride == 1 && self.input == self.output
    }
}

impl Part {
    fn kernel_shape(&self) -> Vec<i64> {
        let inputs = self.input / self.groups;
        vec![self.output, inputs, self.kernel, self.kernel]
    }

    /// Names and shapes of the tensors.
    pub(crate) fn shapes(&self) -> Vec<(String, Vec<i64>)> {
        let mut out = vec![(format!("{}.weight", self.conv), self.kernel_shape())];
        for name in ["weight", "bias", "running_mean", "running_var"] {
            out.push((format!("{}.{name}", self.norm), vec![self.output]));
        }
        out
    }
}

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
            convolution(&x, &self.weight, &self.bias, geometry, Rectifier::None)?
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
