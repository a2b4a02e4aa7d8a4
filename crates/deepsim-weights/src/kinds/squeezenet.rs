//! SqueezeNet 1.1, a whole ImageNet classifier, as the Python package ndf 0.1.4 carries it.
//!
//! `squeezenet_weights.pkl` is a pickle of a dictionary: the name of a layer, as in the network's release for
//! Caffe, and a list of its kernel and its bias, numpy arrays. Kernels are (height, width, in, out); they
//! become (out, in, height, width). The network takes BGR 0–255 minus Caffe's mean.

use crate::arrays::{Arrays, ArraysError};
use crate::tensor::NamedTensor;

/// Fire modules: number, input channels, channels of the squeeze convolution and of each expand convolution.
const FIRES: [(usize, usize, usize, usize); 8] = [
    (2, 64, 16, 64),
    (3, 128, 16, 64),
    (4, 128, 32, 128),
    (5, 256, 32, 128),
    (6, 256, 48, 192),
    (7, 384, 48, 192),
    (8, 384, 64, 256),
    (9, 512, 64, 256),
];

/// Name, kernel side, input and output channels of each convolution.
fn convolutions() -> Vec<(String, usize, usize, usize)> {
    let mut all = vec![("conv1".to_owned(), 3, 3, 64)];
    for (number, input, squeeze, expand) in FIRES {
        let name = |layer| format!("fire{number}/{layer}");
        all.push((name("squeeze1x1"), 1, input, squeeze));
        all.push((name("expand1x1"), 1, squeeze, expand));
        all.push((name("expand3x3"), 3, squeeze, expand));
    }
    all.push(("conv10".to_owned(), 1, 512, 1000));
    all
}

/// Reads `squeezenet_weights.pkl` into `LAYER.weight` (out, in, height, width) and `LAYER.bias` (out).
///
/// # Errors
/// One [`ArraysError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8]) -> Result<Vec<NamedTensor>, ArraysError> {
    let file = Arrays::read(bytes)?;
    let mut tensors = Vec::new();
    for (name, side, inputs, outputs) in convolutions() {
        let parts: [&[&str]; 2] = [&[&name, "0"], &[&name, "1"]];
        tensors.extend(file.convolution(&name, parts, (outputs, inputs, side))?);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> Vec<u8> {
        [
            b"X",
            &(name.len() as u32).to_le_bytes()[..],
            name.as_bytes(),
        ]
        .concat()
    }

    /// An array as numpy pickles it, whose values are their own positions.
    fn array(shape: &[usize]) -> Vec<u8> {
        let mut bytes =
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01("
                .to_vec();
        for size in shape {
            bytes.push(b'M');
            bytes.extend((*size as u16).to_le_bytes());
        }
        bytes.extend(b"tcnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B");
        let values: usize = shape.iter().product();
        bytes.extend((4 * values as u32).to_le_bytes());
        bytes.extend((0..values).flat_map(|v| (v as f32).to_le_bytes()));
        bytes.extend(b"tb");
        bytes
    }

    /// The package's layout; `change` may give a layer's kernel another shape.
    fn file(change: impl Fn(&str) -> Option<Vec<usize>>) -> Vec<u8> {
        let mut bytes = b"\x80\x03}".to_vec();
        for (name, side, inputs, outputs) in convolutions() {
            let shape = change(&name).unwrap_or_else(|| vec![side, side, inputs, outputs]);
            bytes.extend(text(&name));
            bytes.extend(b"](");
            bytes.extend(array(&shape));
            bytes.extend(array(&[outputs]));
            bytes.extend(b"es");
        }
        bytes.push(b'.');
        bytes
    }

    #[test]
    fn kernels_are_transposed_and_biases_are_kept() {
        let tensors = parse(&file(|_| None)).unwrap();
        assert_eq!(tensors.len(), 52);
        let find = |name: &str| tensors.iter().find(|t| t.name == name).unwrap();
        let kernel = find("fire4/expand3x3.weight");
        assert_eq!(kernel.shape, [128, 32, 3, 3]);
        let (o, i, h, w) = (101, 7, 2, 1);
        let at = ((o * 32 + i) * 3 + h) * 3 + w;
        assert_eq!(kernel.data[at], (((h * 3 + w) * 32 + i) * 128 + o) as f32);
        let bias = find("conv10.bias");
        assert_eq!(
            (bias.shape.as_slice(), bias.data[999]),
            (&[1000][..], 999.0)
        );
    }

    #[test]
    fn other_files_are_refused_with_what_is_wrong() {
        let refused = |bytes: &[u8], words: &str| {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{words} is not in: {error}");
        };
        refused(
            b"\x80\x03}.",
            "`conv1/0` should be there once and is there 0 times",
        );
        refused(b"\x80\x03cos\nsystem\n.", "`os.system`");
        let whole = file(|_| None);
        refused(&[&whole[..], b"x"].concat(), "1 bytes follow");
        refused(&whole[..whole.len() - 1], "before the pickle does");
        refused(
            &file(|name| (name == "conv1").then(|| vec![7, 7, 3, 96])),
            "`conv1/0` has shape [7, 7, 3, 96], but that layer has [3, 3, 3, 64]",
        );
    }
}
