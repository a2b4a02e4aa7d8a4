//! `measure` and `table2 --data` as a user meets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::path::Path;

use deepsim_nets::{NetKind, init};
use deepsim_tests::lab::{Lab, TEST, TRAIN};
use deepsim_tests::photos;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Images enough to be compared as distributions.
const MANY: u32 = 12;

/// Images with the names of the laboratory's held-out ones, each of another scene.
fn others(lab: &Lab, name: &str) {
    so_many_others(lab, name, TEST);
}

fn so_many_others(lab: &Lab, name: &str, count: u32) {
    let folder = lab.at(name);
    std::fs::create_dir_all(&folder).unwrap();
    for n in TRAIN..TRAIN + count {
        let ending = if n % 2 == 0 { "jpg" } else { "png" };
        photos::photo(96, 80, n + 40)
            .save(folder.join(format!("{n:02}.{ending}")))
            .unwrap();
    }
}

/// FID's network with random weights, as set-up would have imported it.
fn inception(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let shapes = NetKind::weight_shapes(NetKind::InceptionFid.table());
    let drawn = |(name, shape): (String, Vec<i64>)| {
        let fan_in: i64 = shape.iter().skip(1).product();
        let value = if shape.len() > 1 {
            init::normal(&name, &shape, init::he_deviation(fan_in), 1).unwrap()
        } else {
            let one = f64::from(u8::from(!name.ends_with("bias") && !name.ends_with("mean")));
            Tensor::full(shape, one, (Kind::Float, Device::Cpu))
        };
        (name, value)
    };
    let all: Vec<(String, Tensor)> = shapes.into_iter().map(drawn).collect();
    Tensor::write_safetensors(all.as_slice(), folder.join("inception-fid.safetensors")).unwrap();
}

fn object(lab: &Lab, arguments: &str) -> Value {
    let printed = lab.eval(&format!("{arguments} --format json")).prints();
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn sets_that_do_not_match_are_refused_by_name() {
    let lab = Lab::new();
    others(&lab, "other");
    std::fs::remove_file(lab.at("other/15.png")).unwrap();
    let measured = lab.eval("measure test other");
    measured.refuses(&["other", "`15.png`", "--unpaired"]);
    photos::photo(96, 81, 1)
        .save(lab.at("other/15.png"))
        .unwrap();
    let measured = lab.eval("measure test other --format json");
    measured.refuses(&["`15.png`", "96x80", "96x81"]);
    lab.eval("measure test nowhere").refuses(&["nowhere"]);
    lab.eval("measure test").exits(2);
    lab.eval("measure test other --unpaired")
        .refuses(&["--fid"]);
}

#[test]
fn numbers_have_their_protocol_and_what_is_missing_a_reason() {
    let lab = Lab::new();
    others(&lab, "other");
    let found = object(&lab, "measure test other --fid");
    assert_eq!(found["n"], TEST);
    let psnr = found["psnr"].as_f64().unwrap();
    assert!(psnr > 3.0 && psnr < 30.0, "{psnr}");
    assert!(found["ssim"].as_f64().unwrap() < 0.9);
    for key in ["ms_ssim", "lpips_alex", "lpips_vgg16", "dists", "fid"] {
        assert!(found[key].is_null(), "{key}");
        assert!(found["protocol"][key]["reason"].is_string(), "{key}");
    }
    assert!(found.get("kid").is_none());
    assert_eq!(found["protocol"]["a"]["n"], TEST);
    assert_eq!(found["protocol"]["b"]["digest"].as_str().unwrap().len(), 64);
    // Brain decoding's eight: those without weights say so, and all have a definition.
    let found = object(&lab, "measure test other --brain");
    for key in [
        "alexnet_2",
        "alexnet_5",
        "inception",
        "clip",
        "efficientnet",
        "swav",
    ] {
        assert!(found[key].is_null(), "{key}");
        assert!(found["protocol"][key]["reason"].is_string(), "{key}");
        assert!(found["protocol"][key]["definition"].is_string(), "{key}");
    }
    for key in ["pixel_correlation", "grey_ssim"] {
        assert!(found[key].as_f64().unwrap() < 0.9, "{key}");
    }
    photos::folder(&lab.at("many"), TRAIN, TRAIN + MANY);
    let found = object(&lab, "measure many many --brain --encoder tiny.toml");
    for key in ["pixel_correlation", "grey_ssim", "encoder_two_way"] {
        assert!((found[key].as_f64().unwrap() - 1.0).abs() < 1e-6, "{key}");
    }
    assert!(
        found["encoder_correlation_distance"]
            .as_f64()
            .unwrap()
            .abs()
            < 1e-6
    );
    lab.eval("measure test other --brain --unpaired").exits(2);
    let text = lab.eval("measure test test").prints();
    assert!(text.contains("some pairs are equal"), "{text}");
}

#[test]
fn fid_of_twelve_images_says_what_it_lacks_and_fid_of_five_is_refused() {
    let lab = Lab::new();
    photos::folder(&lab.at("many"), TRAIN, TRAIN + MANY);
    so_many_others(&lab, "other", MANY);
    inception(&lab.at("weights"));
    let asked = "--fid --kid --precision-recall --dims 64";
    let ran = lab
        .eval(&format!("measure many other {asked} --format json"))
        .exits(0)
        .says(&["singular covariance", "12 and 12 images", "65 images"]);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    let number = |found: &Value, key: &str| found[key].as_f64().unwrap();
    assert!(number(&found, "fid") > 1e-3);
    let protocol = &found["protocol"]["fid"];
    assert_eq!(protocol["weights"][0]["blake3"].as_str().unwrap().len(), 64);
    for key in ["precision", "recall"] {
        assert!((0.0..=1.0).contains(&number(&found, key)));
    }
    // The same images twice, of which nothing is paired.
    let same = object(&lab, &format!("measure many many --unpaired {asked}"));
    assert!(number(&same, "fid").abs() < 1e-3 * number(&found, "fid"));
    assert_eq!(
        [number(&same, "precision"), number(&same, "recall")],
        [1.0, 1.0]
    );
    assert!(same["psnr"].is_null());
    let other = format!("measure many other {asked} --resize clean-fid");
    assert_ne!(number(&object(&lab, &other), "fid"), number(&found, "fid"));
    photos::folder(&lab.at("few"), 0, 5);
    lab.eval(&format!("measure few many --unpaired {asked}"))
        .refuses(&["of 5 and 12 images", "at least 10"]);
}

#[test]
fn a_runs_reconstructions_and_other_images_are_measured() {
    let lab = Lab::new();
    photos::folder(&lab.at("many"), TRAIN, TRAIN + MANY);
    let many = format!("--steps 2 --set data.test=\"{}\"", lab.text("many"));
    lab.train(&many).exits(0);
    others(&lab, "other");
    let found = object(&lab, "measure --run run --encoder tiny.toml");
    assert_eq!(found["n"], MANY);
    assert!(found["psnr"].as_f64().unwrap() > 3.0);
    // Its encoder and its comparator are AlexNets.
    let reason = found["protocol"]["lpips_alex"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("shared"), "{reason}");
    assert!(found["encoder_frechet"].as_f64().unwrap() > 0.0);
    assert!(found["encoder_kernel"].is_number());
    let remark = found["protocol"]["encoder_frechet"]["remark"].as_str();
    assert!(remark.unwrap().contains("trained with this network"));

    let row = |arguments: &str| {
        let rows = lab.rows(&format!("table2 --runs run {arguments}"));
        rows.into_iter().find(|row| !row["run"].is_null()).unwrap()
    };
    let (own, same, other) = (row(""), row("--data many"), row("--data other"));
    for key in ["image_error", "feature_error", "image_set", "n"] {
        assert_eq!(own[key], same[key], "{key}");
    }
    assert_ne!(own["image_error"], other["image_error"]);
    assert_ne!(own["image_set"], other["image_set"]);
    assert_eq!(other["data"], "other");
    lab.eval("table2 --runs run --data nowhere")
        .refuses(&["nowhere"]);
}
