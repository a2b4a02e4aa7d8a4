//! Networks, losses, metrics and Adam against an independent reference in PyTorch.

mod common;
#[path = "parity/iteration.rs"]
mod iteration;

use std::sync::Mutex;

use common::{
    GRADIENT, MISTAKE, OUTPUT, Reference, assert_close, gradients, reference_script, relative,
};
use deepsim_nets::losses::{Label, cross_entropy, squared_distance};
use deepsim_nets::metrics::normalised_error;
use deepsim_nets::pictures::{caffe_to_rgb, clip_caffe, rgb_to_caffe};
use deepsim_nets::{
    Adam, AdamOptions, Discriminator, DiscriminatorSpec, Dropout, FeatureBranch, FeatureNet,
    FeatureShape, Generator, GeneratorSpec, NetKind, Param, Params, Reduction, Tap,
};
use tch::{Device, Tensor};

/// Cases with fully connected layers hold half a gigabyte: one at a time.
static LARGE: Mutex<()> = Mutex::new(());

fn one_large_case() -> std::sync::MutexGuard<'static, ()> {
    LARGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn the_reference_agrees_with_the_published_facts() {
    let printed = reference_script(&["--selftest"]);
    assert_eq!(printed.lines().filter(|l| l.starts_with("ok ")).count(), 7, "{printed}");
}

// --- Feature networks ---------------------------------------------------------------------

fn taps_of(net: NetKind, from: usize, to: usize) -> Vec<Tap> {
    net.table()[from..to].iter().map(|(tap, _)| *tap).collect()
}

fn conv_taps(net: NetKind) -> Vec<Tap> {
    taps_of(net, 0, net.convolutional_rows().len())
}

fn fc_taps(net: NetKind) -> Vec<Tap> {
    taps_of(net, net.convolutional_rows().len(), net.table().len())
}

/// Every tap's output, and its gradient with regard to the RGB pictures.
fn check_feature_net(net: NetKind, taps: &[Tap], options: &str) {
    let names: Vec<&str> = taps.iter().map(|t| t.name()).collect();
    let r = Reference::run(&format!("{net} --tap {} {options}", names.join(",")));
    let deepest = *taps.last().unwrap();
    let ours =
        FeatureNet::from_tensors(net, deepest, &r.group("w/"), "reference", Device::Cpu).unwrap();
    let x = r.leaf("x");
    let found = ours.features(&rgb_to_caffe(&x).unwrap(), taps).unwrap();
    assert_eq!(found.len(), taps.len());
    for (name, y) in names.iter().zip(&found) {
        let at = |what: &str| format!("{net} {what} at {name}, {options}");
        assert_close(&at("output"), y, r.get(&format!("y/{name}")), OUTPUT);
        let gx = &gradients(y, r.get(&format!("up/{name}")), &[&x])[0];
        assert_close(&at("input gradient"), gx, r.get(&format!("gx/{name}")), GRADIENT);
    }
}

#[test]
fn caffenet_convolutions_at_227() {
    check_feature_net(NetKind::CaffeNet, &conv_taps(NetKind::CaffeNet), "--seed 1 --batch 2");
}

/// At 224 and 200 pixels floor- and ceil-mode pooling differ.
#[test]
fn caffenet_convolutions_at_224() {
    let options = "--seed 2 --batch 1 --crop 224";
    check_feature_net(NetKind::CaffeNet, &conv_taps(NetKind::CaffeNet), options);
}

#[test]
fn caffenet_convolutions_at_200() {
    let options = "--seed 3 --batch 2 --crop 200";
    check_feature_net(NetKind::CaffeNet, &conv_taps(NetKind::CaffeNet), options);
}

#[test]
fn caffenet_fully_connected() {
    let _turn = one_large_case();
    check_feature_net(NetKind::CaffeNet, &fc_taps(NetKind::CaffeNet), "--seed 4 --batch 2");
}

#[test]
fn alexnet_convolutions_at_227() {
    check_feature_net(NetKind::AlexNet, &conv_taps(NetKind::AlexNet), "--seed 1 --batch 2");
}

#[test]
fn alexnet_convolutions_at_200() {
    let options = "--seed 2 --batch 2 --crop 200";
    check_feature_net(NetKind::AlexNet, &conv_taps(NetKind::AlexNet), options);
}

/// At 128 pixels pool5 is 3×3 and the average before fc6 spreads it to 6×6.
#[test]
fn alexnet_fully_connected() {
    let _turn = one_large_case();
    for options in ["--seed 3 --batch 2", "--seed 4 --batch 2 --crop 128"] {
        check_feature_net(NetKind::AlexNet, &fc_taps(NetKind::AlexNet), options);
    }
}

// --- Deliberate mistakes ------------------------------------------------------------------

/// Error of our pool5 against a reference that makes `mistake` (or none).
fn pool5_error(net: NetKind, crop: i64, mistake: &str) -> f64 {
    let r = Reference::run(&format!(
        "{net} --seed 5 --batch 1 --tap pool5 --crop {crop} {mistake}"
    ));
    let ours =
        FeatureNet::from_tensors(net, Tap::Pool5, &r.group("w/"), "reference", Device::Cpu).unwrap();
    let caffe = rgb_to_caffe(r.get("x")).unwrap();
    relative(&ours.features(&caffe, &[Tap::Pool5]).unwrap()[0], r.get("y"))
}

fn every_mistake_is_noticed_at(crop: i64) {
    let honest = pool5_error(NetKind::CaffeNet, crop, "");
    assert!(honest < OUTPUT, "without a mistake: {honest:.2e}");
    for mistake in ["pool-floor", "norm-first", "alpha-not-divided", "no-groups", "rgb"] {
        let error = pool5_error(NetKind::CaffeNet, crop, &format!("--mutate {mistake}"));
        if mistake == "pool-floor" && crop == 227 {
            // 55, 27 and 13 leave no partial window: both modes are one, and parity must hold.
            assert!(error < OUTPUT, "{mistake} at {crop}: {error:.2e}");
        } else {
            assert!(error > MISTAKE, "{mistake} at {crop} goes unnoticed: {error:.2e}");
        }
    }
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
    let alexnet = pool5_error(NetKind::AlexNet, 128, "--mutate rgb");
    let r = Reference::run("discriminator --seed 5 --batch 2 --crop 64 --mutate rgb");
    let discriminator = relative(&discriminate(&r, &r.leaf("x")).1, r.get("y"));
    let r = Reference::run("generator --seed 5 --batch 1 --features 64,6 --crop 32 --mutate rgb");
    let generator = relative(&generate(&r, r.get("x")).1, r.get("y"));
    for (net, error) in
        [("alexnet", alexnet), ("discriminator", discriminator), ("generator", generator)]
    {
        assert!(error > MISTAKE, "{net} takes RGB for BGR unnoticed: {error:.2e}");
    }
}

// --- Generators ---------------------------------------------------------------------------

fn feature_shape(numbers: &[i64]) -> FeatureShape {
    match *numbers {
        [n] => FeatureShape::Vector(n),
        [channels, size] => FeatureShape::Map { channels, size },
        _ => panic!("{numbers:?} are no features"),
    }
}

fn generator(r: &Reference, weights: &str) -> Generator {
    let spec = GeneratorSpec {
        input: feature_shape(&r.numbers("features")),
        crop: r.numbers("crop")[0],
        width: 1.0,
    };
    let mut g = Generator::new(spec, 0, Device::Cpu).unwrap();
    g.params_mut().copy_from(&r.group(weights), "the generator", "reference").unwrap();
    g
}

/// The generator and its pictures, RGB 0–255.
fn generate(r: &Reference, features: &Tensor) -> (Generator, Tensor) {
    let g = generator(r, "w/");
    let y = caffe_to_rgb(&g.forward(features).unwrap()).unwrap();
    (g, y)
}

/// Output, input gradient, and the gradient of exactly the weights that train.
fn check_trained(case: &str, r: &Reference, params: &Params, x: &Tensor, y: &Tensor) {
    assert_close(&format!("{case}: output"), y, r.get("y"), OUTPUT);
    let trained = params.trained();
    let mut names: Vec<&str> = trained.iter().map(|p| p.name.as_str()).collect();
    let mut inputs = vec![x];
    inputs.extend(trained.iter().map(|p| &p.tensor));
    let found = gradients(y, r.get("up"), &inputs);
    assert_close(&format!("{case}: input gradient"), &found[0], r.get("gx"), GRADIENT);
    let expected = r.group("g/");
    for (name, g) in names.iter().zip(&found[1..]) {
        let e = expected.get(*name).unwrap_or_else(|| panic!("{case}: {name} must not train"));
        assert_close(&format!("{case}: gradient of {name}"), g, e, GRADIENT);
    }
    names.sort_unstable();
    assert!(expected.keys().eq(names.iter()), "{case}: all of {:?} train", expected.keys());
}

fn check_generator(options: &str) {
    let case = format!("generator {options}");
    let r = Reference::run(&case);
    let x = r.leaf("x");
    let (g, y) = generate(&r, &x);
    check_trained(&case, &r, g.params(), &x, &y);
}

#[test]
fn generator_for_conv5() {
    check_generator("--tap pool5 --seed 1 --batch 2");
}

/// FC7's generator is FC6's.
#[test]
fn generator_for_fc6() {
    let _turn = one_large_case();
    check_generator("--tap relu6 --seed 2 --batch 2");
}

#[test]
fn generator_for_fc8() {
    let _turn = one_large_case();
    check_generator("--tap fc8 --seed 3 --batch 2");
}

/// Fewer doublings, odd crops, and maps that enter the trunk later.
#[test]
fn generators_of_other_sizes() {
    for options in [
        "--features 256,3 --crop 128",
        "--features 192,7 --crop 96",
        "--features 256,13 --crop 227",
        "--features 64,27 --crop 101",
        "--features 24,5 --crop 64",
    ] {
        check_generator(&format!("{options} --seed 4 --batch 1"));
    }
}

// --- Discriminator ------------------------------------------------------------------------

fn discriminator(r: &Reference, weights: &str) -> Discriminator {
    let values = r.group(weights);
    let features = match values.get("Dfeat1.weight") {
        Some(w) => FeatureBranch::Features(w.size()[1]),
        None => FeatureBranch::Off,
    };
    let spec = DiscriminatorSpec { crop: r.numbers("crop")[0], features };
    let mut d = Discriminator::new(spec, 0, Device::Cpu).unwrap();
    d.params_mut().copy_from(&values, "the discriminator", "reference").unwrap();
    d
}

/// The discriminator and its logits for RGB pictures.
fn discriminate(r: &Reference, x: &Tensor) -> (Discriminator, Tensor) {
    let d = discriminator(r, "w/");
    let y = d.forward(&rgb_to_caffe(x).unwrap(), None, Dropout::Off).unwrap();
    (d, y)
}

#[test]
fn discriminators_of_all_sizes() {
    // 64 drops Dconv5, 48 Dconv3 as well.
    for crop in [227, 128, 64, 48] {
        let case = format!("discriminator --seed 1 --batch 2 --crop {crop}");
        let r = Reference::run(&case);
        let x = r.leaf("x");
        let (d, y) = discriminate(&r, &x);
        check_trained(&case, &r, d.params(), &x, &y);
    }
}

#[test]
fn discriminator_with_the_feature_branch() {
    let case = "discriminator --seed 2 --batch 3 --crop 100 --features 64,3";
    let r = Reference::run(case);
    let (x, features) = (r.leaf("x"), r.leaf("feat"));
    let d = discriminator(&r, "w/");
    let y = d.forward(&rgb_to_caffe(&x).unwrap(), Some(&features), Dropout::Off).unwrap();
    check_trained(case, &r, d.params(), &x, &y);
    let gfeat = &gradients(&y, r.get("up"), &[&features])[0];
    assert_close("gradient of the features", gfeat, r.get("gfeat"), GRADIENT);
}

// --- Losses, Adam, the normalised error ---------------------------------------------------

#[test]
fn loss_terms_under_every_reduction() {
    let r = Reference::run("losses --seed 1 --batch 5");
    let check = |key: &str, input: &str, loss: &dyn Fn(&Tensor) -> Tensor| {
        let leaf = r.leaf(input);
        let found = loss(&leaf);
        assert_close(key, &found, r.get(key), OUTPUT);
        let g = &Tensor::run_backward(&[&found], &[&leaf], false, false)[0];
        assert_close(&format!("gradient of {key}"), g, r.get(&format!("{key}/g")), GRADIENT);
    };
    for (name, how) in
        [("caffe", Reduction::Caffe), ("paper", Reduction::Paper), ("mean", Reduction::Mean)]
    {
        for term in ["feat", "img"] {
            check(&format!("{name}/{term}"), &format!("{term}_a"), &|a| {
                squared_distance(a, r.get(&format!("{term}_b")), how).unwrap()
            });
        }
        for (term, input, label) in [
            ("adv", "fake_logits", Label::Real),
            ("d_real", "real_logits", Label::Real),
            ("d_fake", "fake_logits", Label::Fake),
        ] {
            check(&format!("{name}/{term}"), input, &|l| cross_entropy(l, label, how).unwrap());
        }
    }
}

fn adam_options(r: &Reference) -> AdamOptions {
    AdamOptions {
        lr: r.meta("lr").parse().unwrap(),
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: r.meta("weight_decay").parse().unwrap(),
    }
}

#[test]
fn twenty_adam_steps() {
    let r = Reference::run("adam --seed 1");
    let mut params = Params::default();
    for i in 0..3 {
        params.push(Param {
            name: i.to_string(),
            tensor: r.leaf(&format!("p0/{i}")),
            trains: true,
            decays: true,
        });
    }
    let mut adam = Adam::new(&params, adam_options(&r)).unwrap();
    for t in 0..20 {
        let grads: Vec<Tensor> =
            (0..3).map(|i| r.get(&format!("grad/{t}/{i}")).shallow_clone()).collect();
        adam.step(&params, &grads, 1.0).unwrap();
    }
    for p in params.iter() {
        let i = &p.name;
        assert_close(&format!("p/{i}"), &p.tensor, r.get(&format!("p/{i}")), OUTPUT);
        let moved = |end: &Tensor| end - r.get(&format!("p0/{i}"));
        let expected = moved(r.get(&format!("p/{i}")));
        assert_close(&format!("movement of {i}"), &moved(&p.tensor), &expected, GRADIENT);
    }
    for (name, t) in adam.state("adam") {
        let key = name.strip_prefix("adam.").unwrap().replace('.', "/");
        assert_close(&name, &t, r.get(&key), OUTPUT);
    }
}

#[test]
fn normalised_error_equals_plain_loops() {
    let r = Reference::run("error --seed 1");
    let rows = |t: &Tensor| t.flatten(1, -1);
    let error = |truth: &Tensor, found: &Tensor| normalised_error(&rows(truth), &rows(found)).unwrap();
    let (truth, found) = (r.get("truth"), r.get("found"));
    let clipped = caffe_to_rgb(&clip_caffe(&rgb_to_caffe(found).unwrap()).unwrap()).unwrap();
    for (key, value) in [
        ("image_error", error(truth, found)),
        ("image_error_clipped", error(truth, &clipped)),
        ("feature_error", error(r.get("f_truth"), r.get("f_found"))),
    ] {
        let expected = r.scalar(key);
        assert!((value / expected - 1.0).abs() < OUTPUT, "{key}: {value} for {expected}");
    }
}
