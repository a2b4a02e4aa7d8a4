//! Iterations of VAE/GAN against an independent reference in PyTorch, and resume.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../deepsim-nets/tests/common/mod.rs"]
#[allow(dead_code, reason = "this test needs a part of it")]
mod common;

use std::path::Path;

use common::{GRADIENT, OUTPUT, Reference, assert_close, relative};
use deepsim_experiment::{Checkpoint, Experiment, Manifest, Perception, checkpoint};
use deepsim_nets::Mode;
use deepsim_nets::params::Params;
use deepsim_nets::pictures::{caffe_to_unit, rgb_to_caffe};
use deepsim_train::iteration::{Losses, Plan, iterate};
use deepsim_train::state::State;
use deepsim_train::vaegan::look;
use tch::{Device, Kind, Tensor};

/// RMSProp divides a gradient by its own magnitude in the first step, as Adam does: where it is the size of
/// rounding, its sign is anybody's.
const MOVEMENT: f64 = 3e-2;
/// Relative error allowed in losses of later iterations, which follow from such steps.
const LATER: f64 = 3e-3;

fn experiment(file: &str, sets: &[String]) -> Experiment {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../experiments/{file}"));
    // The sample's files are in bf16, the reference is not.
    let mut all = vec!["train.precision=fp32".to_owned()];
    all.extend_from_slice(sets);
    Experiment::load(&file, &all).unwrap()
}

struct Run {
    plan: Plan,
    perception: Perception,
    state: State,
}

impl Run {
    fn new(experiment: &Experiment) -> Run {
        let perception = Perception::load(experiment, Device::Cpu).unwrap();
        let state = State::new(experiment, perception.learned(), Device::Cpu).unwrap();
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
            ("D", self.state.discriminator.params()),
        ]
    }
}

/// The experiment of a reference's run: the sample's file with the reference's sizes and settings.
fn like(r: &Reference, file: &str) -> Experiment {
    let mut sets = vec![
        format!("data.crop={}", r.meta("crop")),
        format!("latent.size={}", r.meta("features")),
        format!("loss.img={}", r.meta("img")),
        format!("train.batch_size={}", r.meta("batch")),
    ];
    for key in ["generator.width", "discriminator.width", "encoder.width"] {
        sets.push(format!("{key}={}", r.meta("width")));
    }
    for (key, meta) in [
        ("gamma", "gamma"),
        ("real_weight", "real_weight"),
        ("equilibrium", "equilibrium"),
        ("margin", "gate_margin"),
    ] {
        sets.push(format!("vaegan.{key}={}", r.meta(meta)));
    }
    for net in ["generator", "discriminator", "encoder"] {
        sets.push(format!("optimizer.{net}.lr={}", r.meta("lr")));
        sets.push(format!(
            "optimizer.{net}.weight_decay={}",
            r.meta("weight_decay")
        ));
    }
    experiment(file, &sets)
}

/// Each tensor's gradient in the first iteration.
fn gradients_are_the_reference_s(r: &Reference, run: &Run) {
    let x = rgb_to_caffe(r.get("x/0")).unwrap();
    let seed = r.numbers("torch_seeds")[0];
    let rule = run.plan.vaegan.unwrap();
    let found = deepsim_nets::init::seeded(seed, || {
        look(&run.state, &run.perception, &x, &run.plan, rule).unwrap()
    });
    let grads = [
        ("E", found.of_encoder),
        ("G", Some(found.of_decoder)),
        ("D", Some(found.of_discriminator)),
    ];
    for ((net, grads), (_, params)) in grads.into_iter().zip(run.networks()) {
        for (p, got) in params
            .trained()
            .into_iter()
            .zip(grads.into_iter().flatten())
        {
            let key = format!("g{net}/{}", p.name);
            assert_close(&key, &got, r.get(&key), GRADIENT);
        }
    }
}

fn check(file: &str, options: &str) -> (Run, Vec<Losses>) {
    let r = Reference::run(&format!("vaegan {options}"));
    let mut run = Run::new(&like(&r, file));
    let load = |params: &mut Params, prefix: &str| {
        params
            .copy_from(&r.group(prefix), "a network", "reference")
            .unwrap();
    };
    load(run.state.generator.params_mut(), "wG/");
    load(run.state.discriminator.params_mut(), "wD/");
    load(&mut run.state.encoder.as_mut().unwrap().params, "wE/");
    gradients_are_the_reference_s(&r, &run);
    // The look at the gradients has moved the running statistics.
    load(run.state.generator.params_mut(), "wG/");
    load(run.state.discriminator.params_mut(), "wD/");
    load(&mut run.state.encoder.as_mut().unwrap().params, "wE/");
    let mut all = Vec::new();
    for (it, seed) in r.numbers("torch_seeds").into_iter().enumerate() {
        let x = rgb_to_caffe(r.get(&format!("x/{it}"))).unwrap();
        let l = run.step(&x, seed);
        let scalar = |v: f64| Tensor::full([], v, (Kind::Float, Device::Cpu));
        let tolerance = if it == 0 { OUTPUT } else { LATER };
        for (name, value) in [
            ("feat", l.feat),
            ("img", l.img),
            ("kl", l.kl),
            ("d_real", l.d_real),
            ("d_fake", l.d_fake),
        ] {
            if !value.is_nan() {
                let key = format!("loss/{it}/{name}");
                assert_close(&key, &scalar(value), r.get(&key), tolerance);
            }
        }
        for (name, value) in [
            ("train_g", run.state.gate.train_g),
            ("train_d", run.state.gate.train_d),
        ] {
            let key = format!("gate/{it}/{name}");
            assert_eq!(f64::from(value), r.scalar(&key), "{key}");
        }
        all.push(l);
    }
    for (net, params) in run.networks() {
        let of = |prefix: &str, running: bool| {
            let parts: Vec<Tensor> = params
                .iter()
                .filter(|p| p.name.contains("running") == running)
                .map(|p| r.get(&format!("{prefix}{net}/{}", p.name)).flatten(0, -1))
                .collect();
            Tensor::cat(&parts, 0)
        };
        let ours = |running: bool| {
            let parts: Vec<Tensor> = params
                .iter()
                .filter(|p| p.name.contains("running") == running)
                .map(|p| p.tensor.detach().flatten(0, -1))
                .collect();
            Tensor::cat(&parts, 0)
        };
        for running in [false, true] {
            let (before, after, ours) = (of("w", running), of("out", running), ours(running));
            let what = format!("{net}, running statistics: {running}");
            if relative(&after, &before) == 0.0 {
                assert_eq!(ours, before, "{what} must stay as they are");
                continue;
            }
            assert_close(
                &format!("movement of {what}"),
                &(&ours - &before),
                &(&after - &before),
                MOVEMENT,
            );
        }
    }
    (run, all)
}

#[test]
fn two_iterations_are_the_reference_s() {
    let (_, losses) = check(
        "sample/faces-vaegan.toml",
        "--crop 32 --batch 6 --features 12 --width 0.25 --seed 3 --iterations 2 --img 6e-5 --weight-decay 1e-3",
    );
    assert!(losses.iter().all(|l| l.feat > 0.0 && l.img > 0.0));
}

#[test]
fn a_gan_s_iterations_are_the_reference_s() {
    let (run, losses) = check(
        "sample/faces-gan.toml",
        "--crop 32 --batch 6 --features 12 --width 0.25 --seed 4 --iterations 2 --gan",
    );
    assert!(losses.iter().all(|l| l.feat.is_nan() && l.kl.is_nan()));
    assert_eq!(run.state.encoder.as_ref().unwrap().adam.count(), 0);
}

#[test]
fn a_paused_network_stays_as_it_is() {
    // So narrow an equilibrium that one of the two pauses in the first batch.
    check(
        "sample/faces-vaegan.toml",
        "--crop 32 --batch 4 --features 6 --width 0.25 --seed 5 --iterations 1 --equilibrium 5 --margin 0.1",
    );
    check(
        "sample/faces-vaegan.toml",
        "--crop 32 --batch 4 --features 6 --width 0.25 --seed 5 --iterations 1 --equilibrium 0.01 --margin 0.005",
    );
}

#[test]
fn what_was_trained_is_asked_without_batches() {
    let r = Reference::run(
        "vaegan --crop 32 --batch 4 --features 6 --width 0.25 --seed 6 --iterations 1",
    );
    let mut run = Run::new(&like(&r, "sample/faces-vaegan.toml"));
    // The reference's own weights after training: what is held here is evaluation alone.
    let load = |params: &mut Params, prefix: &str| {
        params
            .copy_from(&r.group(prefix), "a network", "reference")
            .unwrap();
    };
    load(run.state.generator.params_mut(), "outG/");
    load(run.state.discriminator.params_mut(), "outD/");
    load(&mut run.state.encoder.as_mut().unwrap().params, "outE/");
    let x = rgb_to_caffe(r.get("x/0")).unwrap();
    let mean = run.perception.encode(&x).unwrap();
    assert_close("codes", &mean, r.get("eval/mean"), OUTPUT);
    let made = run.state.generator.forward(r.get("eval/mean")).unwrap();
    assert_close(
        "pictures",
        &caffe_to_unit(&made).unwrap(),
        r.get("eval/picture"),
        OUTPUT,
    );
    let logits = run
        .state
        .discriminator
        .forward(&x, None, Mode::Evaluation)
        .unwrap();
    let (got, want) = (logits.select(1, 0), r.get("eval/logit").flatten(0, -1));
    assert_close("logits", &got, &want, GRADIENT);
    // Alone or among others: the same.
    let one = run.perception.encode(&x.narrow(0, 0, 1)).unwrap();
    assert_close("one of them", &one, &mean.narrow(0, 0, 1), OUTPUT);
}

fn small(seed: u64) -> Experiment {
    let sets = [
        "data.crop=32",
        "latent.size=6",
        "train.batch_size=4",
        "generator.width=0.25",
        "discriminator.width=0.25",
        "encoder.width=0.25",
    ];
    let mut sets: Vec<String> = sets.map(str::to_owned).to_vec();
    sets.push(format!("train.seed={seed}"));
    experiment("sample/faces-vaegan.toml", &sets)
}

fn batch(i: u64) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    deepsim_nets::init::seeded(900 + i.cast_signed(), || {
        Tensor::rand([4, 3, 32, 32], options) * 255.0 - 110.0
    })
}

/// Everything that a run is: weights, running statistics and moments.
fn bits(run: &Run) -> Vec<(String, Vec<f32>)> {
    run.state
        .snapshot()
        .files
        .into_iter()
        .flat_map(|(file, tensors)| {
            tensors.into_iter().map(move |(name, t)| {
                let flat = t.detach().flatten(0, -1);
                (format!("{file}/{name}"), Vec::try_from(flat).unwrap())
            })
        })
        .collect()
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let experiment = small(1);
    let mut whole = Run::new(&experiment);
    let folder = tempfile::tempdir().unwrap();
    let mut saved = None;
    for i in 0..6 {
        whole.step(&batch(i), 70 + i.cast_signed());
        if i == 2 {
            let manifest = Manifest {
                format: checkpoint::FORMAT,
                step: whole.state.step,
                seconds: 0.0,
                generator: experiment.generator.clone(),
                discriminator: experiment.discriminator.clone(),
                encoder_weights: String::new(),
                comparator_weights: String::new(),
                train_data: String::new(),
                test_data: String::new(),
                versions: Default::default(),
                files: Default::default(),
                digest: None,
                framing: None,
                held_out_overlap: None,
            };
            let snapshot = whole.state.snapshot();
            saved = Some(checkpoint::write(folder.path(), manifest, &snapshot).unwrap());
        }
    }
    let found = Checkpoint::open(&saved.unwrap()).unwrap();
    // Another seed: nothing of the beginning may be left.
    let mut resumed = Run::new(&small(2));
    resumed.state.restore(&found).unwrap();
    assert_eq!(resumed.state.step, 3);
    for i in 3..6 {
        resumed.step(&batch(i), 70 + i.cast_signed());
    }
    let (a, b) = (bits(&whole), bits(&resumed));
    assert!(a.iter().any(|(n, _)| n.contains("running_var")));
    assert_eq!(a, b);
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
    assert_ne!(a, bits(&wrong));
}
