//! Micro-batches of a batch: what their phases find adds up to what the whole batch's find, and an iteration on several is
//! that on one. In double precision, so that nothing but the mathematics is held.
//!
//! With batch normalisation parts do not add up: they have statistics of their own. Then a part is a fixed share of what the
//! same images, with the same draws, give as a batch of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

mod parts;

use std::time::Duration;

use deepsim_nets::Reduction;
use deepsim_nets::init::seeded;
use deepsim_nets::loss::TermKind;
use deepsim_train::method::gate::Gate;
use deepsim_train::method::gradients::Player;
use deepsim_train::method::{Draws, MicroBatch, Sides, Slice, Sums, iterate};
use deepsim_train::ranks::Ranks;
use parts::{IMAGES, PART, Run, SEED, Values, apart, values};
use tch::{Device, Tensor};

/// Most that sums may differ from the whole batch's, relative.
const TOLERANCE: f64 = 1e-8;
const REDUCTIONS: [Reduction; 3] = [Reduction::Caffe, Reduction::Mean, Reduction::Paper];

/// Holds the sums of micro-batches against the whole batch, in all reductions.
fn adds_up(what: &str, run: &mut Run, kinds: &[TermKind]) {
    for reduction in REDUCTIONS {
        run.plan.reduction = reduction;
        let whole = run.whole();
        let found: Vec<TermKind> = whole.terms.iter().map(|(term, _)| term.kind()).collect();
        assert_eq!(found, kinds, "{what}");
        let whole = values(&whole);
        for sizes in [[2, 2], [1, 3]] {
            let (name, error) = apart(&values(&run.added(&sizes)), &whole);
            assert!(
                error < TOLERANCE,
                "{what}, {reduction:?}, {sizes:?}: {name} {error:.1e}"
            );
        }
    }
}

/// Holds two images as a part, the first of which stands at `from`, against the same two with the same draws as a whole
/// batch, in all reductions.
fn is_a_share(what: &str, run: &mut Run, from: i64) {
    for reduction in REDUCTIONS {
        run.plan.reduction = reduction;
        let slice = Slice {
            from,
            len: PART,
            global: IMAGES,
        };
        let (x, draws) = (run.x.narrow(0, from, PART), run.draws());
        let part = values(&run.phases(&x, &draws, slice));
        let own = draws.of(slice).unwrap();
        let whole = values(&run.phases(&x, &own, Slice::whole(PART)));
        let expected: Values = whole
            .into_iter()
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
fn the_paper_s_terms_add_up_whoever_pauses() {
    for passes in PASSES {
        let mut run = Run::paper("conv5.toml", &[passes]);
        for (train_d, train_g) in [(true, true), (true, false), (false, true)] {
            run.state.gate = Gate { train_d, train_g };
            let what = format!("{passes}, {:?}", run.state.gate);
            adds_up(&what, &mut run, &PAPER);
        }
    }
}

#[test]
fn a_generator_s_noise_and_its_diversity_add_up() {
    let mut run = Run::paper("conv5.toml", &NOISE);
    let kinds = [&PAPER[..], &[TermKind::Diversity]].concat();
    adds_up("noise", &mut run, &kinds);
}

const NOISE: [&str; 4] = [
    "generator.noise=5",
    "generator.feature_noise=0.8",
    "diversity.weight=300.0",
    "diversity.limit=1000.0",
];

/// Today's recipe: the hinge loss on patches with spectral normalisation, and all that can be beside it.
const TODAY: [&str; 15] = [
    "gate.d_off_below=0",
    "gate.d_on_above=0",
    "gate.g_off_above=inf",
    "gate.g_on_below=inf",
    "discriminator.architecture=patchgan",
    "discriminator.norm=spectral",
    "discriminator.width=0.125",
    "discriminator.layers=2",
    "adversary.loss=hinge",
    "adversary.r1.weight=0.5",
    "adversary.r1.every=2",
    "adversary.lecam.weight=0.3",
    "adversary.lecam.decay=0.9",
    "adversary.augment.color=true",
    "adversary.adaptive.limit=1e12",
];

#[test]
fn today_s_penalties_and_both_gradients_of_the_generator_add_up() {
    let mut run = Run::paper("conv5.toml", &TODAY);
    run.state.scores = Some(Sides {
        real: 0.4,
        generated: -0.3,
    });
    let kinds = [&PAPER[..], &[TermKind::R1, TermKind::LeCam]].concat();
    adds_up("today", &mut run, &kinds);
    let sums = run.whole();
    let whose: Vec<_> = sums.gradients.iter().map(|g| g.adversarial).collect();
    assert_eq!(whose, [false, false, true]);
    assert!(sums.scores.is_some());
}

#[test]
fn distances_of_features_at_several_taps_add_up() {
    for distance in ["absolute", "unit"] {
        let comparator = format!(
            "comparator={{ net = \"alexnet\", weights = \"random:1\", distance = \"{distance}\", \
             taps = {{ relu2 = 0.5, pool5 = 2.0 }} }}"
        );
        let mut run = Run::paper("conv5.toml", &[&comparator, "loss.feat=10"]);
        adds_up(distance, &mut run, &PAPER);
    }
}

#[test]
fn nothing_of_a_late_adversary_is_computed_before() {
    let late = [
        "adversary.discriminator_from=1",
        "adversary.generator_from=2",
    ];
    for micro_batches in [1, 2] {
        let mut run = Run::paper("conv5.toml", &[&TODAY[..], &late].concat());
        run.plan.micro_batches = micro_batches;
        for it in 0..3 {
            let (state, x) = (&mut run.state, &run.x);
            let losses = iterate(state, &run.perception, x, None, &run.plan, SEED + it).unwrap();
            assert_eq!(losses.discriminator.is_some(), it > 0, "{it}");
            let of = |kind| losses.terms.of(kind).is_some();
            assert_eq!(of(TermKind::Adversarial), it > 1, "{it}");
            assert_eq!(of(TermKind::AdversarialWeight), it > 1, "{it}");
            assert_eq!(of(TermKind::LeCam), it > 1, "{it}");
            assert_eq!(of(TermKind::R1), it > 1, "{it}");
        }
        assert_eq!(run.state.adam_g.count(), 3);
        assert_eq!(run.state.discriminator_updates(), 2);
    }
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
    for passes in PASSES {
        let mut run = Run::paper("vae-alexnet.toml", &[&LEARNS[..], &[passes]].concat());
        let kinds = [&PAPER[..], &[TermKind::Kl]].concat();
        adds_up(passes, &mut run, &kinds);
        let players: Vec<Player> = run.whole().gradients.iter().map(|g| g.player).collect();
        let all = [Player::Discriminator, Player::Generator, Player::Encoder];
        assert_eq!(players, all);
    }
}

#[test]
fn plain_codes_add_up_with_the_encoder_s_gradient() {
    let plain = ["latent.code=plain", "loss.kl=0.0"];
    for passes in PASSES {
        let sets = [&LEARNS[..], &plain, &[passes]].concat();
        let mut run = Run::paper("vae-alexnet.toml", &sets);
        let found = values(&run.whole());
        assert!(found.iter().any(|(name, _)| name == Player::Encoder.name()));
        adds_up(passes, &mut run, &PAPER);
    }
}

#[test]
fn a_part_of_vae_gan_s_batch_is_its_share_of_the_same_images_as_a_whole_batch() {
    let mut run = Run::vaegan("sample/faces-vaegan.toml", &["loss.img=6e-5"]);
    is_a_share("VAE/GAN", &mut run, 1);
    let mut gan = Run::vaegan("sample/faces-gan.toml", &[]);
    is_a_share("GAN", &mut gan, 2);
}

#[test]
fn gradients_of_vae_gan_s_micro_batches_are_added_each_to_its_own() {
    let run = Run::vaegan("sample/faces-vaegan.toml", &[]);
    let mut twice = run.whole();
    let expected: Values = values(&twice)
        .into_iter()
        .map(|(name, value)| (name, value * 2.0))
        .collect();
    twice.add_(run.whole()).unwrap();
    let (name, error) = apart(&values(&twice), &expected);
    assert!(error < TOLERANCE, "{name} {error:.1e}");
}

/// Losses and weights after three iterations on so many micro-batches.
fn trained(run: &mut Run, micro_batches: i64) -> Values {
    run.plan.micro_batches = micro_batches;
    iterated(run)
}

/// The same on so many shards.
fn trained_on_shards(run: &mut Run, shards: i64) -> Values {
    run.plan.shards = Some(shards);
    iterated(run)
}

fn iterated(run: &mut Run) -> Values {
    let mut found = Values::new();
    for it in 0..3 {
        let losses = iterate(
            &mut run.state,
            &run.perception,
            &run.x,
            None,
            &run.plan,
            SEED + it,
        )
        .unwrap();
        for (term, value) in losses.terms.iter() {
            let name = format!("{} of iteration {it}", term.log_key());
            found.push((name, Tensor::from_slice(&[*value])));
        }
    }
    for (file, tensors) in run.state.snapshot().files {
        for (name, tensor) in tensors {
            if tensor.norm().double_value(&[]) > 0.0 {
                found.push((format!("{file}: {name}"), tensor.copy()));
            }
        }
    }
    found
}

#[test]
fn iterations_on_several_micro_batches_are_those_on_the_whole_batch() {
    let learns = [&LEARNS[..], &["optimizer.encoder.eps=1.0"]].concat();
    let cases = [
        ("conv5.toml", vec![PASSES[0]]),
        ("conv5.toml", vec![PASSES[1]]),
        ("conv5.toml", NOISE.to_vec()),
        ("vae-alexnet.toml", learns),
        ("conv5.toml", TODAY.to_vec()),
    ];
    // Smooth steps: Adam's would amplify rounding where a gradient is nearly zero.
    let smooth = [
        "optimizer.generator.eps=1.0",
        "optimizer.discriminator.eps=1.0",
    ];
    for (file, sets) in cases {
        let sets = [&sets[..], &smooth].concat();
        let whole = trained(&mut Run::paper(file, &sets), 1);
        for parts in [2, 3] {
            let (name, error) = apart(&trained(&mut Run::paper(file, &sets), parts), &whole);
            assert!(
                error < TOLERANCE,
                "{file}, {sets:?} in {parts}: {name} {error:.1e}"
            );
        }
    }
}

#[test]
fn iterations_on_shards_are_those_on_the_whole_batch() {
    let smooth = [
        "optimizer.generator.eps=1.0",
        "optimizer.discriminator.eps=1.0",
    ];
    let with_encoder = [&smooth[..], &["optimizer.encoder.eps=1.0"]].concat();
    let makes: [&dyn Fn() -> Run; 4] = [
        &|| Run::paper("conv5.toml", &smooth),
        &|| Run::paper("conv5.toml", &[&smooth[..], &TODAY].concat()),
        &|| Run::vaegan("sample/faces-vaegan.toml", &with_encoder),
        // Batch normalisation in the discriminator alone, with the paper's order of passes.
        &|| {
            let larsen = ["discriminator.architecture=larsen"];
            Run::paper("conv5.toml", &[&smooth[..], &larsen].concat())
        },
    ];
    for (at, make) in makes.into_iter().enumerate() {
        let whole = trained(&mut make(), 1);
        for shards in [1, 2, 3, 4] {
            let found = trained_on_shards(&mut make(), shards);
            let (name, error) = apart(&found, &whole);
            assert!(
                error < TOLERANCE,
                "{at}, {shards} shards: {name} {error:.1e}"
            );
        }
    }
}

/// The sums of two processes, which are threads here, each with its part of the images.
fn shared(make: impl Fn() -> Run + Send + Copy + 'static) -> [Values; 2] {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let threads = [0, 1].map(|rank: i64| {
        let port = port.clone();
        std::thread::spawn(move || {
            let set = |name: &str| match name {
                "RANK" => Some(rank.to_string()),
                "WORLD_SIZE" => Some("2".to_owned()),
                "MASTER_ADDR" => Some("127.0.0.1".to_owned()),
                "MASTER_PORT" => Some(port.clone()),
                _ => None,
            };
            let ranks = Ranks::join(set, Duration::from_secs(120)).unwrap();
            let run = make();
            let slice = ranks.share(IMAGES as usize, None).unwrap();
            let (draws, x) = (run.draws(), slice.of(run.x.shallow_clone()).unwrap());
            let mut parts = ranks.parts(&run.plan);
            let phases = |slice| Ok(run.phases(&x, &draws, slice));
            let found = ranks.each(&run.plan, [slice], phases, |found| parts.add(found));
            found.unwrap();
            values(&ranks.total(&run.plan, parts).unwrap())
        })
    });
    threads.map(|thread| thread.join().unwrap())
}

#[test]
fn sums_over_processes_are_those_of_the_whole_batch() {
    let makes: [fn() -> Run; 7] = [
        || Run::paper("conv5.toml", &[]),
        || Run::paper("conv5.toml", &TODAY),
        || Run::paper("conv5.toml", &[PASSES[1]]),
        || Run::paper("conv5.toml", &NOISE),
        || Run::paper("vae-alexnet.toml", &LEARNS),
        || Run::vaegan("sample/faces-vaegan.toml", &["loss.img=6e-5"]),
        || Run::vaegan("sample/faces-gan.toml", &[]),
    ];
    for make in makes {
        let whole = values(&make().whole());
        for found in shared(make) {
            let (name, error) = apart(&found, &whole);
            assert!(error < TOLERANCE, "{name} {error:.1e}");
        }
    }
}

/// What the comparison is worth: a micro-batch that takes itself for a whole batch, or for another one, is noticed, and
/// so is one that drops out other values.
#[test]
fn a_wrong_slice_is_noticed() {
    let run = Run::paper("conv5.toml", &["generator.noise=64"]);
    let (draws, whole) = (run.draws(), values(&run.whole()));
    let wrong = |told: [Slice; 2], draws: &Draws| {
        let mut sums = Sums::default();
        for (from, told) in [0, 2].into_iter().zip(told) {
            let x = run.x.narrow(0, from, 2);
            sums.add_(run.phases(&x, draws, told)).unwrap();
        }
        apart(&values(&sums), &whole).1
    };
    let at = |from| Slice {
        from,
        len: 2,
        global: IMAGES,
    };
    assert!(wrong([at(0), at(2)], &draws) < TOLERANCE);
    let first = draws.of(at(0)).unwrap();
    assert!(
        wrong([Slice::whole(2); 2], &first) > 0.5,
        "each counts twice"
    );
    assert!(wrong([at(2), at(0)], &draws) > 1e-5, "the other's draws");
    let mut others = draws.of(Slice::whole(IMAGES)).unwrap();
    others.updated = run.state.discriminator.as_ref().map_or_else(Vec::new, |d| {
        seeded(SEED + 1, || d.draw_masks(IMAGES, Device::Cpu)).unwrap()
    });
    assert!(wrong([at(0), at(2)], &others) > 1e-5, "other masks");
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
    let (draws, x) = (run.draws(), &run.x);
    let refused = MicroBatch::new(&run.perception, &run.plan, &draws, x, None, slice);
    let error = refused.unwrap_err();
    assert!(
        error.to_string().contains("3 images, got a tensor"),
        "{error}"
    );
}
