//! Feature networks at every tap, and deliberate mistakes that must be noticed.

use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::{FeatureNet, NetKind, Tap};
use tch::{Device, Kind, Tensor};

use crate::common::{
    MISTAKE, OUTPUT, Reference, Values, assert_close, assert_parity, gradients, relative,
};
use crate::{discriminate, generate, turn_of_a_large_case};

fn taps_of(net: NetKind, from: usize, to: usize) -> Vec<Tap> {
    net.table()[from..to].iter().map(|(tap, _)| *tap).collect()
}

fn conv_taps(net: NetKind) -> Vec<Tap> {
    taps_of(net, 0, net.convolutional_rows().len())
}

fn fc_taps(net: NetKind) -> Vec<Tap> {
    taps_of(net, net.convolutional_rows().len(), net.table().len())
}

/// The network in some precision.
fn network(net: NetKind, deepest: Tap, r: &Reference, kind: Kind) -> FeatureNet {
    FeatureNet::from_tensors(
        net,
        deepest,
        &r.group_in("w/", kind),
        "reference",
        Device::Cpu,
    )
    .unwrap()
}

/// Every tap's output, and its gradient with regard to the RGB images.
fn check_feature_net(net: NetKind, taps: &[Tap], options: &str) {
    let names: Vec<&str> = taps.iter().map(|t| t.name()).collect();
    let r = Reference::run(&format!("{net} --tap {} {options}", names.join(",")));
    let deepest = *taps.last().unwrap();
    assert_parity(&format!("{net}, {options}"), &r, &|kind| {
        let ours = network(net, deepest, &r, kind);
        let x = r.leaf("x", kind);
        let found = ours.features(&rgb_to_caffe(&x).unwrap(), taps).unwrap();
        assert_eq!(found.len(), taps.len());
        let mut values = Values::default();
        for (name, y) in names.iter().zip(&found) {
            let gx = gradients(y, r.get(&format!("up/{name}")), &[&x]).remove(0);
            values.outputs.push((format!("y/{name}"), y.detach()));
            values.add(
                &format!("input gradient at {name}"),
                [(format!("gx/{name}"), gx)],
            );
        }
        values
    });
}

/// Gradients with regard to every weight up to a tap.
fn check_weight_gradients(net: NetKind, tap: Tap, options: &str) {
    let r = Reference::run(&format!("{net} --tap {tap} {options}"));
    assert_parity(&format!("{net} to {tap}, {options}"), &r, &|kind| {
        let (ours, params) = network(net, tap, &r, kind).unfreeze().unwrap();
        let x = rgb_to_caffe(&r.get("x").to_kind(kind)).unwrap();
        let y = ours.features(&x, &[tap]).unwrap().remove(0);
        let weights: Vec<&Tensor> = params.iter().map(|p| &p.tensor).collect();
        let found = gradients(&y, r.get("up"), &weights);
        assert!(!found.is_empty());
        let mut values = Values::default();
        values.outputs.push(("y".to_owned(), y.detach()));
        let names = params.iter().map(|p| format!("g/{}", p.name));
        values.add("gradients of the weights", names.zip(found));
        values
    });
}

#[test]
fn weight_gradients_of_caffenet() {
    check_weight_gradients(NetKind::CaffeNet, Tap::Pool5, "--batch 1");
    let _turn = turn_of_a_large_case();
    check_weight_gradients(NetKind::CaffeNet, Tap::Fc8, "--batch 1");
}

#[test]
fn weight_gradients_of_alexnet() {
    check_weight_gradients(NetKind::AlexNet, Tap::Pool5, "--batch 1 --crop 200");
    let _turn = turn_of_a_large_case();
    check_weight_gradients(NetKind::AlexNet, Tap::Fc8, "--batch 1");
}

#[test]
fn weight_gradients_of_squeezenet() {
    check_weight_gradients(NetKind::SqueezeNet, Tap::Logits, "--batch 1 --crop 81");
}

#[test]
fn caffenet_convolutions_at_227() {
    check_feature_net(
        NetKind::CaffeNet,
        &conv_taps(NetKind::CaffeNet),
        "--batch 2",
    );
}

/// At 224 and 200 pixels floor- and ceil-mode pooling differ.
#[test]
fn caffenet_convolutions_at_224() {
    let options = "--batch 1 --crop 224";
    check_feature_net(NetKind::CaffeNet, &conv_taps(NetKind::CaffeNet), options);
}

#[test]
fn caffenet_convolutions_at_200() {
    let options = "--batch 2 --crop 200";
    check_feature_net(NetKind::CaffeNet, &conv_taps(NetKind::CaffeNet), options);
}

#[test]
fn caffenet_fully_connected() {
    let _turn = turn_of_a_large_case();
    check_feature_net(NetKind::CaffeNet, &fc_taps(NetKind::CaffeNet), "--batch 2");
}

#[test]
fn alexnet_convolutions_at_227() {
    check_feature_net(NetKind::AlexNet, &conv_taps(NetKind::AlexNet), "--batch 2");
}

#[test]
fn alexnet_convolutions_at_200() {
    let options = "--batch 2 --crop 200";
    check_feature_net(NetKind::AlexNet, &conv_taps(NetKind::AlexNet), options);
}

/// At 128 pixels pool5 is 3×3 and the average before fc6 spreads it to 6×6.
#[test]
fn alexnet_fully_connected() {
    let _turn = turn_of_a_large_case();
    for options in ["--batch 2", "--batch 2 --crop 128"] {
        check_feature_net(NetKind::AlexNet, &fc_taps(NetKind::AlexNet), options);
    }
}

#[test]
fn videonet_convolutions_at_200() {
    let options = "--batch 1 --crop 200";
    check_feature_net(NetKind::VideoNet, &conv_taps(NetKind::VideoNet), options);
}

#[test]
fn videonet_fully_connected() {
    let _turn = turn_of_a_large_case();
    check_feature_net(NetKind::VideoNet, &fc_taps(NetKind::VideoNet), "--batch 2");
}

/// 45 pixels are odd before three of five pools.
#[test]
fn vgg16_convolutions_at_odd_sizes() {
    for options in ["--batch 1 --crop 45", "--batch 2 --crop 32"] {
        check_feature_net(NetKind::Vgg16, &conv_taps(NetKind::Vgg16), options);
    }
}

/// The 2×2 map of pool5 is spread to 7×7.
#[test]
fn vgg16_fully_connected() {
    let _turn = turn_of_a_large_case();
    let options = "--batch 2 --crop 64";
    check_feature_net(NetKind::Vgg16, &fc_taps(NetKind::Vgg16), options);
}

/// At 64 pixels every padding is uneven, at 75 some are.
#[test]
fn efficientnet_at_even_and_odd_sizes() {
    let net = NetKind::EfficientNetLite0;
    for options in ["--batch 1 --crop 75", "--batch 2 --crop 64"] {
        check_feature_net(net, &taps_of(net, 0, net.table().len()), options);
    }
    // Without the classifier's weights, as far as they are not needed.
    check_feature_net(net, &conv_taps(net), "--batch 1 --crop 49");
}

#[test]
fn mistakes_in_efficientnet_are_noticed() {
    let mistakes = ["pad-symmetric", "norm-epsilon", "no-skip", "rgb"];
    let r = Reference::run(&format!(
        "efficientnet-lite0 --batch 1 --tap pooled --crop 64 --mutate {}",
        mistakes.join(",")
    ));
    let net = NetKind::EfficientNetLite0;
    let ours = at_tap(net, Tap::Pooled, &r);
    assert_close("pooled without a mistake", &ours, r.get("y"), OUTPUT);
    for mistake in mistakes {
        let error = relative(&ours, r.get(&format!("y/{mistake}")));
        assert!(error > MISTAKE, "{mistake} goes unnoticed: {error:.2e}");
    }
}

/// At 81 pixels every pool has a last, partial window, at 64 none has.
#[test]
fn squeezenet_with_and_without_partial_windows() {
    let net = NetKind::SqueezeNet;
    for options in ["--batch 1 --crop 81", "--batch 2 --crop 64"] {
        check_feature_net(net, &conv_taps(net), options);
    }
}

#[test]
fn mistakes_in_squeezenet_are_noticed() {
    let mistakes = ["pool-floor", "branches-swapped", "rgb"];
    let r = Reference::run(&format!(
        "squeezenet --batch 1 --tap logits --crop 81 --mutate {}",
        mistakes.join(",")
    ));
    let ours = at_tap(NetKind::SqueezeNet, Tap::Logits, &r);
    assert_close("logits without a mistake", &ours, r.get("y"), OUTPUT);
    for mistake in mistakes {
        let error = relative(&ours, r.get(&format!("y/{mistake}")));
        assert!(error > MISTAKE, "{mistake} goes unnoticed: {error:.2e}");
    }
}

/// The network that FID is measured with, against pytorch-fid's own code. Its pools leave out what lies outside of maps.
#[test]
fn inception_is_pytorch_fid_s() {
    let taps = [
        "pool1", "pool2", "mixed_5d", "mixed_6a", "mixed_6e", "mixed_7a", "mixed_7b", "pooled",
        "logits",
    ];
    let net = NetKind::InceptionFid;
    check_feature_net(net, &taps.map(Tap::named), "--batch 1 --crop 107");
    let r = Reference::run("inception-fid --batch 1 --tap pooled --crop 80 --mutate rgb");
    let error = relative(&at_tap(net, Tap::Pooled, &r), r.get("y"));
    assert!(error > MISTAKE, "swapped colours go unnoticed: {error:.2e}");
}

// --- Deliberate mistakes ------------------------------------------------------------------

/// What the reference can do wrong on purpose.
const MISTAKES: [&str; 5] = [
    "pool-floor",
    "norm-first",
    "alpha-not-divided",
    "no-groups",
    "rgb",
];

fn every_mistake_is_noticed_at(crop: i64) {
    let r = Reference::run(&format!(
        "caffenet --batch 1 --tap pool5 --crop {crop} --mutate {}",
        MISTAKES.join(",")
    ));
    let ours = pool5(NetKind::CaffeNet, &r);
    assert_close("pool5 without a mistake", &ours, r.get("y"), OUTPUT);
    for mistake in MISTAKES {
        let error = relative(&ours, r.get(&format!("y/{mistake}")));
        if mistake == "pool-floor" && crop == 227 {
            // 55, 27 and 13 leave no partial window: both modes are one, and parity must hold.
            assert!(error < OUTPUT, "{mistake} at {crop}: {error:.2e}");
        } else {
            assert!(
                error > MISTAKE,
                "{mistake} at {crop} goes unnoticed: {error:.2e}"
            );
        }
    }
}

/// Our features for the reference's weights and images.
fn at_tap(net: NetKind, tap: Tap, r: &Reference) -> Tensor {
    let ours =
        FeatureNet::from_tensors(net, tap, &r.group("w/"), "reference", Device::Cpu).unwrap();
    let caffe = rgb_to_caffe(r.get("x")).unwrap();
    ours.features(&caffe, &[tap]).unwrap().remove(0)
}

fn pool5(net: NetKind, r: &Reference) -> Tensor {
    at_tap(net, Tap::Pool5, r)
}

#[test]
fn mistakes_are_noticed_at_227() {
    every_mistake_is_noticed_at(227);
}

#[test]
fn mistakes_are_noticed_at_224() {
    every_mistake_is_noticed_at(224);
}

#[test]
fn mistakes_are_noticed_at_200() {
    every_mistake_is_noticed_at(200);
}

#[test]
fn swapped_colours_are_noticed_in_every_network() {
    let r = Reference::run("alexnet --batch 1 --tap pool5 --crop 128 --mutate rgb");
    let alexnet = relative(&pool5(NetKind::AlexNet, &r), r.get("y"));
    let r = Reference::run("vgg16 --batch 1 --tap pool5 --crop 64 --mutate rgb");
    let vgg16 = relative(&pool5(NetKind::Vgg16, &r), r.get("y"));
    let r = Reference::run("videonet --batch 1 --tap pool5 --crop 128 --mutate rgb");
    let videonet = relative(&pool5(NetKind::VideoNet, &r), r.get("y"));
    let r = Reference::run("discriminator --batch 2 --crop 64 --mutate rgb");
    let discriminator = relative(&discriminate(&r, r.get("x")).1, r.get("y"));
    let r = Reference::run("generator --batch 1 --features 64,6 --crop 32 --mutate rgb");
    let generator = relative(&generate(&r, r.get("x")).1, r.get("y"));
    for (net, error) in [
        ("alexnet", alexnet),
        ("vgg16", vgg16),
        ("videonet", videonet),
        ("discriminator", discriminator),
        ("generator", generator),
    ] {
        assert!(
            error > MISTAKE,
            "{net} takes RGB for BGR unnoticed: {error:.2e}"
        );
    }
}
