//! The operations that the tables of all networks are written in: feature networks, generators, discriminators
//! and encoders.

use super::blocks::{
    After, Bottleneck, ConvNext, ConvNorm, MbConv, Padding, Part, TENSORFLOW_EPSILON,
};
use super::decoder::{Decoder, DecoderPart, POSITIONS};
use super::shape::Extent;
use super::tap::Tap;
use super::vit::{Vit, VitPart};

/// How a pooling layer rounds its output size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Caffe: a last, partial window counts.
    Ceil,
    /// PyTorch's default: it does not.
    Floor,
}

/// Windows of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side.
    pub kernel: i64,
    /// Step from one to the next.
    pub stride: i64,
    /// Whether a last, partial one counts.
    pub rounding: Rounding,
    /// Padding on each side, which is never the maximum.
    pub pad: i64,
}

impl Window {
    /// Output size for an input of this size with its padding ≥ `kernel`.
    pub(crate) fn count(self, size: i64) -> i64 {
        let room = size + 2 * self.pad - self.kernel;
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

impl FcMap {
    /// The side that maps are averaged to, if they are.
    pub(crate) fn averaged_to(self) -> Option<i64> {
        match self {
            FcMap::Exactly(_) => None,
            FcMap::AveragedTo(side) => Some(side),
        }
    }
}

/// One operation of a network.
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
        /// Whether it has a bias; none in front of batch normalisation.
        bias: bool,
    },
    /// Convolution with a bias, whose weight is divided by its largest singular value (spectral normalisation, Miyato et al.
    /// 2018) as the vectors u and v of a power iteration find it. Tensors are named as PyTorch's `spectral_norm` does.
    SpectralConv {
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
    },
    /// Transposed convolution with stride 2, which doubles the size; weight `[in,out,k,k]`.
    Double {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Input channels.
        input: i64,
        /// Output channels.
        output: i64,
        /// Kernel side: 4 (padding 1), or 5 (padding 2, and one more row and column at the end).
        kernel: i64,
        /// Whether it has a bias; none in front of batch normalisation.
        bias: bool,
    },
    /// Transposed convolution 3×3 with stride 1 and padding 1, which keeps the size; weight `[in,out,3,3]`, as in
    /// the released weights.
    Keep {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Input channels.
        input: i64,
        /// Output channels.
        output: i64,
    },
    /// max(x, 0).
    Relu,
    /// max(x, 0) + slope · min(x, 0).
    LeakyRelu(f64),
    /// Hyperbolic tangent. In a network it and the layer in front of it are computed in fp32 at least.
    Tanh,
    /// Batch normalisation of a network that learns: statistics of the batch in training, running ones in evaluation.
    BatchNorm {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Channels of a map, values of a vector.
        channels: i64,
        /// Added to variances before their root is taken.
        epsilon: f64,
    },
    /// In training, each value is zero with this probability and enlarged otherwise.
    Dropout(f64),
    /// The central square of this side, out of a square map. Behind a [`Op::Double`] our bf16 kernels give it in fp32.
    Crop(i64),
    /// Maximum over square windows.
    MaxPool(Window),
    /// Mean of the 3×3 values around each position, of which those outside the map do not count.
    MeanAround,
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
        /// Whether it has a bias; none in front of batch normalisation.
        bias: bool,
    },
    /// Convolution with batch normalisation and a rectifier.
    ConvNorm(ConvNorm),
    /// Inverted residual block.
    MbConv(MbConv),
    /// Bottleneck block.
    Bottleneck(Bottleneck),
    /// Block of a ConvNeXt.
    ConvNext(ConvNext),
    /// Layer normalisation over channels, at each position, with ε of 1e-6.
    LayerNorm {
        /// Prefix of the tensors' names.
        key: &'static str,
        /// Channels of a map, values of a vector.
        channels: i64,
    },
    /// A part of a vision transformer. From `Embed` on, what passes is tokens `[N,T,C]`; as an extent it is the map of
    /// the patches' tokens.
    Vit(&'static Vit, VitPart),
    /// A part of a decoder of patches. Between `Embed` and `Predict`, what passes is tokens, as with [`Op::Vit`].
    Decoder(Decoder, DecoderPart),
    /// Mean over all positions: a map becomes a vector.
    GlobalAverage,
    /// Branches that all take the operation's input; their outputs, maps of one size, are concatenated along
    /// channels in the order of the table. A branch is a sequence of operations; one branch alone is a sequence
    /// under one tap. Fully connected layers stand in rows of their own, never in a branch.
    Branches(&'static [&'static [Op]]),
}

/// The tensors of a convolution or a fully connected layer: `KEY.weight`, `KEY.bias`.
pub(crate) struct Affine {
    pub key: &'static str,
    /// Shape of the weight.
    pub weight: Vec<i64>,
    /// Values of the bias, where there is one.
    pub bias: Option<i64>,
}

/// Whether a tensor of this name can learn: running statistics, the vectors of power iterations and the positions of decoders
/// cannot.
pub(crate) fn learns(name: &str) -> bool {
    !(name.contains(".running_") || iterates(name) || name.ends_with(POSITIONS))
}

/// Whether a tensor of this name is a vector of a power iteration.
pub(crate) fn iterates(name: &str) -> bool {
    name.ends_with(".weight_u") || name.ends_with(".weight_v")
}

impl Op {
    /// Its tensors, if it is a convolution or a fully connected layer.
    pub(crate) fn affine(&self) -> Option<Affine> {
        let (key, weight, output, bias) = match *self {
            Op::Conv {
                key,
                input,
                output,
                kernel,
                groups,
                bias,
                ..
            } => {
                let weight = vec![output, input / groups, kernel, kernel];
                (key, weight, output, bias)
            }
            Op::Double {
                key,
                input,
                output,
                kernel,
                bias,
            } => (key, vec![input, output, kernel, kernel], output, bias),
            Op::Keep { key, input, output } => (key, vec![input, output, 3, 3], output, true),
            Op::Fc {
                key,
                input,
                output,
                bias,
            } => (key, vec![output, input], output, bias),
            _ => return None,
        };
        Some(Affine {
            key,
            weight,
            bias: bias.then_some(output),
        })
    }

    /// The prefix of its tensors' names, if it is a convolution or a fully connected layer.
    pub fn key(&self) -> Option<&'static str> {
        match *self {
            Op::SpectralConv { key, .. } => Some(key),
            _ => self.affine().map(|affine| affine.key),
        }
    }

    /// The convolutions with batch normalisation in this operation.
    pub(crate) fn parts(&self) -> Vec<Part> {
        match self {
            Op::ConvNorm(layer) => vec![layer.part()],
            Op::MbConv(block) => block.parts(),
            Op::Bottleneck(block) => block.parts(),
            _ => Vec::new(),
        }
    }

    /// Whether batch normalisation is folded into its convolutions, so that they cannot learn.
    pub(crate) fn is_folded(&self) -> bool {
        match self {
            Op::Branches(branches) => branches.iter().copied().flatten().any(Op::is_folded),
            op => !op.parts().is_empty(),
        }
    }

    /// The transformer whose tokens it puts out, if it does.
    pub(crate) fn tokens(&self) -> Option<&'static Vit> {
        match *self {
            Op::Vit(_, VitPart::Pool) => None,
            Op::Vit(vit, _) => Some(vit),
            _ => None,
        }
    }

    /// Names and shapes of the operation's tensors: a bias before its weight, branches in order.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        if let Some(Affine { key, weight, bias }) = self.affine() {
            let bias = bias.map(|values| (format!("{key}.bias"), vec![values]));
            let weight = (format!("{key}.weight"), weight);
            return bias.into_iter().chain([weight]).collect();
        }
        match *self {
            Op::SpectralConv {
                key,
                input,
                output,
                kernel,
                ..
            } => [
                ("bias", vec![output]),
                ("weight_orig", vec![output, input, kernel, kernel]),
                ("weight_u", vec![output]),
                ("weight_v", vec![input * kernel * kernel]),
            ]
            .map(|(part, shape)| (format!("{key}.{part}"), shape))
            .into(),
            Op::BatchNorm { key, channels, .. } => {
                ["weight", "bias", "running_mean", "running_var"]
                    .map(|part| (format!("{key}.{part}"), vec![channels]))
                    .into()
            }
            Op::Branches(branches) => {
                let operations = branches.iter().copied().flatten();
                operations.flat_map(Op::tensors).collect()
            }
            Op::ConvNorm(_) | Op::MbConv(_) | Op::Bottleneck(_) => {
                self.parts().iter().flat_map(Part::shapes).collect()
            }
            Op::ConvNext(block) => block.tensors(),
            Op::LayerNorm { key, channels } => ["weight", "bias"]
                .map(|part| (format!("{key}.{part}"), vec![channels]))
                .into(),
            Op::Vit(vit, part) => vit.tensors(part),
            Op::Decoder(decoder, part) => decoder.tensors(part),
            // The others of these were asked above.
            Op::Conv { .. }
            | Op::Double { .. }
            | Op::Keep { .. }
            | Op::Fc { .. }
            | Op::Relu
            | Op::LeakyRelu(_)
            | Op::Tanh
            | Op::Dropout(_)
            | Op::Crop(_)
            | Op::MaxPool(_)
            | Op::MeanAround
            | Op::Lrn
            | Op::GlobalAverage => Vec::new(),
        }
    }

    /// How many of its values can learn; running statistics cannot.
    pub fn parameters(&self) -> i64 {
        let tensors = self.tensors().into_iter().filter(|(name, _)| learns(name));
        tensors
            .map(|(_, shape)| shape.iter().product::<i64>())
            .sum()
    }

    /// Channels of the output for an input of `input` channels.
    pub(crate) fn channels(&self, input: i64) -> i64 {
        match *self {
            Op::Conv { output, .. }
            | Op::SpectralConv { output, .. }
            | Op::Double { output, .. }
            | Op::Keep { output, .. }
            | Op::Fc { output, .. } => output,
            Op::ConvNorm(layer) => layer.output,
            Op::MbConv(block) => block.output,
            Op::Bottleneck(block) => block.output(),
            Op::Vit(vit, _) => vit.width,
            Op::Decoder(_, DecoderPart::Predict) => 3,
            Op::Decoder(decoder, _) => decoder.vit.width,
            Op::Branches(branches) => {
                let end = |branch: &&[Op]| branch.iter().fold(input, |c, op| op.channels(c));
                branches.iter().map(end).sum()
            }
            Op::Relu
            | Op::LeakyRelu(_)
            | Op::Tanh
            | Op::BatchNorm { .. }
            | Op::Dropout(_)
            | Op::Crop(_)
            | Op::MaxPool(_)
            | Op::MeanAround
            | Op::Lrn
            | Op::ConvNext(_)
            | Op::LayerNorm { .. }
            | Op::GlobalAverage => input,
        }
    }

    /// The output for an input of this extent; `None` where the input is too small or does not consist of whole
    /// patches, or where branches end in maps of different sizes.
    pub fn output(&self, input: Extent) -> Option<Extent> {
        let input = match *self {
            Op::Conv {
                input: channels, ..
            }
            | Op::Double {
                input: channels, ..
            }
            | Op::Keep {
                input: channels, ..
            } => input.as_map(channels)?,
            _ => input,
        };
        let Extent { height, width, .. } = input;
        let map = |channels, height, width| Extent {
            channels,
            height,
            width,
            flat: false,
        };
        let through = |x: Extent, part: &Part| {
            let [height, width] = part.extent([x.height, x.width])?;
            Some(map(part.output, height, width))
        };
        match *self {
            Op::Conv {
                output,
                kernel,
                stride,
                pad,
                ..
            }
            | Op::SpectralConv {
                output,
                kernel,
                stride,
                pad,
                ..
            } => {
                let count = |size: i64| {
                    let room = size.checked_add(2 * pad - kernel)?;
                    (room >= 0).then(|| room / stride + 1)
                };
                Some(map(output, count(height)?, count(width)?))
            }
            Op::Double { output, .. } => Some(map(output, 2 * height, 2 * width)),
            Op::Keep { output, .. } => Some(map(output, height, width)),
            Op::Crop(side) => {
                let fits = height == width && height >= side;
                fits.then(|| map(input.channels, side, side))
            }
            Op::MaxPool(window) => {
                let least = window.kernel - 2 * window.pad;
                let fits = height >= least && width >= least;
                fits.then(|| map(input.channels, window.count(height), window.count(width)))
            }
            Op::Fc { output, .. } => Some(Extent {
                flat: true,
                ..map(output, 1, 1)
            }),
            Op::ConvNorm(_) | Op::MbConv(_) => self.parts().iter().try_fold(input, through),
            // A fourth convolution stands beside the others.
            Op::Bottleneck(block) => block.parts().iter().take(3).try_fold(input, through),
            Op::Vit(vit, VitPart::Embed) => {
                let [rows, columns] = vit.patches(height, width)?;
                Some(map(vit.width, rows, columns))
            }
            Op::Decoder(decoder, DecoderPart::Embed) => {
                let fits = [height, width] == [decoder.vit.grid; 2];
                fits.then(|| map(decoder.vit.width, height, width))
            }
            Op::Decoder(decoder, DecoderPart::Predict) => {
                let patch = decoder.vit.patch;
                Some(map(3, patch * height, patch * width))
            }
            Op::Vit(vit, VitPart::Pool) => Some(Extent {
                flat: true,
                ..map(vit.width, 1, 1)
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
            Op::Relu
            | Op::LeakyRelu(_)
            | Op::Tanh
            | Op::BatchNorm { .. }
            | Op::Dropout(_)
            | Op::MeanAround
            | Op::ConvNext(_)
            | Op::LayerNorm { .. }
            | Op::Vit(_, VitPart::Block(_) | VitPart::Norm)
            | Op::Decoder(_, DecoderPart::Block(_))
            | Op::Lrn => Some(input),
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
        bias: true,
    }
}

pub(crate) const fn max_pool(kernel: i64, stride: i64, rounding: Rounding) -> Op {
    Op::MaxPool(Window {
        kernel,
        stride,
        rounding,
        pad: 0,
    })
}

pub(crate) const fn fc(key: &'static str, input: i64, output: i64) -> Op {
    Op::Fc {
        key,
        input,
        output,
        bias: true,
    }
}

/// A row of a table: where it can be tapped, and what it does.
pub type Row = (Tap, Op);

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
        kernel: [kernel, kernel],
        stride,
        padding: Padding::Same,
        after: After::Relu6,
        epsilon: TENSORFLOW_EPSILON,
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
