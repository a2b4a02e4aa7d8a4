//! The operations that tables of feature networks are written in.

use super::shape::Extent;
use super::tap::Tap;

/// How a pooling layer rounds its output size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Caffe: a last, partial window counts.
    Ceil,
    /// PyTorch's default: it does not.
    Floor,
}

/// Windows of a pooling layer, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side.
    pub kernel: i64,
    /// Step from one to the next.
    pub stride: i64,
    /// Whether a last, partial one counts.
    pub rounding: Rounding,
}

impl Window {
    /// Output size for an input of `size` ≥ `kernel`.
    pub(crate) fn count(self, size: i64) -> i64 {
        let room = size - self.kernel;
        match self.rounding {
            Rounding::Floor => room / self.stride + 1,
            Rounding::Ceil => (room + self.stride - 1) / self.stride + 1,
        }
    }
}

/// What the first fully connected layer makes of the map below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FcMap {
    /// It takes a map of this side and no other.
    Exactly(i64),
    /// Any map is averaged to this side first (torchvision's adaptive pooling).
    AveragedTo(i64),
}

/// One operation of a feature network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Convolution: tensor prefix, input and output channels, kernel, stride, padding, groups.
    Conv {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Input channels.
        input: i64,
        /// Output channels.
        output: i64,
        /// Kernel side.
        kernel: i64,
        /// Stride.
        stride: i64,
        /// Padding on each side.
        pad: i64,
        /// Groups.
        groups: i64,
    },
    /// max(x, 0).
    Relu,
    /// Maximum over square windows.
    MaxPool(Window),
    /// Local response normalisation across 5 channels, α = 1e-4 divided by 5, β = 0.75, k = 1.
    Lrn,
    /// Fully connected layer: tensor prefix, inputs, outputs.
    Fc {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Inputs.
        input: i64,
        /// Outputs.
        output: i64,
    },
    /// Convolution with batch normalisation and ReLU6.
    ConvNorm(ConvNorm),
    /// Inverted residual block.
    MbConv(MbConv),
    /// Mean over all positions: a map becomes a vector.
    GlobalAverage,
    /// Branches that all take the operation's input; their outputs, maps of one size, are concatenated along
    /// channels in the order of the table. A branch is a sequence of operations; one branch alone is a sequence
    /// under one tap. Fully connected layers stand in rows of their own, never in a branch.
    Branches(&'static [&'static [Op]]),
}

impl Op {
    /// The convolutions with batch normalisation in this operation.
    pub(crate) fn parts(&self) -> Vec<Part> {
        match self {
            Op::ConvNorm(layer) => vec![layer.part()],
            Op::MbConv(block) => block.parts(),
            _ => Vec::new(),
        }
    }

    /// Names and shapes of the operation's tensors: a bias before its weight, branches in order.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let affine = |key: &str, weight: Vec<i64>| {
            let bias = (format!("{key}.bias"), vec![weight[0]]);
            vec![bias, (format!("{key}.weight"), weight)]
        };
        match *self {
            Op::Conv {
                key,
                input,
                output,
                kernel,
                groups,
                ..
            } => affine(key, vec![output, input / groups, kernel, kernel]),
            Op::Fc { key, input, output } => affine(key, vec![output, input]),
            Op::ConvNorm(_) | Op::MbConv(_) => self.parts().iter().flat_map(Part::shapes).collect(),
            Op::Branches(branches) => {
                let operations = branches.iter().copied().flatten();
                operations.flat_map(Op::tensors).collect()
            }
            Op::Relu | Op::MaxPool(_) | Op::Lrn | Op::GlobalAverage => Vec::new(),
        }
    }

    /// Channels of the output for an input of `input` channels.
    pub(crate) fn channels(&self, input: i64) -> i64 {
        match *self {
            Op::Conv { output, .. } | Op::Fc { output, .. } => output,
            Op::ConvNorm(layer) => layer.output,
            Op::MbConv(block) => block.output,
            Op::Branches(branches) => {
                let end = |branch: &&[Op]| branch.iter().fold(input, |c, op| op.channels(c));
                branches.iter().map(end).sum()
            }
            Op::Relu | Op::MaxPool(_) | Op::Lrn | Op::GlobalAverage => input,
        }
    }

    /// The output for an input of this extent; `None` where the input is too small, or where branches end in
    /// maps of different sizes.
    pub fn output(&self, input: Extent) -> Option<Extent> {
        let Extent { height, width, .. } = input;
        let map = |channels, height, width| Extent {
            channels,
            height,
            width,
            flat: false,
        };
        match *self {
            Op::Conv {
                output,
                kernel,
                stride,
                pad,
                ..
            } => {
                let count = |size: i64| {
                    let room = size + 2 * pad - kernel;
                    (room >= 0).then(|| room / stride + 1)
                };
                Some(map(output, count(height)?, count(width)?))
            }
            Op::MaxPool(window) => {
                let fits = height >= window.kernel && width >= window.kernel;
                fits.then(|| map(input.channels, window.count(height), window.count(width)))
            }
            Op::Fc { output, .. } => Some(Extent {
                flat: true,
                ..map(output, 1, 1)
            }),
            Op::ConvNorm(_) | Op::MbConv(_) => self.parts().iter().try_fold(input, |x, part| {
                // SAME padding gives an output to any size; one that a stride steps over
                // whole would be made of padding more than of the image.
                let count = |size: i64| {
                    (size >= part.stride).then(|| (size + part.stride - 1) / part.stride)
                };
                Some(map(part.output, count(x.height)?, count(x.width)?))
            }),
            Op::GlobalAverage => Some(Extent {
                flat: true,
                ..map(input.channels, 1, 1)
            }),
            Op::Branches(branches) => {
                let end = |branch: &&[Op]| branch.iter().try_fold(input, |x, op| op.output(x));
                let mut ends = branches.iter().map(end);
                let first = ends.next()??;
                ends.try_fold(first, |all, next| {
                    let next = next?;
                    let fits = (next.height, next.width) == (all.height, all.width);
                    fits.then(|| map(all.channels + next.channels, all.height, all.width))
                })
            }
            Op::Relu | Op::Lrn => Some(input),
        }
    }
}

pub(crate) const fn conv(
    key: &'static str,
    channels: (i64, i64),
    k_s_p: (i64, i64, i64),
    groups: i64,
) -> Op {
    let (input, output) = channels;
    let (kernel, stride, pad) = k_s_p;
    Op::Conv {
        key,
        input,
        output,
        kernel,
        stride,
        pad,
        groups,
    }
}

pub(crate) const fn max_pool(kernel: i64, stride: i64, rounding: Rounding) -> Op {
    Op::MaxPool(Window {
        kernel,
        stride,
        rounding,
    })
}

pub(crate) const fn fc(key: &'static str, input: i64, output: i64) -> Op {
    Op::Fc { key, input, output }
}

/// A row of a table: where it can be tapped, and what it does.
pub type Row = (Tap, Op);

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

pub(crate) const fn conv_norm(
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

pub(crate) const fn mb(
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

/// One convolution with its normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) conv: String,
    pub(crate) norm: String,
    pub(crate) input: i64,
    pub(crate) output: i64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) groups: i64,
    pub(crate) after: After,
}

/// What follows the normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
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
    pub(crate) fn kernel_shape(&self) -> Vec<i64> {
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
