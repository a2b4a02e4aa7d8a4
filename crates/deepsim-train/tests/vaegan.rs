//! Iterations of VAE/GAN against an independent reference in PyTorch, and resume.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../deepsim-nets/tests/common/mod.rs"]
#[allow(dead_code, reason = "this test needs a part of it")]
mod common;
mod experiments;

use common::{
    FAULT, Named, OUTPUT, Reference, Values, assert_close, assert_exact, assert_reference,
    assert_rounding_alone, largest, worst,
};
use deepsim_experiment::{Experiment, Perception};
use deepsim_nets::images::{caffe_to_unit, rgb_to_caffe};
use deepsim_nets::loss::TermKind;
use deepsim_nets::params::Params;
use deepsim_nets::{Adam, Mode};
use deepsim_train::method::gradients::Player;
use deepsim_train::method::vaegan::compute_gradients;
use deepsim_train::method::{Draws, Losses, MicroBatch, Plan, Slice, iterate};
use deepsim_train::state::State;
use experiments::{begin, saved, shipped, values as bits};
use tch::{Device, Kind, Tensor};

// Batches of sixteen: batch statistics of few images divide by a deviation that may be small, and rounding grows by as
// much.

struct Run {
    plan: Plan,
    perception: Perception,
    state: State,
}

impl Run {
    fn new(experiment: &Experiment) -> Run {
        let (perception, state) = begin(experiment, Device::Cpu);
        Run {
            plan: Plan::of(experiment),
            perception,
            state,
        }
    }

    fn step(&mut self, x: &Tensor, seed: i64) -> Losses {
        iterate(&mut self.state, &self.perception, x, None, &self.plan, seed).unwrap()
    }

    fn networks(&self) -> [(&'static str, &Params); 3] {
        [
            ("E", &self.state.encoder.as_ref().unwrap().params),
            ("G", self.state.generator.params()),
            ("D", self.state.discriminator.as_ref().unwrap().params()),
        ]
    }
}

/// The experiment of a reference's run: the sample's file with the reference's sizes and settings.
fn like(r: &Reference, file: &str) -> Experiment {
    // The sample's files are in bf16, the reference is not.
    let mut sets = "train.precision=fp32".to_owned();
    for (key, meta) in [
        ("data.crop", "crop"),
        ("latent.size", "features"),
        ("loss.img", "img"),
        ("train.batch_size", "batch"),
        ("vaegan.gamma", "gamma"),
        ("vaegan.real_weight", "real_weight"),
        ("vaegan.equilibrium", "equilibrium"),
        ("vaegan.margin", "gate_margin"),
    ] {
        sets += &format!(" {key}={}", r.meta(meta));
    }
    for net in ["generator", "discriminator", "encoder"] {
        sets += &format!(" {net}.width={}", r.meta("width"));
        for key in ["lr", "weight_decay"] {
            sets += &format!(" optimizer.{net}.{key}={}", r.meta(key));
        }
    }
    shipped(file, &sets)
}

/// The reference's networks before or after its iterations, and optimisers that begin.
fn begun(experiment: &Experiment, r: &Reference, from: &str, kind: Kind) -> Run {
    let mut run = Run::new(experiment);
    let state = &mut run.state;
    // Before the weights are taken over: afterwards they would have been rounded.
    if kind == Kind::Double {
        run.perception.widen().unwrap();
        state.generator.params().widen().unwrap();
        let discriminator = state.discriminator.as_ref().unwrap();
        discriminator.params().widen().unwrap();
        state.encoder.as_ref().unwrap().params.widen().unwrap();
    }
    let load = |params: &mut Params, net: &str| {
        let values = r.group(&format!("{from}{net}/"));
        params.copy_from(&values, "a network", "reference").unwrap();
    };
    load(state.generator.params_mut(), "G");
    load(state.discriminator.as_mut().unwrap().params_mut(), "D");
    load(&mut state.encoder.as_mut().unwrap().params, "E");
    let o = &experiment.config.optimizer;
    state.adam_g = Adam::new(state.generator.params(), o.generator).unwrap();
    let d = state.discriminator.as_ref().unwrap();
    state.adam_d = Some(Adam::new(d.params(), o.discriminator.unwrap()).unwrap());
    let encoder = state.encoder.as_mut().unwrap();
    encoder.adam = Adam::new(&encoder.params, o.encoder.unwrap()).unwrap();
    run
}

/// What came of the iterations besides values.
struct Outcome {
    run: Run,
    losses: Vec<Losses>,
    /// Whether each iteration has trained the decoder, and the discriminator.
    gates: Vec<(bool, bool)>,
}

/// Each tensor's gradient in the first iteration; the losses and running statistics of all.
fn values(r: &Reference, experiment: &Experiment, kind: Kind) -> (Values, Outcome) {
    let images = |it: usize| rgb_to_caffe(&r.get(&format!("x/{it}")).to_kind(kind)).unwrap();
    let seeds = r.numbers("torch_seeds");
    let mut values = Values::default();
    let run = begun(experiment, r, "w", kind);
    let rule = run.plan.vaegan.unwrap();
    let x = images(0);
    let slice = Slice::whole(x.size()[0]);
    let draws = Draws::new(&run.state, &run.plan, slice.global, Device::Cpu, seeds[0]).unwrap();
    let batch = MicroBatch::new(&run.perception, &run.plan, &draws, &x, None, slice).unwrap();
    let found = compute_gradients(&run.state, &batch, rule).unwrap();
    for gradients in found.gradients {
        let net = match gradients.player {
            Player::Encoder => "E",
            Player::Generator => "G",
            Player::Discriminator => "D",
        };
        let all = run.networks();
        let (_, params) = all.into_iter().find(|(name, _)| *name == net).unwrap();
        let names = params
            .trained()
            .into_iter()
            .map(|p| format!("g{net}/{}", p.name));
        values.add(&format!("gradients of {net}"), names.zip(gradients.tensors));
    }
    // The look at the gradients has moved the running statistics: from the beginning.
    let mut run = begun(experiment, r, "w", kind);
    let (mut all, mut gates) = (Vec::new(), Vec::new());
    for (it, seed) in seeds.into_iter().enumerate() {
        let l = run.step(&images(it), seed);
        for (name, value) in [
            ("feat", l.of(TermKind::Feature)),
            ("img", l.of(TermKind::Image)),
            ("kl", l.of(TermKind::Kl)),
            ("d_real", l.discriminator.unwrap().real),
            ("d_fake", l.discriminator.unwrap().generated),
        ] {
            if !value.is_nan() {
                let value = Tensor::from_slice(&[value]).squeeze();
                values.lost(format!("loss/{it}/{name}"), value, it > 0);
            }
        }
        gates.push((run.state.gate.train_g, run.state.gate.train_d));
        all.push(l);
    }
    let outcome = Outcome {
        run,
        losses: all,
        gates,
    };
    (values, outcome)
}

fn check(file: &str, options: &str) -> (Run, Vec<Losses>) {
    let r = Reference::run(&format!("vaegan {options}"));
    let experiment = like(&r, file);
    let (mut own, outcome) = values(&r, &experiment, Kind::Double);
    for (it, (train_g, train_d)) in outcome.gates.into_iter().enumerate() {
        for (name, value) in [("train_g", train_g), ("train_d", train_d)] {
            let key = format!("gate/{it}/{name}");
            assert_eq!(f64::from(value), r.scalar(&key), "{key}");
        }
    }
    let (run, losses) = (outcome.run, outcome.losses);
    for (net, params) in run.networks() {
        for running in [false, true] {
            let moved = params
                .iter()
                .filter(|p| p.name.contains("running") == running);
            let moved: Named = moved
                .map(|p| {
                    let before = r.get(&format!("w{net}/{}", p.name));
                    (format!("moved{net}/{}", p.name), p.tensor.detach() - before)
                })
                .collect();
            let expected = moved
                .iter()
                .map(|(name, _)| r.get(name).abs().max().double_value(&[]));
            if expected.fold(0.0, f64::max) > 0.0 {
                own.add(&format!("movement of {net}, statistics: {running}"), moved);
            } else {
                for (name, t) in moved {
                    assert_eq!(t.abs().max().double_value(&[]), 0.0, "{name}");
                }
            }
        }
    }
    assert_reference(options, &r, &own);
    let mut smooth = experiment;
    let o = &mut smooth.config.optimizer;
    let all = [
        ("G", Some(&mut o.generator)),
        ("D", o.discriminator.as_mut()),
        ("E", o.encoder.as_mut()),
    ];
    for (net, options) in all {
        let group = format!("gradients of {net}");
        let gradients = own.gradients.iter().find(|(name, _)| *name == group);
        if let (Some(options), Some((_, gradients))) = (options, gradients) {
            options.eps = largest(gradients);
        }
    }
    assert_rounding_alone(options, &|kind| values(&r, &smooth, kind).0);
    (run, losses)
}

/// What the comparison is worth: each of these faults lies far beyond what is allowed.
#[test]
fn faults_in_an_iteration_are_noticed() {
    let r = Reference::run(
        "vaegan --crop 32 --batch 16 --features 12 --width 0.25 --iterations 1 --img 6e-5",
    );
    let right = like(&r, "sample/faces-vaegan.toml");
    let (own, _) = values(&r, &right, Kind::Double);
    let rule = right.config.vaegan.unwrap();
    type Fault<'a> = (&'static str, usize, Box<dyn Fn(&mut Experiment) + 'a>);
    let more = |e: &mut Experiment, kind| {
        let weight = 1.01 * e.config.loss.weight(kind);
        e.config.loss.set_weight(kind, weight);
    };
    let faults: [Fault; 4] = [
        (
            "1 % of the divergence",
            0,
            Box::new(|e| more(e, TermKind::Kl)),
        ),
        (
            "1 % of the image term",
            0,
            Box::new(|e| more(e, TermKind::Image)),
        ),
        (
            "1 % of gamma",
            1,
            Box::new(move |e| e.config.vaegan.as_mut().unwrap().gamma = 1.01 * rule.gamma),
        ),
        (
            "1 % of the real images' weight",
            2,
            Box::new(move |e| {
                e.config.vaegan.as_mut().unwrap().real_weight = 1.01 * rule.real_weight
            }),
        ),
    ];
    for (what, group, fault) in faults {
        let mut wrong = like(&r, "sample/faces-vaegan.toml");
        fault(&mut wrong);
        let (wrong, _) = values(&r, &wrong, Kind::Double);
        let (name, error) = worst(&wrong.gradients[group].1, &own.gradients[group].1);
        assert!(error > FAULT, "{what} goes unnoticed: {name} {error:.1e}");
    }
}

#[test]
fn two_iterations_are_the_reference_s() {
    let (_, losses) = check(
        "sample/faces-vaegan.toml",
        "--crop 32 --batch 16 --features 12 --width 0.25 --iterations 2 --img 6e-5 --weight-decay 1e-3",
    );
    assert!(
        losses
            .iter()
            .all(|l| l.of(TermKind::Feature) > 0.0 && l.of(TermKind::Image) > 0.0)
    );
}

#[test]
fn a_gan_s_iterations_are_the_reference_s() {
    let (run, losses) = check(
        "sample/faces-gan.toml",
        "--crop 32 --batch 16 --features 12 --width 0.25 --iterations 2 --gan",
    );
    assert!(
        losses
            .iter()
            .all(|l| l.of(TermKind::Feature).is_nan() && l.of(TermKind::Kl).is_nan())
    );
    assert_eq!(run.state.encoder.as_ref().unwrap().adam.count(), 0);
}

#[test]
fn a_paused_network_stays_as_it_is() {
    // So narrow an equilibrium that one of the two pauses in the first batch.
    check(
        "sample/faces-vaegan.toml",
        "--crop 32 --batch 16 --features 12 --width 0.25 --iterations 1 --equilibrium 5 --margin 0.1",
    );
    check(
        "sample/faces-vaegan.toml",
        "--crop 32 --batch 16 --features 12 --width 0.25 --iterations 1 --equilibrium 0.01 --margin 0.005",
    );
}

#[test]
fn what_was_trained_is_asked_without_batches() {
    let r = Reference::run("vaegan --crop 32 --batch 16 --features 12 --width 0.25 --iterations 1");
    // The reference's own weights after training: what is held here is evaluation alone.
    let experiment = like(&r, "sample/faces-vaegan.toml");
    for kind in [Kind::Double, Kind::Float] {
        let run = begun(&experiment, &r, "out", kind);
        let close = |what: &str, found: &Tensor, expected: &Tensor| match kind {
            Kind::Double => assert_exact(what, found, expected),
            _ => assert_close(what, found, expected, OUTPUT),
        };
        let x = rgb_to_caffe(&r.get("x/0").to_kind(kind)).unwrap();
        let mean = run.perception.with(run.state.learned()).encode(&x).unwrap();
        close("codes", &mean, r.get("eval/mean"));
        let codes = r.get("eval/mean").to_kind(kind);
        let made = run.state.generator.forward(&codes).unwrap();
        close(
            "pictures",
            &caffe_to_unit(&made).unwrap(),
            r.get("eval/picture"),
        );
        let logits = run
            .state
            .discriminator
            .as_ref()
            .unwrap()
            .forward(&x, None, Mode::Evaluation)
            .unwrap();
        let (got, want) = (logits.select(1, 0), r.get("eval/logit").flatten(0, -1));
        close("logits", &got, &want);
        // Alone or among others: the same.
        let one = run
            .perception
            .with(run.state.learned())
            .encode(&x.narrow(0, 0, 1))
            .unwrap();
        assert_close("one of them", &one, &mean.narrow(0, 0, 1), OUTPUT);
    }
}

fn small(seed: u64) -> Experiment {
    let sets = "train.precision=fp32 data.crop=32 latent.size=6 train.batch_size=4 generator.width=0.25 \
                discriminator.width=0.25 encoder.width=0.25";
    shipped(
        "sample/faces-vaegan.toml",
        &format!("{sets} train.seed={seed}"),
    )
}

fn batch(i: u64) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    deepsim_nets::init::seeded(900 + i.cast_signed(), || {
        Tensor::rand([4, 3, 32, 32], options) * 255.0 - 110.0
    })
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let experiment = small(1);
    let mut whole = Run::new(&experiment);
    let folder = tempfile::tempdir().unwrap();
    let mut found = None;
    for i in 0..6 {
        whole.step(&batch(i), 70 + i.cast_signed());
        if i == 2 {
            let checkpoint = saved(folder.path(), &experiment, &whole.perception, &whole.state);
            found = Some(checkpoint);
        }
    }
    let found = found.unwrap();
    // Another seed: nothing of the beginning may be left.
    let mut resumed = Run::new(&small(2));
    resumed.state.restore(&found).unwrap();
    assert_eq!(resumed.state.step, 3);
    for i in 3..6 {
        resumed.step(&batch(i), 70 + i.cast_signed());
    }
    let (a, b) = (bits(&whole.state), bits(&resumed.state));
    assert!(a.iter().any(|(n, _)| n.contains("running_var")));
    assert!(a == b);
    // Negative control: without the running statistics it is another run.
    let mut wrong = Run::new(&small(2));
    let fresh = Run::new(&small(2));
    wrong.state.restore(&found).unwrap();
    for (p, q) in wrong
        .state
        .generator
        .params()
        .iter()
        .zip(fresh.state.generator.params().iter())
    {
        if p.name.contains("running") {
            p.tensor.shallow_clone().copy_(&q.tensor);
        }
    }
    for i in 3..6 {
        wrong.step(&batch(i), 70 + i.cast_signed());
    }
    assert!(a != bits(&wrong.state));
}
