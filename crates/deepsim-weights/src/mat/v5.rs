//! Version 5: a header of 128 bytes, then elements, each a tag of type and length and its data.
//!
//! Layout after MathWorks, "MAT-File Format" (Level 5).

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::array::{Array, FEW, MAX_VALUES, MatError, Number, count, last_fastest, name};

const HEADER: usize = 128;
/// Types of elements.
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Flag of arrays with imaginary parts.
const COMPLEX: u32 = 0x0800;
/// What compressed variables may grow to, all together.
const MAX_INFLATED: usize = MAX_VALUES * 8 + (1 << 20);

/// The number format of an element's type.
fn number(kind: u32) -> Option<Number> {
    Some(match kind {
        1 => Number::I8,
        2 => Number::U8,
        3 => Number::I16,
        4 => Number::U16,
        5 => Number::I32,
        6 => Number::U32,
        7 => Number::F32,
        9 => Number::F64,
        12 => Number::I64,
        13 => Number::U64,
        _ => return None,
    })
}

/// What an array's class is called, where it holds no numbers.
fn other(class: u32) -> Option<&'static str> {
    Some(match class {
        6..=15 => return None,
        1 => "a cell array",
        2 => "a structure",
        3 => "an object",
        4 => "text",
        5 => "a sparse matrix",
        _ => "of a class that is not known here",
    })
}

fn damaged(what: &'static str) -> MatError {
    MatError::Damaged { what }
}

fn word(bytes: [u8; 4], big_endian: bool) -> u32 {
    if big_endian {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    }
}

/// An element.
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

/// The first element and what follows it.
fn element(bytes: &[u8], big_endian: bool) -> Result<(Element<'_>, &[u8]), MatError> {
    let short = || damaged("an element is longer than what is left");
    let (tag, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let tag = word(*tag, big_endian);
    if tag >> 16 != 0 {
        // A small element: its length stands beside its type, its data in the place of the length.
        let (data, rest) = rest.split_at_checked(4).ok_or_else(short)?;
        let data = data.get(..(tag >> 16) as usize).ok_or_else(short)?;
        let kind = tag & 0xffff;
        return Ok((Element { kind, data }, rest));
    }
    let (length, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let length = word(*length, big_endian) as usize;
    let (data, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    // All but compressed ones are filled up to eight bytes.
    let filling = match tag {
        COMPRESSED => 0,
        _ => (8 - length % 8) % 8,
    };
    let rest = rest.get(filling..).unwrap_or_default();
    Ok((Element { kind: tag, data }, rest))
}

/// The array `variable`.
pub(super) fn parse(bytes: &[u8], variable: &str) -> Result<Array, MatError> {
    let (header, mut rest) = bytes.split_at_checked(HEADER).ok_or(MatError::NoMat)?;
    let big_endian = match &header[HEADER - 4..] {
        [0x00, 0x01, b'I', b'M'] => false,
        [0x01, 0x00, b'M', b'I'] => true,
        _ => return Err(MatError::NoMat),
    };
    let mut found = Vec::new();
    let mut budget = MAX_INFLATED;
    while !rest.is_empty() {
        let (element, after) = element(rest, big_endian)?;
        rest = after;
        let read = match element.kind {
            MATRIX => matrix(element.data, big_endian, variable, &mut found)?,
            COMPRESSED => {
                let bytes = inflated(element.data, budget)?;
                budget -= bytes.len();
                let (inner, _) = self::element(&bytes, big_endian)?;
                match inner.kind {
                    MATRIX => matrix(inner.data, big_endian, variable, &mut found)?,
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(array) = read {
            return Ok(array);
        }
    }
    Err(MatError::NoVariable {
        wanted: variable.to_owned(),
        found,
    })
}

fn inflated(data: &[u8], limit: usize) -> Result<Vec<u8>, MatError> {
    let mut bytes = Vec::new();
    let read = ZlibDecoder::new(data)
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes);
    if read.is_err() {
        return Err(damaged("a variable's compressed data"));
    }
    if bytes.len() > limit {
        return Err(damaged("its variables are larger than any features"));
    }
    Ok(bytes)
}

/// The array of an element, if it is `variable`; otherwise its name is added to those that were found.
fn matrix(
    data: &[u8],
    big_endian: bool,
    variable: &str,
    found: &mut Vec<String>,
) -> Result<Option<Array>, MatError> {
    let next = |bytes| element(bytes, big_endian);
    let (flags, rest) = next(data)?;
    let (dimensions, rest) = next(rest)?;
    let (named, rest) = next(rest)?;
    if named.data != variable.as_bytes() {
        // One more than is shown says that there are more.
        if found.len() <= FEW {
            found.push(name(named.data));
        }
        return Ok(None);
    }
    let flags = flags.data.first_chunk();
    let flags = flags.map(|flags| word(*flags, big_endian));
    let flags = flags.ok_or_else(|| damaged("a variable has no flags"))?;
    let not_numbers = |what| MatError::NotNumbers {
        variable: variable.to_owned(),
        what,
    };
    if let Some(what) = other(flags & 0xff) {
        return Err(not_numbers(what));
    }
    if flags & COMPLEX != 0 {
        return Err(not_numbers("complex"));
    }
    let (sizes, _) = dimensions.data.as_chunks();
    let shape: Vec<usize> = sizes
        .iter()
        .map(|size| word(*size, big_endian) as usize)
        .collect();
    let count = count(&shape)?;
    let (values, _) = next(rest)?;
    // Whole numbers may be kept in fewer bytes than the class says.
    let number =
        number(values.kind).ok_or_else(|| damaged("a variable's values are no numbers"))?;
    if values.data.len() != count * number.size() {
        return Err(damaged(
            "a variable has another number of values than its shape",
        ));
    }
    let values = number.values(values.data, big_endian);
    Ok(Some(Array {
        values: last_fastest(&shape, &values),
        shape,
    }))
}
