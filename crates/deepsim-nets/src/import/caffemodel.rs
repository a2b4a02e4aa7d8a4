//! Caffe's binary weights: `.caffemodel`, a protocol buffer.
//!
//! Both generations of layer messages are read: `layers` (V1, in which the CaffeNet of the
//! model zoo is stored) and `layer` (in which the released DeePSiM generators are stored), both
//! shapes (`shape`, and the legacy four dimensions) and both precisions. Only what carries
//! weights is in the schema, with the field numbers of Caffe's `caffe.proto`; the rest is
//! skipped.
//!
//! Memory stays within a small multiple of the file's size whatever is in the file: a pass over
//! the bare wire format refuses counts that no network has before anything is decoded.

use std::collections::HashSet;

use prost::Message;

use super::NamedTensor;

/// More layers than any published Caffe network has by far.
const MAX_LAYERS: usize = 4096;
/// More parameter arrays in one layer than any layer of Caffe has.
const MAX_BLOBS: usize = 64;
/// Caffe's own limit of 32 dimensions, at 10 bytes each at most, and their framing.
const MAX_SHAPE_BYTES: usize = 32 * 10 + 16;

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
    #[error("`{tensor}` holds {value} at position {index}: the file is damaged or training failed")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Index into its values.
        index: usize,
        /// The value.
        value: f32,
    },
    /// No layer with weights.
    #[error("no layer has weights; is it a .caffemodel? A .solverstate or mean file is not")]
    NoWeights,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NetParameter {
    #[prost(message, repeated, tag = "2")]
    pub(super) layers: Vec<V1LayerParameter>,
    #[prost(message, repeated, tag = "100")]
    pub(super) layer: Vec<LayerParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct V1LayerParameter {
    #[prost(string, tag = "4")]
    pub(super) name: String,
    #[prost(int32, tag = "5")]
    pub(super) kind: i32,
    #[prost(message, repeated, tag = "6")]
    pub(super) blobs: Vec<BlobProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LayerParameter {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) kind: String,
    #[prost(message, repeated, tag = "7")]
    pub(super) blobs: Vec<BlobProto>,
    #[prost(message, optional, tag = "117")]
    pub(super) inner_product_param: Option<InnerProductParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InnerProductParameter {
    #[prost(bool, tag = "6")]
    pub(super) transpose: bool,
}

// `diff`, the gradients of a snapshot, is left out: nobody needs it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobProto {
    #[prost(int64, tag = "1")]
    pub(super) num: i64,
    #[prost(int64, tag = "2")]
    pub(super) channels: i64,
    #[prost(int64, tag = "3")]
    pub(super) height: i64,
    #[prost(int64, tag = "4")]
    pub(super) width: i64,
    #[prost(float, repeated, tag = "5")]
    pub(super) data: Vec<f32>,
    #[prost(message, optional, tag = "7")]
    pub(super) shape: Option<BlobShape>,
    #[prost(double, repeated, tag = "8")]
    pub(super) double_data: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobShape {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dim: Vec<i64>,
}

/// What a layer's type says about the rank of its weight.
#[derive(Clone, Copy, PartialEq)]
enum Weights {
    Matrix,
    Kernels,
    Untyped,
}

/// Reads a caffemodel into `LAYER.weight` and `LAYER.bias`, in the order of the file.
///
/// Layers without weights are skipped. Shapes are Caffe's: convolutions (out, in / groups,
/// height, width), deconvolutions (in, out / groups, height, width), fully connected layers
/// (out, in), biases (out). A matrix in the legacy four dimensions 1×1×out×in becomes (out, in),
/// a bias 1×1×1×n becomes (n). Values are f32; f64 is rounded.
///
/// # Errors
/// One [`CaffeError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8]) -> Result<Vec<NamedTensor>, CaffeError> {
    if bytes.starts_with(b"\x89HDF\r\n") {
        return Err(CaffeError::Hdf5);
    }
    wire::check_counts(bytes)?;
    let net = NetParameter::decode(bytes).map_err(|e| CaffeError::Protobuf {
        reason: e.to_string(),
    })?;
    if !net.layers.is_empty() && !net.layer.is_empty() {
        return Err(CaffeError::MixedLayers);
    }

    const V1_INNER_PRODUCT: i32 = 14;
    let old = net.layers.into_iter().map(|l| {
        let weights = match l.kind {
            V1_INNER_PRODUCT => Weights::Matrix,
            0 => Weights::Untyped,
            _ => Weights::Kernels,
        };
        (l.name, weights, false, l.blobs)
    });
    let new = net.layer.into_iter().map(|l| {
        let weights = match l.kind.as_str() {
            "InnerProduct" => Weights::Matrix,
            "" => Weights::Untyped,
            _ => Weights::Kernels,
        };
        let transposed = l.inner_product_param.is_some_and(|p| p.transpose);
        (l.name, weights, transposed, l.blobs)
    });

    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for (index, (layer, weights, transposed, blobs)) in old.chain(new).enumerate() {
        if blobs.is_empty() {
            continue;
        }
        if layer.is_empty() {
            return Err(CaffeError::Unnamed { index });
        }
        if blobs.len() > 2 {
            let count = blobs.len();
            return Err(CaffeError::ExtraBlobs { layer, count });
        }
        if transposed {
            return Err(CaffeError::Transposed { layer });
        }
        if !seen.insert(layer.clone()) {
            return Err(CaffeError::Duplicate { layer });
        }
        let mut blobs = blobs.into_iter();
        if let Some(blob) = blobs.next() {
            tensors.push(weight(format!("{layer}.weight"), weights, blob)?);
        }
        if let Some(blob) = blobs.next() {
            let mut bias = tensor(format!("{layer}.bias"), blob)?;
            drop_leading_ones(&mut bias, 1)?;
            tensors.push(bias);
        }
    }
    if tensors.is_empty() {
        return Err(CaffeError::NoWeights);
    }
    Ok(tensors)
}

fn weight(name: String, weights: Weights, blob: BlobProto) -> Result<NamedTensor, CaffeError> {
    let mut weight = tensor(name, blob)?;
    let matrix = match weights {
        Weights::Matrix => true,
        Weights::Kernels => false,
        // Nothing but a matrix has these dimensions, or a convolution of one map to one map,
        // which no network here has.
        Weights::Untyped => weight.shape.len() == 4 && weight.shape[..2] == [1, 1],
    };
    if matrix {
        drop_leading_ones(&mut weight, 2)?;
    }
    Ok(weight)
}

fn tensor(name: String, blob: BlobProto) -> Result<NamedTensor, CaffeError> {
    let dims = match blob.shape {
        Some(shape) => shape.dim,
        None => vec![blob.num, blob.channels, blob.height, blob.width],
    };
    // Caffe writes one of the two.
    let data: Vec<f32> = if blob.data.is_empty() {
        blob.double_data.iter().map(|v| *v as f32).collect()
    } else {
        blob.data
    };
    if data.is_empty() {
        return Err(CaffeError::NoValues { tensor: name });
    }
    let shape: Option<Vec<usize>> = dims
        .iter()
        .map(|d| usize::try_from(*d).ok().filter(|d| *d > 0))
        .collect();
    let counted = shape.and_then(|shape| {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        Some((shape, count))
    });
    let Some((shape, expected)) = counted else {
        return Err(CaffeError::ImpossibleShape {
            tensor: name,
            shape: dims,
        });
    };
    if data.len() != expected {
        return Err(CaffeError::Count {
            tensor: name,
            shape,
            expected,
            actual: data.len(),
        });
    }
    if let Some(index) = data.iter().position(|v| !v.is_finite()) {
        return Err(CaffeError::NotFinite {
            tensor: name,
            index,
            value: data[index],
        });
    }
    Ok(NamedTensor { name, shape, data })
}

fn drop_leading_ones(tensor: &mut NamedTensor, rank: usize) -> Result<(), CaffeError> {
    let surplus = tensor.shape.len().checked_sub(rank);
    match surplus {
        Some(n) if tensor.shape[..n].iter().all(|d| *d == 1) => {
            tensor.shape.drain(..n);
            Ok(())
        }
        _ => Err(CaffeError::WrongRank {
            tensor: tensor.name.clone(),
            shape: tensor.shape.clone(),
            rank,
        }),
    }
}

/// The protocol buffers' wire format, walked without decoding.
mod wire {
    use super::{CaffeError, MAX_BLOBS, MAX_LAYERS, MAX_SHAPE_BYTES};

    /// Refuses a file whose messages would need far more memory than their bytes: an empty
    /// message is two bytes in the file and a hundred in memory.
    pub(super) fn check_counts(net: &[u8]) -> Result<(), CaffeError> {
        let mut layers = 0;
        each_message(net, |tag, layer| {
            let blobs_tag = match tag {
                2 => 6,
                100 => 7,
                _ => return Ok(()),
            };
            count(&mut layers, 1, MAX_LAYERS, "layers")?;
            let mut blobs = 0;
            each_message(layer, |field, blob| {
                // A V1 layer holds a V0 layer in its field 1.
                if tag == 2 && field == 1 {
                    return Err(CaffeError::V0Layers);
                }
                if field != blobs_tag {
                    return Ok(());
                }
                count(&mut blobs, 1, MAX_BLOBS, "arrays in one layer")?;
                let mut shape_bytes = 0;
                each_message(blob, |field, shape| match field {
                    7 => count(
                        &mut shape_bytes,
                        shape.len(),
                        MAX_SHAPE_BYTES,
                        "bytes in one shape",
                    ),
                    _ => Ok(()),
                })
            })
        })
    }

    fn count(n: &mut usize, add: usize, limit: usize, what: &'static str) -> Result<(), CaffeError> {
        *n += add;
        if *n > limit {
            return Err(CaffeError::TooMany { what, limit });
        }
        Ok(())
    }

    /// Calls `visit` with the field number and the bytes of each length-delimited field.
    fn each_message(
        mut bytes: &[u8],
        mut visit: impl FnMut(usize, &[u8]) -> Result<(), CaffeError>,
    ) -> Result<(), CaffeError> {
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                }
                1 => {
                    take(&mut bytes, 8)?;
                }
                2 => {
                    let length = varint(&mut bytes)?;
                    visit(key >> 3, take(&mut bytes, length)?)?;
                }
                5 => {
                    take(&mut bytes, 4)?;
                }
                other => {
                    return Err(CaffeError::Protobuf {
                        reason: format!("wire type {other}, which Caffe does not use"),
                    });
                }
            }
        }
        Ok(())
    }

    fn varint(bytes: &mut &[u8]) -> Result<usize, CaffeError> {
        prost::decode_length_delimiter(bytes).map_err(|e| CaffeError::Protobuf {
            reason: e.to_string(),
        })
    }

    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], CaffeError> {
        let Some((taken, rest)) = bytes.split_at_checked(length) else {
            return Err(CaffeError::Protobuf {
                reason: format!("a field of {length} bytes, but {} are left", bytes.len()),
            });
        };
        *bytes = rest;
        Ok(taken)
    }
}
