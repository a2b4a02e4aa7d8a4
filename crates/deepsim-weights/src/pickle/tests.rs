//! Pickles made here, whole and hostile.

use proptest::prelude::*;

use super::*;

const ALLOWED: &[&str] = &["collections.OrderedDict", "numpy.dtype"];

fn read(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    Pickle::read(bytes, ALLOWED)
}

fn root(bytes: &[u8]) -> Value<'_> {
    let pickle = read(bytes).unwrap();
    assert_eq!(pickle.length(), bytes.len());
    pickle.root()
}

#[test]
fn plain_values_are_read() {
    assert_eq!(root(b"\x80\x02N."), Value::None);
    assert_eq!(root(b"\x80\x02\x88."), Value::Bool(true));
    assert_eq!(root(b"\x80\x02J\xfe\xff\xff\xff."), Value::Int(-2));
    assert_eq!(root(b"\x80\x02M\x34\x12."), Value::Int(0x1234));
    assert_eq!(root(b"\x80\x02\x8a\x00."), Value::Int(0));
    assert_eq!(root(b"\x80\x02\x8a\x02\x00\xff."), Value::Int(-256));
    assert_eq!(
        root(b"\x80\x02\x8a\x0aabcdefghij."),
        Value::Long(b"abcdefghij")
    );
    let pi = [b"\x80\x02G".as_slice(), &3.25f64.to_be_bytes(), b"."].concat();
    assert_eq!(root(&pi), Value::Float(3.25));
    assert_eq!(root(b"\x80\x02X\x03\0\0\0\xc3\xa4b."), Value::Str("äb"));
    assert_eq!(root(b"\x80\x04\x8c\x02ab."), Value::Str("ab"));
    assert_eq!(root(b"\x80\x03C\x02\xff\x00."), Value::Bytes(b"\xff\x00"));
}

#[test]
fn containers_share_their_parts_and_may_hold_themselves() {
    // l = []; l.append(l); {"a": l, "b": (l, 1)}
    let bytes = b"\x80\x02}(X\x01\0\0\0a]q\x00h\x00aX\x01\0\0\0bh\x00K\x01\x86u.";
    let pickle = read(bytes).unwrap();
    let entries = pickle.entries(pickle.root()).unwrap();
    assert_eq!(entries[0].0, Value::Str("a"));
    let list = entries[0].1;
    assert!(matches!(pickle.node(list), Some(Node::List(l)) if l == &[list]));
    assert_eq!(pickle.tuple(entries[1].1).unwrap(), [list, Value::Int(1)]);
}

#[test]
fn calls_are_recorded_and_not_made() {
    let bytes = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0kK\x07u}b.";
    let pickle = read(bytes).unwrap();
    let entries = pickle.entries(pickle.root()).unwrap();
    assert_eq!(entries, [(Value::Str("k"), Value::Int(7))]);
    // As Python 2 writes it: the entries are the constructor's.
    let bytes = b"\x80\x02ccollections\nOrderedDict\n](](U\x01kK\x07ee\x85R.";
    let pickle = read(bytes).unwrap();
    let entries = pickle.entries(pickle.root()).unwrap();
    assert_eq!(entries, [(Value::Str("k"), Value::Int(7))]);
}

#[test]
fn every_refusal_names_the_opcode_or_the_name_and_where() {
    for (bytes, words) in [
        (
            b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.".as_slice(),
            ["`os.system`", "offset 2"],
        ),
        (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
            ["`os.system`", "offset 14"],
        ),
        // A part of an allowed name is no allowed name, nor is a longer one.
        (
            b"\x80\x02ccollections\nOrdered\n.",
            ["`collections.Ordered`", "offset 2"],
        ),
        (
            b"\x80\x02cnumpy.dtype\nx\n.",
            ["`numpy.dtype.x`", "offset 2"],
        ),
        (b"\x80\x02(S'ls'\nios\nsystem\n.", ["STRING", "offset 3"]),
        (b"\x80\x02(ios\nsystem\n.", ["INST", "offset 3"]),
        (b"\x80\x02\x82\x01.", ["EXT", "offset 2"]),
        (b"\x80\x02Pkey\n.", ["PERSID", "offset 2"]),
        (b"\x80\x02N2.", ["DUP", "offset 3"]),
        (b"\x80\x04\x92.", ["NEWOBJ_EX", "offset 2"]),
        (b"\x80\x05\x96\0\0\0\0\0\0\0\0.", ["BYTEARRAY8", "offset 2"]),
        (b"\x80\x02\xff.", ["0xff", "offset 2"]),
        (b"\x80\x02h\x07.", ["remembered value 7", "offset 2"]),
        (b"\x80\x02\x8b\xff\xff\xff\x7f", ["LONG4", "offset 2"]),
        (b"\x80\x02B\xff\xff\xff\xffabc", ["BINBYTES", "offset 2"]),
        (
            b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc",
            ["BINBYTES8", "offset 2"],
        ),
        (
            b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffabc",
            ["FRAME", "offset 2"],
        ),
        (b"\x80\x02X\x01\0\0\0\xff.", ["UTF-8", "offset 2"]),
        (b"\x80\x02R.", ["REDUCE", "offset 2"]),
        (b"\x80\x02NNb.", ["BUILD", "offset 4"]),
        (b"\x80\x02}(Nu.", ["SETITEMS", "offset 5"]),
        (b"\x80\x02]N(\x86.", ["TUPLE1-3", "offset 5"]),
        (b"\x80\x02NN.", ["STOP", "offset 4"]),
        (b"\x80\x02N", ["ends at", "offset 3"]),
        (b"", ["ends at", "offset 0"]),
        (b"\x80\x06N.", ["protocol 6", "2 to 5"]),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    }
}

#[test]
fn names_cannot_flood_or_write_to_the_terminal() {
    let name = [
        b"\x80\x02c".as_slice(),
        &b"\x1b[2J".repeat(10_000),
        b"\nx\n.",
    ]
    .concat();
    let error = read(&name).unwrap_err().to_string();
    assert!(error.len() < 1000 && !error.contains('\x1b'), "{error}");
}

#[test]
fn bombs_cost_their_own_size_at_most() {
    // Two hundred thousand lists in each other: nothing here recurses.
    let deep = [
        b"\x80\x02".as_slice(),
        &b"]".repeat(100_000),
        &b"a".repeat(99_999),
        b".",
    ]
    .concat();
    assert!(matches!(read(&deep).unwrap().root(), Value::Node(0)));
    // A billion laughs: each list holds the one before it ten times.
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for i in 0..200u8 {
        laughs.extend([b']', b'q', i + 1, b'(']);
        laughs.extend([b'h', i].repeat(10));
        laughs.push(b'e');
    }
    let unfinished = read(&laughs).unwrap_err();
    assert!(matches!(unfinished, PickleError::Unfinished { .. }));
    let endless = [b"\x80\x02".as_slice(), &b"N".repeat(MAX_OPCODES)].concat();
    assert!(matches!(read(&endless).unwrap_err(), PickleError::TooLong));
    // The memo by its largest index.
    assert_eq!(root(b"\x80\x02Nr\xff\xff\xff\xff."), Value::None);
}

/// Anything the machine knows, in any order, is an error or a value.
fn opcodes() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        Just(b"(".to_vec()),
        Just(b"N".to_vec()),
        Just(b"]".to_vec()),
        Just(b"}".to_vec()),
        Just(b")".to_vec()),
        Just(b"t".to_vec()),
        Just(b"\x86".to_vec()),
        Just(b"a".to_vec()),
        Just(b"e".to_vec()),
        Just(b"s".to_vec()),
        Just(b"u".to_vec()),
        Just(b"R".to_vec()),
        Just(b"b".to_vec()),
        Just(b"Q".to_vec()),
        Just(b"q\x01".to_vec()),
        Just(b"h\x01".to_vec()),
        Just(b"\x94".to_vec()),
        Just(b"K\x05".to_vec()),
        Just(b"U\x01x".to_vec()),
        Just(b"ccollections\nOrderedDict\n".to_vec()),
        Just(b"\x8a\x01\xff".to_vec()),
        any::<u8>().prop_map(|b| vec![b]),
    ];
    prop::collection::vec(one, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in opcodes(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&noise).map(|p| p.entries(p.root()).map(|e| e.len()));
        bytes.push(b'.');
        if let Ok(pickle) = read(&bytes) {
            let _ = (pickle.entries(pickle.root()), pickle.kind(pickle.root()));
        }
    }
}
