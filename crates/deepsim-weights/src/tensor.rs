//! A tensor as importers hand it on.

/// One named array of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Key in the safetensors file, for example `conv1.weight`.
    pub name: String,
    /// Dimensions; convolutions are (out, in, height, width), deconvolutions (in, out, height,
    /// width), fully connected layers (out, in), biases (out).
    pub shape: Vec<usize>,
    /// Values, last dimension fastest; as many as the product of `shape`.
    pub data: Vec<f32>,
}
