//! `train.discriminator_passes = "one"`: what each network learns from the shared pass is what it
//! would learn from a pass of its own, and a pause of either stays a pause.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod experiments;

use std::collections::BTreeMap;

use deepsim_experiment::Perception;
use deepsim_nets::init::seeded;
use deepsim_nets::loss::TermKind;
use deepsim_nets::params::Params;
use deepsim_train::method::gate::Gate;
use deepsim_train::method::{Losses, Plan, iterate};
use deepsim_train::state::State;
use experiments::shipped;
use tch::{Device, Kind, Tensor};

const BOTH: Gate = Gate {
    train_d: true,
    train_g: true,
};
const ONLY_D: Gate = Gate {
    train_d: true,
    train_g: false,
};
const ONLY_G: Gate = Gate {
    train_d: false,
    train_g: true,
};
const NEITHER: Gate = Gate {
    train_d: false,
    train_g: false,
};

/// Added to the seeds of images and dropout: what is held here holds for any.
fn seed() -> i64 {
    let set = std::env::var("DEEPSIM_PARITY_SEED");
    set.map_or(0, |text| {
        text.parse().expect("DEEPSIM_PARITY_SEED is a whole number")
    })
}

/// What came of one iteration.
struct Outcome {
    losses: Losses,
    state: State,
    before: State,
}

/// Gradients of the first step, from Adam's first moment: m = (1 − β1) g.
fn moments(state: &State, of: &str) -> BTreeMap<String, Tensor> {
    let adam = match of {
        "G" => &state.adam_g,
        _ => state.adam_d.as_ref().unwrap(),
    };
    let all = adam.state(of).into_iter();
    all.filter(|(name, _)| name.starts_with(&format!("{of}.m.")))
        .collect()
}

fn flat(all: impl IntoIterator<Item = Tensor>) -> Tensor {
    let all: Vec<Tensor> = all.into_iter().map(|t| t.flatten(0, -1)).collect();
    Tensor::cat(&all, 0).to_kind(Kind::Double)
}

fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let size = expected.norm().double_value(&[]);
    assert!(size > 0.0, "nothing but zeros was expected");
    (found - expected).norm().double_value(&[]) / size
}

impl Outcome {
    fn gradient(&self, of: &str) -> Tensor {
        flat(moments(&self.state, of).into_values())
    }

    fn moved(&self, of: impl Fn(&State) -> &Params) -> bool {
        let values = |s: &State| flat(of(s).iter().map(|p| p.tensor.detach()).collect::<Vec<_>>());
        values(&self.state) != values(&self.before)
    }
}

/// One iteration of a small experiment whose discriminator is biased towards "real" by `lean`
/// (the log-odds of every image grow by twice as much).
fn outcome(gate: Gate, passes: &str, precision: &str, lean: f64, batch: i64) -> Outcome {
    let sets = format!(
        "encoder.net=alexnet encoder.weights=random:1 comparator.net=alexnet comparator.weights=random:1 \
         data.crop=64 generator.width=0.1 train.precision={precision} train.discriminator_passes={passes}"
    );
    let experiment = shipped("conv5.toml", &sets);
    let mut perception = Perception::load(&experiment, Device::Cpu).unwrap();
    let mut new = || {
        let mut state = State::new(&experiment, perception.take_learned(), Device::Cpu).unwrap();
        let d = state.discriminator.as_mut().unwrap().params_mut();
        let mut values: BTreeMap<String, Tensor> = d
            .iter()
            .map(|p| (p.name.clone(), p.tensor.detach().copy()))
            .collect();
        values.insert(
            "Dfc7.bias".into(),
            Tensor::from_slice(&[lean as f32, -lean as f32]),
        );
        d.copy_from(&values, "the discriminator", "the test")
            .unwrap();
        state.gate = gate;
        state
    };
    let (mut state, before) = (new(), new());
    let x = seeded(3 + seed(), || {
        let coarse = Tensor::rand([batch, 3, 9, 9], (Kind::Float, Device::Cpu)) * 200.0 - 100.0;
        coarse.upsample_bilinear2d([64, 64], false, None, None)
    });
    let losses = iterate(
        &mut state,
        &perception,
        &x,
        None,
        &Plan::of(&experiment),
        11 + seed(),
    )
    .unwrap();
    Outcome {
        losses,
        state,
        before,
    }
}

/// The shared pass starts from one network's seeds and is rescaled for the other; while one of
/// them pauses the pass starts from the other's own loss. Both ways, the same gradients.
#[test]
fn each_network_learns_what_it_would_learn_alone() {
    // 9.21 gives "real" 1 − 1e-8, and its opposite 1e-8.
    for lean in [0.0, 9.21, -9.21] {
        for (precision, tolerance) in [("fp32", 1e-4), ("bf16", 2e-2)] {
            let of = |gate| outcome(gate, "one", precision, lean, 3);
            let (both, d, g) = (of(BOTH), of(ONLY_D), of(ONLY_G));
            for (who, alone) in [("G", &g), ("D", &d)] {
                let error = relative(&both.gradient(who), &alone.gradient(who));
                assert!(
                    error < tolerance,
                    "{who}, bias {lean}, {precision}: {error:.1e}"
                );
            }
            for other in [&d, &g] {
                // As text: a term that was not computed is NaN, which equals nothing.
                let text = |o: &Outcome| format!("{:?}", o.losses);
                assert_eq!(text(other), text(&both), "bias {lean}, {precision}");
            }
        }
    }
}

#[test]
fn the_discriminator_s_step_is_that_of_the_paper_s_order() {
    let (one, paper) = (
        outcome(BOTH, "one", "fp32", 0.0, 3),
        outcome(BOTH, "paper", "fp32", 0.0, 3),
    );
    assert!(relative(&one.gradient("D"), &paper.gradient("D")) < 1e-5);
    // Before the updates all is the same; the adversarial loss comes after D's in the paper.
    for of in [
        |l: &Losses| l.of(TermKind::Feature),
        |l: &Losses| l.of(TermKind::Image),
        |l: &Losses| l.discriminator.unwrap().real,
        |l: &Losses| l.discriminator.unwrap().generated,
    ] {
        assert_eq!(of(&one.losses), of(&paper.losses));
    }
    let adv = |o: &Outcome| o.losses.of(TermKind::Adversarial);
    assert_ne!(adv(&one), adv(&paper));
}

#[test]
fn both_losses_are_of_one_pass_whoever_pauses() {
    for gate in [BOTH, ONLY_D, ONLY_G, NEITHER] {
        // Of one image: p and 1 − p.
        let chances = |passes| {
            let l = outcome(gate, passes, "fp32", 0.3, 1).losses;
            (-l.of(TermKind::Adversarial)).exp() + (-l.discriminator.unwrap().generated).exp()
        };
        assert!((chances("one") - 1.0).abs() < 1e-6, "{gate:?}");
        assert!((chances("paper") - 1.0).abs() > 1e-6, "{gate:?}");
    }
}

#[test]
fn a_paused_network_stays_as_it_is() {
    for (gate, counts) in [
        (BOTH, (1, 1)),
        (ONLY_D, (0, 1)),
        (ONLY_G, (1, 0)),
        (NEITHER, (0, 0)),
    ] {
        let out = outcome(gate, "one", "fp32", 0.0, 2);
        assert_eq!(
            (out.state.adam_g.count(), out.state.discriminator_updates()),
            counts
        );
        assert_eq!(out.moved(|s| s.generator.params()), gate.train_g);
        assert_eq!(
            out.moved(|s| s.discriminator.as_ref().unwrap().params()),
            gate.train_d
        );
        let l = out.losses;
        let terms = [TermKind::Feature, TermKind::Adversarial, TermKind::Image];
        let terms = terms.map(|kind| l.of(kind));
        for loss in terms.into_iter().chain([l.discriminator(), l.ratio]) {
            assert!(loss.is_finite(), "{l:?}");
        }
    }
}
