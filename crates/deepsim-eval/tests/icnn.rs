//! iCNN against a reference in PyTorch.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use deepsim_eval::analysis::icnn::{self, Settings};
use deepsim_nets::params::read_safetensors;
use tch::{Kind, Tensor};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.to_kind(Kind::Double).norm().double_value(&[]);
    norm(&(got - want)) / norm(want)
}

fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{what}");
    let error = relative(got, want);
    assert!(error <= tolerance, "{what}: {error:e}");
}

#[test]
fn loss_gradient_and_updates_are_pytorch_s() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("icnn.safetensors");
    let output = Command::new("python3")
        .env("PYTHONPATH", workspace().join("third_party/py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(workspace().join("tests/python/icnn.py"))
        .arg(&file)
        .output()
        .expect("python3 must be on the PATH for the parity tests");
    assert!(
        output.status.success(),
        "the parity tests need Python's torch and safetensors in third_party/py; install them \
         with: cargo xtask setup --torch full\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // In double precision, as the reference: steps of gradients divided by their size magnify rounding.
    let r: std::collections::BTreeMap<String, Tensor> = read_safetensors(&file)
        .unwrap()
        .into_iter()
        .map(|(name, x)| (name, x.to_kind(Kind::Double)))
        .collect();
    let features = |z: &Tensor| {
        let image = z.matmul(&r["generator"]).tanh().view([-1, 3, 8, 8]);
        let first = image.conv2d::<Tensor>(&r["first"], None, [2, 2], [0, 0], [1, 1], 1);
        let second = first
            .relu()
            .conv2d::<Tensor>(&r["second"], None, [1, 1], [0, 0], [1, 1], 1)
            .flatten(1, -1);
        vec![first, second]
    };
    let targets = [
        r["target/first"].shallow_clone(),
        r["target/second"].shallow_clone(),
    ];
    let settings = |upper: bool, decay: f64| Settings {
        steps: 7,
        upper: upper.then(|| r["upper"].shallow_clone()),
        decay,
        ..Settings::published()
    };
    let weights = icnn::weights(&targets).unwrap();
    let sum = &weights[0] + &weights[1];
    assert_close("sum of weights", &sum, &sum.ones_like(), 1e-6);
    let z = r["start"].copy().set_requires_grad(true);
    let each = icnn::loss(&features(&z), &targets, &weights).unwrap();
    let gradient = Tensor::run_backward(&[each.sum(Kind::Double)], &[&z], false, false);
    assert_close("gradient", &gradient[0], &r["gradient"], 1e-5);

    // What an update does to the input, step by step.
    let s = settings(true, 0.01);
    let (mut end, mut moment) = (r["start"].copy(), r["start"].zeros_like());
    for step in 0..s.steps {
        let leaf = end.copy().set_requires_grad(true);
        let each = icnn::loss(&features(&leaf), &targets, &weights).unwrap();
        let gradient = Tensor::run_backward(&[each.sum(Kind::Double)], &[&leaf], false, false);
        icnn::update(&mut end, &mut moment, &gradient[0], s.rate(step), &s).unwrap();
    }
    assert_close("after the steps", &end, &r["end"], 1e-4);

    let run = |s: &Settings| {
        let mut steps = 0;
        let found = icnn::invert(&|z| Ok(features(z)), &targets, &r["start"], s, || {
            steps += 1
        })
        .unwrap();
        assert_eq!(steps, 7);
        found
    };
    let found = run(&s);
    assert_close("best inputs", &found.input, &r["best"], 1e-4);
    let losses = Tensor::from_slice(&found.best);
    assert_close("best losses", &losses, &r["loss"], 1e-4);
    assert!(found.best.iter().zip(&found.start).all(|(b, s)| b <= s));
    // The test can tell: without bounds, and without decay, other inputs are found.
    for (what, other) in [
        ("bounds", settings(false, 0.01)),
        ("decay", settings(true, 0.0)),
    ] {
        let (mut end, mut moment) = (r["start"].copy(), r["start"].zeros_like());
        icnn::update(&mut end, &mut moment, &r["gradient"], 2.0, &other).unwrap();
        let (mut with, mut moment) = (r["start"].copy(), r["start"].zeros_like());
        icnn::update(&mut with, &mut moment, &r["gradient"], 2.0, &s).unwrap();
        let apart = relative(&end, &with);
        assert!(apart > 1e-3, "{what} change nothing: {apart:e}");
    }
}
