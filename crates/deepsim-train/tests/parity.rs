//! The training loop's own iteration, and the gate, against an independent reference in PyTorch.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// The harness of the networks' parity tests: one program writes what both read.
#[path = "../../deepsim-nets/tests/common/mod.rs"]
#[allow(dead_code, reason = "this test needs a part of it")]
mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{OUTPUT, Reference, assert_close, relative};
use deepsim_experiment::config::RawDiversity;
use deepsim_experiment::{Experiment, Perception};
use deepsim_nets::params::{NamedTensors, Params, f32_bytes};
use deepsim_nets::pictures::rgb_to_caffe;
use deepsim_nets::{NetKind, init};
use deepsim_train::gate::Gate;
use deepsim_train::iteration::{Plan, iterate};
use deepsim_train::state::State;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

/// Relative L2 error allowed in a network's weights after the iterations.
const WEIGHTS: f64 = 1e-4;
/// The same in what the iterations changed: Adam's first steps are all sign, so that rounding
/// in a gradient near zero shows at full size.
const MOVEMENT: f64 = 5e-3;

fn write_weights(values: &NamedTensors, path: &Path) {
    let bytes: Vec<_> = values
        .iter()
        .map(|(n, t)| (n, t.size(), f32_bytes(t).unwrap()))
        .collect();
    let views = bytes.iter().map(|(n, shape, b)| {
        let shape = shape.iter().map(|&d| d as usize).collect();
        (n.as_str(), TensorView::new(Dtype::F32, shape, b).unwrap())
    });
    let file = safetensors::serialize(views, None::<HashMap<String, String>>).unwrap();
    std::fs::write(path, file).unwrap();
}

/// conv5.toml, so that the published hyper-parameters stand in the test as users run them, with
/// the reference's network, sizes and decay.
fn experiment(r: &Reference, net: NetKind, weights: &Path, passes: &str) -> Experiment {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/conv5.toml");
    let weights = weights.display();
    let sets = [
        format!("train.discriminator_passes={passes}"),
        format!("encoder.net={net}"),
        format!("comparator.net={net}"),
        format!("encoder.weights={weights}"),
        format!("comparator.weights={weights}"),
        format!("data.crop={}", r.meta("crop")),
        format!(
            "optimizer.generator.weight_decay={}",
            r.meta("weight_decay")
        ),
        format!(
            "optimizer.discriminator.weight_decay={}",
            r.meta("weight_decay")
        ),
        format!("optimizer.generator.lr={}", r.meta("lr")),
        format!("optimizer.discriminator.lr={}", r.meta("lr")),
    ];
    Experiment::load(&file, &sets).unwrap()
}

fn flat(params: &Params, get: impl Fn(&str) -> Tensor) -> Tensor {
    let all: Vec<Tensor> = params.iter().map(|p| get(&p.name).flatten(0, -1)).collect();
    Tensor::cat(&all, 0).detach()
}

fn scalar(v: f64) -> Tensor {
    Tensor::full([], v, (Kind::Float, Device::Cpu))
}

fn check(net: NetKind, options: &str) {
    let r = Reference::run(&format!("iteration --net {net} {options}"));
    let passes = match options.contains("--one-pass") {
        true => "one",
        false => "paper",
    };
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("comparator.safetensors");
    write_weights(&r.group("wC/"), &weights);
    let mut experiment = experiment(&r, net, &weights, passes);
    if let Some((_, tap)) = options.split_once("--judged-at ") {
        let path = folder.path().join("judged.toml");
        let judge = serde_json::json!({ "net": "discriminator", "tap": tap });
        experiment.raw.comparator = serde_json::from_value(judge).unwrap();
        std::fs::write(&path, experiment.to_toml().unwrap()).unwrap();
        experiment = Experiment::load(&path, &[]).unwrap();
    }
    if r.meta("noise") != "0" {
        let path = folder.path().join("noisy.toml");
        let number = |key: &str| r.meta(key).parse::<f64>().unwrap();
        experiment.raw.generator.noise = r.numbers("noise")[0];
        experiment.raw.diversity = (number("diversity") > 0.0).then(|| RawDiversity {
            weight: number("diversity"),
            limit: number("limit"),
        });
        std::fs::write(&path, experiment.to_toml().unwrap()).unwrap();
        experiment = Experiment::load(&path, &[]).unwrap();
    }
    let perception = Perception::load(&experiment, Device::Cpu).unwrap();
    let mut state = State::new(&experiment, perception.learned(), Device::Cpu).unwrap();
    let load = |params: &mut Params, prefix: &str| {
        params
            .copy_from(&r.group(prefix), "a network", "reference")
            .unwrap();
    };
    load(state.generator.params_mut(), "wG/");
    load(state.discriminator.params_mut(), "wD/");
    let plan = Plan::of(&experiment);

    for (it, seed) in r.numbers("torch_seeds").into_iter().enumerate() {
        let x = rgb_to_caffe(r.get(&format!("x/{it}"))).unwrap();
        let l = iterate(&mut state, &perception, &x, None, &plan, seed).unwrap();
        for (name, value) in [
            ("feat", l.feat),
            ("adv", l.adv),
            ("img", l.img),
            ("d_real", l.d_real),
            ("d_fake", l.d_fake),
            ("total", l.total(&plan.loss)),
        ] {
            let key = format!("loss/{it}/{name}");
            assert_close(&format!("{net} {key}"), &scalar(value), r.get(&key), OUTPUT);
        }
        match plan.diversity {
            None => assert!(l.div.is_nan()),
            Some(_) => {
                let wanted = r.get(&format!("loss/{it}/diversity"));
                assert_close("diversity", &scalar(-l.div), wanted, OUTPUT);
            }
        }
    }
    for (name, params) in [
        ("G", state.generator.params()),
        ("D", state.discriminator.params()),
    ] {
        let of = |prefix: &str| {
            flat(params, |p| {
                r.get(&format!("{prefix}{name}/{p}")).shallow_clone()
            })
        };
        let ours = flat(params, |p| params.get(p).unwrap().shallow_clone());
        let (before, after) = (of("w"), of("out"));
        assert_close(&format!("{net}: weights of {name}"), &ours, &after, WEIGHTS);
        let (moved, expected) = (&ours - &before, &after - &before);
        assert_close(
            &format!("{net}: movement of {name}"),
            &moved,
            &expected,
            MOVEMENT,
        );
        let moved = relative(&after, &before);
        assert!(moved > 10.0 * WEIGHTS, "{name} moved by {moved:.1e} only");
    }
}

// The seeds are those of the networks' own parity test: no unit comes near the kink of a ReLU or
// to a tie in a pool, where single precision alone would decide. The third case of that test,
// AlexNet at 128, is left out: the loop computes channels-last, which rounds otherwise, and Adam's
// first step is all sign. There 0.1 % of the weights moved the other way (7e-4 of G's norm).

#[test]
fn an_iteration_with_caffenet_at_227() {
    check(
        NetKind::CaffeNet,
        "--seed 56 --crop 227 --batch 1 --iterations 1",
    );
}

#[test]
fn two_iterations_with_alexnet_at_64() {
    check(
        NetKind::AlexNet,
        "--seed 18 --crop 64 --batch 4 --weight-decay 1 --iterations 2",
    );
}

#[test]
fn one_pass_of_the_discriminator_with_caffenet_at_227() {
    check(
        NetKind::CaffeNet,
        "--seed 56 --crop 227 --batch 1 --iterations 1 --one-pass",
    );
}

#[test]
fn two_iterations_of_one_pass_with_alexnet_at_64() {
    check(
        NetKind::AlexNet,
        "--seed 18 --crop 64 --batch 4 --weight-decay 1 --iterations 2 --one-pass",
    );
}

#[test]
fn an_iteration_compared_in_the_updated_discriminator() {
    for tap in ["Dconv3", "Dpool5"] {
        check(
            NetKind::AlexNet,
            &format!(
                "--seed 18 --crop 64 --batch 4 --weight-decay 1 --iterations 1 --judged-at {tap}"
            ),
        );
    }
}

#[test]
fn noise_beside_the_features_and_the_reward_for_using_it() {
    let with = "--crop 64 --weight-decay 1 --iterations 1 --noise 5";
    check(NetKind::AlexNet, &format!("--seed 18 --batch 4 {with}"));
    // Twice as many units pass through the generator: a seed of its own, with two photographs.
    let rewarded = format!("--seed 6 --batch 2 {with} --diversity 300 --limit 1000");
    check(NetKind::AlexNet, &rewarded);
}

#[test]
fn the_gate_switches_where_the_reference_switches() {
    let r = Reference::run("gate --seed 3");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/conv5.toml");
    let thresholds = Experiment::load(&file, &[]).unwrap().raw.gate;
    let (losses, trace) = (r.get("losses"), r.get("trace"));
    let n = losses.size()[0];
    assert!(n >= 200);
    let mut gate = Gate::open();
    let mut switches = 0;
    for i in 0..n {
        let at = |j| losses.double_value(&[i, j]);
        let before = gate;
        gate.update(&thresholds, at(0), at(1), at(2));
        switches += i32::from(gate != before);
        let wanted = (
            trace.double_value(&[i, 0]) != 0.0,
            trace.double_value(&[i, 1]) != 0.0,
        );
        assert_eq!((gate.train_d, gate.train_g), wanted, "at {i}");
    }
    assert!(
        switches > 20,
        "only {switches} switches: the sequence shows nothing"
    );
}

#[test]
fn every_purpose_has_a_seed_of_its_own() {
    let seeds = [
        init::derive_seed(1, "dropout", 0),
        init::derive_seed(1, "dropout", 1),
        init::derive_seed(2, "dropout", 0),
        init::derive_seed(1, "other", 0),
    ];
    let distinct: std::collections::BTreeSet<_> = seeds.iter().collect();
    assert_eq!(distinct.len(), seeds.len());
    assert!(seeds.iter().all(|s| *s >= 0));
}
