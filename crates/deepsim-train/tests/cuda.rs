//! The first GPU against the CPU: values, gradients, iterations, resume.
//!
//! Every test needs a GPU and is ignored without being asked for; `cargo xtask test` asks for them
//! where there is a driver, and `cargo test -p deepsim-train --test cuda -- --ignored` does so by hand. Those of CUDA graphs
//! are there with `--features cuda` alone.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod experiments;
#[cfg(feature = "cuda")]
mod replays;

use std::sync::{Mutex, MutexGuard, PoisonError};

use deepsim_aten::{
    Bf16Code, CudnnChoice, Tf32, bf16_code, choose_bf16_code, set_cudnn_choice, set_tf32,
};
use deepsim_experiment::{Experiment, Perception, device};
use deepsim_nets::discriminator::{DiscriminatorSpec, FeatureBranch};
use deepsim_nets::generator::{GeneratorSpec, Trunk};
use deepsim_nets::init::{self, seeded};
use deepsim_nets::layers::shape::FeatureShape;
use deepsim_nets::loss::TermKind;
use deepsim_nets::loss::ssim::{ms_ssim, ssim};
use deepsim_nets::loss::{Label, Reduction, cross_entropy, squared_distance};
use deepsim_nets::params::Params;
use deepsim_nets::{
    Adam, AutocastGuard, Discriminator, FeatureNet, Generator, Mode, NetKind, Precision, Tap,
    metrics,
};
use deepsim_train::method::{Losses, Plan, iterate};
use deepsim_train::state::State;
use experiments::{begin, saved, shipped, values};
use tch::{Device, Kind, Tensor};

const FP32: (Kind, Device) = (Kind::Float, Device::Cpu);
/// Relative errors in fp32: another order of sums, and in gradients a unit now and then on the other side
/// of its kink.
const VALUE: f64 = 2e-5;
const GRADIENT: f64 = 5e-2;

/// The first GPU, and the turn of this test: TF32 and cuDNN's choice are settings of the process.
fn gpu() -> (Device, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let gpu = device::choose("cuda").expect("these tests need a GPU");
    set_tf32(Tf32::Forbidden).unwrap();
    set_cudnn_choice(CudnnChoice::Repeatable).unwrap();
    (gpu, turn)
}

fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let double = |t: &Tensor| t.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let (found, expected) = (double(found), double(expected));
    assert_eq!(found.size(), expected.size());
    let size = expected.norm().double_value(&[]);
    assert!(size > 0.0, "nothing but zeros was expected");
    (found - expected).norm().double_value(&[]) / size
}

/// Output of `forward` and the gradients of a fixed pull on it: of the input first, then of `params`.
fn run(
    precision: Precision,
    x: &Tensor,
    params: Option<&Params>,
    forward: &dyn Fn(&Tensor) -> Tensor,
) -> Vec<Tensor> {
    let x = x.detach().copy().set_requires_grad(true);
    let y = {
        let _autocast = AutocastGuard::new(x.device(), precision).unwrap();
        forward(&x)
    };
    let pull = seeded(4, || Tensor::randn(y.size(), FP32)).to_device(x.device());
    let mut inputs = vec![x.shallow_clone()];
    if let Some(params) = params {
        inputs.extend(params.trained().iter().map(|p| p.tensor.shallow_clone()));
    }
    let pulled = (y.to_kind(Kind::Float) * pull).sum(Kind::Float);
    let mut out = Tensor::run_backward(&[pulled], &inputs, false, false);
    out.insert(0, y.detach());
    out
}

/// A network on one device: weights whose gradients are compared, and its forward pass.
type Net<'a> = (Option<&'a Params>, &'a dyn Fn(&Tensor) -> Tensor);

/// A network on both devices: fp32 within rounding of the CPU's, bf16 no further from that than libtorch's
/// own autocast on the CPU is, give or take its noise.
fn check(what: &str, x: &Tensor, cpu: Net, gpu: Net, device: Device) {
    let exact = run(Precision::Fp32, x, cpu.0, cpu.1);
    let code = bf16_code();
    choose_bf16_code(Bf16Code::None);
    let autocast = run(Precision::Bf16, x, cpu.0, cpu.1);
    choose_bf16_code(code);
    let there = x.to_device(device);
    for precision in [Precision::Fp32, Precision::Bf16] {
        let found = run(precision, &there, gpu.0, gpu.1);
        assert_eq!(found.len(), exact.len());
        for (i, f) in found.iter().enumerate() {
            assert!(f.device() == device);
            let error = relative(f, &exact[i]);
            let allowed = match (precision, i) {
                (Precision::Fp32, 0) => VALUE,
                (Precision::Fp32, _) => GRADIENT,
                // Nothing but zeros would be off by 1.
                (Precision::Bf16, _) => (2.0 * relative(&autocast[i], &exact[i])).min(0.95),
            };
            println!("{what} {precision:?} #{i}: {error:.1e}, allowed {allowed:.1e}");
            assert!(error < allowed, "{what} {precision:?} #{i}: {error:.1e}");
        }
    }
}

/// Grey levels around zero, smooth as photos are.
fn drawn(seed: i64, n: i64, side: i64) -> Tensor {
    seeded(seed, || {
        let coarse = Tensor::randn([n, 3, 9, 9], FP32) * 50.0;
        coarse.upsample_bicubic2d([side, side], false, None, None)
    })
}

fn images(n: i64, side: i64) -> Tensor {
    drawn(2, n, side)
}

#[test]
#[ignore = "needs a GPU"]
fn every_network_is_the_cpu_s() {
    let (device, _turn) = gpu();
    for (net, tap, side) in [
        (NetKind::CaffeNet, Tap::Fc7, 227),
        (NetKind::AlexNet, Tap::Pool5, 224),
        (NetKind::Vgg16, Tap::Pool4, 96),
        (NetKind::EfficientNetLite0, Tap::Logits, 128),
        (NetKind::SqueezeNet, Tap::Logits, 96),
        (NetKind::ResNet50, Tap::named("layer2_0"), 96),
        (NetKind::ConvNextTiny, Tap::named("stage2_0"), 96),
        (NetKind::Dinov2RegistersSmall, Tap::Block2, 112),
        (NetKind::ClipBase32, Tap::Block2, 96),
    ] {
        let both = [Device::Cpu, device].map(|d| FeatureNet::random(net, tap, 1, d).unwrap());
        let of = |net: &FeatureNet, x: &Tensor| net.features(x, &[tap]).unwrap().remove(0);
        check(
            &format!("{net} {tap}"),
            &images(2, side),
            (None, &|x| of(&both[0], x)),
            (None, &|x| of(&both[1], x)),
            device,
        );
    }
    for (input, shape) in [
        (FeatureShape::Vector(4096), vec![3, 4096]),
        (
            FeatureShape::Map {
                channels: 256,
                size: 6,
            },
            vec![3, 256, 6, 6],
        ),
    ] {
        let db = Trunk::Db {
            kernel: 5,
            slope: 0.2,
        };
        for (what, trunk) in [("generator", Trunk::DeePSiM), ("D&B's generator", db)] {
            let spec = GeneratorSpec {
                input,
                crop: 128,
                width: 0.25,
                trunk,
                noise: 0,
            };
            let both = [Device::Cpu, device].map(|d| Generator::new(spec.clone(), 1, d).unwrap());
            let x = seeded(1, || Tensor::randn(&shape, FP32).relu() * 10.0);
            check(
                what,
                &x,
                (Some(both[0].params()), &|x| both[0].forward(x).unwrap()),
                (Some(both[1].params()), &|x| both[1].forward(x).unwrap()),
                device,
            );
        }
    }
    let spec = DiscriminatorSpec {
        crop: 227,
        features: FeatureBranch::Off,
        architecture: Default::default(),
    };
    let both = [Device::Cpu, device].map(|d| Discriminator::new(spec.clone(), 1, d).unwrap());
    let logits = |d: &Discriminator, x: &Tensor| d.forward(x, None, Mode::Evaluation).unwrap();
    check(
        "discriminator",
        &images(2, 227),
        (Some(both[0].params()), &|x| logits(&both[0], x)),
        (Some(both[1].params()), &|x| logits(&both[1], x)),
        device,
    );
}

#[test]
#[ignore = "needs a GPU"]
fn tf32_changes_fp32_only_where_it_is_allowed() {
    let (device, _turn) = gpu();
    let net = FeatureNet::random(NetKind::CaffeNet, Tap::Pool5, 1, device).unwrap();
    let x = images(2, 227).to_device(device);
    let features = || net.features(&x, &[Tap::Pool5]).unwrap().remove(0);
    let exact = features();
    set_tf32(Tf32::Allowed).unwrap();
    let rounded = features();
    set_tf32(Tf32::Forbidden).unwrap();
    let error = relative(&rounded, &exact);
    println!("TF32: {error:.1e}");
    assert!((1e-5..1e-2).contains(&error), "{error:.1e}");
    assert_eq!(features(), exact);
}

#[test]
#[ignore = "needs a GPU"]
fn losses_and_metrics_are_the_cpu_s() {
    let (device, _turn) = gpu();
    let a = images(3, 200) + 120.0;
    let b = &a + seeded(5, || Tensor::randn([3, 3, 200, 200], FP32)) * 8.0;
    let there = b.to_device(device);
    let logits = seeded(6, || Tensor::randn([3, 2], FP32));
    type Loss<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Tensor;
    let losses: [(&str, Loss); 3] = [
        ("squared distance", &|x, y| {
            squared_distance(x, y, Reduction::Caffe).unwrap()
        }),
        ("SSIM", &|x, y| ssim(x, y).unwrap()),
        ("MS-SSIM", &|x, y| ms_ssim(x, y).unwrap().similarity),
    ];
    for (what, loss) in losses {
        let exact = run(Precision::Fp32, &a, None, &|x| loss(x, &b));
        let found = run(Precision::Fp32, &a.to_device(device), None, &|x| {
            loss(x, &there)
        });
        for (f, e) in found.iter().zip(&exact) {
            let error = relative(f, e);
            println!("{what}: {error:.1e}");
            assert!(error < 1e-4, "{what}: {error:.1e}");
        }
    }
    for label in [Label::Real, Label::Fake] {
        let cost = |x: &Tensor| cross_entropy(x, label, Reduction::Mean).unwrap();
        let exact = run(Precision::Fp32, &logits, None, &cost);
        let found = run(Precision::Fp32, &logits.to_device(device), None, &cost);
        assert!(found.iter().zip(&exact).all(|(f, e)| relative(f, e) < 1e-5));
    }
    type Metric<'a> = &'a dyn Fn(&Tensor, &Tensor) -> f64;
    let rows = |t: &Tensor| t.flatten(1, -1);
    let metrics: [(&str, Metric); 4] = [
        ("mean distance", &|a, b| {
            metrics::mean_distance(&rows(a), &rows(b)).unwrap()
        }),
        ("pairs", &|a, _| {
            metrics::mean_pair_distance(&rows(a)).unwrap()
        }),
        ("error", &|a, b| {
            metrics::normalised_error(&rows(a), &rows(b)).unwrap()
        }),
        ("energy", &|a, _| metrics::gradient_energy(a).unwrap()),
    ];
    for (what, metric) in metrics {
        let (exact, found) = (metric(&a, &b), metric(&a.to_device(device), &there));
        println!("{what}: {exact} {found}");
        assert!(
            (exact - found).abs() < 1e-5 * exact,
            "{what}: {exact} {found}"
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn adam_moves_weights_as_on_the_cpu() {
    let (device, _turn) = gpu();
    let experiment = experiment("");
    let options = experiment.config.optimizer.discriminator.unwrap();
    let moved = [Device::Cpu, device].map(|d| {
        let net = Discriminator::new(experiment.discriminator.clone().unwrap(), 1, d).unwrap();
        let mut adam = Adam::new(net.params(), options).unwrap();
        for step in 0..3 {
            let grads: Vec<Tensor> = net
                .params()
                .trained()
                .iter()
                .map(|p| init::normal(&p.name, &p.tensor.size(), 0.1, step).unwrap())
                .map(|g| g.to_device(d))
                .collect();
            adam.step(net.params(), &grads, 1.0).unwrap();
        }
        let all: Vec<Tensor> = net
            .params()
            .iter()
            .map(|p| p.tensor.detach().to_device(Device::Cpu).flatten(0, -1))
            .collect();
        Tensor::cat(&all, 0)
    });
    let error = relative(&moved[1], &moved[0]);
    println!("Adam: {error:.1e}");
    assert!(error < 1e-6, "{error:.1e}");
}

fn experiment(sets: &str) -> Experiment {
    let small = "encoder.net=alexnet encoder.weights=random:1 comparator.net=alexnet comparator.weights=random:1 \
                 data.crop=96 generator.width=0.25";
    // The last bits are to be seen, not a gate that swings on them.
    let open = "gate.d_off_below=-1.0 gate.g_off_above=1e300";
    shipped("conv5.toml", &format!("{small} {open} {sets}"))
}

fn advance(state: &mut State, perception: &Perception, plan: &Plan, to: u64, d: Device) -> Losses {
    let mut last = None;
    while state.step < to {
        let x = drawn(100 + state.step.cast_signed(), 4, 96);
        let seed = init::derive_seed(7, "dropout", state.step);
        last = Some(iterate(state, perception, &x.to_device(d), None, plan, seed).unwrap());
    }
    last.unwrap()
}

/// Without the discriminator, whose dropout draws other masks on a GPU.
#[test]
#[ignore = "needs a GPU"]
fn iterations_without_chance_are_the_cpu_s() {
    let (device, _turn) = gpu();
    let experiment = experiment("loss.adv=0 train.precision=fp32");
    let plan = Plan::of(&experiment);
    let [cpu, gpu] = [Device::Cpu, device].map(|d| {
        let (perception, mut state) = begin(&experiment, d);
        advance(&mut state, &perception, &plan, 3, d)
    });
    for (what, found, expected) in [("feat", TermKind::Feature), ("img", TermKind::Image)]
        .map(|(what, kind)| (what, gpu.of(kind), cpu.of(kind)))
    {
        println!("{what}: {expected} {found}");
        assert!(
            (found - expected).abs() < 1e-3 * expected,
            "{what}: {expected} {found}"
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_deterministic_run_repeats_itself_and_resumes_exactly() {
    let (device, _turn) = gpu();
    for (precision, passes) in [("fp32", "paper"), ("bf16", "paper"), ("fp32", "one")] {
        let experiment = experiment(&format!(
            "train.precision={precision} train.discriminator_passes={passes}"
        ));
        let plan = Plan::of(&experiment);
        let whole = |to| {
            let (perception, mut state) = begin(&experiment, device);
            advance(&mut state, &perception, &plan, to, device);
            (perception, state)
        };
        let (_, first) = whole(6);
        let (_, second) = whole(6);
        let (a, b) = (values(&first), values(&second));
        let differ: Vec<_> = a
            .iter()
            .zip(&b)
            .filter(|(a, b)| a != b)
            .map(|(a, _)| &a.0)
            .collect();
        assert!(differ.is_empty(), "{precision} {passes}: {differ:?}");

        let (perception, state) = whole(3);
        let folder = tempfile::tempdir().unwrap();
        let saved = saved(folder.path(), &experiment, &perception, &state);
        let (perception, mut resumed) = begin(&experiment, device);
        resumed.restore(&saved).unwrap();
        advance(&mut resumed, &perception, &plan, 6, device);
        assert!(values(&resumed) == a, "{precision} {passes}: resume");

        // A CPU reads what a GPU wrote.
        let (_, mut here) = begin(&experiment, Device::Cpu);
        here.restore(&saved).unwrap();
        assert!(values(&here) == values(&state));
    }
}

/// Iterations as CUDA graphs against the same iterations without.
#[cfg(feature = "cuda")]
mod graphs {
    use deepsim_nets::{cuda_peak, forget_cuda_peak};
    use deepsim_train::method::Captured;
    use deepsim_train::method::captured::WARM_UP;

    use super::*;
    use crate::replays::{BOTH, Run, TURNS};

    const WARM: u64 = WARM_UP as u64;

    fn arithmetic(precision: &str, passes: &str) -> Experiment {
        experiment(&format!(
            "train.precision={precision} train.discriminator_passes={passes}"
        ))
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn replays_are_the_iterations_bit_for_bit_whatever_the_gate_does() {
        let (device, _turn) = gpu();
        for (precision, passes) in [("fp32", "paper"), ("bf16", "paper"), ("bf16", "one")] {
            let experiment = arithmetic(precision, passes);
            let run = |captured| {
                let mut run = Run::new(&experiment, device, captured);
                run.advance(3 * (WARM + 3), &TURNS);
                let recorded = run.captured.recorded().len();
                (run.losses, values(&run.state), recorded)
            };
            let plain = run(Captured::off());
            let replayed = run(Captured::on(device).unwrap());
            assert_eq!((plain.2, replayed.2), (0, 3), "{precision} {passes}");
            assert_eq!(replayed.0, plain.0, "{precision} {passes}");
            assert!(replayed.1 == plain.1, "{precision} {passes}");
        }
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn a_resume_in_the_middle_of_replays_is_exact() {
        let (device, _turn) = gpu();
        let experiment = arithmetic("bf16", "paper");
        let (half, end) = (WARM + 3, 2 * WARM + 8);
        let mut whole = Run::new(&experiment, device, Captured::on(device).unwrap());
        whole.advance(half, &[BOTH]);
        let folder = tempfile::tempdir().unwrap();
        let saved = saved(folder.path(), &experiment, &whole.perception, &whole.state);
        whole.advance(end, &[BOTH]);
        let expected = values(&whole.state);
        drop(whole);
        let captured = Captured::on(device).unwrap();
        let mut resumed = Run::resumed(&experiment, device, captured, &saved);
        resumed.advance(end, &[BOTH]);
        assert_eq!(resumed.captured.recorded().len(), 1);
        assert!(values(&resumed.state) == expected);
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn memory_does_not_grow_with_replays() {
        let (device, _turn) = gpu();
        let Device::Cuda(index) = device else {
            panic!("no GPU");
        };
        let experiment = arithmetic("bf16", "paper");
        let mut run = Run::new(&experiment, device, Captured::on(device).unwrap());
        run.advance(WARM + 20, &[BOTH]);
        let mut peak = |to| {
            forget_cuda_peak(index).unwrap();
            run.advance(to, &[BOTH]);
            cuda_peak(index).unwrap()
        };
        let early = peak(WARM + 40);
        let late = peak(WARM + 240);
        assert_eq!(late, early);
    }
}
