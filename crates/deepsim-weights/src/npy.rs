//! numpy's `.npy` files: one array each.
//!
//! The header is a Python literal of three known keys. It is parsed here for just that form, which
//! is the only one that numpy writes; nothing is evaluated. Arrays of Python objects, which are
//! pickles, are refused.

use half::f16;

/// Larger files are not features of a data set that fits into memory.
pub(crate) const MAX_BYTES: u64 = 4 << 30;
/// numpy's own limit.
const MAX_RANK: usize = 32;

/// Why bytes were not read as an array.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// Another format.
    #[error("not a .npy file (it does not begin with \\x93NUMPY)")]
    NoNpy,
    /// A version that does not exist yet.
    #[error("the file is of version {major} of the .npy format; 1 to 3 are read")]
    Version {
        /// Its number.
        major: u8,
    },
    /// A header that is not as numpy writes it.
    #[error(
        "the header `{header}` is not as numpy writes it: \
         {{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }}"
    )]
    Header {
        /// Its beginning.
        header: String,
    },
    /// Another number format.
    #[error(
        "the array is of dtype {dtype}; float16, float32, float64 and whole numbers are read, \
         little-endian: in Python, numpy.save(FILE, array.astype('<f4'))"
    )]
    Dtype {
        /// Its dtype.
        dtype: String,
    },
    /// The other order.
    #[error(
        "the array is in Fortran order: in Python, numpy.save(FILE, numpy.ascontiguousarray(array))"
    )]
    Fortran,
    /// Dimensions beyond counting, or too many.
    #[error("the array has the impossible shape {shape:?}")]
    Shape {
        /// The beginning of it.
        shape: Vec<u64>,
    },
    /// Another number of bytes than the shape needs.
    #[error("an array of shape {shape:?} needs {expected} bytes but {actual} follow the header")]
    Length {
        /// Its shape.
        shape: Vec<usize>,
        /// How many it needs.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
    /// NaN or infinity among the values.
    #[error("the array holds {value} at position {index}")]
    NotFinite {
        /// Index into its values, last dimension fastest.
        index: usize,
        /// The value.
        value: f32,
        /// The array's shape.
        shape: Vec<usize>,
    },
    /// A number beyond the largest one in single precision.
    #[error(
        "the array holds {value:e} at position {index}, which is too large for f32 (at most 3.4e38)"
    )]
    TooLarge {
        /// Index into its values, last dimension fastest.
        index: usize,
        /// The value.
        value: f64,
        /// The array's shape.
        shape: Vec<usize>,
    },
}

/// Reads the bytes of a `.npy` file, as [`read_npy`](crate::read_npy).
///
/// # Errors
/// One [`NpyError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), NpyError> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(NpyError::NoNpy)?;
    let ([major, _minor], rest) = rest.split_first_chunk().ok_or(NpyError::NoNpy)?;
    let wide = match major {
        1 => false,
        2 | 3 => true,
        _ => return Err(NpyError::Version { major: *major }),
    };
    let no_header = |found: &[u8]| NpyError::Header {
        header: String::from_utf8_lossy(&found[..found.len().min(80)])
            .escape_debug()
            .to_string(),
    };
    let split = if wide {
        rest.split_first_chunk()
            .map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest))
    } else {
        rest.split_first_chunk()
            .map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest))
    };
    let (length, rest) = split.ok_or_else(|| no_header(b""))?;
    let (header, data) = rest
        .split_at_checked(length)
        .ok_or_else(|| no_header(rest))?;
    let header = std::str::from_utf8(header)
        .ok()
        .and_then(Header::parse)
        .ok_or_else(|| no_header(header))?;
    let convert = converter(header.dtype).ok_or_else(|| NpyError::Dtype {
        dtype: header
            .dtype
            .chars()
            .take(40)
            .collect::<String>()
            .escape_debug()
            .to_string(),
    })?;
    let impossible = || NpyError::Shape {
        shape: header.shape.iter().copied().take(MAX_RANK).collect(),
    };
    let sizes = header.shape.iter().map(|n| usize::try_from(*n).ok());
    let shape: Vec<usize> = sizes.collect::<Option<_>>().ok_or_else(impossible)?;
    // The order is no matter for vectors, which numpy may write as either.
    if header.fortran && shape.iter().filter(|n| **n > 1).count() > 1 {
        return Err(NpyError::Fortran);
    }
    let (size, convert) = convert;
    let expected = shape
        .iter()
        .try_fold(size, |n, d| n.checked_mul(*d))
        .filter(|_| shape.len() <= MAX_RANK)
        .ok_or_else(impossible)?;
    if data.len() != expected {
        let actual = data.len();
        return Err(NpyError::Length {
            shape,
            expected,
            actual,
        });
    }
    let values: Vec<f32> = data.chunks_exact(size).map(convert).collect();
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok((shape, values)),
        Some(index) => {
            let double = match (header.dtype, data[index * size..].first_chunk()) {
                ("<f8", Some(bytes)) => f64::from_le_bytes(*bytes),
                _ => f64::NAN,
            };
            Err(if double.is_finite() {
                NpyError::TooLarge {
                    index,
                    value: double,
                    shape,
                }
            } else {
                NpyError::NotFinite {
                    index,
                    value: values[index],
                    shape,
                }
            })
        }
    }
}

type Convert = fn(&[u8]) -> f32;

/// The size of a value of this dtype, and how to read one.
fn converter(dtype: &str) -> Option<(usize, Convert)> {
    macro_rules! of {
        ($kind:ty) => {
            (size_of::<$kind>(), |bytes: &[u8]| {
                let (value, _) = bytes.as_chunks();
                value
                    .first()
                    .map_or(f32::NAN, |v| <$kind>::from_le_bytes(*v) as f32)
            })
        };
    }
    Some(match dtype {
        "<f2" => (2, |bytes: &[u8]| {
            let (value, _) = bytes.as_chunks();
            value
                .first()
                .map_or(f32::NAN, |v| f16::from_le_bytes(*v).to_f32())
        }),
        "<f4" => of!(f32),
        "<f8" => of!(f64),
        "|b1" => (1, |bytes: &[u8]| {
            f32::from(u8::from(bytes.first().is_some_and(|b| *b != 0)))
        }),
        "|i1" => of!(i8),
        "|u1" => of!(u8),
        "<i2" => of!(i16),
        "<u2" => of!(u16),
        "<i4" => of!(i32),
        "<u4" => of!(u32),
        "<i8" => of!(i64),
        "<u8" => of!(u64),
        _ => return None,
    })
}

#[derive(Debug)]
struct Header<'a> {
    dtype: &'a str,
    fortran: bool,
    shape: Vec<u64>,
}

impl<'a> Header<'a> {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }` and padding; the keys may
    /// stand in any order.
    fn parse(text: &'a str) -> Option<Self> {
        let body = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        let mut rest = body.trim_start();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let after = after.trim_start().strip_prefix(':')?.trim_start();
            let (fresh, after) = match key {
                "descr" => {
                    let (value, after) = quoted(after)?;
                    (dtype.replace(value).is_none(), after)
                }
                "fortran_order" => {
                    let yes = after.strip_prefix("True").map(|after| (true, after));
                    let no = || after.strip_prefix("False").map(|after| (false, after));
                    let (value, after) = yes.or_else(no)?;
                    (fortran.replace(value).is_none(), after)
                }
                "shape" => {
                    let (inside, after) = after.strip_prefix('(')?.split_once(')')?;
                    (shape.replace(numbers(inside)?).is_none(), after)
                }
                _ => return None,
            };
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if after.is_empty() => after,
                None => return None,
            };
            if !fresh {
                return None;
            }
        }
        Some(Self {
            dtype: dtype?,
            fortran: fortran?,
            shape: shape?,
        })
    }
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let after = text.strip_prefix('\'')?;
    let (inside, after) = after.split_once('\'')?;
    (!inside.contains('\\')).then_some((inside, after))
}

/// `3, 4` or `3,` or nothing; `3L, 4L` as numpy wrote under Python 2.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let text = text.strip_suffix(',').unwrap_or(text);
    let digits = |n: &str| n.bytes().all(|b| b.is_ascii_digit());
    text.split(',')
        .map(|n| n.trim().strip_suffix('L').unwrap_or(n.trim()))
        .map(|n| Some(n).filter(|n| digits(n))?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [
            b"\x93NUMPY\x01\x00",
            length.as_slice(),
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    fn header(dtype: &str, shape: &str) -> String {
        format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}   \n")
    }

    fn file(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        npy(&header(dtype, shape), data)
    }

    #[test]
    fn every_number_format_becomes_f32() {
        let of = |dtype: &str, data: &[u8]| parse(&file(dtype, "(2,)", data)).unwrap();
        for (dtype, data) in [
            ("<f4", [1f32, 3.0].map(f32::to_le_bytes).concat()),
            ("<f8", [1f64, 3.0].map(f64::to_le_bytes).concat()),
            (
                "<f2",
                [f16::ONE, f16::from_f32(3.0)]
                    .map(f16::to_le_bytes)
                    .concat(),
            ),
            ("|u1", vec![1, 3]),
            ("|i1", vec![1, 3]),
            ("<i2", [1i16, 3].map(i16::to_le_bytes).concat()),
            ("<i8", [1i64, 3].map(i64::to_le_bytes).concat()),
            ("<u8", [1u64, 3].map(u64::to_le_bytes).concat()),
        ] {
            assert_eq!(of(dtype, &data), (vec![2], vec![1.0, 3.0]), "{dtype}");
        }
        let data = [1f32, -2.0, 3.0, 4.0, 5.0, 6.0]
            .map(f32::to_le_bytes)
            .concat();
        let (shape, values) = parse(&file("<f4", "(3, 2)", &data)).unwrap();
        assert_eq!((shape, values[1]), (vec![3, 2], -2.0));
        assert_eq!(
            parse(&file("<f4", "()", &data[..4])).unwrap().0,
            [0usize; 0]
        );
        // Version 2: a longer header.
        let text = header("<f4", "(1, 6)");
        let length = (text.len() as u32).to_le_bytes();
        let long = [
            b"\x93NUMPY\x02\x00",
            length.as_slice(),
            text.as_bytes(),
            &data,
        ];
        assert_eq!(parse(&long.concat()).unwrap().0, [1, 6]);
    }

    #[test]
    fn other_files_are_refused_with_what_is_wrong() {
        let data = [0; 8];
        let refused = |file: &[u8], words: &str| {
            let error = parse(file).unwrap_err().to_string();
            assert!(error.contains(words), "{words} is not in: {error}");
        };
        refused(b"PK\x03\x04", "not a .npy file");
        refused(b"\x93NUMPY\x09\x00", "version 9");
        refused(b"\x93NUMPY\x01\x00\xff\xff{'descr'", "header");
        refused(&file("|O", "(2,)", &data), "dtype |O");
        refused(&file(">f4", "(2,)", &data), "dtype >f4");
        refused(&file("<c8", "(1,)", &data), "dtype <c8");
        refused(&file("<f4", "(3,)", &data), "needs 12 bytes but 8 follow");
        refused(&file("<f4", "(1,)", &data), "needs 4 bytes but 8 follow");
        refused(&file("<f4", "(0,)", &data), "needs 0 bytes");
        refused(
            &file("<f4", "(4294967296, 4294967296)", &data),
            "impossible shape",
        );
        refused(&file("<f4", "(-2,)", &data), "header");
        refused(&file("<f4", "(99999999999999999999,)", &data), "header");
        refused(&file("<f4", "(__import__('os'),)", &data), "header");
        refused(
            &npy(
                &header("<f4", "(2,)").replace("False", "True"),
                &[0; 8][..4],
            ),
            "needs 8",
        );
        let fortran = header("<f4", "(2, 1, 2)").replace("False", "True");
        refused(&npy(&fortran, &[0; 16]), "Fortran");
        let twice = "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}";
        refused(&npy(twice, &data), "header");
        refused(&npy("{'descr': '<f4', 'shape': (2,)}", &data), "header");
        let nan = [1f32, f32::NAN].map(f32::to_le_bytes).concat();
        refused(&file("<f4", "(2,)", &nan), "NaN at position 1");
        let huge = [1f64, 1e300].map(f64::to_le_bytes).concat();
        refused(
            &file("<f8", "(2,)", &huge),
            "1e300 at position 1, which is too large for f32",
        );
        let inf = [1f64, f64::INFINITY].map(f64::to_le_bytes).concat();
        refused(&file("<f8", "(2,)", &inf), "inf at position 1");
        refused(&file("<f4", "(2LL,)", &data), "header");
        refused(&file("<f4", "(L,)", &data), "header");
    }

    #[test]
    fn headers_of_python_2_and_truth_values_are_read() {
        let data = [1f32, -2.0, 3.0, 4.0, 5.0, 6.0]
            .map(f32::to_le_bytes)
            .concat();
        let (shape, _) = parse(&file("<f4", "(3L, 2L)", &data)).unwrap();
        assert_eq!(shape, [3, 2]);
        assert_eq!(parse(&file("<f4", "(6L,)", &data)).unwrap().0, [6]);
        let truth = parse(&file("|b1", "(3,)", &[1, 0, 1])).unwrap();
        assert_eq!(truth, (vec![3], vec![1.0, 0.0, 1.0]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            noise in prop::collection::vec(any::<u8>(), 0..100), cut in 0..90usize, at in 0..90usize, flip: u8,
        ) {
            let _ = parse(&noise);
            let _ = parse(&[b"\x93NUMPY\x01\x00".as_slice(), &noise].concat());
            let mut file = file("<f4", "(2,)", &[0; 8]);
            let cut = cut % file.len();
            prop_assert!(parse(&file[..cut]).is_err());
            let at = at % file.len();
            file[at] ^= flip;
            if let Ok((shape, values)) = parse(&file) {
                prop_assert_eq!(shape.iter().product::<usize>(), values.len());
            }
        }
    }
}
