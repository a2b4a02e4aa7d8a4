//! Blocks of convolutions whose batch normalisation is that of evaluation, as EfficientNets have them.

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
