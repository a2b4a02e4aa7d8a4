//! Encoders against the libraries that people run them with: transformers of Hugging Face and torchvision, both with
//! random weights, under the names that those libraries give them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::init::normal;
use deepsim_nets::layers::op::{Op, Row};
use deepsim_nets::layers::vit::Vit;
use deepsim_nets::params::{NamedTensors, f32_bytes};
use deepsim_nets::zoo::vit::rows;
use deepsim_nets::{FeatureNet, NETS, Net, NetError, NetKind, Tap, Tokens};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::{Device, Kind, Tensor};

use crate::common::{Reference, Values, assert_close, assert_parity, gradients};

/// Channels, and values of CLIP's projection, of the small networks.
const WIDTH: i64 = 32;
const PROJECTED: i64 = 16;
/// Patches a side that the small networks have positions for.
const GRID: i64 = 4;

/// A network of the registry with three blocks and few channels. All else is its entry's.
fn small(kind: NetKind, patch: i64) -> &'static Net {
    let real: &'static Net = kind.info();
    let Op::Vit(vit, _) = real.table[0].1 else {
        panic!("{kind} is no transformer");
    };
    let vit: &'static Vit = Box::leak(Box::new(Vit {
        patch,
        grid: GRID,
        width: WIDTH,
        heads: 4,
        mlp: 2 * WIDTH,
        ..*vit
    }));
    let end: Vec<Row> = real.table[real.table.len() - 2..]
        .iter()
        .map(|&(tap, op)| {
            let op = match op {
                Op::Vit(_, part) => Op::Vit(vit, part),
                Op::Fc { key, bias, .. } => Op::Fc {
                    key,
                    input: WIDTH,
                    output: PROJECTED,
                    bias,
                },
                other => panic!("{other:?} at the end of {kind}"),
            };
            (tap, op)
        })
        .collect();
    let table: &'static [Row] = Box::leak(Box::new(rows::<6>(vit, &end)));
    Box::leak(Box::new(Net { table, ..*real }))
}

/// A tap as an experiment file names it.
fn tap(name: &str) -> Tap {
    serde_json::from_value(name.into()).unwrap()
}

/// Values of every tap, and gradients with regard to the RGB images.
fn check(net: &'static Net, case: &str, taps: &[Tap]) {
    let r = Reference::run(case);
    let deepest = tap(net.table[net.table.len() - 1].0.name());
    assert_parity(case, &r, &|kind| {
        let weights = r.group_in("w/", kind);
        let ours = FeatureNet::from_tensors(net, deepest, &weights, "reference", Device::Cpu);
        let ours = ours.unwrap();
        let x = r.leaf("x", kind);
        let found = ours.features(&rgb_to_caffe(&x).unwrap(), taps).unwrap();
        let mut values = Values::default();
        for (tap, y) in taps.iter().zip(&found) {
            let gx = gradients(y, r.get(&format!("up/{tap}")), &[&x]).remove(0);
            values.outputs.push((format!("y/{tap}"), y.detach()));
            values.add(
                &format!("input gradient at {tap}"),
                [(format!("gx/{tap}"), gx)],
            );
        }
        values
    });
}

/// Layers, a sum, a mean of which one is normalised, and all tokens.
fn transformer_taps(end: &[&str]) -> Vec<Tap> {
    let names = ["embed", "block0", "block1", "block2"].iter().chain(end);
    let combined = ["block0+block2", "mean(layernorm(block0)+block2)"];
    let mut taps: Vec<Tap> = names.chain(&combined).map(|name| tap(name)).collect();
    taps.push(Tap::Block1.with(Tokens::All));
    taps
}

/// At the size that there are positions for, at another one, and at one that is not square.
fn check_transformer(kind: NetKind, patch: i64, case: &str, end: &[&str]) {
    let net = small(kind, patch);
    let taps = transformer_taps(end);
    for (rows, columns) in [(GRID, GRID), (6, 6), (3, 5)] {
        let (rows, crop) = (rows * patch, columns * patch);
        check(
            net,
            &format!("{case} --batch 2 --crop {crop} --rows {rows}"),
            &taps,
        );
    }
}

#[test]
fn dinov2_without_and_with_registers() {
    let end = ["norm", "pooled"];
    check_transformer(NetKind::Dinov2Base, 14, "encoder-dinov2", &end);
    check_transformer(
        NetKind::Dinov2RegistersBase,
        14,
        "encoder-dinov2-registers",
        &end,
    );
}

#[test]
fn clip_and_siglip() {
    let end = ["pooled", "projected"];
    check_transformer(NetKind::ClipBase32, 8, "encoder-clip", &end);
    let end = ["norm", "pooled"];
    check_transformer(NetKind::SiglipBase16, 8, "encoder-siglip", &end);
}

#[test]
fn resnet50_at_an_odd_size() {
    let names = [
        "stem", "pool1", "layer1_0", "layer2_0", "layer2_3", "layer4_2", "pooled", "logits",
    ];
    let case = "encoder-resnet50 --batch 1 --crop 75 --rows 64";
    check(NetKind::ResNet50.info(), case, &names.map(tap));
}

#[test]
fn convnext_at_an_odd_size() {
    let names = [
        "stem", "stage1_0", "down2", "stage3_8", "stage4_2", "pooled", "norm", "logits",
    ];
    let case = "encoder-convnext-tiny --batch 1 --crop 75 --rows 64";
    check(NetKind::ConvNextTiny.info(), case, &names.map(tap));
}

/// Its convolutions: the fully connected layers are VGG16's.
#[test]
fn vgg19_at_an_odd_size() {
    let names = [
        "conv1_1", "relu1_2", "conv3_4", "relu3_4", "pool4", "conv5_4", "pool5",
    ];
    let net = NetKind::Vgg19.info();
    let convolutions = net.convolutional_rows();
    let short: &'static Net = Box::leak(Box::new(Net {
        table: convolutions,
        ..*net
    }));
    let case = "encoder-vgg19 --batch 1 --crop 45 --rows 37";
    check(short, case, &names.map(tap));
}

/// Each network's own tensors are exactly those that the library makes, but for those that are left aside.
#[test]
fn names_and_shapes_at_full_size_are_the_libraries() {
    type Shapes = BTreeMap<String, Vec<i64>>;
    let r = Reference::run("encoder-shapes");
    let all: BTreeMap<String, Shapes> = serde_json::from_str(r.meta("shapes")).unwrap();
    assert_eq!(all.len(), 12);
    for (name, mut theirs) in all {
        let net = NETS.iter().find(|net| net.name == name).unwrap();
        let whole = theirs.len();
        theirs.retain(|tensor, _| !net.leaves_aside(tensor));
        let left = whole - theirs.len();
        let counted = !(name.starts_with("vgg") || name.starts_with("convnext"));
        assert_eq!(left > 0, counted, "{name}: {left} tensors left aside");
        let ours: Shapes = NetKind::weight_shapes(net.table).into_iter().collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

/// A safetensors file with these tensors, and a counter in whole numbers as older files of CLIP have one.
fn file(folder: &Path, tensors: &NamedTensors) -> PathBuf {
    let bytes: Vec<(&String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, t)| {
            let shape = t.size().into_iter().map(|d| usize::try_from(d).unwrap());
            (name, shape.collect(), f32_bytes(t).unwrap())
        })
        .collect();
    let ids: Vec<u8> = (0..3_i64).flat_map(i64::to_le_bytes).collect();
    let counter = "vision_model.embeddings.position_ids";
    let mut views = vec![(
        counter,
        TensorView::new(Dtype::I64, vec![1, 3], &ids).unwrap(),
    )];
    for (name, shape, bytes) in &bytes {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        views.push((name.as_str(), view));
    }
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None::<HashMap<String, String>>, &path).unwrap();
    path
}

/// Both towers' file serves as it is, and nothing else does.
#[test]
fn a_file_of_both_towers_is_read_and_one_of_another_transformer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let r = Reference::run("encoder-clip --batch 2 --crop 32 --rows 32");
    let weights = r.group("w/");
    assert!(weights.keys().any(|name| name.starts_with("text_model.")));
    let path = file(folder.path(), &weights);
    let net = small(NetKind::ClipBase32, 8);
    let load = |net: &'static Net, at: Tap| FeatureNet::load(net, at, &path, Device::Cpu);
    let x = rgb_to_caffe(r.get("x")).unwrap();
    let at = tap("projected");
    let y = load(net, at)
        .unwrap()
        .features(&x, &[at])
        .unwrap()
        .remove(0);
    assert_close("projected, from the file", &y, r.get("y/projected"), 1e-5);

    let other = small(NetKind::SiglipBase16, 8);
    let error = load(other, Tap::Pooled).unwrap_err().to_string();
    for word in [
        "siglip",
        "missing: vision_model.head.probe [1, 1, 32]",
        "unknown: visual_projection.weight",
        "shape: vision_model.embeddings.position_embedding.weight is [17, 32], expected [16, 32]",
    ] {
        assert!(error.contains(word), "no {word} in {error}");
    }
}

/// A penalty on gradients differentiates them once more.
#[test]
fn gradients_of_a_transformer_can_be_differentiated() {
    let net = small(NetKind::Dinov2RegistersSmall, 14);
    let ours = FeatureNet::random(net, Tap::Pooled, 1, Device::Cpu).unwrap();
    let x = normal("x", &[1, 3, 56, 42], 50.0, 1).unwrap();
    let x = x.set_requires_grad(true);
    let y = ours.features(&x, &[Tap::Block2]).unwrap().remove(0);
    assert_eq!(y.size(), [1, WIDTH, 4, 3]);
    let first = Tensor::run_backward(&[y.square().sum(Kind::Float)], &[&x], true, true);
    let penalty = first[0].square().sum(Kind::Float);
    let second = Tensor::run_backward(&[penalty], &[&x], false, false).remove(0);
    let size = second.norm().double_value(&[]);
    assert!(size > 0.0 && size.is_finite(), "{size}");
}

#[test]
fn what_does_not_fit_is_told_with_what_would() {
    let net = NetKind::Dinov2Small;
    let error = net.shape_at(Tap::Block2, 227, 224).unwrap_err();
    assert!(matches!(error, NetError::Patches { .. }));
    let text = error.to_string();
    for word in ["multiples of 14", "227x224", "224 and 238"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let all = Tap::Block2.with(Tokens::All);
    assert_eq!(net.shape_at(all, 224, 224).unwrap(), [384, 257, 1]);
    let error = NetKind::Vgg19.shape_at(Tap::Pool3.with(Tokens::All), 64, 64);
    assert!(error.unwrap_err().to_string().contains("has no tokens"));
    let error = NetKind::Vgg19.shape_at(tap("pool3+pool4"), 64, 64);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("[256, 8, 8] at `pool3`"), "{text}");
    let error = NetKind::Dinov2Small
        .rows_to(tap("block3+block23"))
        .unwrap_err();
    assert!(error.to_string().contains("no tap `block23`"), "{error}");
}
