//! Blocks of convolutions whose batch normalisation is that of evaluation, as EfficientNets, Inception and ResNets have
//! them; and ConvNeXt's, which have layer normalisation.

/// What TensorFlow's networks add to variances.
pub const TENSORFLOW_EPSILON: f64 = 1e-3;
/// What torchvision's networks add to variances.
pub const TORCHVISION_EPSILON: f64 = 1e-5;

/// Convolution without bias, batch normalisation, a rectifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvNorm {
    /// Prefix of the convolution's tensor.
    pub conv: &'static str,
    /// Prefix of the normalisation's tensors.
    pub norm: &'static str,
    /// Input channels.
    pub input: i64,
    /// Output channels.
    pub output: i64,
    /// Rows and columns of the kernel.
    pub kernel: [i64; 2],
    /// Stride.
    pub stride: i64,
    /// What is put around the input.
    pub padding: Padding,
    /// What follows the normalisation.
    pub after: After,
    /// What the normalisation adds to variances.
    pub epsilon: f64,
}

/// What is put around a convolution's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// TensorFlow's SAME: as many zeros as give ⌈size/stride⌉ outputs.
    Same,
    /// So many rows and columns of zeros on either side.
    Zeros([i64; 2]),
}

/// Bottleneck block of a ResNet (He et al. 2016) with the stride in its 3×3 convolution, as torchvision has it: 1×1, 3×3
/// and 1×1 convolutions; the input, or a 1×1 convolution of it where shapes differ, is added; then a ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Prefix of the tensors' names.
    pub key: &'static str,
    /// Input channels.
    pub input: i64,
    /// Channels of the 3×3 convolution.
    pub inside: i64,
    /// Stride of the 3×3 convolution.
    pub stride: i64,
}

/// Block of a ConvNeXt (Liu et al. 2022): a depthwise 7×7 convolution, layer normalisation over channels, two fully
/// connected layers at each position with GELU between them, a scale for each channel; the input is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvNext {
    /// Prefix of the tensors' names.
    pub key: &'static str,
    /// Channels of input and output.
    pub channels: i64,
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

/// One convolution with its normalisation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) conv: String,
    pub(crate) norm: String,
    pub(crate) input: i64,
    pub(crate) output: i64,
    pub(crate) kernel: [i64; 2],
    pub(crate) stride: i64,
    pub(crate) padding: Padding,
    pub(crate) groups: i64,
    pub(crate) after: After,
    pub(crate) epsilon: f64,
}

/// What follows the normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// Nothing.
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
            padding: self.padding,
            groups: 1,
            after: self.after,
            epsilon: self.epsilon,
        }
    }
}

/// Times the channels inside a bottleneck: its output's.
const EXPANSION: i64 = 4;

impl Bottleneck {
    /// Output channels.
    pub(crate) fn output(&self) -> i64 {
        EXPANSION * self.inside
    }

    /// The three convolutions, and the one of the input where there is one.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let part = |at: u8, input: i64, output: i64, kernel: i64| Part {
            conv: format!("{}.conv{at}", self.key),
            norm: format!("{}.bn{at}", self.key),
            input,
            output,
            kernel: [kernel, kernel],
            stride: 1,
            padding: Padding::Zeros([kernel / 2, kernel / 2]),
            groups: 1,
            after: After::Relu,
            epsilon: TORCHVISION_EPSILON,
        };
        let mut parts = vec![
            part(1, self.input, self.inside, 1),
            Part {
                stride: self.stride,
                ..part(2, self.inside, self.inside, 3)
            },
            Part {
                after: After::Nothing,
                ..part(3, self.inside, self.output(), 1)
            },
        ];
        if self.stride != 1 || self.input != self.output() {
            parts.push(Part {
                conv: format!("{}.downsample.0", self.key),
                norm: format!("{}.downsample.1", self.key),
                stride: self.stride,
                after: After::Nothing,
                ..part(0, self.input, self.output(), 1)
            });
        }
        parts
    }
}

impl ConvNext {
    /// Names and shapes of the tensors: the scale; weight and bias of the depthwise convolution, the normalisation, and
    /// both layers.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let d = self.channels;
        let mut out = vec![(format!("{}.layer_scale", self.key), vec![d, 1, 1])];
        let layers = [
            (0, vec![d, 1, 7, 7]),
            (2, vec![d]),
            (3, vec![4 * d, d]),
            (5, vec![d, 4 * d]),
        ];
        for (at, weight) in layers {
            let key = format!("{}.block.{at}", self.key);
            let outputs = weight[0];
            out.push((format!("{key}.weight"), weight));
            out.push((format!("{key}.bias"), vec![outputs]));
        }
        out
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
            kernel: [1, 1],
            stride: 1,
            padding: Padding::Same,
            groups: 1,
            after: After::Relu6,
            epsilon: TENSORFLOW_EPSILON,
        };
        let expand = Part {
            input: self.input,
            ..part("_expand_conv", "_bn0")
        };
        let depthwise = Part {
            kernel: [self.kernel, self.kernel],
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
        let [rows, columns] = self.kernel;
        vec![self.output, inputs, rows, columns]
    }

    /// Height and width of the output for an input of these; `None` where the input is too small.
    pub(crate) fn extent(&self, size: [i64; 2]) -> Option<[i64; 2]> {
        let count = |axis: usize| match self.padding {
            // SAME padding gives an output to any size; one that a stride steps over
            // whole would be made of padding more than of the image.
            Padding::Same => {
                (size[axis] >= self.stride).then(|| (size[axis] + self.stride - 1) / self.stride)
            }
            Padding::Zeros(zeros) => {
                let room = size[axis].checked_add(2 * zeros[axis] - self.kernel[axis])?;
                (room >= 0).then(|| room / self.stride + 1)
            }
        };
        Some([count(0)?, count(1)?])
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
