//! State dicts made here, byte by byte: damaged and hostile ones.

use std::io::{Cursor, Write};

use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

/// What a tensor says about itself.
#[derive(Clone, Copy)]
struct Said<'a> {
    name: &'a str,
    class: &'a str,
    key: &'a str,
    length: i64,
    offset: i64,
    shape: &'a [i64],
    strides: &'a [i64],
}

const PLAIN: Said<'static> = Said {
    name: "w",
    class: "FloatStorage",
    key: "0",
    length: 6,
    offset: 0,
    shape: &[2, 3],
    strides: &[3, 1],
};
const VALUES: [f32; 6] = [1.0, -2.5, 3.0, 0.125, 5.0, 6.0];

fn number(n: i64) -> Vec<u8> {
    [b"\x8a\x08".as_slice(), &n.to_le_bytes()].concat()
}

fn text(s: &str) -> Vec<u8> {
    [
        b"X".as_slice(),
        &(s.len() as u32).to_le_bytes(),
        s.as_bytes(),
    ]
    .concat()
}

fn tuple(numbers: &[i64]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|n| number(*n)).collect();
    [b"(", numbers.as_slice(), b"t"].concat()
}

/// `{name: _rebuild_tensor_v2(storage, offset, shape, strides, False, {}), …}`.
fn pickle_of(said: &[Said<'_>], old: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(".to_vec();
    for t in said {
        bytes.extend(text(t.name));
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        bytes.extend(text("storage"));
        bytes.extend(format!("ctorch\n{}\n", t.class).bytes());
        bytes.extend(text(t.key));
        bytes.extend(text("cpu"));
        bytes.extend(number(t.length));
        bytes.extend(old);
        bytes.extend(b"tQ");
        bytes.extend(number(t.offset));
        bytes.extend(tuple(t.shape));
        bytes.extend(tuple(t.strides));
        bytes.extend(b"\x89}tR");
    }
    bytes.extend(b"u.");
    bytes
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn zip_of(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn archive(said: &[Said<'_>]) -> Vec<u8> {
    let (pickle, values) = (pickle_of(said, b""), bytes_of(&VALUES));
    let entries = [("m/data.pkl", pickle.as_slice()), ("m/data/0", &values)];
    zip_of(&entries, CompressionMethod::Stored)
}

fn stream(said: &[Said<'_>], keys: &[&str], values: &[f32]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    bytes.extend(b"\x80\x02}(");
    bytes.extend(text("little_endian"));
    bytes.extend(b"\x88u.");
    bytes.extend(pickle_of(said, b"N"));
    bytes.extend(b"\x80\x02](");
    bytes.extend(keys.iter().flat_map(|key| text(key)));
    bytes.extend(b"e.");
    for _ in keys {
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(bytes_of(values));
    }
    bytes
}

#[test]
fn both_forms_give_the_same_tensor() {
    let expected = NamedTensor {
        name: "w".to_owned(),
        shape: vec![2, 3],
        data: VALUES.to_vec(),
    };
    for file in [archive(&[PLAIN]), stream(&[PLAIN], &["0"], &VALUES)] {
        assert_eq!(
            parse(&file).unwrap().tensors,
            std::slice::from_ref(&expected)
        );
    }
}

/// The archive of [`PLAIN`] with the end of its tensor's description replaced.
fn described(end: &[u8]) -> Vec<u8> {
    let pickle = pickle_of(&[PLAIN], b"");
    let usual: &[u8] = b"\x89}tRu.";
    let bytes = [pickle.strip_suffix(usual).unwrap(), end].concat();
    let values = bytes_of(&VALUES);
    let entries = [("m/data.pkl", bytes.as_slice()), ("m/data/0", &values)];
    zip_of(&entries, CompressionMethod::Stored)
}

#[test]
fn marks_change_the_values_or_are_refused_by_name() {
    let read = |end: &[u8]| parse(&described(end)).map(|dict| dict.tensors[0].data.clone());
    let negated: Vec<f32> = VALUES.iter().map(|v| -v).collect();
    // requires_grad, hooks, metadata.
    for (end, values) in [
        (b"\x89}tRu.".as_slice(), VALUES.to_vec()),
        (b"\x89}NtRu.", VALUES.to_vec()),
        (b"\x89}}tRu.", VALUES.to_vec()),
        (b"\x89}}X\x03\0\0\0neg\x88stRu.", negated),
        (b"\x89}}X\x03\0\0\0neg\x89stRu.", VALUES.to_vec()),
        (b"\x89}}X\x04\0\0\0conj\x89stRu.", VALUES.to_vec()),
    ] {
        assert_eq!(read(end).unwrap(), values, "{end:?}");
    }
    for (end, word) in [
        (b"\x89}}X\x04\0\0\0conj\x88stRu.".as_slice(), "mark `conj`"),
        (b"\x89}}X\x05\0\0\0scale\x88stRu.", "mark `scale`"),
        (b"\x89}}X\x03\0\0\0negK\x01stRu.", "mark `neg`"),
        (b"\x89}}K\x01\x88stRu.", "metadata"),
        (b"\x89}K\x01tRu.", "metadata"),
        (b"\x89tRu.", "description"),
        (b"\x89}}NtRu.", "description"),
        // A state, or items, set on the tensor.
        (b"\x89}tR(K\x01K\x01K\x01K\x01tbu.", "state"),
        (b"\x89}tRK\0K\x01su.", "state"),
    ] {
        let error = read(end).unwrap_err().to_string();
        assert!(
            error.contains("`w`") && error.contains(word),
            "{word} is not in: {error}"
        );
    }
}

#[test]
fn parameters_of_the_oldest_files_are_tensors() {
    // Parameter.__new__(_rebuild_tensor(storage, 0, (2, 3), (3, 1))), then (True, False, {}).
    let mut bytes =
        b"\x80\x02ccollections\nOrderedDict\n](](U\x01wctorch.nn.parameter\nParameter\n".to_vec();
    bytes.extend(b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06NtQK\x00");
    bytes.extend(b"K\x02K\x03\x86K\x03K\x01\x86tR\x85\x81\x88\x89}\x87be");
    bytes.extend(b"e\x85R.");
    let whole = stream(&[PLAIN], &["0"], &VALUES);
    let modern = pickle_of(&[PLAIN], b"N");
    let at = whole
        .windows(modern.len())
        .position(|w| w == modern)
        .unwrap();
    let file = [&whole[..at], &bytes, &whole[at + modern.len()..]].concat();
    match parse(&file) {
        Ok(dict) => assert_eq!(dict.tensors[0].data, VALUES),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let max = i64::MAX;
    let fits = PLAIN.strides;
    for (offset, shape, strides) in [
        (1, PLAIN.shape, fits),
        (-1, PLAIN.shape, fits),
        (max, PLAIN.shape, fits),
        (0, PLAIN.shape, &[-3, 1]),
        (0, PLAIN.shape, &[3, 2]),
        (0, PLAIN.shape, &[max, max]),
        (0, PLAIN.shape, &[3]),
        (0, &[2, 0], fits),
        (0, &[-2, -3], fits),
        (0, &[max, max], &[0, 0]),
        (0, &[1; 40], &[1; 40]),
    ] {
        let said = Said {
            offset,
            shape,
            strides,
            ..PLAIN
        };
        for file in [archive(&[said]), stream(&[said], &["0"], &VALUES)] {
            let error = parse(&file).unwrap_err();
            let named = matches!(&error,
                TorchError::Impossible { tensor, .. }
                    | TorchError::EmptyTensor { tensor, .. }
                    | TorchError::Outside { tensor, .. } if tensor == "w");
            assert!(named, "{error}");
        }
    }
}

#[test]
fn a_small_file_does_not_become_a_large_tensor() {
    // A value repeated a million times, then many times the whole storage.
    let repeated = Said {
        shape: &[1000, 1000],
        strides: &[0, 0],
        ..PLAIN
    };
    assert!(matches!(
        parse(&archive(&[repeated])),
        Err(TorchError::TooMany { .. })
    ));
    let names: Vec<String> = (0..400).map(|n| format!("w{n}")).collect();
    let large = |name| Said {
        name,
        shape: &[100, 6],
        strides: &[0, 1],
        ..PLAIN
    };
    let many: Vec<Said<'_>> = names.iter().map(|name| large(name.as_str())).collect();
    assert!(matches!(
        parse(&archive(&many)),
        Err(TorchError::TooMany { .. })
    ));
    // A storage that is said to be enormous.
    for length in [7, i64::MAX / 4, i64::MAX] {
        let said = Said { length, ..PLAIN };
        assert!(matches!(
            parse(&archive(&[said])),
            Err(TorchError::StorageSize { .. })
        ));
        let old = parse(&stream(&[said], &["0"], &VALUES));
        assert!(matches!(old, Err(TorchError::StorageLength { .. })));
    }
}

#[test]
fn archives_that_are_not_as_torch_writes_them_are_refused() {
    let (pickle, values) = (pickle_of(&[PLAIN], b""), bytes_of(&VALUES));
    let stored = |entries: &[(&str, &[u8])]| parse(&zip_of(entries, CompressionMethod::Stored));
    macro_rules! refused {
        ($result:expr, $pattern:pat) => {
            let error = $result.unwrap_err();
            assert!(matches!(error, $pattern), "{error:?}");
        };
    }
    refused!(
        stored(&[("m/other", &pickle)]),
        TorchError::NoPickle { count: 0 }
    );
    refused!(
        stored(&[("a/b/data.pkl", &pickle)]),
        TorchError::NoPickle { count: 0 }
    );
    refused!(
        stored(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle)]),
        TorchError::NoPickle { count: 2 }
    );
    refused!(stored(&[("m/data.pkl", &pickle)]), TorchError::Entry { .. });
    refused!(
        stored(&[("m/data.pkl", &pickle), ("m/data/0", &values[1..])]),
        TorchError::StorageSize { .. }
    );
    refused!(
        stored(&[
            ("m/data.pkl", &pickle),
            ("m/data/0", &values),
            ("m/byteorder", b"big")
        ]),
        TorchError::BigEndian
    );
    // Only the storages that tensors have are looked for, by their own name.
    refused!(
        parse(&archive(&[Said {
            key: "../0",
            ..PLAIN
        }])),
        TorchError::Entry { .. }
    );
    refused!(
        parse(&archive(&[PLAIN, PLAIN])),
        TorchError::Duplicate { .. }
    );
    let twice = [
        PLAIN,
        Said {
            name: "v",
            class: "HalfStorage",
            length: 12,
            ..PLAIN
        },
    ];
    refused!(parse(&archive(&twice)), TorchError::Conflict { .. });
    // A bomb: what is compressed is not unpacked at all.
    let zeros = vec![0; 16 << 20];
    let bomb = [("m/data.pkl", pickle.as_slice()), ("m/data/0", &zeros)];
    refused!(
        parse(&zip_of(&bomb, CompressionMethod::Deflated)),
        TorchError::Entry { .. }
    );

    refused!(parse(b""), TorchError::NoPth);
    refused!(parse(b"PK\x03\x04"), TorchError::Zip { .. });
    refused!(
        parse(&stream(&[PLAIN], &[], &VALUES)),
        TorchError::NoStorage { .. }
    );
    refused!(
        parse(&stream(&[PLAIN], &["0", "0"], &VALUES)),
        TorchError::Conflict { .. }
    );
    refused!(
        parse(&stream(&[PLAIN], &["0", "9"], &VALUES)),
        TorchError::Undeclared { .. }
    );
    let mut long = stream(&[PLAIN], &["0"], &VALUES);
    long.push(0);
    refused!(parse(&long), TorchError::Trailing { count: 1 });
}

/// `zip` with its entry `name` listed a second time, as `again`, of the same length.
fn listed_twice(mut zip: Vec<u8>, name: &str, again: &str) -> Vec<u8> {
    let find = |zip: &[u8], mark: &[u8], from: usize| {
        from + zip[from..]
            .windows(mark.len())
            .position(|w| w == mark)
            .unwrap()
    };
    let directory = find(&zip, b"PK\x01\x02", 0);
    let named = find(&zip, name.as_bytes(), directory);
    let entry = named - 46; // an entry of the directory is 46 bytes, and then its name
    let length = 46 + name.len() + usize::from(zip[entry + 30]) + usize::from(zip[entry + 32]);
    let mut copy = zip[entry..entry + length].to_vec();
    copy[46..46 + again.len()].copy_from_slice(again.as_bytes());
    let end = find(&zip, b"PK\x05\x06", directory);
    for count in [8, 10] {
        zip[end + count] += 1;
    }
    let size = u32::from_le_bytes(zip[end + 12..end + 16].try_into().unwrap()) + length as u32;
    zip[end + 12..end + 16].copy_from_slice(&size.to_le_bytes());
    zip.splice(end..end, copy);
    zip
}

#[test]
fn entries_on_top_of_each_other_are_not_read_again_and_again() {
    let values = vec![0.5f32; 1000];
    let one = |name, key| Said {
        name,
        key,
        length: 1000,
        shape: &[1],
        strides: &[1],
        ..PLAIN
    };
    let pickle = pickle_of(&[one("a", "0"), one("b", "1")], b"");
    let values = bytes_of(&values);
    let entries = [("m/data.pkl", pickle.as_slice()), ("m/data/0", &values)];
    let zip = zip_of(&entries, CompressionMethod::Stored);
    let error = parse(&listed_twice(zip, "m/data/0", "m/data/1")).unwrap_err();
    assert!(
        error.to_string().contains("on top of each other"),
        "{error}"
    );
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for file in [archive(&[PLAIN]), stream(&[PLAIN], &["0"], &VALUES)] {
        for cut in 0..file.len() {
            assert!(
                parse(&file[..cut]).is_err(),
                "cut at {cut} of {}",
                file.len()
            );
        }
    }
}

proptest! {
    #[test]
    fn flipped_bytes_give_an_error_or_whole_tensors(
        at in 0..2000usize, flip in 1..=255u8, zipped in any::<bool>(),
    ) {
        let other = Said { name: "v", offset: 2, shape: &[2, 2], strides: &[1, 2], ..PLAIN };
        let said = [PLAIN, other];
        let mut file = if zipped { archive(&said) } else { stream(&said, &["0"], &VALUES) };
        let at = at % file.len();
        file[at] ^= flip;
        if let Ok(dict) = parse(&file) {
            for tensor in dict.tensors {
                prop_assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
            }
        }
    }
}
