//! Networks, losses, metrics and Adam against an independent reference in PyTorch.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "parity/feature_nets.rs"]
mod feature_nets;
#[path = "parity/iteration.rs"]
mod iteration;
#[path = "parity/judges.rs"]
mod judges;
#[path = "parity/kinks.rs"]
mod kinks;

use std::sync::Mutex;

use common::{GRADIENT, OUTPUT, Reference, assert_close, gradients, reference_script};
use deepsim_nets::losses::{Label, cross_entropy, diversity, squared_distance};
use deepsim_nets::metrics::normalised_error;
use deepsim_nets::pictures::{caffe_to_rgb, clip_caffe, rgb_to_caffe};
use deepsim_nets::{
    Adam, AdamOptions, Discriminator, DiscriminatorSpec, FeatureBranch, FeatureShape, Generator,
    GeneratorSpec, Mode, Param, Params, Reduction, Trunk,
};
use tch::{Device, Tensor};

/// Cases with fully connected layers hold half a gigabyte: one at a time.
static LARGE: Mutex<()> = Mutex::new(());

fn one_large_case() -> std::sync::MutexGuard<'static, ()> {
    LARGE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn the_reference_agrees_with_the_published_facts() {
    let printed = reference_script(&["--selftest"]);
    assert_eq!(
        printed.lines().filter(|l| l.starts_with("ok ")).count(),
        13,
        "{printed}"
    );
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
    generator_with(r, weights, Trunk::DeePSiM)
}

fn generator_with(r: &Reference, weights: &str, trunk: Trunk) -> Generator {
    let spec = GeneratorSpec {
        input: feature_shape(&r.numbers("features")),
        crop: r.numbers("crop")[0],
        width: 1.0,
        trunk,
        noise: 0,
    };
    let mut g = Generator::new(spec, 0, Device::Cpu).unwrap();
    g.params_mut()
        .copy_from(&r.group(weights), "the generator", "reference")
        .unwrap();
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
    assert_close(
        &format!("{case}: input gradient"),
        &found[0],
        r.get("gx"),
        GRADIENT,
    );
    let expected = r.group("g/");
    for (name, g) in names.iter().zip(&found[1..]) {
        let e = expected
            .get(*name)
            .unwrap_or_else(|| panic!("{case}: {name} must not train"));
        assert_close(&format!("{case}: gradient of {name}"), g, e, GRADIENT);
    }
    names.sort_unstable();
    assert!(
        expected.keys().eq(names.iter()),
        "{case}: all of {:?} train",
        expected.keys()
    );
}

/// Runs `body` with direct sums, in the reference's order: values change sides of a rectifier's kink
/// where the reference's do.
fn directly<T>(body: impl FnOnce() -> T) -> T {
    // The switch is the process's: whoever asks for direct sums keeps them until it is done.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    deepsim_nets::allow_winograd(false);
    let result = body();
    deepsim_nets::allow_winograd(true);
    result
}

/// Direct sums against the reference itself, Winograd's algorithm as far as kinks permit.
fn check_generator(options: &str) -> Reference {
    let case = format!("generator {options}");
    let r = Reference::run(&case);
    directly(|| {
        let x = r.leaf("x");
        let (g, y) = generate(&r, &x);
        check_trained(&case, &r, g.params(), &x, &y);
    });
    kinks::check_winograd(&case, &r);
    r
}

#[test]
fn generator_for_conv5() {
    check_generator("--tap pool5 --seed 1 --batch 2");
}

/// FC7's generator is FC6's.
#[test]
fn generator_for_fc6() {
    let _turn = one_large_case();
    let options = "--tap relu6 --seed 2 --batch 2";
    let r = check_generator(options);
    kinks::one_unit_shows(options, &r);
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

/// The reference unpools and convolves, as that paper says it; ours is one transposed convolution.
#[test]
fn generators_of_dosovitskiy_and_brox_2016() {
    let trunk = Trunk::Db {
        kernel: 5,
        slope: 0.2,
    };
    for options in [
        "--tap pool5 --crop 227 --batch 1",
        "--features 40 --crop 128 --batch 2",
        "--features 24,7 --crop 63 --batch 2",
    ] {
        let case = format!("db-generator {options} --seed 5");
        let r = Reference::run(&case);
        let x = r.leaf("x");
        let g = generator_with(&r, "w/", trunk);
        let y = caffe_to_rgb(&g.forward(&x).unwrap()).unwrap();
        check_trained(&case, &r, g.params(), &x, &y);
    }
}

// --- Discriminator ------------------------------------------------------------------------

fn discriminator(r: &Reference, weights: &str) -> Discriminator {
    let values = r.group(weights);
    let features = match values.get("Dfeat1.weight") {
        Some(w) => FeatureBranch::Features(w.size()[1]),
        None => FeatureBranch::Off,
    };
    let spec = DiscriminatorSpec {
        crop: r.numbers("crop")[0],
        features,
        architecture: Default::default(),
    };
    let mut d = Discriminator::new(spec, 0, Device::Cpu).unwrap();
    d.params_mut()
        .copy_from(&values, "the discriminator", "reference")
        .unwrap();
    d
}

/// The discriminator and its logits for RGB pictures.
fn discriminate(r: &Reference, x: &Tensor) -> (Discriminator, Tensor) {
    let d = discriminator(r, "w/");
    let y = d
        .forward(&rgb_to_caffe(x).unwrap(), None, Mode::Evaluation)
        .unwrap();
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
    let y = d
        .forward(
            &rgb_to_caffe(&x).unwrap(),
            Some(&features),
            Mode::Evaluation,
        )
        .unwrap();
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
        assert_close(
            &format!("gradient of {key}"),
            g,
            r.get(&format!("{key}/g")),
            GRADIENT,
        );
    };
    for (name, how) in [
        ("caffe", Reduction::Caffe),
        ("paper", Reduction::Paper),
        ("mean", Reduction::Mean),
    ] {
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
            check(&format!("{name}/{term}"), input, &|l| {
                cross_entropy(l, label, how).unwrap()
            });
        }
        let noises = [r.get("noise_a"), r.get("noise_b")];
        let limit = r.meta("limit").parse().unwrap();
        check(&format!("{name}/diversity"), "img_a", &|a| {
            diversity([a, r.get("img_b")], noises, limit, how).unwrap()
        });
    }
}

fn adam_options(r: &Reference) -> AdamOptions {
    AdamOptions {
        rule: Default::default(),
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
        let grads: Vec<Tensor> = (0..3)
            .map(|i| r.get(&format!("grad/{t}/{i}")).shallow_clone())
            .collect();
        adam.step(&params, &grads, 1.0).unwrap();
    }
    for p in params.iter() {
        let i = &p.name;
        assert_close(
            &format!("p/{i}"),
            &p.tensor,
            r.get(&format!("p/{i}")),
            OUTPUT,
        );
        let moved = |end: &Tensor| end - r.get(&format!("p0/{i}"));
        let expected = moved(r.get(&format!("p/{i}")));
        assert_close(
            &format!("movement of {i}"),
            &moved(&p.tensor),
            &expected,
            GRADIENT,
        );
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
    let error =
        |truth: &Tensor, found: &Tensor| normalised_error(&rows(truth), &rows(found)).unwrap();
    let (truth, found) = (r.get("truth"), r.get("found"));
    let clipped = caffe_to_rgb(&clip_caffe(&rgb_to_caffe(found).unwrap()).unwrap()).unwrap();
    for (key, value) in [
        ("image_error", error(truth, found)),
        ("image_error_clipped", error(truth, &clipped)),
        ("feature_error", error(r.get("f_truth"), r.get("f_found"))),
    ] {
        let expected = r.scalar(key);
        assert!(
            (value / expected - 1.0).abs() < OUTPUT,
            "{key}: {value} for {expected}"
        );
    }
}
