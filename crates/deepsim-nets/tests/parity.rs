//! Networks, losses, metrics and Adam against an independent reference in PyTorch.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "the training crate's tests need the rest")]
mod common;
#[path = "parity/decoder.rs"]
mod decoder;
#[path = "parity/encoders.rs"]
mod encoders;
#[path = "parity/feature_nets.rs"]
mod feature_nets;
#[path = "parity/iteration.rs"]
mod iteration;
#[path = "parity/metrics.rs"]
mod metrics;

use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use common::{
    GRADIENT, Named, OUTPUT, Reference, Values, assert_parity, assert_reference,
    assert_rounding_alone, gradients,
};
use deepsim_nets::images::{caffe_to_rgb, clip_caffe, rgb_to_caffe};
use deepsim_nets::loss::penalties;
use deepsim_nets::loss::terms::total_variation;
use deepsim_nets::loss::{
    AdversarialLoss, FeatureDistance, Label, cross_entropy, diversity, feature_distance,
    squared_distance,
};
use deepsim_nets::metrics::normalised_error;
use deepsim_nets::{
    Adam, AdamOptions, Architecture, Discriminator, DiscriminatorSpec, FeatureBranch, FeatureShape,
    Generator, GeneratorSpec, Mode, NetKind, Param, Params, PatchNorm, Reduction, Rule, Tap, Trunk,
};
use tch::{Device, Kind, Tensor};

/// Cases with fully connected layers take up to 3.5 GB, with the reference's part: this many at once.
static LARGE: LazyLock<(Mutex<usize>, Condvar)> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    let gib: usize = kib.unwrap_or(0_usize) >> 20;
    (Mutex::new((gib / 6).clamp(1, 2)), Condvar::new())
});

/// The right to hold a large case, given back when dropped.
struct Turn;

fn turn_of_a_large_case() -> Turn {
    let (free, given_back) = &*LARGE;
    let free = free.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = given_back.wait_while(free, |free| *free == 0);
    *taken.unwrap_or_else(PoisonError::into_inner) -= 1;
    Turn
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (free, given_back) = &*LARGE;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        given_back.notify_one();
    }
}

#[test]
fn the_reference_agrees_with_the_published_facts() {
    let printed = common::selftest();
    assert_eq!(
        printed.lines().filter(|l| l.starts_with("ok ")).count(),
        15,
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

fn generator(r: &Reference, weights: &str, kind: Kind) -> Generator {
    generator_with(r, weights, Trunk::DeePSiM, kind)
}

fn generator_with(r: &Reference, weights: &str, trunk: Trunk, kind: Kind) -> Generator {
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
    take(g.params(), kind);
    g
}

/// Takes weights to a precision.
fn take(params: &Params, kind: Kind) {
    if kind == Kind::Double {
        params.widen().unwrap();
    }
}

/// The generator and its images, RGB 0–255.
fn generate(r: &Reference, features: &Tensor) -> (Generator, Tensor) {
    let g = generator(r, "w/", features.kind());
    let y = caffe_to_rgb(&g.forward(features).unwrap()).unwrap();
    (g, y)
}

/// Output, input gradient, and the gradient of exactly the weights that train.
fn trained(r: &Reference, params: &Params, x: &Tensor, y: &Tensor) -> Values {
    let trained = params.trained();
    let mut inputs = vec![x];
    inputs.extend(trained.iter().map(|p| &p.tensor));
    let mut found = gradients(y, r.get("up"), &inputs).into_iter();
    let mut values = Values {
        outputs: vec![("y".to_owned(), y.detach())],
        ..Values::default()
    };
    values.add("input gradient", [("gx".to_owned(), found.next().unwrap())]);
    let named: Named = trained
        .iter()
        .map(|p| format!("g/{}", p.name))
        .zip(found)
        .collect();
    let names: std::collections::BTreeSet<&str> =
        named.iter().map(|(n, _)| &n["g/".len()..]).collect();
    let expected = r.group("g/");
    assert!(
        expected.keys().map(String::as_str).eq(names),
        "all of {:?} train, and nothing else",
        expected.keys()
    );
    values.add("gradients of the weights", named);
    values
}

/// Our generator, by Winograd's algorithm, and how much a single value on another side would matter.
fn check_generator(options: &str) {
    let case = format!("generator {options}");
    let r = Reference::run(&case);
    let compute = |kind| {
        let x = r.leaf("x", kind);
        let (g, y) = generate(&r, &x);
        trained(&r, g.params(), &x, &y)
    };
    assert_parity(&case, &r, &compute);
    let images = || generate(&r, r.get("x")).1;
    deepsim_nets::allow_winograd(false);
    let direct = images();
    deepsim_nets::allow_winograd(true);
    assert_ne!(
        direct,
        images(),
        "{case}: Winograd's algorithm was not taken"
    );
}

#[test]
fn generator_for_conv5() {
    check_generator("--tap pool5 --batch 2");
}

/// FC7's generator is FC6's.
#[test]
fn generator_for_fc6() {
    let _turn = turn_of_a_large_case();
    check_generator("--tap relu6 --batch 2");
}

#[test]
fn generator_for_fc8() {
    let _turn = turn_of_a_large_case();
    check_generator("--tap fc8 --batch 2");
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
        check_generator(&format!("{options} --batch 1"));
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
        let case = format!("db-generator {options}");
        let r = Reference::run(&case);
        assert_parity(&case, &r, &|kind| {
            let x = r.leaf("x", kind);
            let g = generator_with(&r, "w/", trunk, kind);
            let y = caffe_to_rgb(&g.forward(&x).unwrap()).unwrap();
            trained(&r, g.params(), &x, &y)
        });
    }
}

// --- Discriminator ------------------------------------------------------------------------

fn discriminator(r: &Reference, weights: &str, kind: Kind) -> Discriminator {
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
    take(d.params(), kind);
    d
}

/// The discriminator and its logits for RGB images.
fn discriminate(r: &Reference, x: &Tensor) -> (Discriminator, Tensor) {
    let d = discriminator(r, "w/", x.kind());
    let y = d
        .forward(&rgb_to_caffe(x).unwrap(), None, Mode::Evaluation)
        .unwrap();
    (d, y)
}

#[test]
fn discriminators_of_all_sizes() {
    // 64 drops Dconv5, 48 Dconv3 as well.
    for crop in [227, 128, 64, 48] {
        let case = format!("discriminator --batch 2 --crop {crop}");
        let r = Reference::run(&case);
        assert_parity(&case, &r, &|kind| {
            let x = r.leaf("x", kind);
            let (d, y) = discriminate(&r, &x);
            trained(&r, d.params(), &x, &y)
        });
    }
}

#[test]
fn discriminator_with_the_feature_branch() {
    let case = "discriminator --batch 3 --crop 100 --features 64,3";
    let r = Reference::run(case);
    assert_parity(case, &r, &|kind| {
        let (x, features) = (r.leaf("x", kind), r.leaf("feat", kind));
        let d = discriminator(&r, "w/", kind);
        let caffe = rgb_to_caffe(&x).unwrap();
        let y = d
            .forward(&caffe, Some(&features), Mode::Evaluation)
            .unwrap();
        let mut values = trained(&r, d.params(), &x, &y);
        let gradient = gradients(&y, r.get("up"), &[&features]).remove(0);
        values.add("gradient of the features", [("gfeat".to_owned(), gradient)]);
        values
    });
}

/// In evaluation; batch statistics and power iterations are part of the iterations that the training crate holds.
#[test]
fn discriminators_of_patches() {
    for (name, norm) in [
        ("batch", PatchNorm::Batch),
        ("none", PatchNorm::None),
        ("spectral", PatchNorm::Spectral),
    ] {
        let case = format!("patchgan --batch 2 --crop 40 --layers 2 --width 0.25 --norm {name}");
        let r = Reference::run(&case);
        assert_parity(&case, &r, &|kind| {
            let spec = DiscriminatorSpec {
                crop: 40,
                features: FeatureBranch::Off,
                architecture: Architecture::PatchGan {
                    layers: 2,
                    width: 0.25,
                    norm,
                },
            };
            let mut d = Discriminator::new(spec, 0, Device::Cpu).unwrap();
            d.params_mut()
                .copy_from(&r.group("w/"), "the discriminator", "reference")
                .unwrap();
            take(d.params(), kind);
            let x = r.leaf("x", kind);
            let caffe = rgb_to_caffe(&x).unwrap();
            let y = d.forward(&caffe, None, Mode::Evaluation).unwrap();
            trained(&r, d.params(), &x, &y)
        });
    }
}

#[test]
fn heads_on_a_frozen_network() {
    let case = "heads --batch 2 --crop 64 --tap relu1,relu3";
    let r = Reference::run(case);
    assert_parity(case, &r, &|kind| {
        let taps = vec![Tap::Relu1, Tap::Relu3].try_into().unwrap();
        let spec = DiscriminatorSpec {
            crop: 64,
            features: FeatureBranch::Off,
            architecture: Architecture::Heads {
                net: NetKind::AlexNet,
                taps,
            },
        };
        let mut d = Discriminator::new(spec, 0, Device::Cpu).unwrap();
        d.params_mut()
            .copy_from(&r.group("w/"), "the discriminator", "reference")
            .unwrap();
        take(d.params(), kind);
        let x = r.leaf("x", kind);
        let caffe = rgb_to_caffe(&x).unwrap();
        let y = d.forward(&caffe, None, Mode::Training).unwrap();
        trained(&r, d.params(), &x, &y)
    });
}

/// Why sides are imposed: a single value on its other side moves a gradient by more than is allowed, and
/// two correct computations may differ in that.
#[test]
fn one_value_on_the_other_side_of_a_kink_shows() {
    let case = "discriminator --batch 2 --crop 48";
    let r = Reference::run(case);
    let compute = |kind| {
        let x = r.leaf("x", kind);
        let (d, y) = discriminate(&r, &x);
        trained(&r, d.params(), &x, &y)
    };
    let (own, sides) = deepsim_nets::sides::recorded(|| compute(Kind::Double));
    let turned = sides.turn_one().unwrap();
    assert_eq!(turned.differing(&sides).unwrap().0, 1);
    let other = deepsim_nets::sides::imposed(&turned, || compute(Kind::Double)).unwrap();
    let moved = common::worst(&other.gradients[1].1, &own.gradients[1].1).1;
    assert!(moved > GRADIENT, "{moved:.1e}");
}

// --- Losses, Adam, the normalised error ---------------------------------------------------

#[test]
fn loss_terms_under_every_reduction() {
    let r = Reference::run("losses --batch 5");
    let check = |key: &str, input: &str, loss: &dyn Fn(&Tensor) -> Tensor| {
        assert_parity(key, &r, &|kind| {
            let leaf = r.leaf(input, kind);
            let found = loss(&leaf);
            let gradient = Tensor::run_backward(&[&found], &[&leaf], false, false).remove(0);
            let mut values = Values {
                outputs: vec![(key.to_owned(), found.detach())],
                ..Values::default()
            };
            values.add("gradient", [(format!("{key}/g"), gradient)]);
            values
        });
    };
    for (name, how) in [
        ("caffe", Reduction::Caffe),
        ("paper", Reduction::Paper),
        ("mean", Reduction::Mean),
    ] {
        for term in ["feat", "img"] {
            check(&format!("{name}/{term}"), &format!("{term}_a"), &|a| {
                let b = r.get(&format!("{term}_b")).to_kind(a.kind());
                squared_distance(a, &b, how).unwrap()
            });
        }
        for distance in [
            FeatureDistance::Absolute,
            FeatureDistance::Cosine,
            FeatureDistance::Unit,
        ] {
            check(&format!("{name}/{}", distance.name()), "feat_a", &|a| {
                let b = r.get("feat_b").to_kind(a.kind());
                feature_distance(distance, a, &b, how).unwrap()
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
        check(&format!("{name}/tv"), "img_a", &|a| {
            total_variation(a, how).unwrap()
        });
        let noises = [r.get("noise_a"), r.get("noise_b")];
        let limit = r.meta("limit").parse().unwrap();
        check(&format!("{name}/diversity"), "img_a", &|a| {
            diversity([a, &r.get("img_b").to_kind(a.kind())], noises, limit, how).unwrap()
        });
        for game in [
            AdversarialLoss::CrossEntropy,
            AdversarialLoss::NonSaturating,
            AdversarialLoss::Hinge,
            AdversarialLoss::LeastSquares,
        ] {
            let key = |term: &str| format!("{name}/{}/{term}", game.name());
            check(&key("adv"), "fake_map", &|l| {
                game.generating(l, how).unwrap()
            });
            for (term, input, label) in [
                ("d_real", "real_map", Label::Real),
                ("d_fake", "fake_map", Label::Fake),
            ] {
                check(&key(term), input, &|l| {
                    game.discriminating(l, label, how).unwrap()
                });
            }
        }
        check(&format!("{name}/lecam"), "fake_map", &|fake| {
            let real = r.get("real_map").to_kind(fake.kind());
            penalties::lecam([&real, fake], [0.3, -0.4], how).unwrap()
        });
        check(&format!("{name}/r1"), "gradient", &|gradient| {
            penalties::r1(gradient, how).unwrap()
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
        clip: None,
    }
}

/// Adam with its default epsilon on given gradients, over twenty steps: weights, what moved them, and
/// both moments.
#[test]
fn twenty_adam_steps_with_the_default_epsilon() {
    twenty_steps("adam", Rule::Adam, None);
}

#[test]
fn twenty_steps_of_adam_w() {
    twenty_steps("adam --rule adamw --weight-decay 0.5", Rule::AdamW, None);
}

#[test]
fn twenty_steps_along_gradients_that_are_clipped() {
    let case = "adam --rule adamw --weight-decay 0.5 --clip 1.5";
    let clipped = twenty_steps(case, Rule::AdamW, Some(1.5)).numbers("clipped")[0];
    // Some are longer than that, and some shorter.
    assert!((1..20).contains(&clipped), "{clipped}");
}

fn twenty_steps(case: &str, rule: Rule, clip: Option<f64>) -> Reference {
    let r = Reference::run(case);
    let options = AdamOptions {
        rule,
        clip,
        ..adam_options(&r)
    };
    assert_eq!(options.eps, 1e-8);
    let run = |kind| {
        let mut params = Params::default();
        for i in 0..3 {
            params.push(Param {
                name: i.to_string(),
                tensor: r.leaf(&format!("p0/{i}"), kind),
                trains: true,
                decays: true,
            });
        }
        let mut adam = Adam::new(&params, options).unwrap();
        for t in 0..20 {
            let grads: Vec<Tensor> = (0..3)
                .map(|i| r.get(&format!("grad/{t}/{i}")).to_kind(kind).copy())
                .collect();
            adam.step(&params, &grads, 1.0).unwrap();
        }
        let mut values = Values::default();
        let weights = params
            .iter()
            .map(|p| (format!("p/{}", p.name), p.tensor.detach()));
        values.outputs.extend(weights);
        values
            .outputs
            .extend(adam.state("adam").into_iter().map(|(name, t)| {
                let key = name.strip_prefix("adam.").unwrap().replace('.', "/");
                (key, t)
            }));
        values
    };
    let (_, mut own) = assert_rounding_alone(case, &run);
    let weights = own
        .outputs
        .iter()
        .filter(|(name, _)| name.starts_with("p/"));
    let moved: Named = weights
        .map(|(name, after)| {
            let i = &name["p/".len()..];
            (format!("moved/{i}"), after - r.get(&format!("p0/{i}")))
        })
        .collect();
    own.add("movement", moved);
    assert_reference(case, &r, &own);
    r
}

#[test]
fn normalised_error_equals_plain_loops() {
    let r = Reference::run("error");
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
