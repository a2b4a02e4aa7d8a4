//! Version 7.3: HDF5, mostly behind a block of 512 bytes.

use std::sync::Arc;

use hdf5_reader::error::Error;
use hdf5_reader::{ByteOrder, Dataset, Datatype, Hdf5File, OpenOptions};

use super::array::{Array, MatError, Number, count, last_fastest};
use super::limits::{FILTERS, MAX_RANGE, MAX_READ, Metered, filters};

/// How an HDF5 file begins, at the start or behind a block of 512 bytes or twice that, and so on.
const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
const BLOCKS: [usize; 5] = [0, 512, 1024, 2048, 4096];
/// The attribute that says which class of MATLAB an array is: dimensions are reversed then.
const CLASS: &str = "MATLAB_class";
/// The attribute in which hdf5storage keeps the shape that numpy's array had.
const SHAPE: &str = "Python.Shape";
/// The attributes that say that an array has no values, and that what is kept are its sizes: MATLAB's, hdf5storage's.
const EMPTY: [&str; 2] = ["MATLAB_empty", "Python.Empty"];

/// Whether the bytes are HDF5.
pub(super) fn is(bytes: &[u8]) -> bool {
    BLOCKS
        .iter()
        .any(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(MAGIC)))
}

/// The array `variable` at the root. Nothing else in the file is opened.
pub(super) fn parse(bytes: &[u8], variable: &str) -> Result<Array, MatError> {
    let metered = Arc::new(Metered::new(bytes));
    // Each chunk is read once.
    let options = OpenOptions::default()
        .with_filter_registry(filters(&metered))
        .with_chunk_cache_bytes(0)
        .with_max_chunk_bytes(MAX_READ)
        .with_max_read_bytes(MAX_READ)
        .with_max_object_header_bytes(MAX_RANGE);
    let file = Hdf5File::from_storage_with_options(metered.clone(), options).map_err(refused)?;
    let root = file.root_group().map_err(refused)?;
    let not_numbers = |what: &'static str| MatError::NotNumbers {
        variable: variable.to_owned(),
        what,
    };
    let dataset = match root.dataset(variable) {
        Err(Error::DatasetNotFound(_)) if root.group(variable).is_ok() => {
            return Err(not_numbers("a structure or a sparse matrix"));
        }
        Err(Error::DatasetNotFound(_)) => {
            return Err(MatError::NoVariable {
                wanted: variable.to_owned(),
                found: Vec::new(),
            });
        }
        read => read.map_err(refused)?,
    };
    let class = dataset.attribute(CLASS).ok();
    if let Some(class) = &class {
        let class = class.read_string().map_err(refused)?;
        if let Some(what) = other(&class) {
            return Err(not_numbers(what));
        }
    }
    if is_empty(&dataset) {
        return Err(MatError::Shape { shape: vec![0] });
    }
    let raw = dataset.raw_datatype().map_err(refused)?;
    let (number, big_endian) = number(dataset.dtype(), &raw).map_err(not_numbers)?;
    let shape = sizes(dataset.shape());
    let all = count(&shape)?;
    metered.values_follow(filtered(&dataset, &shape, number.size()));
    let bytes = dataset.read_raw_bytes().map_err(refused)?;
    if bytes.len() != all * number.size() {
        return Err(MatError::Damaged {
            what: "a variable has another number of values than its shape",
        });
    }
    let values = number.values(&bytes, big_endian);
    let mut array = if class.is_some() {
        let shape: Vec<usize> = shape.into_iter().rev().collect();
        Array {
            values: last_fastest(&shape, &values),
            shape,
        }
    } else {
        Array { shape, values }
    };
    if let Some(shape) = python_shape(&dataset)
        && count(&shape)? == all
    {
        array.shape = shape;
    }
    Ok(array)
}

fn refused(error: impl std::fmt::Display) -> MatError {
    let text: String = error.to_string().chars().take(200).collect();
    MatError::Hdf {
        reason: text.escape_debug().to_string(),
    }
}

fn sizes(sizes: &[u64]) -> Vec<usize> {
    // What does not fit is refused as too many values.
    let size = |size: &u64| usize::try_from(*size).unwrap_or(usize::MAX);
    sizes.iter().map(size).collect()
}

/// What an array's class is called, where it holds no numbers.
fn other(class: &str) -> Option<&'static str> {
    Some(match class {
        "single" | "double" | "logical" => return None,
        "int8" | "int16" | "int32" | "int64" => return None,
        "uint8" | "uint16" | "uint32" | "uint64" => return None,
        "char" => "text",
        "cell" => "a cell array",
        "struct" => "a structure",
        _ => "of a class that is not known here",
    })
}

/// One that says neither yes nor no is taken for a yes.
fn is_empty(dataset: &Dataset) -> bool {
    EMPTY.iter().any(|name| {
        let noted = dataset.attribute(name);
        noted.is_ok_and(|noted| !noted.read_as_f64().is_ok_and(|flag| flag == 0.0))
    })
}

/// Bytes that filters may give for all chunks: what each holds, and a little more where one follows another.
fn filtered(dataset: &Dataset, shape: &[usize], size: usize) -> usize {
    let Some(chunk) = dataset.chunks() else {
        return 0;
    };
    let sides = chunk.iter().map(|side| *side as usize);
    let bytes = sides.clone().fold(size, usize::saturating_mul);
    let along = shape.iter().zip(sides);
    let count = along
        .map(|(size, side)| size.div_ceil(side.max(1)))
        .fold(1, usize::saturating_mul);
    count
        .saturating_mul(bytes.saturating_add(1 << 10))
        .min(MAX_READ)
        .saturating_mul(FILTERS)
}

/// The number format, and whether it is big-endian. `raw` is the datatype message, which begins with eight bytes of
/// class, order and size; the crate drops what follows: the place and length of a number's parts.
fn number(datatype: &Datatype, raw: &[u8]) -> Result<(Number, bool), &'static str> {
    const OWN: &str = "of a number format of its own";
    let properties = raw.get(8..).unwrap_or_default();
    let (number, order) = match datatype {
        Datatype::FixedPoint {
            size,
            signed,
            byte_order,
        } => {
            let number = match (size, signed) {
                (1, true) => Number::I8,
                (1, false) => Number::U8,
                (2, true) => Number::I16,
                (2, false) => Number::U16,
                (4, true) => Number::I32,
                (4, false) => Number::U32,
                (8, true) => Number::I64,
                (8, false) => Number::U64,
                _ => return Err(OWN),
            };
            // Bits: the first, and how many.
            if !properties.starts_with(&[0, 0, size * 8, 0]) {
                return Err(OWN);
            }
            (number, byte_order)
        }
        Datatype::FloatingPoint { size, byte_order } => {
            // Bits: the first, and how many; the exponent's and the mantissa's; the bias.
            let (number, ieee) = match size {
                2 => (Number::F16, [0, 0, 16, 0, 10, 5, 0, 10, 15, 0, 0, 0]),
                4 => (Number::F32, [0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0]),
                8 => (Number::F64, [0, 0, 64, 0, 52, 11, 0, 52, 255, 3, 0, 0]),
                _ => return Err(OWN),
            };
            // No VAX, a mantissa whose first bit is left out, and the sign in the last bit.
            let signs =
                matches!(raw, [_, bits, sign, ..] if bits & 0x70 == 0x20 && *sign == size * 8 - 1);
            if !signs || !properties.starts_with(&ieee) {
                return Err(OWN);
            }
            (number, byte_order)
        }
        // h5py's truth values; the format of the numbers stands in the place of the properties.
        Datatype::Enum { base, members } => {
            let names = members.iter().map(|member| member.name.as_str());
            let number = number(base, properties)?;
            if !names.eq(["FALSE", "TRUE"]) || number.0.size() != 1 {
                return Err("an enumeration");
            }
            return Ok(number);
        }
        _ => return Err("of another type (text, cells, complex)"),
    };
    Ok((number, matches!(order, ByteOrder::BigEndian)))
}

/// The shape that hdf5storage noted: MATLAB's has at least two dimensions, numpy's need not.
fn python_shape(dataset: &Dataset) -> Option<Vec<usize>> {
    let attribute = dataset.attribute(SHAPE).ok()?;
    let noted = attribute.read_1d::<u64>().ok();
    let noted = noted.or_else(|| {
        let noted = attribute.read_1d::<i64>().ok()?;
        noted
            .into_iter()
            .map(|size| u64::try_from(size).ok())
            .collect()
    })?;
    Some(sizes(&noted))
}
