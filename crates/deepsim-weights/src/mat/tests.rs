//! Files that are built by hand; those of scipy and of h5py are read in `deepsim-experiment`'s tests.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::*;

mod hdf;

fn header(big_endian: bool) -> Vec<u8> {
    let mut out = b"MATLAB 5.0 MAT-file, by hand".to_vec();
    out.resize(124, b' ');
    out.extend(if big_endian {
        *b"\x01\x00MI"
    } else {
        *b"\x00\x01IM"
    });
    out
}

/// An element, filled up to eight bytes.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
    out.extend(data);
    out.resize(out.len().div_ceil(8) * 8, 0);
    out
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A variable of class double (6) unless `flags` say otherwise.
fn variable(flags: u32, shape: &[u32], name: &str, kind: u32, values: &[u8]) -> Vec<u8> {
    let parts = [
        element(6, &words(&[flags, 0])),
        element(5, &words(shape)),
        element(1, name.as_bytes()),
        element(kind, values),
    ];
    element(14, &parts.concat())
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn file(variables: &[Vec<u8>]) -> Vec<u8> {
    [header(false), variables.concat()].concat()
}

fn refused(bytes: &[u8], words: &str) {
    let error = parse(bytes, "feat").unwrap_err().to_string();
    assert!(error.contains(words), "{words} is not in: {error}");
}

#[test]
fn the_last_dimension_becomes_the_fastest() {
    // [[1, 2, 3], [4, 5, 6]] as MATLAB keeps it.
    let values = doubles(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let other = variable(6, &[1, 1], "label", 9, &doubles(&[7.0]));
    let feat = variable(6, &[2, 3], "feat", 9, &values);
    let read = parse(&file(&[other, feat]), "feat").unwrap();
    assert_eq!(read, (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    // Doubles that are kept as bytes, in a small element, compressed.
    let parts = [
        element(6, &words(&[6, 0])),
        element(5, &words(&[1, 2, 1])),
        [words(&[1 | (4 << 16)]), b"feat".to_vec()].concat(),
        [words(&[2 | (2 << 16)]), vec![8, 9, 0, 0]].concat(),
    ];
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&element(14, &parts.concat())).unwrap();
    let zipped = encoder.finish().unwrap();
    let tag = words(&[15, zipped.len() as u32]);
    let read = parse(&file(&[tag, zipped]), "feat").unwrap();
    assert_eq!(read, (vec![1, 2, 1], vec![8.0, 9.0]));
}

#[test]
fn what_is_no_array_of_numbers_is_told() {
    let one = doubles(&[1.0]);
    let of = |flags: u32, shape: &[u32], kind: u32, values: &[u8]| {
        file(&[variable(flags, shape, "feat", kind, values)])
    };
    refused(b"PK\x03\x04", "not a .mat file");
    refused(&[0; 200], "not a .mat file");
    refused(&file(&[]), "no variable `feat`");
    let other = variable(6, &[1, 1], "data", 9, &one);
    refused(&file(&[other]), "no variable `feat`; it has data");
    refused(&of(4, &[1, 1], 4, &[65, 0]), "is text");
    refused(&of(1, &[1, 1], 9, &one), "a cell array");
    refused(&of(6 | 0x0800, &[1, 1], 9, &one), "complex");
    refused(&of(6, &[0, 3], 9, &[]), "shape [0, 3]");
    refused(&of(6, &[u32::MAX, u32::MAX], 9, &one), "shape");
    refused(&of(6, &[1, 2], 9, &one), "another number of values");
    refused(&of(6, &[1, 1], 11, &one), "no numbers");
    refused(&of(6, &[1, 1], 9, &doubles(&[f64::NAN])), "value 1 is NaN");
    let large = of(6, &[1, 2], 9, &doubles(&[0.0, 1e300]));
    refused(&large, "value 2 is 1e300");
    let whole = of(6, &[1, 1], 9, &one);
    refused(&whole[..whole.len() - 1], "cut short");
    refused(
        &file(&[words(&[15, 4]), b"noise"[..4].to_vec()]),
        "compressed",
    );
    refused(b"\x89HDF\r\n\x1a\nnot much of it", "HDF5 and not readable");
}

#[test]
fn names_in_an_error_are_few_and_short() {
    let one = doubles(&[1.0]);
    let long = "名".repeat(1000);
    let others: Vec<_> = (0..100)
        .map(|_| variable(6, &[1, 1], &long, 9, &one))
        .collect();
    let Err(MatError::NoVariable { found, .. }) = parse(&file(&others), "feat") else {
        unreachable!("none is called so");
    };
    assert_eq!(found, vec!["名".repeat(40); 6]);
}

proptest! {
    #[test]
    fn no_bytes_panic(noise in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, flip: u8) {
        let feat = variable(6, &[2, 3], "feat", 9, &doubles(&[0.0; 6]));
        let _ = parse(&[header(true), noise.clone()].concat(), "feat");
        let _ = parse(&[header(false), noise.clone()].concat(), "feat");
        let _ = parse(&[MAGIC, &noise].concat(), "feat");
        let mut whole = file(&[feat]);
        let at = at.index(whole.len());
        prop_assert!(at < 128 || parse(&whole[..at], "feat").is_err());
        whole[at] ^= flip;
        if let Ok((shape, values)) = parse(&whole, "feat") {
            prop_assert_eq!(shape.iter().product::<usize>(), values.len());
        }
    }
}

const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
