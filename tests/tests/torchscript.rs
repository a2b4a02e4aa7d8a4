//! TorchScript modules, made by PyTorch, as encoder and comparator: the same values and gradients
//! as in PyTorch, frozen, and refused with a reason where they are no feature networks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use deepsim_experiment::networks::Frozen;
use deepsim_experiment::source::{OutputTap, ScriptSource, Source, Units};
use deepsim_nets::params::read_safetensors;
use deepsim_nets::pictures::rgb_to_caffe;
use deepsim_tests::files::{column, tensors};
use deepsim_tests::lab::Lab;
use deepsim_tests::process::{python, root, run};
use tch::{Device, Kind, Tensor};

/// Modules of `tests/python/scripts.py` in a folder, and what PyTorch computes with them.
fn modules(folder: &Path) -> BTreeMap<String, Tensor> {
    let mut command: Command = python("");
    let script = root().join("tests/python/scripts.py");
    let mut with_script = Command::new(command.get_program());
    with_script
        .arg(script)
        .arg(folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(std::process::Stdio::null());
    for (key, value) in command.get_envs() {
        with_script.env(key, value.unwrap());
    }
    command.stdin(std::process::Stdio::null());
    run(&mut with_script).exits(0);
    read_safetensors(&folder.join("parity.safetensors")).unwrap()
}

fn load(folder: &Path, name: &str, output: Option<&str>, units: Units) -> Frozen {
    let source = Source::Script(ScriptSource {
        file: folder.join(format!("{name}.pt")),
        output: OutputTap(output.map(str::to_owned)),
        units,
        shape: None,
    });
    Frozen::load(&source, Device::Cpu).unwrap()
}

#[track_caller]
fn close(found: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), wanted.size());
    let error = (found - wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
    assert!(error <= tolerance, "{error:.1e}");
}

#[test]
fn values_and_gradients_are_pytorch_s_in_all_units() {
    let folder = tempfile::tempdir().unwrap();
    let r = modules(folder.path());
    for (name, units) in [
        ("rgb-0-255", Units::Rgb255),
        ("rgb-0-1", Units::Rgb1),
        ("rgb-imagenet", Units::RgbImagenet),
        ("bgr-caffe", Units::BgrCaffe),
    ] {
        let net = load(folder.path(), name, None, units);
        let rgb = r["rgb"].copy().set_requires_grad(true);
        let y = net.features(&rgb_to_caffe(&rgb).unwrap()).unwrap();
        close(&y, &r[&format!("y/{name}")], 1e-5);
        (&y * &r["up"]).sum(Kind::Float).backward();
        close(&rgb.grad(), &r[&format!("gx/{name}")], 1e-4);
    }
    // Other units are another network: a comparison that passes everywhere would show nothing.
    let wrong = load(folder.path(), "rgb-0-1", None, Units::BgrCaffe);
    let y = wrong.features(&rgb_to_caffe(&r["rgb"]).unwrap()).unwrap();
    let off = (&y - &r["y/rgb-0-1"]).norm() / r["y/rgb-0-1"].norm();
    assert!(off.double_value(&[]) > 0.1);
}

#[test]
fn modules_are_frozen_and_parts_of_their_output_can_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    let r = modules(folder.path());
    let x = rgb_to_caffe(&r["rgb"]).unwrap();
    let y = |name, output| {
        load(folder.path(), name, output, Units::Rgb1)
            .features(&x)
            .unwrap()
    };
    let wanted = &r["y/traced"];
    // No dropout, running statistics: a module saved in training mode is set to evaluation.
    for name in ["traced", "training"] {
        close(&y(name, None), wanted, 1e-5);
        assert!(
            !y(name, None).requires_grad(),
            "{name}: parameters ask for gradients"
        );
    }
    let pooled = wanted.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
    close(&y("parts", Some("0")), wanted, 1e-5);
    close(&y("parts", Some("1")), &pooled, 1e-5);
    close(&y("named", Some("map")), wanted, 1e-5);
    close(&y("named", Some("pooled")), &pooled, 1e-5);
}

/// Both sides of the tiny experiment by a module.
fn experiment(lab: &Lab, encoder: &str, comparator: &str) {
    let text = lab.toml();
    let side = |name: &str, lines: &str| {
        format!(
            "[{name}]\nnet = \"torchscript\"\n{lines}\nunits = \"rgb-0-1\"\ntrust_code = true\n"
        )
    };
    let old = |name: &str, tap: &str| {
        format!("[{name}]\nnet = \"alexnet\"\ntap = \"{tap}\"\nweights = \"random:1\"\n")
    };
    let (e, c) = (old("encoder", "pool2"), old("comparator", "relu3"));
    assert!(text.contains(&e) && text.contains(&c));
    let text = text
        .replace(&e, &side("encoder", encoder))
        .replace(&c, &side("comparator", comparator));
    fs::write(lab.experiment(), text).unwrap();
}

const NAMED: &str = "tap = \"output.pooled\"\nweights = \"named.pt\"\nshape = [8]";
const TRACED: &str = "tap = \"output\"\nweights = \"traced.pt\"";

#[test]
fn a_generator_is_trained_with_modules_on_both_sides_and_continued_bit_for_bit() {
    let lab = Lab::new();
    modules(lab.path());
    experiment(&lab, NAMED, TRACED);
    for precision in ["fp32", "bf16"] {
        let set = format!("train.precision={precision}");
        let train = |out: &str, rest: &[&str]| {
            let out = format!("{precision}-{out}");
            let ran = run(lab.train_into(&out).args(["--set", &set]).args(rest));
            ran.exits(0)
        };
        train("whole", &["--steps", "4"])
            .says(&["torchscript:output.pooled", "torchscript:output"]);
        train("cut", &["--steps", "2"]);
        train("cut", &["--steps", "4", "--resume"]);
        let (whole, cut) = (
            lab.at(&format!("{precision}-whole")),
            lab.at(&format!("{precision}-cut")),
        );
        assert_eq!(tensors(&cut, 4), tensors(&whole, 4));
        for key in ["loss.feat", "eval.feature_error"] {
            let values = column(&whole, key);
            assert!(
                values.iter().all(|v| v.as_f64().unwrap() > 0.0),
                "{key}: {values:?}"
            );
        }
    }
    let photo = lab.text("test/12.jpg");
    run(&mut lab.eval(&["invert", &photo, "--run", "fp32-whole"])).exits(0);
    let csv = run(&mut lab.eval(&["table2", "--runs", "fp32-whole", "--format", "csv"])).prints();
    assert!(
        csv.lines()
            .nth(1)
            .unwrap()
            .contains("torchscript:output.pooled"),
        "{csv}"
    );

    // Another module in its place is noticed.
    fs::copy(lab.at("parts.pt"), lab.at("traced.pt")).unwrap();
    let resume = ["--steps", "6", "--resume"];
    run(lab.train_into("fp32-whole").args(resume)).exits(2);
    fs::copy(lab.at("training.pt"), lab.at("traced.pt")).unwrap();
    run(lab.train_into("fp32-whole").args(resume)).refuses(&["comparator.weights", "changed"]);
}

#[test]
fn modules_that_are_no_feature_networks_are_refused_before_anything_is_written() {
    let lab = Lab::new();
    modules(lab.path());
    fs::write(lab.at("junk.pt"), b"PK\x03\x04 no module").unwrap();
    for (file, tap, words) in [
        ("three", "output", ["[2, 64, 64]", "LENGTH"]),
        ("batch", "output", ["it got 2 pictures", "[1, 6]"]),
        ("integers", "output", ["Int64", "floating-point"]),
        ("nan", "output", ["NaN", "infinity"]),
        ("detached", "output", ["gradients", "comparator"]),
        (
            "fails",
            "output",
            ["RuntimeError", "this module always fails"],
        ),
        ("parts", "output", ["a tuple", "output.0"]),
        ("parts", "output.2", ["2 values", "output.1"]),
        ("named", "output.nothing", ["`nothing`", "map, pooled"]),
        ("traced", "output.0", ["a tensor", "`output`"]),
        ("junk", "output", ["TorchScript module", "junk.pt"]),
    ] {
        let lines = format!("tap = \"{tap}\"\nweights = \"{file}.pt\"");
        experiment(&lab, NAMED, &lines);
        let ran = run(&mut lab.train()).refuses(&words);
        assert!(ran.stderr.contains(&format!("{file}.pt")), "{}", ran.stderr);
        assert!(ran.stderr.lines().count() <= 2, "{}", ran.stderr);
        assert!(!lab.run_dir().exists());
    }
    // A detached encoder is one that serves.
    experiment(
        &lab,
        "tap = \"output\"\nweights = \"detached.pt\"\nshape = [3]",
        TRACED,
    );
    run(lab.train().args(["--steps", "1"])).exits(0);
    experiment(
        &lab,
        "tap = \"output\"\nweights = \"traced.pt\"\nshape = [8]",
        TRACED,
    );
    run(&mut lab.train_into("other")).refuses(&["encoder.shape says [8]", "[8, 14, 14]"]);
}

#[test]
fn a_file_is_not_run_without_consent_and_units_are_never_guessed() {
    let lab = Lab::new();
    experiment(&lab, NAMED, TRACED);
    let text = fs::read_to_string(lab.experiment()).unwrap();
    for (line, words) in [
        ("trust_code = true\n", ["trust_code", "is a program"]),
        ("units = \"rgb-0-1\"\n", ["units", "rgb-imagenet"]),
        ("shape = [8]\n", ["encoder.shape", "[CHANNELS, SIZE, SIZE]"]),
        ("tap = \"output.pooled\"\n", ["encoder.tap", "output.KEY"]),
    ] {
        fs::write(lab.experiment(), text.replace(line, "")).unwrap();
        run(&mut lab.train()).refuses(&words);
    }
    fs::write(lab.experiment(), &text).unwrap();
    run(&mut lab.train()).refuses(&["encoder.weights: no file named.pt", "torch.jit.save"]);
    let alexnet = lab
        .toml()
        .replace("net = \"alexnet\"", "net = \"alexnet\"\ntrust_code = true");
    fs::write(lab.experiment(), alexnet).unwrap();
    run(&mut lab.train()).refuses(&["encoder.trust_code", "means nothing"]);
}
