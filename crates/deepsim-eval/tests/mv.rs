//! Mahendran & Vedaldi's method against a reference in PyTorch, and on a real image.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use deepsim_eval::analysis::mv::{self, Settings, Stage};
use deepsim_nets::params::read_safetensors;
use deepsim_nets::{FeatureNet, NetKind, Tap};
use tch::{Device, Kind, Tensor};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The settings of `tests/python/mv.py`.
fn settings() -> Settings {
    Settings {
        sigma: 2500.0,
        lambda_tv: 100.0,
        lambda_alpha: 8e-10,
        momentum: 0.9,
        stages: [(4, 0.004), (3, 0.0004)]
            .map(|(steps, rate)| Stage { steps, rate })
            .to_vec(),
        seed: 1,
    }
}

fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{what}");
    let norm = |x: &Tensor| x.to_kind(Kind::Double).norm().double_value(&[]);
    let error = norm(&(got - want)) / norm(want);
    assert!(error <= tolerance, "{what}: {error:e}");
    assert!(norm(want) > 1e-3, "{what} is all but zero");
}

#[test]
fn objective_gradient_and_updates_are_pytorch_s() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mv.safetensors");
    let output = Command::new("python3")
        .env("PYTHONPATH", workspace().join("third_party/py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(workspace().join("tests/python/mv.py"))
        .arg(&file)
        .output()
        .expect("python3 must be on the PATH for the parity tests");
    assert!(
        output.status.success(),
        "the parity tests need Python's torch and safetensors in third_party/py; install them \
         with: cargo xtask setup --torch full\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let r = read_safetensors(&file).unwrap();
    let encode = |x: &Tensor| {
        (x / 64.0)
            .conv2d::<Tensor>(&r["weight"], None, [2, 2], [0, 0], [1, 1], 1)
            .relu()
    };
    let s = settings();
    let x = r["start"].copy().set_requires_grad(true);
    let energy = mv::energy(&encode(&x), &r["target"], &x, &s).unwrap();
    assert_close("feature term", &energy.feature, &r["feature"], 1e-5);
    assert_close("regulariser", &energy.regulariser, &r["prior"], 1e-5);
    let total = energy.total().unwrap();
    let gradient = Tensor::run_backward(&[total], &[&x], false, false);
    assert_close("gradient", &gradient[0], &r["gradient"], 1e-4);

    let mut steps = 0;
    let made = mv::invert(&|x| Ok(encode(x)), &r["target"], &r["start"], &s, || {
        steps += 1;
    })
    .unwrap();
    assert_eq!(steps, 7);
    assert_close("after the schedule", &made.images, &r["end"], 1e-4);
    let end = Tensor::from_slice(&made.feature_end).to_kind(Kind::Float);
    assert_close("feature term at the end", &end, &r["feature_end"], 1e-4);
    // Without the momentum's reset the images are others: the test can tell.
    let one = Settings {
        stages: vec![Stage {
            steps: 7,
            rate: 0.004,
        }],
        ..s
    };
    let other = mv::invert(&|x| Ok(encode(x)), &r["target"], &r["start"], &one, || {}).unwrap();
    let apart = (&other.images - &r["end"]).norm() / r["end"].norm();
    assert!(apart.double_value(&[]) > 1e-2);
}

#[test]
fn a_real_image_s_feature_term_falls_fivefold() {
    let weights = workspace().join("weights/alexnet-lpips.safetensors");
    // A file as set-up leaves it: prepared shards are there only after a training.
    let photo = workspace().join("data/photos/explore_farm_animals/horse.webp");
    assert!(
        weights.is_file() && photo.is_file(),
        "this test needs the sample photos and AlexNet's weights: cargo xtask setup"
    );
    let net = FeatureNet::load(NetKind::AlexNet, Tap::Pool5, &weights, Device::Cpu).unwrap();
    let encode = |x: &Tensor| Ok(net.features(x, &[Tap::Pool5])?.remove(0));
    let augment = deepsim_data::Augment {
        crop: 96,
        mirror: deepsim_data::Mirror::Off,
        place: deepsim_data::Place::Random,
        scale: Some((0.6, 1.0)),
    };
    let x = {
        let framing = deepsim_data::Framing::USUAL;
        deepsim_eval::measure::photos::from_files(&[photo], framing, &augment, Device::Cpu)
    }
    .unwrap();
    let s = Settings::published(96, mv::total_variation_for("pool5"), 1);
    let target = tch::no_grad(|| encode(&x)).unwrap();
    let start = mv::noise(1, 96, &s).unwrap();
    let norm = start.norm().double_value(&[]);
    assert!((norm / s.sigma - 1.0).abs() < 1e-4);
    let made = mv::invert(&encode, &target, &start, &s, || {}).unwrap();
    let (before, after) = (made.feature_start[0], made.feature_end[0]);
    assert!(after < before / 5.0, "{before} -> {after}");
    // And it is an image: nearer to the original image than the noise was.
    let far = |y: &Tensor| (y - &x).norm().double_value(&[]);
    assert!(far(&made.images) < 0.9 * far(&start));
}
