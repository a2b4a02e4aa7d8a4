//! Storages, and tensors as views of them.

use half::{bf16, f16};

use super::{Result, TorchError};

/// PyTorch's limit is 64, numpy's 32; no weights have more than 5.
const MAX_RANK: usize = 32;

/// A number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 16 bits.
    Float16,
    /// The upper half of a `Float32`.
    BFloat16,
    /// 32 bits.
    Float32,
    /// 64 bits.
    Float64,
    /// Whole numbers, or truth values, of this many bytes.
    Whole(usize),
}

impl Dtype {
    /// The format of a storage class, given as `torch.FloatStorage`.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        Some(match class.strip_prefix("torch.")? {
            "HalfStorage" => Dtype::Float16,
            "BFloat16Storage" => Dtype::BFloat16,
            "FloatStorage" => Dtype::Float32,
            "DoubleStorage" => Dtype::Float64,
            "LongStorage" => Dtype::Whole(8),
            "IntStorage" => Dtype::Whole(4),
            "ShortStorage" => Dtype::Whole(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Dtype::Whole(1),
            _ => return None,
        })
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Dtype::Float16 | Dtype::BFloat16 => 2,
            Dtype::Float32 => 4,
            Dtype::Float64 => 8,
            Dtype::Whole(size) => size,
        }
    }

    /// Whether values are floating-point numbers.
    pub fn is_float(self) -> bool {
        !matches!(self, Dtype::Whole(_))
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dtype::Float16 => f.write_str("float16"),
            Dtype::BFloat16 => f.write_str("bfloat16"),
            Dtype::Float32 => f.write_str("float32"),
            Dtype::Float64 => f.write_str("float64"),
            Dtype::Whole(size) => write!(f, "whole numbers of {} bits", 8 * size),
        }
    }
}

/// An array of values that the file stores under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    pub(super) key: &'a str,
    /// Number of values.
    pub(super) length: usize,
}

impl Storage<'_> {
    /// Its size in bytes; `None` where that is beyond counting.
    pub(super) fn bytes(&self) -> Option<usize> {
        self.length.checked_mul(self.dtype.size())
    }
}

/// A tensor: which values of its storage it has, in which order.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
    count: usize,
    /// Whether the values are the negatives of those in the storage.
    negative: bool,
}

impl<'a> View<'a> {
    /// Refuses what does not lie inside its storage.
    pub(super) fn new(
        name: &str,
        storage: Storage<'a>,
        offset: i64,
        shape: &[i64],
        strides: &[i64],
    ) -> Result<Self> {
        let impossible = || TorchError::Impossible {
            tensor: name.to_owned(),
            shape: shape.iter().copied().take(MAX_RANK).collect(),
            strides: strides.iter().copied().take(MAX_RANK).collect(),
            offset,
        };
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
            return Err(impossible());
        }
        if shape.contains(&0) && shape.iter().all(|n| *n >= 0) {
            return Err(TorchError::EmptyTensor {
                tensor: name.to_owned(),
                shape: shape.to_vec(),
            });
        }
        let whole = |numbers: &[i64], least: i64| {
            let number = |n: &i64| usize::try_from(*n).ok().filter(|_| *n >= least);
            numbers.iter().map(number).collect::<Option<Vec<usize>>>()
        };
        let view = (|| {
            let shape = whole(shape, 1)?;
            let strides = whole(strides, 0)?;
            let offset = usize::try_from(offset).ok()?;
            let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(offset, |at, (size, stride)| {
                    at.checked_add((size - 1).checked_mul(*stride)?)
                })?;
            Some((
                last,
                View {
                    storage,
                    offset,
                    shape,
                    strides,
                    count,
                    negative: false,
                },
            ))
        })();
        let (last, view) = view.ok_or_else(impossible)?;
        if last >= storage.length {
            return Err(TorchError::Outside {
                tensor: name.to_owned(),
                last,
                length: storage.length,
            });
        }
        Ok(view)
    }

    /// The same, but with the negatives of the stored values.
    pub(super) fn negated(self, negative: bool) -> Self {
        View { negative, ..self }
    }

    /// Number of values.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Dimensions.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in the order of the shape, out of the storage's `bytes`.
    pub(super) fn gather(&self, name: &str, bytes: &[u8]) -> Result<Vec<f32>> {
        let values = match self.storage.dtype {
            Dtype::Float16 => self.pick(bytes, |v| f16::from_le_bytes(v).to_f32()),
            Dtype::BFloat16 => self.pick(bytes, |v| bf16::from_le_bytes(v).to_f32()),
            Dtype::Float32 => self.pick(bytes, f32::from_le_bytes),
            Dtype::Float64 => self.pick(bytes, |v| f64::from_le_bytes(v) as f32),
            Dtype::Whole(_) => None,
        };
        let values = values.ok_or_else(|| TorchError::Outside {
            tensor: name.to_owned(),
            last: self.offset + self.count,
            length: bytes.len() / self.storage.dtype.size(),
        })?;
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let tensor = name.to_owned();
            let stored = match self.storage.dtype {
                Dtype::Float64 => self.pick(bytes, f64::from_le_bytes),
                _ => None,
            };
            return Err(match stored.and_then(|stored| stored.get(index).copied()) {
                Some(value) if value.is_finite() => TorchError::TooLarge {
                    tensor,
                    index,
                    value,
                },
                _ => TorchError::NotFinite {
                    tensor,
                    index,
                    value: values[index],
                },
            });
        }
        if self.negative {
            Ok(values.into_iter().map(|v| -v).collect())
        } else {
            Ok(values)
        }
    }

    fn pick<const N: usize, T>(
        &self,
        bytes: &[u8],
        convert: impl Fn([u8; N]) -> T,
    ) -> Option<Vec<T>> {
        let (stored, _) = bytes.as_chunks::<N>();
        if self.is_contiguous() {
            let stored = stored.get(self.offset..self.offset + self.count)?;
            return Some(stored.iter().map(|v| convert(*v)).collect());
        }
        let mut values = Vec::with_capacity(self.count);
        let mut position = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..self.count {
            values.push(convert(*stored.get(at)?));
            // As an odometer: the last dimension turns fastest.
            for dim in (0..position.len()).rev() {
                position[dim] += 1;
                at += self.strides[dim];
                if position[dim] < self.shape[dim] {
                    break;
                }
                at -= self.strides[dim] * self.shape[dim];
                position[dim] = 0;
            }
        }
        Some(values)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        let dims = self.shape.iter().zip(&self.strides).rev();
        for (size, stride) in dims {
            if *size > 1 && *stride != expected {
                return false;
            }
            expected *= size;
        }
        true
    }
}
