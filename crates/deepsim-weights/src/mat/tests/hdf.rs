//! HDF5 by hand, in its oldest form, after "HDF5 File Format Specification Version 3.0": what h5py does not write.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::super::{MatError, parse};
use super::{MAGIC, refused};

/// An address of nothing.
const NOWHERE: u64 = u64::MAX;
const F32: [u8; 20] = [
    0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0,
];
const U8: [u8; 12] = [0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0];
const U16: [u8; 12] = [0x10, 0, 0, 0, 2, 0, 0, 0, 0, 0, 16, 0];

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// A file's bytes so far, behind the place of the superblock.
struct File(Vec<u8>);

impl File {
    fn new() -> File {
        File(vec![0; 96])
    }

    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.0 = padded(&self.0);
        let at = self.0.len() as u64;
        self.0.extend(bytes);
        at
    }

    /// The whole file: `names` are those of the root, `entries` their places in it and the objects' addresses. The same
    /// list of entries is named `leaves` times.
    fn rooted(mut self, names: &[u8], entries: &[(u64, u64)], leaves: usize) -> Vec<u8> {
        let names_at = self.put(names);
        let heap = [
            b"HEAP\0\0\0\0".to_vec(),
            words(&[names.len() as u64, NOWHERE, names_at]),
        ];
        let heap = self.put(&heap.concat());
        let mut node = [&b"SNOD\x01\0"[..], &(entries.len() as u16).to_le_bytes()].concat();
        for (name, object) in entries {
            node.extend(words(&[*name, *object, 0, 0, 0]));
        }
        let node = self.put(&node);
        let tree = [
            [&b"TREE\0\0"[..], &(leaves as u16).to_le_bytes()].concat(),
            words(&[NOWHERE, NOWHERE]),
            words(&[0, node]).repeat(leaves),
            words(&[0]),
        ];
        let tree = self.put(&tree.concat());
        let root = self.put(&object(&[message(0x11, &words(&[tree, heap]))]));
        let all = self.0.len() as u64;
        let superblock = [
            MAGIC,
            &[0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0],
            &words(&[0, NOWHERE, all, NOWHERE, 0, root, 0, 0, 0]),
        ];
        self.0[..96].copy_from_slice(&superblock.concat());
        self.0
    }

    /// With `feat` and nothing else.
    fn with(mut self, feat: &[u8]) -> Vec<u8> {
        let feat = self.put(feat);
        self.rooted(b"feat\0\0\0\0", &[(0, feat)], 1)
    }
}

fn message(kind: u16, data: &[u8]) -> Vec<u8> {
    let data = padded(data);
    let lengths = [kind.to_le_bytes(), (data.len() as u16).to_le_bytes()].concat();
    [lengths, vec![0; 4], data].concat()
}

fn object(messages: &[Vec<u8>]) -> Vec<u8> {
    let all = messages.concat();
    let count = (messages.len() as u16).to_le_bytes();
    let length = (all.len() as u32).to_le_bytes();
    [&[1, 0][..], &count, &[1, 0, 0, 0], &length, &[0; 4], &all].concat()
}

fn space(shape: &[u64]) -> Vec<u8> {
    [vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0], words(shape)].concat()
}

/// A dataset whose values stand in its header.
fn dataset(format: &[u8], shape: &[u64], values: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let layout = [&[3, 0][..], &(values.len() as u16).to_le_bytes(), values].concat();
    let messages = [
        message(1, &space(shape)),
        message(3, format),
        message(8, &layout),
    ];
    object(&[&messages[..], attributes].concat())
}

fn attribute(name: &str, format: &[u8], value: &[u8]) -> Vec<u8> {
    let lengths = [name.len() as u16, format.len() as u16, 8];
    let lengths: Vec<u8> = lengths.iter().flat_map(|n| n.to_le_bytes()).collect();
    let parts = [
        vec![1, 0],
        lengths,
        padded(name.as_bytes()),
        padded(format),
        space(&[]),
        value.to_vec(),
    ];
    message(12, &parts.concat())
}

fn class(class: &str) -> Vec<u8> {
    let format = [0x13, 0, 0, 0, class.len() as u8, 0, 0, 0];
    attribute("MATLAB_class", &format, class.as_bytes())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Four values in one chunk that went through the filters of these numbers.
fn chunked(filters: &[u16], chunk: &[u8]) -> Vec<u8> {
    let mut file = File::new();
    let at = file.put(chunk);
    let key = |size: usize, first: u64| [words(&[size as u64]), words(&[first, 0])].concat();
    let tree = [
        b"TREE\x01\0\x01\0".to_vec(),
        words(&[NOWHERE, NOWHERE]),
        key(chunk.len(), 0),
        words(&[at]),
        key(0, 4),
    ];
    let tree = file.put(&tree.concat());
    let layout = [vec![3, 2, 2], words(&[tree]), vec![4, 0, 0, 0, 4, 0, 0, 0]];
    let mut pipeline = vec![1, filters.len() as u8, 0, 0, 0, 0, 0, 0];
    for filter in filters {
        pipeline.extend([filter.to_le_bytes(), [0; 2], [0; 2], [0; 2]].concat());
    }
    file.with(&object(&[
        message(1, &space(&[4])),
        message(3, &F32),
        message(8, &layout.concat()),
        message(11, &pipeline),
    ]))
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_stands_beside_the_variable_is_not_opened() {
    let mut file = File::new();
    let feat = dataset(&F32, &[1, 2], &floats(&[0.5, -2.0]), &[]);
    let feat = file.put(&feat);
    let whole = file.rooted(b"feat\0\0\0\0junk\0", &[(0, feat), (8, NOWHERE - 9)], 1);
    assert_eq!(
        parse(&whole, "feat").unwrap(),
        (vec![1, 2], vec![0.5, -2.0])
    );
    let missing = parse(&whole, "fc7").unwrap_err();
    assert!(matches!(missing, MatError::NoVariable { .. }), "{missing}");
    let told = missing.to_string();
    assert!(
        told.contains("no variable `fc7`; save the features"),
        "{told}"
    );
    // A group.
    let mut file = File::new();
    let group = file.put(&object(&[message(0x11, &words(&[NOWHERE, NOWHERE]))]));
    let group = file.rooted(b"feat\0", &[(0, group)], 1);
    refused(&group, "is a structure");
}

#[test]
fn a_group_cannot_make_its_reader_work_without_end() {
    let feat = dataset(&F32, &[1], &floats(&[1.0]), &[]);
    // Many entries under one long name.
    let mut file = File::new();
    let at = file.put(&feat);
    let long = [vec![b'a'; 1 << 18], vec![0]].concat();
    refused(&file.rooted(&long, &[(0, at); 300], 1), "resource limit");
    // One list of entries, many times.
    let mut file = File::new();
    let at = file.put(&feat);
    let few = [(0, at); 8];
    refused(&file.rooted(b"feat\0\0\0\0", &few, 900), "resource limit");
    // As many as a file of a hundred variables has are read.
    let mut file = File::new();
    let at = file.put(&feat);
    let hundred = file.rooted(b"feat\0\0\0\0", &[(0, at); 4], 25);
    assert!(parse(&hundred, "feat").is_ok());
}

#[test]
fn filters_are_few_and_bounded() {
    let values = floats(&[1.0, 2.0, 3.0, 4.0]);
    let read = |filters: &[u16], chunk: &[u8]| parse(&chunked(filters, chunk), "feat");
    let four = (vec![4], vec![1.0, 2.0, 3.0, 4.0]);
    assert_eq!(read(&[1], &zipped(&values)).unwrap(), four);
    assert_eq!(read(&[1, 1], &zipped(&zipped(&values))).unwrap(), four);
    // First bytes of all values, second ones, and so on.
    let turned: Vec<u8> = (0..16).map(|i| values[i % 4 * 4 + i / 4]).collect();
    assert_eq!(read(&[2, 1], &zipped(&turned)).unwrap(), four);
    let bomb = zipped(&vec![0; 1 << 20]);
    refused(&chunked(&[1], &bomb), "resource limit");
    refused(&chunked(&[4, 1], &bomb), "resource limit");
    for filter in [4, 5, 6] {
        refused(&chunked(&[filter], &values), "unsupported filter");
    }
}

#[test]
fn classes_without_numbers_and_arrays_without_values_are_refused() {
    let of = |format: &[u8], values: &[u8], attributes: &[Vec<u8>]| {
        File::new().with(&dataset(format, &[2, 1], values, attributes))
    };
    let two = floats(&[1.0, 2.0]);
    let single = of(&F32, &two, &[class("single")]);
    assert_eq!(
        parse(&single, "feat").unwrap(),
        (vec![1, 2], vec![1.0, 2.0])
    );
    let letters = [72, 0, 105, 0];
    refused(&of(&U16, &letters, &[class("char")]), "is text");
    refused(&of(&U16, &letters, &[class("cell")]), "is a cell array");
    refused(&of(&U16, &letters, &[class("table")]), "not known here");
    let flag = |set: u8| attribute("MATLAB_empty", &U8, &[set]);
    // Its sizes are kept as values.
    let empty = of(&U16, &[0, 0, 3, 0], &[class("double"), flag(1)]);
    refused(&empty, "shape [0]");
    let not_empty = of(&U8, &[1, 0], &[class("logical"), flag(0)]);
    assert_eq!(
        parse(&not_empty, "feat").unwrap(),
        (vec![1, 2], vec![1.0, 0.0])
    );
}

#[test]
fn number_formats_are_compared_bit_by_bit() {
    let of = |format: &[u8], values: &[u8]| File::new().with(&dataset(format, &[2], values, &[]));
    let with = |format: &[u8], at: usize, byte: u8| {
        let mut other = format.to_vec();
        other[at] = byte;
        other
    };
    // 1 and −2 as IEEE's halves.
    let half = [
        0x11, 0x20, 15, 0, 2, 0, 0, 0, 0, 0, 16, 0, 10, 5, 0, 10, 15, 0, 0, 0,
    ];
    let values = [0x00, 0x3c, 0x00, 0xc0];
    let read = parse(&of(&half, &values), "feat").unwrap();
    assert_eq!(read, (vec![2], vec![1.0, -2.0]));
    let brain = [
        0x11, 0x20, 15, 0, 2, 0, 0, 0, 0, 0, 16, 0, 7, 8, 0, 7, 127, 0, 0, 0,
    ];
    refused(&of(&brain, &values), "format of its own");
    let eight = floats(&[1.0, 2.0]);
    // VAX, no hidden bit, the sign elsewhere, another bias.
    for (at, byte) in [(1, 0x61), (1, 0x00), (2, 0), (16, 126)] {
        refused(&of(&with(&F32, at, byte), &eight), "format of its own");
    }
    // The first bit, and how many.
    for (at, byte) in [(8, 4), (10, 12)] {
        refused(&of(&with(&U16, at, byte), &values), "format of its own");
    }
    // h5py's truth values, and another enumeration.
    let truth = |no: &[u8; 8]| {
        let head = [0x18, 2, 0, 0, 1, 0, 0, 0];
        [&head[..], &U8, no, b"TRUE\0\0\0\0", &[0, 1]].concat()
    };
    let read = parse(&of(&truth(b"FALSE\0\0\0"), &[1, 0]), "feat").unwrap();
    assert_eq!(read, (vec![2], vec![1.0, 0.0]));
    refused(&of(&truth(b"NEVER\0\0\0"), &[1, 0]), "an enumeration");
}
