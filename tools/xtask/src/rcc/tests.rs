//! A small archive of every kind, its damaged relatives, and random bytes.

use super::*;
use proptest::prelude::*;
use std::io::Write;

/// A small archive: root → folder `f` → raw `a.txt`, zlib `b.txt`, zstd `c.txt` ("hello").
fn sample(version: u32) -> Vec<u8> {
    let node_len = if version == 1 { 14 } else { 22 };
    let mut names = Vec::new();
    let name = |names: &mut Vec<u8>, text: &str| {
        let at = names.len() as u32;
        names.extend((text.encode_utf16().count() as u16).to_be_bytes());
        names.extend([0; 4]);
        names.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
        at
    };
    let folder = name(&mut names, "f");
    let file_names = ["a.txt", "b.txt", "c.txt"].map(|n| name(&mut names, n));

    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(b"hello").unwrap();
    let mut zlib_data = 5u32.to_be_bytes().to_vec();
    zlib_data.extend(zlib.finish().unwrap());
    let zstd_data = zstd::encode_all(b"hello".as_slice(), 1).unwrap();
    let mut data = Vec::new();
    let starts = [b"hello".to_vec(), zlib_data, zstd_data].map(|d| {
        let at = data.len() as u32;
        data.extend((d.len() as u32).to_be_bytes());
        data.extend(d);
        at
    });

    let mut tree = Vec::new();
    let node = |tree: &mut Vec<u8>, name: u32, flags: u16, a: u32, b: u32| {
        let start = tree.len();
        tree.extend(name.to_be_bytes());
        tree.extend(flags.to_be_bytes());
        tree.extend(a.to_be_bytes());
        tree.extend(b.to_be_bytes());
        tree.resize(start + node_len, 0);
    };
    node(&mut tree, 0, FLAG_FOLDER, 1, 1);
    node(&mut tree, folder, FLAG_FOLDER, 3, 2);
    for (i, flags) in [0, FLAG_ZLIB, FLAG_ZSTD].into_iter().enumerate() {
        node(&mut tree, file_names[i], flags, 0, starts[i]);
    }

    let header = if version == 3 { 24u32 } else { 20 };
    let mut out = b"qres".to_vec();
    out.extend(version.to_be_bytes());
    out.extend(header.to_be_bytes());
    out.extend((header + tree.len() as u32).to_be_bytes());
    out.extend((header + (tree.len() + data.len()) as u32).to_be_bytes());
    out.resize(header as usize, 0);
    out.extend(tree);
    out.extend(data);
    out.extend(names);
    out
}

#[test]
fn reads_every_packing_in_every_version() {
    for version in 1..=3 {
        let bytes = sample(version);
        let archive = Archive::parse(&bytes).unwrap();
        let paths: Vec<_> = archive.entries().iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["f/a.txt", "f/b.txt", "f/c.txt"]);
        for entry in archive.entries() {
            assert_eq!(
                archive.read(entry).unwrap(),
                b"hello",
                "{} v{version}",
                entry.path
            );
        }
    }
}

#[test]
fn names_its_complaint() {
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = sample(2);
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let parse = |bytes: &[u8]| Archive::parse(bytes).map(|_| ()).unwrap_err();
    assert_eq!(parse(b""), RccError::Magic);
    assert_eq!(parse(b"PK\x03\x04"), RccError::Magic);
    assert_eq!(
        parse(&patched(4, &9u32.to_be_bytes())),
        RccError::Version(9)
    );
    assert!(matches!(
        parse(&patched(8, &[0xff; 4])),
        RccError::Bounds { .. }
    ));
    // Node 1 lists itself and its successors as children: a cycle.
    let cycle = patched(20 + 22 + 10, &1u32.to_be_bytes());
    assert_eq!(parse(&cycle), RccError::Revisited(1));
    // A child count of 4 billion is refused before anything is allocated for it.
    let greedy = patched(20 + 6, &[0xff; 4]);
    assert!(matches!(
        parse(&greedy),
        RccError::Bounds {
            what: "a folder's children",
            ..
        }
    ));
    assert!(matches!(parse(&sample(2)[..30]), RccError::Bounds { .. }));
}

#[test]
fn refuses_names_that_leave_the_folder() {
    let bytes = sample(2);
    let at = bytes.len() - (6 + 10); // the last name, "c.txt"
    for hostile in ["/.txt", "..\\xt", "a\0txt"] {
        let mut bytes = bytes.clone();
        let text: Vec<u8> = hostile.encode_utf16().flat_map(u16::to_be_bytes).collect();
        bytes[at + 6..].copy_from_slice(&text);
        assert!(
            matches!(Archive::parse(&bytes), Err(RccError::Name { .. })),
            "{hostile:?}"
        );
    }
    let mut dots = bytes.clone();
    dots[at..at + 2].copy_from_slice(&2u16.to_be_bytes());
    dots[at + 6..at + 10].copy_from_slice(&[0, b'.', 0, b'.']);
    assert!(matches!(Archive::parse(&dots), Err(RccError::Name { .. })));
}

#[test]
fn refuses_a_decompression_bomb() {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..65 {
        encoder.write_all(&zeros).unwrap();
    }
    let stream = encoder.finish().unwrap();
    let entry = Entry {
        path: "bomb".into(),
        packing: Packing::Zlib,
        data: 0,
    };
    let result = unpack(
        &entry,
        "zlib",
        flate2::read::ZlibDecoder::new(stream.as_slice()),
    );
    assert_eq!(
        result,
        Err(RccError::TooLarge {
            path: "bomb".into()
        })
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut with_magic = b"qres\0\0\0\x02".to_vec();
        with_magic.extend(&bytes);
        for input in [bytes, with_magic] {
            if let Ok(archive) = Archive::parse(&input) {
                for entry in archive.entries() {
                    let _ = archive.read(entry);
                }
            }
        }
    }

    #[test]
    fn damaged_archives_never_panic(
        version in 1u32..=3,
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample(version);
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(keep.index(bytes.len() + 1));
        if let Ok(archive) = Archive::parse(&bytes) {
            for entry in archive.entries() {
                let _ = archive.read(entry);
            }
        }
    }
}
