//! Several feature terms side by side, and runs without a discriminator: trained, cut and continued, and evaluated.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use deepsim_tests::files::{column, manifest, tensors};
use deepsim_tests::lab::Lab;
use tch::{Device, Kind, Tensor};

const SINGLE: &str = "[comparator]\nnet = \"alexnet\"\ntap = \"relu3\"\nweights = \"random:1\"\n";
/// One that is the encoder's network, one at another tap of a further network, and one that trains along.
const NAMED: &str = "[comparator.along]\nnet = \"discriminator\"\ntap = \"Dconv3\"\n\n\
                     [comparator.deep]\nnet = \"alexnet\"\ntap = \"relu3\"\nweights = \"random:1\"\n\n\
                     [comparator.first]\nnet = \"alexnet\"\ntap = \"pool1\"\nweights = \"random:2\"\n\n\
                     [comparator.second]\nnet = \"alexnet\"\ntap = \"pool2\"\nweights = \"random:2\"\n";

#[test]
fn several_comparators_train_resume_and_are_shown_by_name() {
    let lab = Lab::new();
    let text = lab.toml().replace(SINGLE, NAMED).replace(
        "feat = 0.01\n",
        "feat = { along = 0.003, deep = 0.01, first = 0.001, second = 0.002 }\n",
    );
    fs::write(lab.experiment(), text).unwrap();
    let train = |out: &str, rest: &str| lab.train_into(out, rest).exits(0);
    train("whole", "--steps 4");
    train("cut", "--steps 2");
    train("cut", "--steps 4 --resume");
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("whole"), 4));

    for name in ["along", "deep", "first", "second"] {
        let key = format!("loss.feat.{name}");
        let values = column(&lab.at("whole"), &key);
        assert_eq!(values.len(), 4, "{key}");
        assert!(
            values.iter().all(|v| v.as_f64().unwrap() > 0.0),
            "{key}: {values:?}"
        );
        assert_eq!(column(&lab.at("cut"), &key), values);
    }

    let manifest = manifest(&lab.at("whole"), 4);
    assert_eq!(manifest["comparator_weights"], "");
    let named = manifest["comparators"].as_object().unwrap();
    let names: Vec<&String> = named.keys().collect();
    assert_eq!(names, ["along", "deep", "first", "second"]);
    assert_eq!(named["first"], named["second"]);
    assert_ne!(named["first"], named["deep"]);

    let rows = lab.rows("table2 --runs whole");
    let comparator = "discriminator:Dconv3 + alexnet:relu3 + alexnet:pool1 + alexnet:pool2";
    assert!(
        rows.iter().any(|row| row["comparator"] == comparator),
        "{rows:?}"
    );
    lab.eval("report --runs . --out page.html --images 8")
        .exits(0);
    let page = fs::read_to_string(lab.at("page.html")).unwrap();
    assert!(page.contains("feature deep"), "the curves name each term");

    // The same weights under another name are another experiment.
    let text = fs::read_to_string(lab.experiment()).unwrap();
    fs::write(lab.experiment(), text.replace("first", "early")).unwrap();
    lab.train_into("whole", "--steps 6 --resume")
        .refuses(&["comparator.early"]);
}

/// What a loss does not use need neither be described nor be there.
#[test]
fn a_loss_on_pixels_needs_no_comparator_and_no_discriminator() {
    let lab = Lab::new();
    let whole = lab.toml().replace("feat = 0.01", "feat = 0.0");
    let whole = whole.replace("adv = 100.0", "adv = 0.0");
    let gone = "weights = \"gone.safetensors\"\n";
    let unused = whole.replace(SINGLE, &SINGLE.replace("weights = \"random:1\"\n", gone));
    fs::write(lab.experiment(), &unused).unwrap();
    lab.train_into("unused", "--steps 4").exits(0);

    let gate =
        "[gate]\nd_off_below = 0.1\nd_on_above = 0.5\ng_off_above = 10.0\ng_on_below = 0.1\n";
    let adam = whole
        .lines()
        .find(|l| l.starts_with("discriminator = {"))
        .unwrap();
    let mut short = whole.clone();
    for part in [SINGLE, gate, "[discriminator]\nfeatures = false\n", adam] {
        assert!(short.contains(part), "{part}");
        short = short.replace(part, "");
    }
    fs::write(lab.experiment(), short).unwrap();
    lab.train_into("short", "--steps 2").exits(0);
    lab.train_into("short", "--steps 4 --resume").exits(0);
    assert_eq!(tensors(&lab.at("short"), 4), tensors(&lab.at("unused"), 4));
    let files: Vec<&str> = tensors(&lab.at("short"), 4).into_keys().collect();
    assert_eq!(files, ["generator", "state"]);
    // A run that was begun with the unused sections goes on without them.
    lab.train_into("unused", "--steps 6 --resume").exits(0);

    lab.eval("table2 --runs short").exits(0);
    lab.eval("report --runs . --out page.html --images 8")
        .exits(0);
    let x = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
    Tensor::write_safetensors(&[("x", x)], lab.at("x.safetensors")).unwrap();
    let input = "--input x.safetensors --output y.safetensors";
    for net in ["comparator", "discriminator"] {
        let forward = format!("forward tiny.toml --net {net} --run short");
        lab.eval(&format!("{forward} {input}"))
            .refuses(&[&format!("has no {net}")]);
    }
}

/// Heads of LPIPS by AlexNet that weigh all channels the same.
fn write_heads(lab: &Lab, weight: f64) {
    let heads: Vec<(String, Tensor)> = [64, 192, 384, 256, 256]
        .into_iter()
        .enumerate()
        .map(|(i, channels)| {
            let shape = [1, channels, 1, 1];
            let head = Tensor::full(shape, weight, (Kind::Float, Device::Cpu));
            (format!("lin{i}.weight"), head)
        })
        .collect();
    Tensor::write_safetensors(&heads, lab.at("heads.safetensors")).unwrap();
}

#[test]
fn lpips_trains_beside_several_taps_and_goes_on_exactly() {
    let lab = Lab::new();
    write_heads(&lab, 1.0);
    let comparators = format!(
        "[comparator.lpips]\nnet = \"lpips-alexnet\"\nweights = \"random:1\"\nheads = \"{}\"\n\n\
         [comparator.layers]\nnet = \"alexnet\"\nweights = \"random:1\"\ndistance = \"cosine\"\n\
         taps = {{ relu1 = 1.0, relu3 = 0.5 }}\n",
        lab.text("heads.safetensors")
    );
    let text = lab.toml().replace(SINGLE, &comparators);
    let text = text.replace("feat = 0.01\n", "feat = { lpips = 1.0, layers = 1.0 }\n");
    fs::write(lab.experiment(), text).unwrap();
    lab.train_into("whole", "--steps 4").exits(0);
    lab.train_into("cut", "--steps 2").exits(0);
    lab.train_into("cut", "--steps 4 --resume").exits(0);
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("whole"), 4));
    for name in ["lpips", "layers"] {
        let values = column(&lab.at("whole"), &format!("loss.feat.{name}"));
        assert!(values.iter().all(|v| v.as_f64().unwrap() > 0.0), "{name}");
    }
    let rows = lab.rows("table2 --runs whole");
    assert_eq!(rows[0]["method"], "deepsim");
    let recipe = "alexnet:relu1,relu3 (random weights) (cosine) + lpips-alexnet (random weights) \
                  + L2 + cross-entropy deepsim";
    assert_eq!(rows[0]["recipe"], recipe);
    assert_eq!(rows[0]["feature_error_trained"], true);
    // Other heads are another metric.
    write_heads(&lab, 2.0);
    let ran = lab.train_into("cut", "--steps 6 --resume");
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("comparator.lpips"), "{}", ran.stderr);
}
