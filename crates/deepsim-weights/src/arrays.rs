//! Pickles of nested dictionaries and lists of numpy arrays, as networks in Python packages come.

use crate::numpy::{self, ArrayError};
use crate::pickle::{Node, Pickle, PickleError, Value};
use crate::tensor::NamedTensor;

/// Why a pickle does not give the arrays that are asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ArraysError {
    /// Not a pickle, or one that names something else than numpy arrays.
    #[error("no pickle of numpy arrays: {0}")]
    Pickle(#[from] PickleError),
    /// Bytes after the pickle.
    #[error("{count} bytes follow the pickle: the file is damaged or of another kind")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A part that is not there, or there twice.
    #[error("`{key}` should be there once and is there {count} times")]
    Missing {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// How often it is there.
        count: usize,
    },
    /// A part that is no array.
    #[error("`{key}` {reason}")]
    Array {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// Why not.
        reason: ArrayError,
    },
    /// Another shape than that layer has.
    #[error("`{key}` has shape {actual:?}, but that layer has {expected:?}")]
    Shape {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// Its shape.
        actual: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// NaN or infinity among the weights.
    #[error("`{key}` holds {value} at position {index}: the file is damaged")]
    NotFinite {
        /// Its keys from the top, joined by slashes.
        key: String,
        /// Index into its values.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// A pickle that was read; its arrays are looked up by their keys.
#[derive(Debug)]
pub(crate) struct Arrays<'a>(Pickle<'a>);

impl<'a> Arrays<'a> {
    /// Reads the bytes as one pickle.
    ///
    /// # Errors
    /// What is no pickle of arrays alone, and bytes after it.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, ArraysError> {
        let pickle = Pickle::read(bytes, numpy::GLOBALS)?;
        match bytes.len() - pickle.length() {
            0 => Ok(Self(pickle)),
            count => Err(ArraysError::Trailing { count }),
        }
    }

    /// Whether the dictionary at the top has this key.
    pub(crate) fn holds(&self, key: &str) -> bool {
        let top = self.0.entries(self.0.root()).unwrap_or_default();
        top.iter().any(|(k, _)| *k == Value::Str(key))
    }

    /// The array below these keys, which must have this shape. The parts of a list are named by their
    /// numbers, from 0.
    ///
    /// # Errors
    /// One that is missing, there twice, of another shape, or not finite.
    pub(crate) fn array(&self, path: &[&str], expected: &[usize]) -> Result<Vec<f32>, ArraysError> {
        let key = || path.join("/");
        let mut value = self.0.root();
        for name in path {
            let found = self.parts(value, name);
            let [below] = found[..] else {
                return Err(ArraysError::Missing {
                    key: key(),
                    count: found.len(),
                });
            };
            value = below;
        }
        let array = numpy::array(&self.0, value)
            .map_err(|reason| ArraysError::Array { key: key(), reason })?;
        if array.shape != expected {
            return Err(ArraysError::Shape {
                key: key(),
                actual: array.shape,
                expected: expected.to_vec(),
            });
        }
        let values = array.values();
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(index) => Err(ArraysError::NotFinite {
                key: key(),
                index,
                value: values[index],
            }),
        }
    }

    /// A convolution whose kernel and bias lie below these keys: `NAME.weight` (out, in, height, width), which is stored
    /// as (height, width, in, out), and `NAME.bias`.
    ///
    /// # Errors
    /// As [`Arrays::array`].
    pub(crate) fn convolution(
        &self,
        name: &str,
        [kernel, bias]: [&[&str]; 2],
        (outputs, inputs, side): (usize, usize, usize),
    ) -> Result<[NamedTensor; 2], ArraysError> {
        let hwio = self.array(kernel, &[side, side, inputs, outputs])?;
        let bias = self.array(bias, &[outputs])?;
        Ok([
            NamedTensor {
                name: format!("{name}.weight"),
                shape: vec![outputs, inputs, side, side],
                data: oihw(&hwio, side * side, inputs, outputs),
            },
            NamedTensor {
                name: format!("{name}.bias"),
                shape: vec![outputs],
                data: bias,
            },
        ])
    }

    /// The parts of this name of a dictionary or list.
    fn parts(&self, value: Value<'a>, name: &str) -> Vec<Value<'a>> {
        if let Some(Node::List(parts)) = self.0.node(value) {
            let index = name.parse::<usize>().ok();
            return index
                .and_then(|i| parts.get(i).copied())
                .into_iter()
                .collect();
        }
        let entries = self.0.entries(value).unwrap_or_default();
        let named = entries.into_iter().filter(|(k, _)| *k == Value::Str(name));
        named.map(|(_, below)| below).collect()
    }
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
