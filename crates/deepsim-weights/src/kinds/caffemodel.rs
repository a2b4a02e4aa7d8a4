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

mod error;
mod schema;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashSet;

use prost::Message;

use crate::tensor::NamedTensor;
pub use error::CaffeError;
use schema::{BlobProto, NetParameter};

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
    let legacy = [blob.num, blob.channels, blob.height, blob.width];
    let dims = match blob.shape {
        // No dimensions at all is a single value, unless the legacy ones say otherwise.
        Some(shape) if !shape.dim.is_empty() || legacy == [0; 4] => shape.dim,
        _ => legacy.to_vec(),
    };
    // Caffe writes one of the two.
    let double = blob.double_data;
    let large = double
        .iter()
        .position(|v| v.is_finite() && (*v as f32).is_infinite());
    if let Some(index) = large.filter(|_| blob.data.is_empty()) {
        return Err(CaffeError::TooLarge {
            tensor: name,
            index,
            value: double[index],
        });
    }
    let data: Vec<f32> = if blob.data.is_empty() {
        double.iter().map(|v| *v as f32).collect()
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
