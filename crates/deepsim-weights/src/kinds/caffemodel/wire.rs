//! The protocol buffers' wire format, walked without decoding.

use super::CaffeError;

/// More layers than any published Caffe network has by far.
const MAX_LAYERS: usize = 4096;
/// More parameter arrays in one layer than any layer of Caffe has.
const MAX_BLOBS: usize = 64;
/// Caffe's own limit of 32 dimensions, at 10 bytes each at most, and their framing.
const MAX_SHAPE_BYTES: usize = 32 * 10 + 16;

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
