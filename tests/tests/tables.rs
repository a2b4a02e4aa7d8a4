//! `deepsim-eval table1`, `table2` and `invert`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeSet;
use std::fs;

use deepsim_tests::files::{self, column};
use deepsim_tests::lab::{Lab, TEST};
use deepsim_tests::photos::photo;
use serde_json::Value;

/// The keys of a row of `table2`, in order: scripts rely on them.
const KEYS: &str = "method,layer,comparator,image_error,feature_error,gradient_energy,data,split,crop,\
                    weights,n,clipped,run,step,paper_image_error,paper_feature_error,lpips,lpips_net,\
                    ssim,psnr,label_top1,label_top5,n_pairs_from,held_out_overlap,image_set,recipe,\
                    feature_error_trained";

#[track_caller]
fn assert_keys(row: &Value) {
    let keys = row.as_object().unwrap().keys().map(String::as_str);
    assert_eq!(keys.collect::<BTreeSet<_>>(), KEYS.split(',').collect());
}

#[test]
fn table_1_is_the_paper_s() {
    let lab = Lab::new();
    let text = lab.eval("table1").prints();
    // Rows of the paper's table: type, input and output size, channels, kernel, stride.
    let cells: Vec<Vec<&str>> = text
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    for row in [
        "uconv deconv5 4 8 256 256 4 ↑2",
        "conv conv5_1 8 8 256 512 3 1",
        "uconv deconv4 8 16 512 256 4 ↑2",
        "conv conv4_1 16 16 256 256 3 1",
        "uconv deconv3 16 32 256 128 4 ↑2",
        "conv conv3_1 32 32 128 128 3 1",
        "uconv deconv2 32 64 128 64 4 ↑2",
        "uconv deconv1 64 128 64 32 4 ↑2",
        "uconv deconv0 128 256 32 3 4 ↑2",
    ] {
        let row: Vec<&str> = row.split(' ').collect();
        assert!(
            cells.iter().any(|c| c.starts_with(&row)),
            "no {row:?} in\n{text}"
        );
    }
    for name in ["defc7", "defc6", "defc5"] {
        let row = ["fc", name, "-", "-", "4096", "4096"];
        assert!(
            cells.iter().any(|c| c.starts_with(&row)),
            "no {row:?} in\n{text}"
        );
    }
    assert!(text.contains("cropped at its centre to 227x227"), "{text}");
    // And an experiment's own, which is smaller.
    let own = lab
        .eval("table1 --experiment tiny.toml --format csv")
        .prints();
    assert!(
        own.lines()
            .last()
            .unwrap()
            .starts_with("deconv0,uconv,32,64,"),
        "{own}"
    );
}

#[test]
fn table_2_without_runs_is_the_paper_s() {
    let lab = Lab::new();
    let ran = lab
        .eval("table2 --format json")
        .says(&["hint:", "cargo xtask quickstart"]);
    let rows: Vec<Value> = serde_json::from_str(&ran.prints()).unwrap();
    assert_eq!(rows.len(), 14);
    for row in &rows {
        assert_keys(row);
        for key in [
            "image_error",
            "feature_error",
            "gradient_energy",
            "n",
            "run",
            "step",
        ] {
            assert!(row[key].is_null(), "{key} of {row}");
        }
        // The paper gives D&B's networks no feature errors.
        assert!(row["paper_image_error"].is_number(), "{row}");
        assert_eq!(
            row["paper_feature_error"].is_number(),
            row["method"] != "db",
            "{row}"
        );
    }
    let cell = |method: &str, comparator: &str, layer: &str| {
        let found = rows.iter().find(|r| {
            r["method"] == method && r["comparator"] == comparator && r["layer"] == layer
        });
        found
            .map(|r| {
                (
                    r["paper_image_error"].as_f64(),
                    r["paper_feature_error"].as_f64(),
                )
            })
            .unwrap()
    };
    assert_eq!(
        cell("deepsim", "caffenet:pool5", "conv5"),
        (Some(43.0), Some(37.0))
    );
    assert_eq!(
        cell("deepsim", "caffenet:pool5", "fc6"),
        (Some(55.0), Some(48.0))
    );
    assert_eq!(cell("db", "", "fc6"), (Some(51.0), None));
    let csv = lab.eval("table2 --format csv").prints();
    assert_eq!(csv.lines().next().unwrap(), KEYS);
    assert_eq!(csv.lines().count(), 15);

    lab.eval("table2 --runs nowhere")
        .refuses(&["--runs nowhere", "train an experiment first"]);
}

#[test]
fn table_2_over_a_run() {
    let lab = Lab::trained(2);
    let printed = lab
        .eval("table2 --runs . --format json --out tables")
        .prints();
    assert_eq!(
        fs::read_to_string(lab.at("tables/table2.json")).unwrap(),
        printed
    );
    let rows: Vec<Value> = serde_json::from_str(&printed).unwrap();
    assert_eq!(rows.len(), 15);
    let row = &rows[0];
    assert_keys(row);
    for (key, value) in [
        ("method", Value::from("deepsim")),
        ("layer", Value::from("alexnet:pool2")),
        ("comparator", Value::from("alexnet:relu3")),
        ("data", Value::from(lab.text("test"))),
        ("split", Value::from("test")),
        ("crop", Value::from(64)),
        ("weights", Value::from("random:1")),
        ("n", Value::from(TEST)),
        ("clipped", Value::from(true)),
        ("step", Value::from(2)),
        ("paper_image_error", Value::Null),
        ("paper_feature_error", Value::Null),
        ("n_pairs_from", Value::from(TEST)),
        ("held_out_overlap", Value::from(0)),
        (
            "recipe",
            Value::from("alexnet:relu3 (random weights) + L2 + cross-entropy deepsim"),
        ),
        ("feature_error_trained", Value::from(true)),
    ] {
        assert_eq!(row[key], value, "{key}");
    }
    // The same numbers as training itself found at its end.
    for key in ["image_error", "feature_error", "gradient_energy"] {
        let then = column(&lab.run_dir(), &format!("eval.{key}"))[0]
            .as_f64()
            .unwrap();
        let now = row[key].as_f64().unwrap();
        assert!(
            (now - then).abs() <= 1e-4 * then,
            "{key}: {now} now, {then} then"
        );
    }
    let rows = lab.rows("table2 --runs run --no-clip --images 5");
    assert_eq!(
        (&rows[0]["clipped"], &rows[0]["n"]),
        (&Value::from(false), &Value::from(5))
    );

    let text = lab.eval("table2 --runs run").prints();
    assert!(
        text.lines()
            .any(|l| l.starts_with("run") && l.contains("alexnet:pool2")),
        "{text}"
    );
    // An image-loss run is another method and compares nowhere.
    let set = "--set loss.feat=0.0 --set loss.adv=0.0";
    lab.train_into("blur", &format!("{set} --steps 1")).exits(0);
    let rows = lab.rows("table2 --runs blur");
    assert_eq!(
        (&rows[0]["method"], &rows[0]["comparator"]),
        (&Value::from("image-loss"), &Value::from(""))
    );
}

#[test]
fn images_of_any_size_and_shape_are_inverted() {
    let lab = Lab::trained(2);
    let photos = lab.at("odd");
    fs::create_dir(&photos).unwrap();
    photo(37, 500, 1).save(photos.join("narrow.png")).unwrap();
    photo(3000, 200, 2).save(photos.join("wide.jpg")).unwrap();
    photo(1, 1, 3).save(photos.join("dot.png")).unwrap();
    image::DynamicImage::from(photo(90, 70, 4))
        .to_luma8()
        .save(photos.join("grey.png"))
        .unwrap();
    let names = ["narrow.png", "wide.jpg", "dot.png", "grey.png"];
    let paths = names.map(|n| format!("odd/{n}"));
    let all = paths.join(" ");
    let listed = lab
        .eval(&format!("invert --run run --out pictures {all}"))
        .prints();
    assert_eq!(listed.lines().count(), 4);
    for (name, line) in names.iter().zip(listed.lines()) {
        let stem = name.split('.').next().unwrap();
        assert_eq!(line, format!("pictures/{stem}-pair.png"));
        let size = |file: String| image::open(lab.at(&file)).unwrap().to_rgb8().dimensions();
        assert_eq!(size(format!("pictures/{stem}-inverted.png")), (64, 64));
        assert_eq!(size(format!("pictures/{stem}-pair.png")), (64, 64 + 2 + 64));
    }
    let list = lab.rows(&format!("invert --run run --out more {}", paths[0]));
    assert_eq!(list[0]["image"], "odd/narrow.png");
    assert_eq!(list[0]["inverted"], "more/narrow-inverted.png");
}

#[test]
fn what_cannot_be_inverted_is_named_and_nothing_is_written() {
    let lab = Lab::trained(1);
    fs::copy(lab.at("test/12.jpg"), lab.at("cut.jpg")).unwrap();
    files::cut(&lab.at("cut.jpg"), 0.7);
    let good = "test/13.png";
    for (bad, words) in [
        ("nowhere.jpg", &["nowhere.jpg", "does not exist"][..]),
        ("cut.jpg", &["cut.jpg"]),
        ("tiny.toml", &["tiny.toml"]),
        ("test", &["test"]),
    ] {
        lab.eval(&format!("invert {good} {bad} --run run --out pictures"))
            .refuses(words);
    }
    lab.eval(&format!("invert {good} --run train --out pictures"))
        .refuses(&["no run at train", "there are: run"]);
    fs::create_dir(lab.at("young")).unwrap();
    fs::copy(
        lab.at("run/experiment.toml"),
        lab.at("young/experiment.toml"),
    )
    .unwrap();
    lab.eval(&format!("invert {good} --run young --out pictures"))
        .refuses(&["young", "no checkpoint yet"]);
    lab.eval("invert --run run").refuses(&["IMAGES"]);
    assert!(!lab.at("pictures").exists());
}
