//! What can be wrong with a caffemodel.

/// Why a file was not taken for a caffemodel.
#[derive(Debug, thiserror::Error)]
pub enum CaffeError {
    /// Not a protocol buffer, of another schema, or cut short.
    #[error(
        "not a whole .caffemodel ({reason}); it may be cut short, or another kind of file (the \
         text of a .prototxt holds no weights)"
    )]
    Protobuf {
        /// What the decoder said.
        reason: String,
    },
    /// Caffe's other weight format.
    #[error(
        "this is HDF5 (.caffemodel.h5); convert it with Caffe's Python module: \
         `net = caffe.Net(PROTOTXT, FILE, caffe.TEST); net.save(OUT)`, then import OUT"
    )]
    Hdf5,
    /// The layers of Caffe before 2014.
    #[error(
        "the layers are of the oldest format (V0); convert the file with Caffe's tool \
         `upgrade_net_proto_binary`, then import that"
    )]
    V0Layers,
    /// Old and new layers in one file.
    #[error("the file has both old (`layers`) and new (`layer`) layers; Caffe would read only one")]
    MixedLayers,
    /// A count that no network has.
    #[error("the file has more than {limit} {what}: it is damaged or no caffemodel")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are read at most.
        limit: usize,
    },
    /// Weights without a name.
    #[error("layer {index} has weights but no name")]
    Unnamed {
        /// Which layer, counting from 0.
        index: usize,
    },
    /// Two layers with weights and one name.
    #[error("two layers with weights are called `{layer}`")]
    Duplicate {
        /// The name.
        layer: String,
    },
    /// A layer of a type that is not of the kind "weights and perhaps biases".
    #[error(
        "layer `{layer}` has {count} arrays; only layers with a weight and perhaps a bias can be \
         imported (no BatchNorm)"
    )]
    ExtraBlobs {
        /// The layer.
        layer: String,
        /// How many there are.
        count: usize,
    },
    /// An fc layer that stores its matrix the other way round.
    #[error("layer `{layer}` stores its matrix transposed, which cannot be imported")]
    Transposed {
        /// The layer.
        layer: String,
    },
    /// An array without values.
    #[error("`{tensor}` has no values; was the file written with its weights left out?")]
    NoValues {
        /// The tensor.
        tensor: String,
    },
    /// A dimension below 1, or dimensions whose product is beyond counting.
    #[error("`{tensor}` has the impossible shape {shape:?}")]
    ImpossibleShape {
        /// The tensor.
        tensor: String,
        /// Its shape as the file gives it.
        shape: Vec<i64>,
    },
    /// An fc matrix or a bias with too many dimensions other than 1.
    #[error("`{tensor}` has shape {shape:?}, which does not reduce to {rank} dimension(s)")]
    WrongRank {
        /// The tensor.
        tensor: String,
        /// Its shape as the file gives it.
        shape: Vec<usize>,
        /// How many dimensions it should have.
        rank: usize,
    },
    /// Another number of values than the shape holds.
    #[error("`{tensor}` of shape {shape:?} holds {expected} values but the file has {actual}")]
    Count {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The product of the shape.
        expected: usize,
        /// Values in the file.
        actual: usize,
    },
    /// NaN or infinity among the weights.
    #[error(
        "`{tensor}` holds {value} at position {index} in single precision: the file is damaged, training failed, or a double is too large"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Index into its values.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value of more bits than ours have.
    #[error("`{tensor}` holds {value:e} at position {index}, which is too large for f32")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Index into its values.
        index: usize,
        /// The value.
        value: f64,
    },
    /// No layer with weights.
    #[error("no layer has weights; is it a .caffemodel? A .solverstate or mean file is not")]
    NoWeights,
}
