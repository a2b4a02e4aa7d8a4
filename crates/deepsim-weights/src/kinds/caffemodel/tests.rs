//! Caffemodels made here, whole and hostile.

use proptest::prelude::*;
use prost::Message;

use super::schema::{
    BlobProto, BlobShape, InnerProductParameter, LayerParameter, NetParameter, V1LayerParameter,
};
use super::*;

fn counting(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 / 8.0 - 3.0).collect()
}

fn legacy(dims: [i64; 4]) -> BlobProto {
    let [num, channels, height, width] = dims;
    BlobProto {
        num,
        channels,
        height,
        width,
        data: counting(dims.iter().product::<i64>() as usize),
        ..Default::default()
    }
}

fn shaped(dims: &[i64]) -> BlobProto {
    BlobProto {
        shape: Some(BlobShape { dim: dims.to_vec() }),
        data: counting(dims.iter().product::<i64>() as usize),
        ..Default::default()
    }
}

fn v1(name: &str, kind: i32, blobs: Vec<BlobProto>) -> V1LayerParameter {
    V1LayerParameter {
        name: name.to_owned(),
        kind,
        blobs,
    }
}

fn layer(name: &str, kind: &str, blobs: Vec<BlobProto>) -> LayerParameter {
    LayerParameter {
        name: name.to_owned(),
        kind: kind.to_owned(),
        blobs,
        inner_product_param: None,
    }
}

fn new_net(layer: Vec<LayerParameter>) -> Vec<u8> {
    NetParameter {
        layers: vec![],
        layer,
    }
    .encode_to_vec()
}

fn old_net(layers: Vec<V1LayerParameter>) -> Vec<u8> {
    NetParameter {
        layers,
        layer: vec![],
    }
    .encode_to_vec()
}

fn one(blob: BlobProto) -> Result<Vec<NamedTensor>, CaffeError> {
    parse(&new_net(vec![layer("l", "Convolution", vec![blob])]))
}

fn shapes(tensors: &[NamedTensor]) -> Vec<(&str, &[usize])> {
    tensors
        .iter()
        .map(|t| (t.name.as_str(), t.shape.as_slice()))
        .collect()
}

/// CaffeNet's layers as the model zoo stores them, at an eighth of the width.
fn small_caffenet() -> Vec<u8> {
    const CONVOLUTION: i32 = 4;
    const DATA: i32 = 5;
    const INNER_PRODUCT: i32 = 14;
    const RELU: i32 = 18;
    let conv = |name, dims: [i64; 4]| {
        v1(
            name,
            CONVOLUTION,
            vec![legacy(dims), legacy([1, 1, 1, dims[0]])],
        )
    };
    let fc = |name, out, inp| {
        v1(
            name,
            INNER_PRODUCT,
            vec![legacy([1, 1, out, inp]), legacy([1, 1, 1, out])],
        )
    };
    old_net(vec![
        v1("data", DATA, vec![]),
        conv("conv1", [12, 3, 11, 11]),
        v1("relu1", RELU, vec![]),
        conv("conv2", [32, 6, 5, 5]),
        conv("conv3", [48, 32, 3, 3]),
        conv("conv4", [48, 24, 3, 3]),
        conv("conv5", [32, 24, 3, 3]),
        fc("fc6", 64, 288),
        fc("fc7", 64, 64),
        fc("fc8", 125, 64),
    ])
}

#[test]
fn old_caffenet_gives_its_sixteen_tensors() {
    let tensors = parse(&small_caffenet()).unwrap();
    let expected: Vec<(&str, &[usize])> = vec![
        ("conv1.weight", &[12, 3, 11, 11]),
        ("conv1.bias", &[12]),
        ("conv2.weight", &[32, 6, 5, 5]),
        ("conv2.bias", &[32]),
        ("conv3.weight", &[48, 32, 3, 3]),
        ("conv3.bias", &[48]),
        ("conv4.weight", &[48, 24, 3, 3]),
        ("conv4.bias", &[48]),
        ("conv5.weight", &[32, 24, 3, 3]),
        ("conv5.bias", &[32]),
        ("fc6.weight", &[64, 288]),
        ("fc6.bias", &[64]),
        ("fc7.weight", &[64, 64]),
        ("fc7.bias", &[64]),
        ("fc8.weight", &[125, 64]),
        ("fc8.bias", &[125]),
    ];
    assert_eq!(shapes(&tensors), expected);
    assert_eq!(tensors[10].data, counting(64 * 288));
}

#[test]
fn new_layers_keep_their_shapes_and_generators_their_deconvolutions() {
    let tensors = parse(&new_net(vec![
        layer("input", "Input", vec![]),
        layer("defc7", "InnerProduct", vec![shaped(&[6, 4]), shaped(&[6])]),
        layer(
            "deconv5",
            "Deconvolution",
            vec![shaped(&[5, 2, 4, 4]), shaped(&[2])],
        ),
        layer("deconv0", "Deconvolution", vec![shaped(&[1, 1, 4, 4])]),
        // Upgraded from the old format with its dimensions as they were.
        layer(
            "fc",
            "InnerProduct",
            vec![legacy([1, 1, 2, 3]), legacy([1, 1, 1, 2])],
        ),
    ]))
    .unwrap();
    let expected: Vec<(&str, &[usize])> = vec![
        ("defc7.weight", &[6, 4]),
        ("defc7.bias", &[6]),
        ("deconv5.weight", &[5, 2, 4, 4]),
        ("deconv5.bias", &[2]),
        ("deconv0.weight", &[1, 1, 4, 4]),
        ("fc.weight", &[2, 3]),
        ("fc.bias", &[2]),
    ];
    assert_eq!(shapes(&tensors), expected);
}

#[test]
fn layers_without_a_type_are_told_apart_by_their_dimensions() {
    let tensors = parse(&old_net(vec![
        v1("fc", 0, vec![legacy([1, 1, 4, 6])]),
        v1("conv", 0, vec![legacy([4, 1, 3, 3])]),
    ]))
    .unwrap();
    let expected: Vec<(&str, &[usize])> =
        vec![("fc.weight", &[4, 6]), ("conv.weight", &[4, 1, 3, 3])];
    assert_eq!(shapes(&tensors), expected);
}

/// A field of the wire format, written without the schema under test.
fn field(tag: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encode_length_delimiter((tag << 3 | 2) as usize, &mut bytes).unwrap();
    prost::encode_length_delimiter(payload.len(), &mut bytes).unwrap();
    bytes.extend(payload);
    bytes
}

#[test]
fn field_numbers_are_those_of_caffe() {
    let floats = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
    let doubles = [0.1f64, 4.0].map(f64::to_le_bytes).concat();
    let [name, shape] = [b"ip".as_slice(), b"\x0a\x02\x01\x02"];

    // NetParameter.layer = 100 { name = 1, type = 2, blobs = 7 { shape = 7, diff = 6, data = 5 } }
    let blob = [field(7, shape), field(6, &floats), field(5, &floats)].concat();
    let new = [
        field(1, name),
        field(2, b"InnerProduct"),
        field(3, b"bottom"),
        field(7, &blob),
    ]
    .concat();
    let tensors = parse(&[field(1, b"net"), field(100, &new)].concat()).unwrap();
    assert_eq!(shapes(&tensors), vec![("ip.weight", [1, 2].as_slice())]);
    assert_eq!(tensors[0].data, [1.5, -2.0]);

    // NetParameter.layers = 2 { name = 4, type = 5, blobs = 6 { num..width = 1..4, double_data = 8 } }
    let legacy = b"\x08\x01\x10\x01\x18\x01\x20\x02";
    let blob = [legacy.to_vec(), field(8, &doubles)].concat();
    let old = [field(4, name), vec![5 << 3, 14], field(6, &blob)].concat();
    let tensors = parse(&field(2, &old)).unwrap();
    assert_eq!(shapes(&tensors), vec![("ip.weight", [1, 2].as_slice())]);
    assert_eq!(tensors[0].data, [0.1, 4.0]);

    // Values that are not packed, as protocol buffers allow: tag 5, wire type 5.
    let unpacked = [legacy.to_vec(), vec![0x2d], floats[..4].to_vec()].concat();
    let unpacked = [unpacked, vec![0x2d], floats[4..].to_vec()].concat();
    let old = [field(4, name), field(6, &unpacked)].concat();
    assert_eq!(parse(&field(2, &old)).unwrap()[0].data, [1.5, -2.0]);
}

#[test]
fn every_broken_invariant_has_its_error() {
    let ok = || shaped(&[2, 1, 1, 1]);
    macro_rules! refused {
        ($bytes:expr, $pattern:pat) => {
            let error = parse($bytes.as_ref()).unwrap_err();
            assert!(matches!(error, $pattern), "{error:?}");
        };
    }
    refused!(b"\x89HDF\r\n\x1a\n", CaffeError::Hdf5);
    refused!(b"name: \"CaffeNet\"", CaffeError::Protobuf { .. });
    refused!(b"", CaffeError::NoWeights);
    refused!(
        new_net(vec![layer("r", "ReLU", vec![])]),
        CaffeError::NoWeights
    );
    refused!(field(2, &field(1, b"")), CaffeError::V0Layers);
    refused!(
        [
            old_net(vec![v1("a", 4, vec![ok()])]),
            new_net(vec![layer("b", "", vec![ok()])])
        ]
        .concat(),
        CaffeError::MixedLayers
    );
    refused!(
        new_net(vec![layer("", "Convolution", vec![ok()])]),
        CaffeError::Unnamed { index: 0 }
    );
    refused!(
        new_net(vec![
            layer("a", "Convolution", vec![ok()]),
            layer("a", "Convolution", vec![ok()])
        ]),
        CaffeError::Duplicate { .. }
    );
    refused!(
        new_net(vec![layer("bn", "BatchNorm", vec![ok(), ok(), ok()])]),
        CaffeError::ExtraBlobs { count: 3, .. }
    );
    let mut turned = layer("fc", "InnerProduct", vec![shaped(&[2, 2])]);
    turned.inner_product_param = Some(InnerProductParameter { transpose: true });
    refused!(new_net(vec![turned]), CaffeError::Transposed { .. });
    refused!(
        new_net(vec![layer(
            "fc",
            "InnerProduct",
            vec![shaped(&[2, 2, 1, 1])]
        )]),
        CaffeError::WrongRank { rank: 2, .. }
    );
    refused!(
        new_net(vec![layer("c", "Convolution", vec![ok(), shaped(&[2, 2])])]),
        CaffeError::WrongRank { rank: 1, .. }
    );
}

#[test]
fn arrays_that_do_not_fit_their_shape_are_refused() {
    let dims = |dim: &[i64], data: Vec<f32>| BlobProto {
        shape: Some(BlobShape { dim: dim.to_vec() }),
        data,
        ..Default::default()
    };
    assert!(matches!(
        one(dims(&[2, 3], vec![])),
        Err(CaffeError::NoValues { .. })
    ));
    for shape in [
        [-2i64, -3].as_slice(),
        &[0, 6],
        &[i64::MAX, i64::MAX],
        &[i64::MIN],
    ] {
        let refused = one(dims(shape, counting(6)));
        assert!(matches!(refused, Err(CaffeError::ImpossibleShape { .. })));
    }
    assert!(matches!(
        one(dims(&[2, 3], counting(5))),
        Err(CaffeError::Count {
            expected: 6,
            actual: 5,
            ..
        })
    ));
    // Neither `shape` nor the legacy dimensions.
    let bare = BlobProto {
        data: counting(3),
        ..Default::default()
    };
    assert!(matches!(one(bare), Err(CaffeError::ImpossibleShape { .. })));
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(matches!(
            one(dims(&[2], vec![1.0, bad])),
            Err(CaffeError::NotFinite { index: 1, .. })
        ));
    }
    let too_big_for_f32 = BlobProto {
        double_data: vec![1e300],
        ..dims(&[1], vec![])
    };
    assert!(matches!(
        one(too_big_for_f32),
        Err(CaffeError::TooLarge { index: 0, .. })
    ));
}

#[test]
fn counts_that_would_fill_the_memory_are_refused_before_decoding() {
    let layers = field(100, b"").repeat(5000);
    assert!(matches!(
        parse(&layers),
        Err(CaffeError::TooMany { what: "layers", .. })
    ));
    let blobs = field(2, &field(6, b"").repeat(65));
    assert!(matches!(parse(&blobs), Err(CaffeError::TooMany { .. })));
    let shape = field(100, &field(7, &field(7, &field(1, &[1; 1000]))));
    assert!(matches!(parse(&shape), Err(CaffeError::TooMany { .. })));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        // Behind the frame of a layer, so that more of it is looked at.
        let _ = parse(&field(100, &bytes));
        let _ = parse(&field(2, &field(6, &bytes)));
    }

    #[test]
    fn a_cut_or_flipped_file_gives_an_error_or_whole_tensors(
        cut in 0..400usize, at in 0..400usize, flip in 1..=255u8,
    ) {
        let file = new_net(vec![
            layer("fc", "InnerProduct", vec![shaped(&[4, 6]), shaped(&[4])]),
            layer("conv", "Convolution", vec![shaped(&[3, 2, 3, 3]), shaped(&[3])]),
        ]);
        let whole = parse(&file).unwrap();
        let cut = cut % file.len();
        if let Ok(tensors) = parse(&file[..cut]) {
            prop_assert!(whole.starts_with(&tensors) && tensors.len() < whole.len());
        }
        let mut flipped = file;
        let at = at % flipped.len();
        flipped[at] ^= flip;
        for tensor in parse(&flipped).unwrap_or_default() {
            prop_assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
        }
    }
}
