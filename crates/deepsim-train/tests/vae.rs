//! Iterations of a variational autoencoder against an independent reference in PyTorch, and resume.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../deepsim-nets/tests/common/mod.rs"]
#[allow(dead_code, reason = "this test needs a part of it")]
mod common;

mod iterations;

use std::path::Path;

use common::Reference;
use deepsim_experiment::{Checkpoint, Experiment, Manifest, Perception, checkpoint};
use deepsim_nets::init;
use deepsim_nets::loss::TermKind;
use deepsim_nets::params::f32_bytes;
use deepsim_train::method::{Losses, Plan, iterate};
use deepsim_train::state::State;
use iterations::{Case, write_weights};
use tch::{Device, Tensor};

/// The full-size file, so that the published hyper-parameters stand in the test as users run them.
fn experiment(sets: &[String]) -> Experiment {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/vae-alexnet.toml");
    let mut all: Vec<String> = ["encoder.net", "comparator.net"]
        .map(|key| format!("{key}=alexnet"))
        .to_vec();
    all.push("encoder.tap=pool5".to_owned());
    all.extend_from_slice(sets);
    Experiment::load(&file, &all).unwrap()
}

fn check(options: &str) -> Vec<Losses> {
    let case = format!("vae --crop 64 --batch 4 --features 24 --weight-decay 1 {options}");
    let r = Reference::run(&case);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("comparator.safetensors");
    write_weights(&r.group("wC/"), &file);
    let weights = file.display();
    let mut sets = vec![
        format!("encoder.weights={weights}"),
        format!("comparator.weights={weights}"),
        "data.crop=64".to_owned(),
        "latent.size=24".to_owned(),
    ];
    if options.contains("--without-kl") {
        sets.push("loss.kl=0".to_owned());
    }
    for net in ["generator", "discriminator", "encoder"] {
        sets.push(format!(
            "optimizer.{net}.weight_decay={}",
            r.meta("weight_decay")
        ));
        sets.push(format!("optimizer.{net}.lr={}", r.meta("lr")));
    }
    Case::new(&case, &r, &experiment(&sets)).check()
}

#[test]
fn two_iterations_are_the_reference_s() {
    let losses = check("--iterations 2");
    assert!(losses[0].of(TermKind::Kl) != losses[1].of(TermKind::Kl));
}

#[test]
fn without_its_weight_the_divergence_is_shown_and_not_followed() {
    let losses = check("--iterations 1 --without-kl");
    assert!(losses[0].of(TermKind::Kl) > 0.0);
}

fn small(code: &str, kl: &str) -> Experiment {
    experiment(&[
        "encoder.tap=pool2".to_owned(),
        "encoder.weights=random:1".to_owned(),
        "comparator.weights=random:2".to_owned(),
        "comparator.tap=pool2".to_owned(),
        "data.crop=64".to_owned(),
        "latent.size=6".to_owned(),
        format!("latent.code={code}"),
        format!("loss.kl={kl}"),
        "generator.width=0.125".to_owned(),
    ])
}

fn images(step: u64) -> Tensor {
    init::normal(&format!("x{step}"), &[2, 3, 64, 64], 50.0, 4).unwrap()
}

fn advance(state: &mut State, perception: &Perception, plan: &Plan, to: u64) {
    while state.step < to {
        let seed = init::derive_seed(7, "dropout", state.step);
        iterate(state, perception, &images(state.step), None, plan, seed).unwrap();
    }
}

/// Everything of a state that a checkpoint holds, by name.
fn values(state: &State) -> Vec<(String, Vec<u8>)> {
    let snapshot = state.snapshot();
    let tensors = snapshot.files.iter().flat_map(|(file, tensors)| {
        tensors
            .iter()
            .map(move |(name, t)| (format!("{file}/{name}"), f32_bytes(t).unwrap()))
    });
    let counters = snapshot.counters.iter();
    tensors
        .chain(counters.map(|(k, v)| (k.clone(), v.to_le_bytes().to_vec())))
        .collect()
}

#[test]
fn a_resumed_autoencoder_goes_on_as_if_never_stopped() {
    for (code, kl) in [("gaussian", "20"), ("plain", "0")] {
        let experiment = small(code, kl);
        let plan = Plan::of(&experiment);
        let open = || {
            let mut perception = Perception::load(&experiment, Device::Cpu).unwrap();
            let state = State::new(&experiment, perception.take_learned(), Device::Cpu).unwrap();
            (perception, state)
        };
        let (perception, mut whole) = open();
        let folder = tempfile::tempdir().unwrap();
        advance(&mut whole, &perception, &plan, 2);
        let manifest = Manifest {
            format: checkpoint::FORMAT,
            step: 2,
            seconds: 0.0,
            generator: experiment.generator.clone(),
            discriminator: experiment.trained_discriminator().cloned(),
            encoder_weights: perception.encoder_hash.clone(),
            comparator_weights: perception.comparator_hash.clone(),
            comparators: Default::default(),
            train_data: String::new(),
            test_data: String::new(),
            versions: Default::default(),
            experiment: None,
            files: Default::default(),
            digest: None,
            framing: None,
            held_out_overlap: None,
        };
        checkpoint::write(folder.path(), manifest, &whole.snapshot()).unwrap();
        let encoded = |perception: &Perception, state: &State| {
            let networks = perception.with(state.learned());
            networks.encode(&images(9)).unwrap().copy()
        };
        let codes = encoded(&perception, &whole);
        advance(&mut whole, &perception, &plan, 4);

        let saved = Checkpoint::newest(folder.path()).unwrap().unwrap();
        let (perception, mut resumed) = open();
        assert_ne!(encoded(&perception, &resumed), codes);
        resumed.restore(&saved).unwrap();
        assert_eq!(encoded(&perception, &resumed), codes);
        advance(&mut resumed, &perception, &plan, 4);
        assert!(values(&resumed) == values(&whole), "{code}");

        // A reader gets the same encoder without a state.
        let mut reader = Perception::load(&experiment, Device::Cpu).unwrap();
        reader.restore(&saved).unwrap();
        assert_eq!(reader.encode(&images(9)).unwrap(), codes);
    }
}

#[test]
fn another_seed_draws_other_codes() {
    let experiment = small("gaussian", "20");
    let plan = Plan::of(&experiment);
    let run = |seed| {
        let mut perception = Perception::load(&experiment, Device::Cpu).unwrap();
        let mut state = State::new(&experiment, perception.take_learned(), Device::Cpu).unwrap();
        iterate(&mut state, &perception, &images(1), None, &plan, seed).unwrap()
    };
    // The encoder is one, the codes are not: only what does not depend on them is equal.
    let (a, b) = (run(1), run(2));
    assert_eq!(a.of(TermKind::Kl), b.of(TermKind::Kl));
    assert_ne!(a.of(TermKind::Image), b.of(TermKind::Image));
}
