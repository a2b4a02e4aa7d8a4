//! What the readers of both versions share: arrays, number formats, and what can be wrong.

use half::f16;

/// More values than any layer has for one stimulus (VGG19's first layer has 3.2 million).
pub(super) const MAX_VALUES: usize = 1 << 25;
/// As numpy's.
const MAX_RANK: usize = 32;
/// Variables that an error lists.
pub(super) const FEW: usize = 5;

/// Why bytes were not read as an array.
#[derive(Debug, thiserror::Error)]
pub enum MatError {
    /// Another format, or version 4.
    #[error(
        "not a .mat file of version 5 or 7.3; in Python, scipy.io.savemat(FILE, {{'feat': array}}) writes version 5"
    )]
    NoMat,
    /// Elements that do not fit their file.
    #[error("the file is cut short or damaged: {what}")]
    Damaged {
        /// What is not as it must be.
        what: &'static str,
    },
    /// Version 7.3 that the reader of HDF5 refuses.
    #[error(
        "the file is HDF5 and not readable: {reason}; version 5 has no HDF5 in it: in Python, \
         scipy.io.savemat(FILE, {{'feat': array}}), in MATLAB, save with -v7"
    )]
    Hdf {
        /// What the reader said.
        reason: String,
    },
    /// No variable of this name.
    #[error("the file has no variable `{wanted}`{}", has(found))]
    NoVariable {
        /// The name.
        wanted: String,
        /// Some of those that it has; none for HDF5, in which nothing else is looked at.
        found: Vec<String>,
    },
    /// A variable that is no array of real numbers.
    #[error("the variable `{variable}` is {what}, and no array of real numbers")]
    NotNumbers {
        /// Its name.
        variable: String,
        /// What it is.
        what: &'static str,
    },
    /// No values, too many of them, or too many dimensions.
    #[error(
        "the variable has the shape {shape:?}; arrays of 1 to {} values and at most {} dimensions are read",
        MAX_VALUES,
        MAX_RANK
    )]
    Shape {
        /// The beginning of it.
        shape: Vec<usize>,
    },
    /// NaN, infinity, or a number beyond single precision.
    #[error("value {} is {value:e}, which is no number that f32 holds", index + 1)]
    Value {
        /// Index into the values, last dimension fastest.
        index: usize,
        /// The value.
        value: f64,
    },
}

fn has(found: &[String]) -> String {
    if found.is_empty() {
        return "; save the features under this name".to_owned();
    }
    let more = if found.len() > FEW { ", …" } else { "" };
    let few: Vec<&str> = found.iter().take(FEW).map(String::as_str).collect();
    format!("; it has {}{more}", few.join(", "))
}

/// A name from a file, for an error.
pub(super) fn name(bytes: &[u8]) -> String {
    // No character has more than four bytes, and a name may have as many as the file.
    let bytes = &bytes[..bytes.len().min(40 * 4)];
    let text: String = String::from_utf8_lossy(bytes).chars().take(40).collect();
    text.escape_debug().to_string()
}

/// An array, last dimension fastest.
#[derive(Debug)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// How many values an array of this shape has.
pub(super) fn count(shape: &[usize]) -> Result<usize, MatError> {
    let product = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    product
        .filter(|n| (1..=MAX_VALUES).contains(n) && shape.len() <= MAX_RANK)
        .ok_or_else(|| MatError::Shape {
            shape: shape.iter().copied().take(MAX_RANK).collect(),
        })
}

/// Values whose first dimension is fastest, with the last one fastest. There are as many as the shape has, and at least
/// one.
pub(super) fn last_fastest(shape: &[usize], values: &[f64]) -> Vec<f64> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for size in shape {
        strides.push(stride);
        stride *= size;
    }
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[at]);
        for dim in (0..shape.len()).rev() {
            index[dim] += 1;
            at += strides[dim];
            if index[dim] < shape[dim] {
                break;
            }
            at -= strides[dim] * shape[dim];
            index[dim] = 0;
        }
    }
    out
}

/// A number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
}

impl Number {
    pub fn size(self) -> usize {
        match self {
            Number::I8 | Number::U8 => 1,
            Number::I16 | Number::U16 | Number::F16 => 2,
            Number::I32 | Number::U32 | Number::F32 => 4,
            Number::I64 | Number::U64 | Number::F64 => 8,
        }
    }

    /// All whole numbers in the bytes.
    pub fn values(self, bytes: &[u8], big_endian: bool) -> Vec<f64> {
        macro_rules! of {
            ($kind:ty) => {{
                let (values, _) = bytes.as_chunks();
                let value = |bytes: &[u8; size_of::<$kind>()]| {
                    if big_endian {
                        <$kind>::from_be_bytes(*bytes) as f64
                    } else {
                        <$kind>::from_le_bytes(*bytes) as f64
                    }
                };
                values.iter().map(value).collect()
            }};
        }
        match self {
            Number::I8 => of!(i8),
            Number::U8 => of!(u8),
            Number::I16 => of!(i16),
            Number::U16 => of!(u16),
            Number::I32 => of!(i32),
            Number::U32 => of!(u32),
            Number::I64 => of!(i64),
            Number::U64 => of!(u64),
            Number::F16 => {
                let (values, _) = bytes.as_chunks();
                let value = |bytes: &[u8; 2]| {
                    let value = if big_endian {
                        f16::from_be_bytes(*bytes)
                    } else {
                        f16::from_le_bytes(*bytes)
                    };
                    value.to_f64()
                };
                values.iter().map(value).collect()
            }
            Number::F32 => of!(f32),
            Number::F64 => of!(f64),
        }
    }
}
