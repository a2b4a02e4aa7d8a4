//! Version 7.3: HDF5, mostly behind a block of 512 bytes.

use hdf5_reader::{ByteOrder, Dataset, Datatype, Hdf5File, OpenOptions};

use super::array::{Array, MAX_VALUES, MatError, Number, count, last_fastest, name};

/// How an HDF5 file begins, at the start or behind a block of 512 bytes or twice that, and so on.
const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
const BLOCKS: [usize; 5] = [0, 512, 1024, 2048, 4096];
/// The attribute that says which class of MATLAB an array is: dimensions are reversed then.
const CLASS: &str = "MATLAB_class";
/// The attribute in which hdf5storage keeps the shape that numpy's array had.
const SHAPE: &str = "Python.Shape";
/// Bytes of values and of a description that are read.
const MAX_READ: usize = MAX_VALUES * 8;
const MAX_DESCRIPTION: usize = 1 << 20;

/// Whether the bytes are HDF5.
pub(super) fn is(bytes: &[u8]) -> bool {
    BLOCKS
        .iter()
        .any(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(MAGIC)))
}

/// The array `variable` at the root.
pub(super) fn parse(bytes: &[u8], variable: &str) -> Result<Array, MatError> {
    let options = OpenOptions::default()
        .with_max_chunk_bytes(MAX_READ)
        .with_max_read_bytes(MAX_READ)
        .with_max_object_header_bytes(MAX_DESCRIPTION);
    let file = Hdf5File::from_bytes_with_options(bytes, options).map_err(refused)?;
    let root = file.root_group().map_err(refused)?;
    let (_, found) = root.member_names().map_err(refused)?;
    if !found.iter().any(|found| found == variable) {
        let found = found.iter().map(|found| name(found.as_bytes())).collect();
        return Err(MatError::NoVariable {
            wanted: variable.to_owned(),
            found,
        });
    }
    let dataset = root.dataset(variable).map_err(refused)?;
    let not_numbers = |what| MatError::NotNumbers {
        variable: variable.to_owned(),
        what,
    };
    let Some((number, big_endian)) = number(dataset.dtype()) else {
        return Err(not_numbers("of another type (text, cells, complex)"));
    };
    let shape = sizes(dataset.shape());
    let all = count(&shape)?;
    let bytes = dataset.read_raw_bytes().map_err(refused)?;
    if bytes.len() != all * number.size() {
        return Err(MatError::Damaged {
            what: "a variable has another number of values than its shape",
        });
    }
    let values = number.values(&bytes, big_endian);
    let mut array = if dataset.attribute(CLASS).is_ok() {
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

fn number(datatype: &Datatype) -> Option<(Number, bool)> {
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
                _ => return None,
            };
            (number, byte_order)
        }
        Datatype::FloatingPoint { size, byte_order } => {
            let number = match size {
                2 => Number::F16,
                4 => Number::F32,
                8 => Number::F64,
                _ => return None,
            };
            (number, byte_order)
        }
        _ => return None,
    };
    Some((number, matches!(order, ByteOrder::BigEndian)))
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
