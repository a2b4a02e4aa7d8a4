//! Iterations of a variational autoencoder against an independent reference in PyTorch, and resume.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../deepsim-nets/tests/common/mod.rs"]
#[allow(dead_code, reason = "this test needs a part of it")]
mod common;

mod experiments;
mod iterations;

use common::Reference;
use deepsim_experiment::{Experiment, ModelWeights, Perception};
use deepsim_nets::init;
use deepsim_nets::loss::TermKind;
use deepsim_train::method::{Losses, Plan, iterate};
use deepsim_train::state::State;
use experiments::{begin, saved, shipped, values};
use iterations::{Case, write_weights};
use tch::{Device, Tensor};

/// The full-size file, so that the published hyper-parameters stand in the test as users run them.
fn experiment(sets: &str) -> Experiment {
    let alexnet = "encoder.net=alexnet comparator.net=alexnet encoder.tap=pool5";
    shipped("vae-alexnet.toml", &format!("{alexnet} {sets}"))
}

fn check(options: &str) -> Vec<Losses> {
    let case = format!(
        "vae --crop 64 --batch 4 --features 24 --weight-decay 1 --generator-width 0.25 {options}"
    );
    let r = Reference::run(&case);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("comparator.safetensors");
    write_weights(&r.group("wC/"), &file);
    let weights = file.display();
    let mut sets = format!(
        "encoder.weights={weights} comparator.weights={weights} data.crop=64 latent.size=24 \
         generator.width=0.25"
    );
    if options.contains("--without-kl") {
        sets += " loss.kl=0";
    }
    let (lr, decay) = (r.meta("lr"), r.meta("weight_decay"));
    for net in ["generator", "discriminator", "encoder"] {
        sets += &format!(" optimizer.{net}.weight_decay={decay} optimizer.{net}.lr={lr}");
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
    experiment(&format!(
        "encoder.tap=pool2 encoder.weights=random:1 comparator.tap=pool2 comparator.weights=random:2 \
         data.crop=64 latent.size=6 latent.code={code} loss.kl={kl} generator.width=0.125"
    ))
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

#[test]
fn a_resumed_autoencoder_goes_on_as_if_never_stopped() {
    for (code, kl) in [("gaussian", "20"), ("plain", "0")] {
        let experiment = small(code, kl);
        let plan = Plan::of(&experiment);
        let (perception, mut whole) = begin(&experiment, Device::Cpu);
        let folder = tempfile::tempdir().unwrap();
        advance(&mut whole, &perception, &plan, 2);
        let saved = saved(folder.path(), &experiment, &perception, &whole);
        let encoded = |perception: &Perception, state: &State| {
            let networks = perception.with(state.learned());
            networks.encode(&images(9)).unwrap().copy()
        };
        let codes = encoded(&perception, &whole);
        advance(&mut whole, &perception, &plan, 4);

        let (perception, mut resumed) = begin(&experiment, Device::Cpu);
        assert_ne!(encoded(&perception, &resumed), codes);
        resumed.restore(&saved).unwrap();
        assert_eq!(encoded(&perception, &resumed), codes);
        advance(&mut resumed, &perception, &plan, 4);
        assert!(values(&resumed) == values(&whole), "{code}");

        // A reader gets the same encoder without a state.
        let mut reader = Perception::load(&experiment, Device::Cpu).unwrap();
        reader.restore(&saved, ModelWeights::Raw).unwrap();
        assert_eq!(reader.encode(&images(9)).unwrap(), codes);
    }
}

#[test]
fn another_seed_draws_other_codes() {
    let experiment = small("gaussian", "20");
    let plan = Plan::of(&experiment);
    let run = |seed| {
        let (perception, mut state) = begin(&experiment, Device::Cpu);
        iterate(&mut state, &perception, &images(1), None, &plan, seed).unwrap()
    };
    // The encoder is one, the codes are not: only what does not depend on them is equal.
    let (a, b) = (run(1), run(2));
    assert_eq!(a.of(TermKind::Kl), b.of(TermKind::Kl));
    assert_ne!(a.of(TermKind::Image), b.of(TermKind::Image));
}
