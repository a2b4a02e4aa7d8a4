//! NumPy's `.npy` arrays of floating-point numbers, little-endian, in C order; versions 1 to 3 of the
//! format. Nothing is executed, and no memory is asked for that the file does not fill.

use std::fs;
use std::path::Path;

use tch::{Kind, Tensor};

use crate::error::{ExperimentError, Result};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads an array as f32.
///
/// # Errors
/// An unreadable file, and every other content, each named.
pub fn read(path: &Path) -> Result<Tensor> {
    let bytes = fs::read(path).map_err(ExperimentError::io(path))?;
    let bad = |reason: String| ExperimentError::Recorded {
        path: path.to_owned(),
        problems: vec![reason],
    };
    let (kind, shape, data) = parse(&bytes).map_err(bad)?;
    Ok(Tensor::f_from_data_size(data, &shape, kind)?.f_to_kind(Kind::Float)?)
}

fn parse(bytes: &[u8]) -> std::result::Result<(Kind, Vec<i64>, &[u8]), String> {
    let cut = || "the file ends within its header".to_owned();
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as a .npy file")?;
    let (version, rest) = rest.split_at_checked(2).ok_or_else(cut)?;
    let width = match version {
        [1, _] => 2,
        [2 | 3, _] => 4,
        _ => return Err("its version of the .npy format is not known".to_owned()),
    };
    let (length, rest) = rest.split_at_checked(width).ok_or_else(cut)?;
    let length = length
        .iter()
        .rev()
        .fold(0usize, |n, &byte| (n << 8) | usize::from(byte));
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
    let kind = match field(header, "descr")?.trim_matches(['\'', '"']) {
        "<f4" => Kind::Float,
        "<f8" => Kind::Double,
        "<f2" => Kind::Half,
        other => {
            return Err(format!(
                "its numbers are `{other}`; write it as numpy.float32 (`<f4`)"
            ));
        }
    };
    match field(header, "fortran_order")? {
        "False" => {}
        _ => return Err("it is in Fortran's order; write numpy.ascontiguousarray(a)".to_owned()),
    }
    let mut shape = Vec::new();
    for size in field(header, "shape")?.trim_matches(['(', ')']).split(',') {
        match size.trim() {
            "" => {}
            digits => {
                let size: u32 = digits
                    .parse()
                    .map_err(|_| format!("its header has the size `{digits}`"))?;
                shape.push(i64::from(size));
            }
        }
    }
    let values = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    let wanted = values.and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
    if wanted != Some(data.len()) {
        return Err(format!(
            "its header promises {shape:?} values, but {} bytes follow",
            data.len()
        ));
    }
    Ok((kind, shape, data))
}

/// The text of a value in the header, `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn field<'a>(header: &'a str, key: &str) -> std::result::Result<&'a str, String> {
    let missing = || format!("its header has no `{key}`");
    let (_, after) = header
        .split_once(&format!("'{key}':"))
        .ok_or_else(missing)?;
    let after = after.trim_start();
    let end = match after.starts_with('(') {
        true => after.find(')').map(|i| i + 1),
        false => after.find([',', '}']),
    };
    end.and_then(|end| after.get(..end))
        .map(str::trim)
        .ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([1, 0]);
        out.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn a_small_array_is_read() {
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1), }\n";
        let data: Vec<u8> = [1.5f64, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let bytes = file(header, &data);
        let (kind, shape, rest) = parse(&bytes).unwrap();
        assert_eq!((kind, shape, rest.len()), (Kind::Double, vec![2, 1], 16));
    }

    #[test]
    fn hostile_headers_are_told_and_cost_nothing() {
        let head = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
        };
        for (bytes, word) in [
            (b"PK\x03\x04".to_vec(), "does not begin"),
            (file(&head("<f4", "False", "(2, 2)"), &[0; 15]), "promises"),
            (
                file(
                    &head("<f4", "False", "(4294967295, 4294967295, 4294967295)"),
                    &[0; 4],
                ),
                "promises",
            ),
            (file(&head("<f4", "False", "(-1, 2)"), &[]), "size `-1`"),
            (file(&head("<f4", "True", "(1,)"), &[0; 4]), "Fortran"),
            (file(&head("|O", "False", "(1,)"), &[0; 8]), "`|O`"),
            (file(&head(">f4", "False", "(1,)"), &[0; 4]), "`>f4`"),
            (file("{}", &[]), "no `descr`"),
            (
                file(&head("<f4", "False", "(1,)"), &[0; 4])[..40].to_vec(),
                "ends within",
            ),
        ] {
            let error = parse(&bytes).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
