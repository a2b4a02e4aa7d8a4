//! Micro-batches of a batch: what their phases find adds up to what the whole batch's find.
//!
//! In double precision, so that nothing but the mathematics is held. The discriminator's last weights are zeros here:
//! its dropout, which no slice covers, then changes no logit, and the gradient of its last biases is that of any masks.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use deepsim_experiment::{Experiment, Perception};
use deepsim_nets::Reduction;
use deepsim_nets::init::seeded;
use deepsim_nets::loss::TermKind;
use deepsim_train::method::deepsim::{discriminator_gradients, forward, generator_gradients};
use deepsim_train::method::gradients::Player;
use deepsim_train::method::{MicroBatch, Plan, Slice, Sums};
use deepsim_train::state::State;
use tch::{Device, Kind, Tensor};

const IMAGES: i64 = 4;
/// Most that sums may differ from the whole batch's, relative.
const TOLERANCE: f64 = 1e-8;

struct Run {
    plan: Plan,
    perception: Perception,
    state: State,
    x: Tensor,
}

impl Run {
    fn new(file: &str, more: &[&str]) -> Run {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        let mut sets = vec![
            "encoder.net=alexnet",
            "comparator.net=alexnet",
            "encoder.weights=random:1",
            "comparator.weights=random:1",
            "data.crop=64",
            "generator.width=0.1",
            "train.precision=fp32",
        ];
        sets.extend_from_slice(more);
        let sets: Vec<String> = sets.into_iter().map(str::to_owned).collect();
        let experiment = Experiment::load(&folder.join(file), &sets).unwrap();
        let mut perception = Perception::load(&experiment, Device::Cpu).unwrap();
        let state = State::new(&experiment, perception.take_learned(), Device::Cpu).unwrap();
        perception.widen().unwrap();
        state.generator.params().widen().unwrap();
        if let Some(encoder) = &state.encoder {
            encoder.params.widen().unwrap();
        }
        let d = state.discriminator.as_ref().unwrap().params();
        d.widen().unwrap();
        {
            let _guard = tch::no_grad_guard();
            let of = |name: &str| d.get(name).unwrap().shallow_clone();
            let _ = of("Dfc7.weight").fill_(0.0);
            of("Dfc7.bias").copy_(&Tensor::from_slice(&[0.7, -0.4]));
        }
        let x = seeded(5, || {
            let options = (Kind::Double, Device::Cpu);
            let coarse = Tensor::rand([IMAGES, 3, 9, 9], options) * 200.0 - 100.0;
            coarse.upsample_bilinear2d([64, 64], false, None, None)
        });
        Run {
            plan: Plan::of(&experiment),
            perception,
            state,
            x,
        }
    }

    /// Both phases of a micro-batch, of images whose place in the batch may be told wrongly.
    fn phases(&self, x: &Tensor, told: Slice) -> Sums {
        let batch = MicroBatch::new(&self.perception, &self.plan, x, None, told).unwrap();
        seeded(11, || {
            let forward = forward(&self.state, &batch).unwrap();
            let (mut sums, verdict) =
                discriminator_gradients(&self.state, &batch, &forward).unwrap();
            let of_generator = generator_gradients(&self.state, &batch, forward, &verdict).unwrap();
            sums.add_(of_generator).unwrap();
            sums
        })
    }

    fn whole(&self) -> Sums {
        self.phases(&self.x, Slice::whole(IMAGES))
    }

    /// Micro-batches of these sizes, one after the other.
    fn added(&self, sizes: &[i64]) -> Sums {
        let (mut sums, mut from) = (Sums::default(), 0);
        for &len in sizes {
            let slice = Slice {
                from,
                len,
                global: IMAGES,
            };
            let x = self.x.narrow(0, from, len);
            sums.add_(self.phases(&x, slice)).unwrap();
            from += len;
        }
        assert_eq!(from, IMAGES);
        sums
    }
}

/// Everything of some sums that dropout does not change, by name.
fn values(sums: &Sums) -> Vec<(String, Tensor)> {
    let terms = sums.terms.iter();
    let mut all: Vec<(String, Tensor)> = terms
        .map(|(term, value)| (term.log_key(), value.shallow_clone()))
        .collect();
    let sides = sums.discriminator.as_ref().unwrap();
    all.push(("on real".to_owned(), sides.real.shallow_clone()));
    all.push(("on generated".to_owned(), sides.generated.shallow_clone()));
    for gradients in &sums.gradients {
        let name = gradients.player.name().to_owned();
        let known = match gradients.player {
            Player::Discriminator => &gradients.tensors[gradients.tensors.len() - 1..],
            Player::Generator | Player::Encoder => &gradients.tensors[..],
        };
        let flat: Vec<Tensor> = known.iter().map(|t| t.flatten(0, -1)).collect();
        all.push((name, Tensor::cat(&flat, 0)));
    }
    all
}

/// The largest relative difference.
fn apart(found: &Sums, expected: &Sums) -> (String, f64) {
    let (found, expected) = (values(found), values(expected));
    assert_eq!(found.len(), expected.len());
    let mut worst = (String::new(), 0.0);
    for ((name, found), (other, expected)) in found.into_iter().zip(expected) {
        assert_eq!(name, other);
        let size = expected.norm().double_value(&[]);
        assert!(size > 0.0, "{name}: nothing but zeros was expected");
        let error = (&found - &expected).norm().double_value(&[]) / size;
        if error > worst.1 {
            worst = (name, error);
        }
    }
    worst
}

fn check(what: &str, run: &mut Run, kinds: &[TermKind]) {
    for reduction in [Reduction::Caffe, Reduction::Mean, Reduction::Paper] {
        run.plan.reduction = reduction;
        let whole = run.whole();
        let found: Vec<TermKind> = whole.terms.iter().map(|(term, _)| term.kind()).collect();
        assert_eq!(found, kinds, "{what}");
        for sizes in [[2, 2], [1, 3]] {
            let (name, error) = apart(&run.added(&sizes), &whole);
            assert!(
                error < TOLERANCE,
                "{what}, {reduction:?}, {sizes:?}: {name} {error:.1e}"
            );
        }
    }
}

const PAPER: [TermKind; 3] = [TermKind::Feature, TermKind::Adversarial, TermKind::Image];

#[test]
fn the_paper_s_terms_add_up_in_either_order_of_passes() {
    for passes in ["paper", "one"] {
        let set = format!("train.discriminator_passes={passes}");
        check(passes, &mut Run::new("conv5.toml", &[set.as_str()]), &PAPER);
    }
}

#[test]
fn a_generator_s_noise_and_its_diversity_add_up() {
    let sets = [
        "generator.noise=5",
        "diversity.weight=300.0",
        "diversity.limit=1000.0",
    ];
    let kinds = [&PAPER[..], &[TermKind::Diversity]].concat();
    check("noise", &mut Run::new("conv5.toml", &sets), &kinds);
}

#[test]
fn drawn_codes_and_their_divergence_add_up() {
    let sets = [
        "latent.size=6",
        "encoder.tap=pool2",
        "comparator.tap=pool2",
        "comparator.weights=random:2",
    ];
    let mut run = Run::new("vae-alexnet.toml", &sets);
    let kinds = [&PAPER[..], &[TermKind::Kl]].concat();
    check("codes", &mut run, &kinds);
    let players: Vec<Player> = run.whole().gradients.iter().map(|g| g.player).collect();
    let all = [Player::Discriminator, Player::Generator, Player::Encoder];
    assert_eq!(players, all);
}

/// What the comparison is worth: a micro-batch that takes itself for a whole batch, or for another one, is noticed.
#[test]
fn a_wrong_slice_is_noticed() {
    let run = Run::new("conv5.toml", &["generator.noise=64"]);
    let whole = run.whole();
    let wrong = |told: [Slice; 2]| {
        let mut sums = Sums::default();
        for (from, told) in [0, 2].into_iter().zip(told) {
            let x = run.x.narrow(0, from, 2);
            sums.add_(run.phases(&x, told)).unwrap();
        }
        apart(&sums, &whole).1
    };
    let at = |from| Slice {
        from,
        len: 2,
        global: IMAGES,
    };
    assert!(wrong([at(0), at(2)]) < TOLERANCE);
    assert!(wrong([Slice::whole(2); 2]) > 0.5, "each counts twice");
    assert!(wrong([at(2), at(0)]) > 1e-5, "the other's noise");
}

#[test]
fn images_that_a_slice_does_not_count_are_refused() {
    let run = Run::new("conv5.toml", &[]);
    let slice = Slice::whole(IMAGES - 1);
    let refused = MicroBatch::new(&run.perception, &run.plan, &run.x, None, slice);
    let error = refused.unwrap_err();
    assert!(
        error.to_string().contains("3 images, got a tensor"),
        "{error}"
    );
}
