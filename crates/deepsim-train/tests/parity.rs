//! The training loop's own iteration, and the gate, against an independent reference in PyTorch.
//!
//! Whole iterations run in double precision, with Adam's default epsilon, and must be the reference's to
//! rounding: losses, gradients, what moved. In single precision Adam's first step turns the sign of a
//! gradient of the size of rounding into a step of full size; there the step is taken with an epsilon far
//! above rounding, and what is compared are losses and the moments of the gradients.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// The harness of the networks' parity tests: one program writes what both read.
#[path = "../../deepsim-nets/tests/common/mod.rs"]
#[allow(dead_code, reason = "this test needs a part of it")]
mod common;
mod experiments;
mod iterations;

use std::path::Path;

use common::{FAULT, Reference, worst};
use deepsim_experiment::Experiment;
use deepsim_experiment::config;
use deepsim_nets::loss::TermKind;
use deepsim_nets::{NetKind, init};
use deepsim_train::method::gate::Gate;
use deepsim_train::schedule::rate;
use experiments::shipped;
use iterations::{Case, write_weights};
use tch::Kind;

/// conv5.toml, so that the published hyper-parameters stand in the test as users run them, with
/// the reference's network, sizes and decay.
fn experiment(r: &Reference, net: NetKind, options: &str, weights: &Path) -> Experiment {
    let passes = if options.contains("--one-pass") {
        "one"
    } else {
        "paper"
    };
    let folder = weights.parent().unwrap();
    let weights = weights.display();
    let mut sets = format!(
        "train.discriminator_passes={passes} data.crop={} encoder.net={net} encoder.weights={weights} \
         comparator.net={net} comparator.weights={weights} generator.width={}",
        r.meta("crop"),
        r.meta("generator_width")
    );
    let (lr, decay) = (r.meta("lr"), r.meta("weight_decay"));
    for net in ["generator", "discriminator"] {
        sets += &format!(" optimizer.{net}.weight_decay={decay} optimizer.{net}.lr={lr}");
    }
    if options.contains("--recipe") {
        let of = |key: &str| r.meta(&format!("recipe.{key}"));
        for net in ["generator", "discriminator"] {
            sets += &format!(
                " optimizer.{net}.rule=adamw optimizer.{net}.clip={}",
                of("clip")
            );
        }
        sets += &format!(" {} ema.decay={}", schedule(of), of("ema"));
    }
    let mut experiment = shipped("conv5.toml", &sets);
    if let Some((_, tap)) = options.split_once("--judged-at ") {
        let judge = serde_json::json!({ "net": "discriminator", "tap": tap });
        experiment.config.comparator = serde_json::from_value(judge).unwrap();
    }
    if r.meta("noise") != "0" {
        let number = |key: &str| r.meta(key).parse::<f64>().unwrap();
        experiment.config.generator.noise = r.numbers("noise")[0];
        experiment.config.diversity = (number("diversity") > 0.0).then(|| config::Diversity {
            weight: number("diversity"),
            limit: number("limit"),
        });
    }
    // As a file again: with all that the changed keys bring along.
    let path = folder.join("changed.toml");
    std::fs::write(&path, experiment.to_toml().unwrap()).unwrap();
    Experiment::load(&path, &[]).unwrap()
}

/// A warm-up and a cosine with these numbers.
fn schedule<'a>(of: impl Fn(&str) -> &'a str) -> String {
    let [warmup, until, min] = ["warmup", "until", "min"].map(of);
    format!(
        "schedule.warmup={warmup} schedule.decay=cosine schedule.until={until} schedule.min={min}"
    )
}

/// The reference's iterations, of the whole generator where its images are large.
fn reference(net: NetKind, options: &str) -> Reference {
    let width = if options.contains("--crop 227") {
        1.0
    } else {
        0.25
    };
    Reference::run(&format!(
        "iteration --net {net} --generator-width {width} {options}"
    ))
}

fn check(net: NetKind, options: &str) {
    let r = reference(net, options);
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("comparator.safetensors");
    write_weights(&r.group("wC/"), &weights);
    let experiment = experiment(&r, net, options, &weights);
    Case::new(&format!("{net} {options}"), &r, &experiment).check();
}

#[test]
fn an_iteration_with_caffenet_at_227() {
    check(NetKind::CaffeNet, "--crop 227 --batch 1 --iterations 1");
}

#[test]
fn two_iterations_with_alexnet_at_64() {
    check(
        NetKind::AlexNet,
        "--crop 64 --batch 4 --weight-decay 1 --iterations 2",
    );
}

#[test]
fn two_iterations_of_one_pass_with_alexnet_at_64() {
    check(
        NetKind::AlexNet,
        "--crop 64 --batch 4 --weight-decay 1 --iterations 2 --one-pass",
    );
}

/// AdamW, clipping, a warm-up with a cosine behind it, and an average of the generator's weights.
#[test]
fn four_iterations_as_newer_trainings_do_them() {
    let net = NetKind::AlexNet;
    let options = "--crop 64 --batch 2 --weight-decay 1 --iterations 4 --recipe";
    let r = reference(net, options);
    let clip: f64 = r.meta("recipe.clip").parse().unwrap();
    for it in 0..4 {
        for network in ["G", "D"] {
            let norm = r.scalar(&format!("norm/{it}/{network}"));
            assert!(norm > clip, "nothing is clipped: {network} {norm}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("comparator.safetensors");
    write_weights(&r.group("wC/"), &weights);
    let experiment = experiment(&r, net, options, &weights);
    Case::new(options, &r, &experiment).check();
}

#[test]
fn rates_are_those_of_pytorch_s_schedulers() {
    let r = Reference::run("schedule");
    let schedule = shipped("conv5.toml", &schedule(|key| r.meta(key)))
        .config
        .schedule;
    let rates = r.get("rates");
    for n in 0..rates.size()[0] {
        let (step, expected) = (n.cast_unsigned(), rates.double_value(&[n]));
        let found = rate(&schedule, 0, step, step);
        assert!(
            (found - expected).abs() < 1e-9,
            "{n}: {found} is not {expected}"
        );
    }
}

#[test]
fn an_iteration_compared_in_the_updated_discriminator() {
    for tap in ["Dconv3", "Dpool5"] {
        check(
            NetKind::AlexNet,
            &format!("--crop 64 --batch 4 --weight-decay 1 --iterations 1 --judged-at {tap}"),
        );
    }
}

#[test]
fn noise_beside_the_features_and_the_reward_for_using_it() {
    let with = "--crop 64 --weight-decay 1 --iterations 1 --noise 5 --batch 2";
    check(NetKind::AlexNet, with);
    check(
        NetKind::AlexNet,
        &format!("{with} --diversity 300 --limit 1000"),
    );
}

/// The reference's rules as an experiment: feature term, absolute differences, a discriminator of patches.
fn modern(r: &Reference, sets: &str, weights: &Path) -> Experiment {
    let weights = weights.display();
    let (lr, decay) = (r.meta("lr"), r.meta("weight_decay"));
    let mut all = format!(
        "data.crop={} encoder.net=alexnet encoder.weights={weights} comparator.net=alexnet \
         comparator.weights={weights} pixels.distance=absolute loss.feat=0.01 loss.adv=3 loss.img=1e-4 \
         gate.d_off_below=0 gate.d_on_above=0 gate.g_off_above=inf gate.g_on_below=inf \
         discriminator.architecture=patchgan discriminator.width=0.25 generator.width=0.25 {sets}",
        r.meta("crop")
    );
    for net in ["generator", "discriminator"] {
        all += &format!(" optimizer.{net}.weight_decay={decay} optimizer.{net}.lr={lr}");
    }
    shipped("conv5.toml", &all)
}

/// The reference's answer, its comparator's weights in a file, and the experiment of these settings.
fn modern_case(options: &str, sets: &str) -> (Reference, tempfile::TempDir, Experiment) {
    let r = Reference::run(&format!(
        "modern --crop 64 --width 0.25 --generator-width 0.25 {options}"
    ));
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("comparator.safetensors");
    write_weights(&r.group("wC/"), &weights);
    let experiment = modern(&r, sets, &weights);
    (r, folder, experiment)
}

/// Today's recipe: L1, a feature term, the hinge loss on patches with spectral normalisation, R1 in the first iteration,
/// LeCAM in the second, augmentation.
const TODAY: (&str, &str) = (
    "--game hinge --norm spectral --layers 2 --r1 0.5 --every 2 --lecam 0.7 --decay 0.9 --augment",
    "adversary.loss=hinge discriminator.norm=spectral discriminator.layers=2 adversary.r1.weight=0.5 \
     adversary.r1.every=2 adversary.lecam.weight=0.7 adversary.lecam.decay=0.9 adversary.augment.color=true",
);

#[test]
fn two_iterations_of_today_s_recipe() {
    let options = format!("{} --batch 2 --iterations 2 --weight-decay 1", TODAY.0);
    let (r, _folder, experiment) = modern_case(&options, TODAY.1);
    let losses = Case::new("today", &r, &experiment).check();
    let there = |kind| [0, 1].map(|it: usize| !losses[it].of(kind).is_nan());
    assert_eq!(there(TermKind::R1), [true, false]);
    assert_eq!(there(TermKind::LeCam), [false, true]);
    assert!(losses.iter().all(|l| l.ratio.is_nan()), "no gate looks");
}

/// LPIPS as the feature term, on the encoder's own weights; the package says what it is.
#[test]
fn an_iteration_compared_by_lpips_and_a_fault_in_it() {
    let (r, folder, with) = modern_case(
        "--game hinge --norm spectral --layers 2 --batch 2 --iterations 1 --lpips --feat 100",
        "adversary.loss=hinge discriminator.norm=spectral discriminator.layers=2 loss.feat=100",
    );
    let weights = folder.path().join("comparator.safetensors");
    let heads = folder.path().join("heads.safetensors");
    write_weights(&r.group("heads/"), &heads);
    let judged = |weight: f64| {
        let mut experiment = with.clone();
        let lpips =
            serde_json::json!({ "net": "lpips-alexnet", "weights": weights, "heads": heads });
        experiment.config.comparator = serde_json::from_value(lpips).unwrap();
        experiment.config.loss.set_weight(TermKind::Feature, weight);
        let path = folder.path().join("judged.toml");
        std::fs::write(&path, experiment.to_toml().unwrap()).unwrap();
        Experiment::load(&path, &[]).unwrap()
    };
    let right = judged(100.0);
    Case::new("LPIPS", &r, &right).check();
    let gradients = |e: &Experiment| Case::new("a fault", &r, e).run(Kind::Double).0.gradients;
    let (own, wrong) = (gradients(&right), gradients(&judged(102.0)));
    let (name, error) = worst(&wrong[0].1, &own[0].1);
    assert!(
        error > FAULT,
        "2 % of LPIPS go unnoticed: {name} {error:.1e}"
    );
}

#[test]
fn an_iteration_of_least_squares_weighed_by_gradients_with_batch_normalisation() {
    let (r, _folder, experiment) = modern_case(
        "--game least-squares --norm batch --layers 2 --batch 3 --iterations 1 --adaptive",
        "adversary.loss=least-squares discriminator.layers=2 adversary.adaptive.limit=10000",
    );
    Case::new("least squares", &r, &experiment).check();
}

/// What these comparisons are worth: each fault lies far beyond what is allowed.
#[test]
fn faults_in_today_s_recipe_are_noticed() {
    let options = format!("{} --batch 2 --iterations 1", TODAY.0);
    let (r, folder, right) = modern_case(&options, TODAY.1);
    let gradients = |e: &Experiment| Case::new("a fault", &r, e).run(Kind::Double).0.gradients;
    let own = gradients(&right);
    let weights = folder.path().join("comparator.safetensors");
    for (what, group, sets) in [
        ("1 % of R1", 1, "adversary.r1.weight=0.505"),
        ("R1 once in two, counted once", 1, "adversary.r1.every=1"),
        ("no shift", 1, "adversary.augment.translation=0"),
        ("another loss", 0, "adversary.loss=non-saturating"),
    ] {
        let wrong = modern(&r, &format!("{} {sets}", TODAY.1), &weights);
        let (name, error) = worst(&gradients(&wrong)[group].1, &own[group].1);
        assert!(error > FAULT, "{what} goes unnoticed: {name} {error:.1e}");
    }
}

/// What the comparison is worth: each of these faults lies far beyond what is allowed.
#[test]
fn faults_in_an_iteration_are_noticed() {
    let net = NetKind::AlexNet;
    let options = "--crop 64 --batch 2 --weight-decay 1 --iterations 1";
    let r = reference(net, options);
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("comparator.safetensors");
    write_weights(&r.group("wC/"), &weights);
    let right = experiment(&r, net, options, &weights);
    let case = |fault: &dyn Fn(&mut Experiment)| {
        let mut wrong = experiment(&r, net, options, &weights);
        fault(&mut wrong);
        Case::new("a fault", &r, &wrong)
    };
    let gradients = |case: &Case| case.run(Kind::Double).0;
    let own = gradients(&Case::new("no fault", &r, &right));
    let loss = &right.config.loss;
    let (feat, adv, img) = (
        loss.weight(TermKind::Feature),
        loss.weight(TermKind::Adversarial),
        loss.weight(TermKind::Image),
    );
    type Fault<'a> = (&'static str, usize, Box<dyn Fn(&mut Experiment) + 'a>);
    let faults: [Fault; 6] = [
        (
            "1 % of the feature term",
            0,
            Box::new(move |e| e.config.loss.set_weight(TermKind::Feature, 1.01 * feat)),
        ),
        (
            "1 % of the adversarial term",
            0,
            Box::new(move |e| e.config.loss.set_weight(TermKind::Adversarial, 1.01 * adv)),
        ),
        (
            "1 % of the image term",
            0,
            Box::new(move |e| e.config.loss.set_weight(TermKind::Image, 1.01 * img)),
        ),
        (
            "no image term",
            0,
            Box::new(|e| e.config.loss.set_weight(TermKind::Image, 0.0)),
        ),
        (
            "the discriminator before its update",
            0,
            Box::new(|e| {
                e.config.train.discriminator_passes =
                    deepsim_experiment::config::DiscriminatorPasses::One;
            }),
        ),
        (
            "no decay",
            1,
            Box::new(|e| {
                let options = e.config.optimizer.discriminator.as_mut();
                options.unwrap().weight_decay = 0.0;
            }),
        ),
    ];
    for (what, group, fault) in faults {
        let wrong = gradients(&case(&*fault));
        let (name, error) = worst(&wrong.gradients[group].1, &own.gradients[group].1);
        assert!(error > FAULT, "{what} goes unnoticed: {name} {error:.1e}");
    }
    // The sign of a term: what it adds, taken away.
    let without = gradients(&case(&|e| e.config.loss.set_weight(TermKind::Feature, 0.0)));
    let turned: common::Named = own.gradients[0]
        .1
        .iter()
        .zip(&without.gradients[0].1)
        .map(|((name, with), (_, without))| (name.clone(), without * 2.0 - with))
        .collect();
    assert!(worst(&turned, &own.gradients[0].1).1 > FAULT);
}

#[test]
fn the_gate_switches_where_the_reference_switches() {
    let r = Reference::run("gate");
    let thresholds = shipped("conv5.toml", "").config.gate.unwrap();
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
