//! `deepsim-eval forward`: tensors in, tensors out, as the library computes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::HashMap;
use std::fs;

use deepsim_experiment::Checkpoint;
use deepsim_nets::images::{caffe_to_rgb, rgb_to_caffe};
use deepsim_nets::params::read_safetensors;
use deepsim_nets::{Discriminator, FeatureNet, Mode, NetKind, Tap};
use deepsim_tests::lab::Lab;
use deepsim_tests::process::Ran;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

/// Writes `in.safetensors`.
fn save(lab: &Lab, tensors: &[(&str, &Tensor)]) {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, t)| (*name, t.contiguous()))
        .collect();
    Tensor::write_safetensors(&tensors, lab.at("in.safetensors")).unwrap();
}

/// RGB images, 0–255.
fn images(n: i64, size: i64) -> Tensor {
    tch::manual_seed(5);
    Tensor::rand([n, 3, size, size], (Kind::Float, Device::Cpu)) * 255.0
}

/// Runs a network of the laboratory's experiment on `in.safetensors`.
fn forward(lab: &Lab, net: &str, rest: &str) -> Ran {
    let files = "--input in.safetensors --output out.safetensors";
    lab.eval(&format!("forward tiny.toml --net {net} {files} {rest}"))
}

/// The one tensor of `out.safetensors`: f32, by the name of y.
fn y(lab: &Lab) -> Tensor {
    let bytes = fs::read(lab.at("out.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names(), ["y"]);
    assert_eq!(file.tensor("y").unwrap().dtype(), Dtype::F32);
    read_safetensors(&lab.at("out.safetensors"))
        .unwrap()
        .remove("y")
        .unwrap()
}

#[track_caller]
fn same(got: &Tensor, wanted: &Tensor) {
    assert_eq!(got.size(), wanted.size());
    let scale = wanted.abs().max().double_value(&[]);
    let error = (got - wanted).abs().max().double_value(&[]);
    assert!(scale > 0.0 && error <= 1e-5 * scale, "{error} of {scale}");
}

#[test]
fn feature_networks_at_any_legal_size() {
    let lab = Lab::new();
    // 17 images: more than go through at once.
    for (net, tap, n, size, shape) in [
        ("encoder", Tap::Pool2, 17, 64, [17, 192, 3, 3]),
        ("encoder", Tap::Pool2, 1, 200, [1, 192, 11, 11]),
        ("comparator", Tap::Relu3, 2, 64, [2, 384, 3, 3]),
    ] {
        let x = images(n, size);
        save(&lab, &[("x", &x)]);
        let ran = forward(&lab, net, "").exits(0);
        assert_eq!(ran.stdout, "");
        assert_eq!(y(&lab).size(), shape);
        let library = FeatureNet::random(NetKind::AlexNet, tap, 1, Device::Cpu).unwrap();
        same(
            &y(&lab),
            &library
                .features(&rgb_to_caffe(&x).unwrap(), &[tap])
                .unwrap()[0],
        );
    }
}

const SINGLE: &str = "[comparator]\nnet = \"alexnet\"\ntap = \"relu3\"\nweights = \"random:1\"\n";
const NAMED: &str = "[comparator.deep]\nnet = \"alexnet\"\ntap = \"relu3\"\nweights = \"random:1\"\n\n\
                     [comparator.early]\nnet = \"alexnet\"\ntap = \"pool1\"\nweights = \"random:2\"\n";

/// Gives the laboratory's experiment two comparators with these weights in the loss.
fn named(lab: &Lab, weights: &str) {
    let text = lab.toml();
    assert!(text.contains(SINGLE) && text.contains("feat = 0.01\n"));
    let text = text.replace(SINGLE, NAMED);
    let text = text.replace("feat = 0.01\n", &format!("feat = {weights}\n"));
    fs::write(lab.experiment(), text).unwrap();
}

#[test]
fn one_of_several_comparators_is_told_by_its_name() {
    let lab = Lab::new();
    let x = images(2, 64);
    save(&lab, &[("x", &x)]);
    let features = |tap: Tap, seed: u64| {
        let net = FeatureNet::random(NetKind::AlexNet, tap, seed, Device::Cpu).unwrap();
        let mut all = net.features(&rgb_to_caffe(&x).unwrap(), &[tap]).unwrap();
        all.remove(0)
    };
    let both = "comparator.deep, comparator.early";
    named(&lab, "{ deep = 0.01, early = 0.002 }");
    forward(&lab, "comparator", "").refuses(&["--net comparator:", "tiny.toml has several", both]);
    forward(&lab, "comparator.late", "").refuses(&[
        "--net comparator.late:",
        "tiny.toml has no such section",
        both,
    ]);
    forward(&lab, "comparator.", "").refuses(&["--net", "comparator.NAME"]);
    assert!(!lab.at("out.safetensors").exists());
    forward(&lab, "comparator.deep", "").exits(0);
    same(&y(&lab), &features(Tap::Relu3, 1));
    forward(&lab, "comparator.early", "").exits(0);
    same(&y(&lab), &features(Tap::Pool1, 2));
    // The only one that takes part needs no name; the other is there by its own.
    named(&lab, "{ deep = 0.0, early = 0.002 }");
    forward(&lab, "comparator.deep", "").exits(0);
    same(&y(&lab), &features(Tap::Relu3, 1));
    forward(&lab, "comparator", "").exits(0);
    same(&y(&lab), &features(Tap::Pool1, 2));
    // One without a name has none.
    fs::write(lab.experiment(), lab.toml()).unwrap();
    forward(&lab, "comparator.deep", "").refuses(&["--net comparator.deep:", "it has comparator"]);
}

/// Otherwise weights would go into a network of another kind, wherever their shapes are alike.
#[test]
fn an_experiment_with_other_networks_than_the_run_is_refused_by_key() {
    let lab = Lab::trained(2);
    save(&lab, &[("x", &images(2, 64))]);
    forward(&lab, "discriminator", "--run run").exits(0);
    forward(
        &lab,
        "discriminator",
        "--run run --set encoder.tap=\"pool1\"",
    )
    .refuses(&[
        "encoder.tap: there \"pool2\", here \"pool1\"",
        "is not what run was trained with",
        "experiment.toml",
    ]);
    // What is no network may be another.
    forward(&lab, "discriminator", "--run run --set train.seed=9").exits(0);
}

#[test]
fn trained_networks_from_a_run_and_from_a_file() {
    let lab = Lab::trained(2);
    let checkpoint = Checkpoint::newest(&lab.at("run/checkpoints"))
        .unwrap()
        .unwrap();
    let _guard = tch::no_grad_guard();

    let features = FeatureNet::random(NetKind::AlexNet, Tap::Pool2, 1, Device::Cpu).unwrap();
    let features = features
        .features(&rgb_to_caffe(&images(3, 64)).unwrap(), &[Tap::Pool2])
        .unwrap()
        .remove(0);
    let generator = checkpoint.generator(Device::Cpu).unwrap();
    let wanted = caffe_to_rgb(&generator.forward(&features).unwrap()).unwrap();
    save(&lab, &[("x", &features)]);
    forward(&lab, "generator", "--run run").exits(0);
    assert_eq!(y(&lab).size(), [3, 3, 64, 64]);
    same(&y(&lab), &wanted);
    let file = checkpoint.path.join("generator.safetensors");
    forward(&lab, "generator", &format!("--weights {}", file.display())).exits(0);
    same(&y(&lab), &wanted);
    // Cropped, not clipped: a young generator's images leave 0–255 where asked to.
    save(&lab, &[("x", &(&features * 1e4))]);
    forward(&lab, "generator", "--run run").exits(0);
    assert!(y(&lab).max().double_value(&[]) > 255.0 || y(&lab).min().double_value(&[]) < 0.0);

    let x = images(2, 64);
    let mut judge = Discriminator::new(
        checkpoint.manifest.discriminator.clone().unwrap(),
        0,
        Device::Cpu,
    )
    .unwrap();
    judge
        .params_mut()
        .copy_from(
            &checkpoint.tensors("discriminator").unwrap(),
            "d",
            "the checkpoint",
        )
        .unwrap();
    save(&lab, &[("x", &x)]);
    forward(&lab, "discriminator", "--run run").exits(0);
    assert_eq!(y(&lab).size(), [2, 2]);
    same(
        &y(&lab),
        &judge
            .forward(&rgb_to_caffe(&x).unwrap(), None, Mode::Evaluation)
            .unwrap(),
    );
    // Nothing drops out: a second time gives the same logits.
    let once = fs::read(lab.at("out.safetensors")).unwrap();
    forward(&lab, "discriminator", "--run run").exits(0);
    assert_eq!(fs::read(lab.at("out.safetensors")).unwrap(), once);
}

#[test]
fn a_discriminator_that_also_sees_the_features() {
    let lab = Lab::new();
    let both = "--set discriminator.features=true";
    lab.train(&format!("{both} --steps 1")).exits(0);
    let (x, features) = (images(2, 64), images(2, 24).view([2, 192, 3, 3]));
    save(&lab, &[("x", &x), ("feat", &features)]);
    let from_run = format!("--run run {both}");
    forward(&lab, "discriminator", &from_run).exits(0);
    let seen = y(&lab);
    assert_eq!(seen.size(), [2, 2]);
    save(&lab, &[("x", &x), ("feat", &(&features * 2.0))]);
    forward(&lab, "discriminator", &from_run).exits(0);
    assert_ne!(seen, y(&lab));

    fs::remove_file(lab.at("out.safetensors")).unwrap();
    save(&lab, &[("x", &x)]);
    forward(&lab, "discriminator", &from_run).refuses(&["no tensor `feat`", "it has x"]);
    save(&lab, &[("x", &x), ("feat", &features.narrow(0, 0, 1))]);
    forward(&lab, "discriminator", &from_run).refuses(&[
        "feature branch",
        "[2,1728]",
        "[1, 192, 3, 3]",
    ]);
    // Weights of the other kind of discriminator.
    save(&lab, &[("x", &x)]);
    forward(&lab, "discriminator", "--run run")
        .refuses(&["discriminator.features: there true, here false"]);
    assert!(!lab.at("out.safetensors").exists());
}

#[test]
fn images_in_other_units_than_0_to_255_are_warned_about() {
    let lab = Lab::new();
    let x = images(2, 64);
    let dark = &x / 255.0;
    let almost = dark.copy();
    let _ = almost.view([-1]).narrow(0, 7, 1).fill_(2.0);
    for (x, words) in [
        (dark.shallow_clone(), &["[0, 1]", "x * 255"][..]),
        (&dark * 2.0 - 1.0, &["[-1, 1]", "(x + 1) * 127.5"]),
        (&dark * 0.0 + 1.0, &["[0, 1]"]),
        // A black image is one in every unit.
        (&dark * 0.0, &[]),
        (x, &[]),
        (almost, &[]),
    ] {
        save(&lab, &[("x", &x)]);
        let ran = forward(&lab, "encoder", "").exits(0).says(words);
        assert_eq!(
            ran.stderr.contains("warning"),
            !words.is_empty(),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn what_the_encoder_wrote_goes_into_the_generator() {
    let lab = Lab::trained(2);
    save(&lab, &[("x", &images(2, 64))]);
    forward(&lab, "encoder", "").exits(0);
    let features = y(&lab);
    fs::rename(lab.at("out.safetensors"), lab.at("in.safetensors")).unwrap();
    let ran = forward(&lab, "generator", "--run run").exits(0);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let made = y(&lab);
    save(&lab, &[("x", &features)]);
    forward(&lab, "generator", "--run run").exits(0);
    assert_eq!(y(&lab), made);
    // Of several tensors it is told which one; other networks take images, whose key is x.
    save(&lab, &[("y", &features), ("z", &features)]);
    forward(&lab, "generator", "--run run").refuses(&["no tensor `x`", "y, z"]);
    save(&lab, &[("y", &images(1, 64))]);
    forward(&lab, "encoder", "").refuses(&["no tensor `x`", "it has y"]);
}

#[test]
fn a_run_s_own_file_means_its_checkpoints() {
    let lab = Lab::trained(2);
    save(&lab, &[("x", &images(1, 64))]);
    forward(&lab, "discriminator", "--run run").exits(0);
    let wanted = y(&lab);
    fs::rename(lab.run_dir(), lab.at("elsewhere")).unwrap();
    let words = "forward elsewhere/experiment.toml --net discriminator";
    let files = "--input in.safetensors --output out.safetensors";
    lab.eval(&format!("{words} {files}")).exits(0);
    assert_eq!(y(&lab), wanted);
}

#[test]
fn what_does_not_fit_is_refused() {
    let lab = Lab::new();
    let x = images(1, 64);
    save(&lab, &[("pictures", &x)]);
    forward(&lab, "encoder", "").refuses(&["in.safetensors", "no tensor `x`", "it has pictures"]);
    for (shape, words) in [
        (
            &[1, 1, 64, 64][..],
            &["images [N,3,H,W]", "[1, 1, 64, 64]"][..],
        ),
        (&[3, 64, 64], &["images [N,3,H,W]", "[3, 64, 64]"]),
        (&[0, 3, 64, 64], &["at least one sample", "[0, 3, 64, 64]"]),
        (&[], &["at least one sample", "[]"]),
        (
            &[1, 3, 7, 7],
            &["7x7", "too small", "larger crop or an earlier tap"],
        ),
    ] {
        save(
            &lab,
            &[("x", &Tensor::zeros(shape, (Kind::Float, Device::Cpu)))],
        );
        forward(&lab, "encoder", "").refuses(words);
    }
    let whole: Vec<u8> = [1i64; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::I64, vec![4], &whole).unwrap();
    let file = safetensors::serialize([("x", view)], None::<HashMap<String, String>>).unwrap();
    fs::write(lab.at("in.safetensors"), &file).unwrap();
    forward(&lab, "encoder", "").refuses(&["--input in.safetensors", "`x` is I64", "takes F32"]);
    fs::write(lab.at("in.safetensors"), &file[..file.len() - 1]).unwrap();
    forward(&lab, "encoder", "").refuses(&["in.safetensors", "not a whole safetensors file"]);

    save(&lab, &[("x", &x)]);
    forward(&lab, "generator", "").refuses(&[
        "generator has no weights",
        "--weights FILE",
        "runs/tiny",
    ]);
    forward(&lab, "discriminator", "").refuses(&["discriminator has no weights", "--weights FILE"]);
    forward(&lab, "encoder", "--weights none.safetensors")
        .refuses(&["none.safetensors", "No such file"]);
    forward(&lab, "encoder", "--weights in.safetensors")
        .refuses(&["missing: features.0.weight", "unknown: x"]);
    forward(&lab, "judge", "").refuses(&["judge", "discriminator"]);
    forward(&lab, "encoder", "--device cuda:99").refuses(&["device `cuda:99`"]);
    fs::remove_file(lab.at("in.safetensors")).unwrap();
    forward(&lab, "encoder", "").refuses(&["in.safetensors", "No such file"]);
    assert!(!lab.at("out.safetensors").exists());
    save(&lab, &[("x", &x)]);
    let nowhere = "--input in.safetensors --output in.safetensors/out.safetensors";
    lab.eval(&format!("forward tiny.toml --net encoder {nowhere}"))
        .exits(1)
        .says(&["in.safetensors"]);

    lab.train("--steps 1").exits(0);
    save(
        &lab,
        &[(
            "x",
            &Tensor::zeros([1, 192, 2, 2], (Kind::Float, Device::Cpu)),
        )],
    );
    forward(&lab, "generator", "--run run").refuses(&[
        "the generator",
        "[N,192,3,3]",
        "[1, 192, 2, 2]",
    ]);
}
