//! Autoencoders and super-resolution from experiment file to tables and sheets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeSet;
use std::fs;

use deepsim_tests::files::{checkpoint, column, losses, tensors};
use deepsim_tests::lab::{Lab, TEST};
use deepsim_tests::process::root;

/// A laboratory whose experiment is a variational autoencoder.
fn variational() -> Lab {
    let lab = Lab::new();
    let toml = lab
        .toml()
        .replace(
            "[comparator]",
            "[latent]\nsize = 6\ncode = \"gaussian\"\n\n[comparator]",
        )
        .replace("kl = 0.0", "kl = 2.0")
        .replace(
            "[schedule]",
            "encoder = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0 }\n\n[schedule]",
        );
    fs::write(lab.experiment(), toml).unwrap();
    lab
}

fn colours(lab: &Lab, name: &str) -> (image::RgbImage, usize) {
    let image = image::open(lab.at(name)).unwrap().to_rgb8();
    let all: BTreeSet<[u8; 3]> = image.pixels().map(|p| p.0).collect();
    let n = all.len();
    (image, n)
}

#[test]
fn a_variational_autoencoder_trains_resumes_and_is_drawn_from() {
    let lab = variational();
    lab.train_into("run", "--steps 4").exits(0);
    lab.train_into("cut", "--steps 2").exits(0);
    lab.train_into("cut", "--steps 4 --resume").exits(0);
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("run"), 4));
    assert_eq!(
        losses(&lab.at("cut")).len(),
        losses(&lab.at("run")).len() + 1
    );
    assert!(
        checkpoint(&lab.run_dir(), 4)
            .join("encoder.safetensors")
            .exists()
    );
    let kl = column(&lab.run_dir(), "loss.kl");
    assert_eq!(kl.len(), 4);
    assert!(kl.iter().all(|v| v.as_f64().unwrap() >= 3.0), "{kl:?}");

    let weights = root().join("weights").display().to_string();
    let sample = |out: &str, seed: u64| {
        lab.rows(&format!(
            "sample --runs run --count 9 --show 5 --out {out} --seed {seed} --judge-weights {weights}"
        ))
    };
    let said = sample("a", 1);
    assert_eq!(said.len(), 1);
    assert_eq!(
        (&said[0]["latent"], &said[0]["samples"]),
        (&6.into(), &9.into())
    );
    assert!(said[0]["kl"].as_f64().unwrap() >= 0.0);
    for key in [
        "kernel_distance",
        "frechet_distance",
        "frechet_distance_of_photos",
    ] {
        assert!(said[0][key].is_f64(), "{key}: {said:?}");
    }
    let (sheet, n) = colours(&lab, "a/samples-run.png");
    assert!(n > 100 && sheet.width() > 5 * 64, "{n} colours");
    sample("b", 1);
    sample("c", 2);
    let read = |name: &str| fs::read(lab.at(name)).unwrap();
    assert_eq!(read("a/samples-run.png"), read("b/samples-run.png"));
    assert_ne!(read("a/samples-run.png"), read("c/samples-run.png"));

    // The figure with one run says what is missing; other figures leave autoencoders out.
    lab.eval("figure 8 --runs run --images 4 --out f")
        .exits(0)
        .says(&["too few variational autoencoders"]);
    assert!(colours(&lab, "f/figure8.png").1 > 100);
    lab.eval("figure 3 --runs run --out f").says(&["no run"]);
    let table = lab.rows("table2 --runs run");
    assert_eq!(
        (&table[0]["method"], &table[0]["layer"]),
        (&"other".into(), &"alexnet:pool2>6".into())
    );
}

#[test]
fn inversions_have_no_prior() {
    let lab = Lab::trained(2);
    lab.eval("sample --runs run")
        .refuses(&["no prior", "gaussian"]);
    lab.eval("sample --runs run --count 1")
        .refuses(&["--count"]);
}

#[test]
fn every_loss_is_judged_by_every_metric() {
    let lab = Lab::new();
    let small = lab.toml().replace(
        "net = \"alexnet\"\ntap = \"pool2\"\nweights = \"random:1\"",
        "net = \"downsampled\"\nfactor = 4",
    );
    let runs = [
        ("ms", "ms-ssim", "500.0", 1),
        ("sq-1", "squared", "1e-5", 1),
        ("sq-2", "squared", "1e-5", 2),
    ];
    for (name, distance, img, seed) in runs {
        let toml = small
            .replace("feat = 0.01", "feat = 0.0")
            .replace("adv = 100.0", "adv = 0.0")
            .replace("img = 2e-6", &format!("img = {img}"))
            .replace(
                "[optimizer]",
                &format!("[pixels]\ndistance = \"{distance}\"\n\n[optimizer]"),
            );
        fs::write(lab.experiment(), toml).unwrap();
        let ran = lab
            .train_into(
                &format!("runs/{name}"),
                &format!("--steps 2 --set train.seed={seed}"),
            )
            .exits(0);
        // 64 pixels are too few for five.
        let remark = "MS-SSIM compares images of 64 pixels at 3 scales instead of 5";
        assert_eq!(ran.stderr.contains(remark), name == "ms", "{}", ran.stderr);
    }
    let weights = root().join("weights").display().to_string();
    let losses = "losses --runs runs --out l --show 3";
    let said = lab.rows(&format!("{losses} --judge-weights {weights}"));
    let with: Vec<&str> = said
        .iter()
        .map(|r| r["trained_with"].as_str().unwrap())
        .collect();
    assert_eq!(with, ["L2", "L2", "MS-SSIM"]);
    let seeds: Vec<u64> = said.iter().map(|r| r["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [1, 2, 1]);
    for row in &said {
        assert_eq!(row["task"], "downsampled:4");
        assert_eq!(row["n"], TEST);
        // 64 pixels allow three scales.
        assert_eq!(row["scales"], 3);
        let numbers = [
            "l1",
            "l2",
            "ssim",
            "ms_ssim",
            "gradient_energy",
            "lpips",
            "lpips_alex",
            "lpips_vgg16",
            "dists",
            "kernel_distance",
        ];
        for key in numbers {
            assert!(row[key].is_f64(), "{key}: {row}");
        }
        // Nothing is inverted.
        assert!(row["feature_error"].is_null(), "{row}");
        assert!(row["l1"].as_f64() < row["l2"].as_f64());
    }
    let (sheet, n) = colours(&lab, "l/losses-downsampled-4.png");
    // The photos, and one run of each objective.
    let rows = 3 * 64..4 * 64 + 100;
    assert!(n > 200 && rows.contains(&sheet.height()), "{n} colours");
    assert!(colours(&lab, "l/distortion-perception-downsampled-4.png").1 > 2);

    // The loss that was trained with is in the metrics.
    let img = column(&lab.at("runs/ms"), "loss.img");
    assert!(
        img.iter()
            .all(|v| (0.0..1.5).contains(&v.as_f64().unwrap())),
        "{img:?}"
    );
}

#[test]
fn keys_of_autoencoders_that_do_not_fit_are_named() {
    let lab = variational();
    for (set, word) in [
        ("latent.size=0", "`latent.size`"),
        ("latent.code=plain", "`loss.kl`"),
        ("encoder.net=efficientnet-lite0", "`encoder"),
        ("latent.code=poisson", "poisson"),
    ] {
        lab.train_into("run", &format!("--set {set}"))
            .refuses(&[word]);
    }
    let lab = Lab::new();
    lab.train("--set loss.kl=1")
        .refuses(&["`loss.kl`", "[latent]"]);
    let toml = lab.toml().replace(
        "net = \"alexnet\"\ntap = \"pool2\"\nweights = \"random:1\"",
        "net = \"downsampled\"\nfactor = 5",
    );
    fs::write(lab.experiment(), toml).unwrap();
    lab.train("")
        .refuses(&["`encoder.factor`", "must divide data.crop (64)"]);
    lab.train("--set encoder.factor=1")
        .refuses(&["`encoder.factor`"]);
    let pixels = "--set encoder.factor=4 --set data.crop=8 --set comparator.tap=conv1";
    lab.train(pixels).exits(2);
}
