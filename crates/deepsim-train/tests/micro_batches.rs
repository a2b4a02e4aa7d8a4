//! Micro-batches of a batch: what their phases find adds up to what the whole batch's find, and is a fixed share of what
//! the same images give as a batch of their own.
//!
//! In double precision, so that nothing but the mathematics is held. The two comparisons complete each other. Sums are
//! compared with zeros for the discriminator's last weights: its dropout, which no slice covers, then changes no logit, and
//! the gradient of its last biases is that of any masks. Nothing of an adversarial gradient shows there. Shares are compared
//! with all weights as they are: two images draw the same masks as a part and as a whole.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use deepsim_experiment::{Experiment, Perception};
use deepsim_nets::init::seeded;
use deepsim_nets::loss::TermKind;
use deepsim_nets::{Code, LatentSpec, Reduction};
use deepsim_train::method::deepsim::{discriminator_gradients, forward, generator_gradients};
use deepsim_train::method::gate::Gate;
use deepsim_train::method::gradients::Player;
use deepsim_train::method::vaegan::compute_gradients;
use deepsim_train::method::{MicroBatch, Plan, Slice, Sums};
use deepsim_train::state::State;
use tch::{Device, Kind, Tensor};

const IMAGES: i64 = 4;
/// Images of a part whose share is looked at.
const PART: i64 = 2;
/// Most that sums may differ from the whole batch's, relative.
const TOLERANCE: f64 = 1e-8;
const REDUCTIONS: [Reduction; 3] = [Reduction::Caffe, Reduction::Mean, Reduction::Paper];
/// Seed of all draws of the phases.
const SEED: i64 = 11;
/// Length of VAE/GAN's codes: so short that libtorch draws numbers one after the other.
const CODE: i64 = 3;

/// The two losses of the discriminator, and its last gradient, in [`values`].
const ON_REAL: &str = "on real";
const ON_GENERATED: &str = "on generated";
const LAST_BIASES: &str = "the discriminator's last biases";

fn experiment(file: &str, sets: &[&str]) -> Experiment {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Experiment::load(&folder.join(file), &sets).unwrap()
}

struct Run {
    plan: Plan,
    perception: Perception,
    state: State,
    x: Tensor,
}

impl Run {
    /// A small experiment of the paper's method.
    fn paper(file: &str, more: &[&str]) -> Run {
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
        Run::of(&experiment(file, &sets))
    }

    /// A small experiment of VAE/GAN. Plain codes, which no file may ask for there, leave the prior's as its only draws.
    fn vaegan(file: &str, more: &[&str], code: Code) -> Run {
        let size = format!("latent.size={CODE}");
        let mut sets = vec![
            "data.crop=32",
            size.as_str(),
            "generator.width=0.25",
            "discriminator.width=0.25",
            "encoder.width=0.25",
            "train.precision=fp32",
        ];
        sets.extend_from_slice(more);
        let mut experiment = experiment(file, &sets);
        experiment.config.latent = Some(LatentSpec { size: CODE, code });
        Run::of(&experiment)
    }

    fn of(experiment: &Experiment) -> Run {
        let mut perception = Perception::load(experiment, Device::Cpu).unwrap();
        let state = State::new(experiment, perception.take_learned(), Device::Cpu).unwrap();
        perception.widen().unwrap();
        state.generator.params().widen().unwrap();
        if let Some(encoder) = &state.encoder {
            encoder.params.widen().unwrap();
        }
        let d = state.discriminator.as_ref().unwrap().params();
        d.widen().unwrap();
        if let Some(bias) = d.get("Dfc7.bias") {
            let _guard = tch::no_grad_guard();
            bias.shallow_clone()
                .copy_(&Tensor::from_slice(&[0.7, -0.4]));
        }
        let crop = i64::from(experiment.config.data.crop);
        let x = seeded(5, || {
            let options = (Kind::Double, Device::Cpu);
            let coarse = Tensor::rand([IMAGES, 3, 9, 9], options) * 200.0 - 100.0;
            coarse.upsample_bilinear2d([crop, crop], false, None, None)
        });
        Run {
            plan: Plan::of(experiment),
            perception,
            state,
            x,
        }
    }

    /// With zeros for the discriminator's last weights.
    fn without_dropout(self) -> Run {
        {
            let _guard = tch::no_grad_guard();
            let d = self.state.discriminator.as_ref().unwrap().params();
            let mut last = d.get("Dfc7.weight").unwrap().shallow_clone();
            let _ = last.fill_(0.0);
        }
        self
    }

    /// All phases of a micro-batch, of images whose place in the batch may be told wrongly.
    fn phases(&self, x: &Tensor, told: Slice) -> Sums {
        let batch = MicroBatch::new(&self.perception, &self.plan, x, None, told).unwrap();
        seeded(SEED, || {
            if let Some(rule) = self.plan.vaegan {
                return compute_gradients(&self.state, &batch, rule).unwrap();
            }
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

    /// What a part of two of the four images has of what the two give as a whole batch. [`Reduction::Caffe`] and
    /// [`Reduction::Mean`] divide by the number of images: half. [`Reduction::Paper`] sums over them: all. So it is of
    /// terms, of the discriminator's losses and of all gradients alike. In VAE/GAN the discriminator's losses, and the
    /// adversarial term with them, are means whatever the reduction.
    fn share(&self, name: &str) -> f64 {
        let mean = [ON_REAL, ON_GENERATED, "loss.adv"].contains(&name);
        if self.plan.reduction == Reduction::Paper && !(mean && self.plan.vaegan.is_some()) {
            1.0
        } else {
            PART as f64 / IMAGES as f64
        }
    }
}

/// What some sums hold, by name.
type Values = Vec<(String, Tensor)>;

fn values(sums: &Sums) -> Values {
    let terms = sums.terms.iter();
    let mut all: Values = terms
        .map(|(term, value)| (term.log_key(), value.shallow_clone()))
        .collect();
    let sides = sums.discriminator.as_ref().unwrap();
    all.push((ON_REAL.to_owned(), sides.real.shallow_clone()));
    all.push((ON_GENERATED.to_owned(), sides.generated.shallow_clone()));
    for gradients in &sums.gradients {
        let flat: Vec<Tensor> = gradients.tensors.iter().map(|t| t.flatten(0, -1)).collect();
        if gradients.player == Player::Discriminator {
            let last = flat.last().unwrap().shallow_clone();
            all.push((LAST_BIASES.to_owned(), last));
        }
        all.push((gradients.player.name().to_owned(), Tensor::cat(&flat, 0)));
    }
    all
}

/// Everything but the gradients that dropout changes although it changes no logit.
fn undropped(sums: &Sums) -> Values {
    let mut all = values(sums);
    all.retain(|(name, _)| name != Player::Discriminator.name());
    all
}

/// The largest relative difference.
fn apart(found: &[(String, Tensor)], expected: &[(String, Tensor)]) -> (String, f64) {
    assert_eq!(found.len(), expected.len());
    let mut worst = (String::new(), 0.0);
    for ((name, found), (other, expected)) in found.iter().zip(expected) {
        assert_eq!(name, other);
        let size = expected.norm().double_value(&[]);
        assert!(size > 0.0, "{name}: nothing but zeros was expected");
        let error = (found - expected).norm().double_value(&[]) / size;
        if error > worst.1 {
            worst = (name.clone(), error);
        }
    }
    worst
}

/// Holds the sums of micro-batches against the whole batch, in all reductions.
fn adds_up(what: &str, run: &mut Run, kinds: &[TermKind]) {
    for reduction in REDUCTIONS {
        run.plan.reduction = reduction;
        let whole = run.whole();
        let found: Vec<TermKind> = whole.terms.iter().map(|(term, _)| term.kind()).collect();
        assert_eq!(found, kinds, "{what}");
        let whole = undropped(&whole);
        for sizes in [[2, 2], [1, 3]] {
            let (name, error) = apart(&undropped(&run.added(&sizes)), &whole);
            assert!(
                error < TOLERANCE,
                "{what}, {reduction:?}, {sizes:?}: {name} {error:.1e}"
            );
        }
    }
}

/// Holds two images as a part, the first of which stands at `from`, against the same two as a whole batch, in all
/// reductions. Both must draw the same numbers for what is `judged`.
fn is_a_share(what: &str, run: &mut Run, from: i64, judged: impl Fn(&str) -> bool) {
    for reduction in REDUCTIONS {
        run.plan.reduction = reduction;
        let slice = Slice {
            from,
            len: PART,
            global: IMAGES,
        };
        let x = run.x.narrow(0, from, PART);
        let mut part = values(&run.phases(&x, slice));
        part.retain(|(name, _)| judged(name));
        let whole = values(&run.phases(&x, Slice::whole(PART)));
        let expected: Values = whole
            .into_iter()
            .filter(|(name, _)| judged(name))
            .map(|(name, value)| {
                let share = run.share(&name);
                (name, value * share)
            })
            .collect();
        let (name, error) = apart(&part, &expected);
        assert!(
            error < TOLERANCE,
            "{what}, {reduction:?}: {name} {error:.1e}"
        );
    }
}

const PAPER: [TermKind; 3] = [TermKind::Feature, TermKind::Adversarial, TermKind::Image];
const PASSES: [&str; 2] = [
    "train.discriminator_passes=paper",
    "train.discriminator_passes=one",
];

#[test]
fn the_paper_s_terms_add_up_in_either_order_of_passes() {
    for passes in PASSES {
        let run = Run::paper("conv5.toml", &[passes]);
        adds_up(passes, &mut run.without_dropout(), &PAPER);
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
    let run = Run::paper("conv5.toml", &sets);
    adds_up("noise", &mut run.without_dropout(), &kinds);
}

/// An encoder that learns, beside a comparator that is another network.
const LEARNS: [&str; 4] = [
    "latent.size=6",
    "encoder.tap=pool2",
    "comparator.tap=pool2",
    "comparator.weights=random:2",
];

#[test]
fn drawn_codes_and_their_divergence_add_up() {
    let mut run = Run::paper("vae-alexnet.toml", &LEARNS).without_dropout();
    let kinds = [&PAPER[..], &[TermKind::Kl]].concat();
    adds_up("codes", &mut run, &kinds);
    let players: Vec<Player> = run.whole().gradients.iter().map(|g| g.player).collect();
    let all = [Player::Discriminator, Player::Generator, Player::Encoder];
    assert_eq!(players, all);
}

/// The adversarial gradient among them, whoever pauses: a pass that serves one network alone is another one.
#[test]
fn a_part_is_its_share_of_the_same_images_as_a_whole_batch() {
    for passes in PASSES {
        let mut run = Run::paper("conv5.toml", &[passes]);
        for (train_d, train_g) in [(true, true), (true, false), (false, true)] {
            run.state.gate = Gate { train_d, train_g };
            let what = format!("{passes}, {:?}", run.state.gate);
            is_a_share(&what, &mut run, 2, |_| true);
        }
    }
}

#[test]
fn a_part_of_plain_codes_is_its_share_with_the_encoder_s_gradient() {
    let plain = ["latent.code=plain", "loss.kl=0.0"];
    for passes in PASSES {
        let sets = [&LEARNS[..], &plain, &[passes]].concat();
        let mut run = Run::paper("vae-alexnet.toml", &sets);
        let found = values(&run.whole());
        assert!(found.iter().any(|(name, _)| name == Player::Encoder.name()));
        is_a_share(passes, &mut run, 2, |_| true);
    }
}

/// VAE/GAN's batch normalisation takes the statistics of the part: parts do not add up to the whole, but each is its
/// share of the same images as a whole batch.
#[test]
fn a_part_of_vae_gan_s_batch_is_its_share_of_the_same_images_as_a_whole_batch() {
    // The first draws of a part are those of the whole batch. Later ones are not: the part has left out draws between.
    let first = |images: i64| {
        let options = (Kind::Float, Device::Cpu);
        seeded(SEED, || Tensor::randn([images, CODE], options))
    };
    assert_eq!(first(IMAGES).narrow(0, 0, PART), first(PART));

    let all = ["loss.img=6e-5"];
    let mut plain = Run::vaegan("sample/faces-vaegan.toml", &all, Code::Plain);
    is_a_share("plain codes", &mut plain, 0, |_| true);
    let mut gan = Run::vaegan("sample/faces-gan.toml", &[], Code::Gaussian);
    is_a_share("GAN", &mut gan, 0, |_| true);
    // The prior is drawn after the codes: what it enters is that of other images.
    let mut run = Run::vaegan("sample/faces-vaegan.toml", &all, Code::Gaussian);
    let codes = ["loss.feat", "loss.img", "loss.kl", Player::Encoder.name()];
    let found = values(&run.whole());
    for name in codes {
        assert!(found.iter().any(|(known, _)| known == name), "no {name}");
    }
    is_a_share("drawn codes", &mut run, 0, |name| codes.contains(&name));
}

#[test]
fn gradients_of_vae_gan_s_micro_batches_are_added_each_to_its_own() {
    let run = Run::vaegan("sample/faces-vaegan.toml", &[], Code::Gaussian);
    let mut twice = run.whole();
    let expected: Values = values(&twice)
        .into_iter()
        .map(|(name, value)| (name, value * 2.0))
        .collect();
    twice.add_(run.whole()).unwrap();
    let (name, error) = apart(&values(&twice), &expected);
    assert!(error < TOLERANCE, "{name} {error:.1e}");
}

/// What the comparison is worth: a micro-batch that takes itself for a whole batch, or for another one, is noticed.
#[test]
fn a_wrong_slice_is_noticed() {
    let run = Run::paper("conv5.toml", &["generator.noise=64"]).without_dropout();
    let whole = undropped(&run.whole());
    let wrong = |told: [Slice; 2]| {
        let mut sums = Sums::default();
        for (from, told) in [0, 2].into_iter().zip(told) {
            let x = run.x.narrow(0, from, 2);
            sums.add_(run.phases(&x, told)).unwrap();
        }
        apart(&undropped(&sums), &whole).1
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

/// The same of the adversarial gradient: of twice the weight it lies far beyond what is allowed.
#[test]
fn another_adversarial_gradient_is_noticed() {
    for passes in PASSES {
        let mut run = Run::paper("conv5.toml", &[passes]);
        let of_generator = |run: &Run| {
            let mut all = values(&run.whole());
            all.retain(|(name, _)| name == Player::Generator.name());
            all
        };
        let once = of_generator(&run);
        let weight = run.plan.weights.weight(TermKind::Adversarial);
        run.plan.weights.set(TermKind::Adversarial, 2.0 * weight);
        let (_, error) = apart(&of_generator(&run), &once);
        assert!(error > 100.0 * TOLERANCE, "{passes}: {error:.1e}");
    }
}

#[test]
fn images_that_a_slice_does_not_count_are_refused() {
    let run = Run::paper("conv5.toml", &[]);
    let slice = Slice::whole(IMAGES - 1);
    let refused = MicroBatch::new(&run.perception, &run.plan, &run.x, None, slice);
    let error = refused.unwrap_err();
    assert!(
        error.to_string().contains("3 images, got a tensor"),
        "{error}"
    );
}
