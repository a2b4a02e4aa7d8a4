//! Arrays as numpy pickles them, and the number formats that files of weights come in.

use crate::pickle::{Pickle, Value};

/// What a pickle of numpy arrays may name; numpy 2 moved one of them.
pub const GLOBALS: &[&str] = &[
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
];

/// An array of a pickle, its bytes still in the file.
#[derive(Debug, PartialEq)]
pub struct Array<'a> {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Little-endian f32, last dimension fastest.
    pub bytes: &'a [u8],
}

impl Array<'_> {
    /// The values.
    pub fn values(&self) -> Vec<f32> {
        let (values, _) = self.bytes.as_chunks();
        values.iter().map(|v| f32::from_le_bytes(*v)).collect()
    }
}

/// Why a value of a pickle is no array that is read here.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// Something else than an array.
    #[error("is {kind}, not a numpy array")]
    NoArray {
        /// What it is.
        kind: &'static str,
    },
    /// An array whose description is not as numpy writes it.
    #[error("is a numpy array without a usable {part}")]
    Malformed {
        /// The part.
        part: &'static str,
    },
    /// Another number format.
    #[error("is of dtype {dtype}; only little-endian float32 (<f4) in C order is read")]
    Dtype {
        /// Its dtype.
        dtype: String,
    },
    /// Another number of bytes than the shape needs.
    #[error("of shape {shape:?} needs {expected} bytes but has {actual}")]
    Length {
        /// Its shape.
        shape: Vec<usize>,
        /// How many it needs.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
}

/// Dimensions that numpy's arrays have at most.
const DIMENSIONS: usize = 64;

/// The array that `value` describes.
///
/// # Errors
/// Anything but a little-endian float32 array in C order that has as many bytes as its shape needs.
pub fn array<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Array<'a>, ArrayError> {
    let malformed = |part| ArrayError::Malformed { part };
    let made = GLOBALS[..2]
        .iter()
        .find_map(|name| pickle.object(value, name));
    let Some(object) = made else {
        let kind = pickle.kind(value);
        return Err(ArrayError::NoArray { kind });
    };
    if pickle.args(object).first() != Some(&Value::Global("numpy.ndarray")) {
        return Err(malformed("class"));
    }
    let state = object.state.and_then(|state| pickle.tuple(state));
    let Some([Value::Int(1), shape, dtype, order, data]) = state else {
        return Err(malformed("state"));
    };
    let dtype = dtype_of(pickle, *dtype).ok_or(malformed("dtype"))?;
    if dtype != "<f4" || *order != Value::Bool(false) {
        let order = if *order == Value::Bool(false) {
            ""
        } else {
            " in Fortran order"
        };
        return Err(ArrayError::Dtype {
            dtype: dtype.escape_debug().to_string() + order,
        });
    }
    let Value::Bytes(bytes) = *data else {
        return Err(malformed("data"));
    };
    let shape = pickle.tuple(*shape).filter(|all| all.len() <= DIMENSIONS);
    let shape = shape.and_then(sizes);
    let counted = shape.and_then(|shape| {
        let length = shape.iter().try_fold(4usize, |n, d| n.checked_mul(*d))?;
        Some((shape, length))
    });
    let (shape, expected) = counted.ok_or(malformed("shape"))?;
    if bytes.len() != expected {
        let actual = bytes.len();
        return Err(ArrayError::Length {
            shape,
            expected,
            actual,
        });
    }
    Ok(Array { shape, bytes })
}

/// Byte order and type, such as `<f4`.
fn dtype_of<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<String> {
    let object = pickle.object(value, "numpy.dtype")?;
    let Some(Value::Str(kind)) = pickle.args(object).first() else {
        return None;
    };
    let state = pickle.tuple(object.state?)?;
    let Some(Value::Str(order)) = state.get(1) else {
        return None;
    };
    // A dtype with fields has them in its state.
    let plain = state.get(2..5)?.iter().all(|v| *v == Value::None);
    (plain && kind.len() + order.len() < 20).then(|| format!("{order}{kind}"))
}

/// Whole numbers above 0.
pub fn sizes(values: &[Value<'_>]) -> Option<Vec<usize>> {
    let size = |value: &Value<'_>| match value {
        Value::Int(n) => usize::try_from(*n).ok().filter(|n| *n > 0),
        _ => None,
    };
    values.iter().map(size).collect()
}
