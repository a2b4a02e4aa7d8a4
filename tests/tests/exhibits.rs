//! `deepsim-eval reencode`, `interpolate`, `neighbors`, `figure` and `baseline mv`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeSet;
use std::fs;

use deepsim_tests::files::names;
use deepsim_tests::lab::{Lab, TEST};
use deepsim_tests::photos::photo;
use serde_json::Value;

fn image(lab: &Lab, name: &str) -> image::RgbImage {
    image::open(lab.at(name)).unwrap().to_rgb8()
}

/// A sheet shows something: many different colours.
fn assert_varied(sheet: &image::RgbImage) {
    let colours: BTreeSet<[u8; 3]> = sheet.pixels().map(|p| p.0).collect();
    assert!(colours.len() > 200, "{} colours", colours.len());
}

#[test]
fn reencoding_drifts_from_where_table_2_begins() {
    let lab = Lab::trained(2);
    let drift = lab.rows("reencode --runs run --out re --iterations 1,3 --show 4");
    assert_eq!(drift.len(), 3);
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let table = lab.rows("table2 --runs run");
    for (mine, theirs) in [
        ("image_to_original", "image_error"),
        ("feature_to_original", "feature_error"),
    ] {
        let (a, b) = (number(&drift[0], mine), number(&table[0], theirs));
        assert!((a - b).abs() < 1e-3 * b, "{mine}: {a}, {b}");
    }
    assert_eq!(
        drift[0]["image_to_original"], drift[0]["image_to_previous"],
        "the iteration before the first is the image"
    );
    assert!(number(&drift[1], "image_to_previous") < number(&drift[1], "image_to_original"));
    assert_eq!(drift[0]["n"], Value::from(TEST));
    let sheet = image(&lab, "re/reencode-run.png");
    // Images, two iterations, four columns of 64 pixels.
    assert!(sheet.height() > 3 * 64 && sheet.height() < 4 * 64 + 60);
    assert!(sheet.width() > 4 * 64);
    assert_varied(&sheet);

    photo(31, 90, 1).save(lab.at("odd.png")).unwrap();
    lab.eval("reencode odd.png --runs run --out one").exits(0);
    lab.eval("reencode --runs run --iterations 0")
        .refuses(&["--iterations 0"]);
    lab.eval("reencode --runs nowhere")
        .refuses(&["--runs nowhere"]);
}

#[test]
fn interpolation_writes_frames_a_strip_and_an_animation() {
    let lab = Lab::trained(2);
    photo(37, 500, 1).save(lab.at("a.png")).unwrap();
    photo(300, 200, 2).save(lab.at("b.jpg")).unwrap();
    let steps = lab.rows("interpolate a.png b.jpg --steps 5 --runs run --out in");
    assert_eq!(steps.len(), 5);
    assert!(steps[0]["step"].is_null() && steps[4]["step"].as_f64().unwrap() > 0.0);
    assert_eq!((&steps[2]["t"], &steps[4]["t"]), (&0.5.into(), &1.0.into()));
    // The ends are what `invert` makes of the images.
    lab.eval("invert a.png b.jpg --run run --out ends").exits(0);
    for (frame, end) in [("000", "a"), ("004", "b")] {
        let frame = image(&lab, &format!("in/run/frame-{frame}.png"));
        let end = image(&lab, &format!("ends/{end}-inverted.png"));
        let worst = frame
            .iter()
            .zip(end.iter())
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(worst.unwrap() <= 1, "{worst:?}");
    }
    let strip = image(&lab, "in/run/strip.png");
    assert!(strip.width() > 7 * 64 && strip.height() > 64);
    assert_varied(&strip);
    let bytes = fs::read(lab.at("in/run/animation.png")).unwrap();
    let chunk = |name: &[u8]| bytes.windows(4).filter(|w| *w == name).count();
    assert_eq!(
        (chunk(b"acTL"), chunk(b"fcTL")),
        (1, 8),
        "five forth, three back"
    );

    for (steps, words) in [("1", "--steps 1"), ("5000", "--steps 5000")] {
        lab.eval(&format!(
            "interpolate a.png b.jpg --steps {steps} --runs run"
        ))
        .refuses(&[words]);
    }
    // An image's header alone says that it is too large: nothing of that size is decoded.
    fs::write(lab.at("huge.ppm"), "P6 20000 20000 255\n").unwrap();
    for bad in ["nowhere.png", "tiny.toml", "huge.ppm"] {
        lab.eval(&format!("interpolate a.png {bad} --runs run"))
            .refuses(&[bad]);
    }
}

#[test]
fn neighbours_of_images_that_are_trained_on_are_themselves() {
    let lab = Lab::new();
    // Held out: two images of the training set, and one that is not.
    fs::remove_dir_all(lab.at("test")).unwrap();
    fs::create_dir(lab.at("test")).unwrap();
    let known = names(&lab.at("train"));
    for name in &known[..2] {
        fs::copy(lab.at("train").join(name), lab.at("test").join(name)).unwrap();
    }
    lab.train("--steps 2").exits(0);
    let found = lab.rows("neighbors --runs run --out nn");
    let spaces: Vec<&str> = found.iter().map(|r| r["space"].as_str().unwrap()).collect();
    assert_eq!(
        spaces,
        [
            "reconstruction",
            "pixels",
            "alexnet:pool1",
            "alexnet:pool2",
            "alexnet:relu3"
        ]
    );
    for row in &found[1..] {
        assert!(row["image_error"].as_f64().unwrap() < 1e-3, "{row}");
        assert_eq!(row["reconstruction_nearer_image"], Value::from(0.0));
    }
    assert!(found[0]["image_error"].as_f64().unwrap() > 5.0);
    assert_varied(&image(&lab, "nn/neighbors-run.png"));
    let text = lab.eval("neighbors --runs run --out nn").prints();
    assert!(text.contains("in alexnet:relu3"), "{text}");
}

#[test]
fn figures_show_the_runs_that_there_are_and_name_the_others() {
    let lab = Lab::new();
    let train = |out: &str, sets: &str| {
        lab.train_into(out, &format!("{sets} --steps 1")).exits(0);
    };
    lab.eval("figure 1").refuses(&["figure 1", "full"]);
    lab.eval("figure 2").refuses(&["2"]);
    train("runs/full", "");
    train("runs/blur", "--set loss.feat=0.0 --set loss.adv=0.0");
    train("runs/other", "--set comparator.weights=\"random:9\"");
    let size = |name: &str| image(&lab, name).dimensions();
    let mut heights = Vec::new();
    for (figure, runs) in [
        ("1", &["blur", "full"][..]),
        ("3", &["full"]),
        ("4", &["full", "blur"]),
        ("5", &["full"]),
        ("6", &["full", "other"]),
        ("7", &["full"]),
    ] {
        let listed = lab.rows(&format!("figure {figure} --images 4 --out figures"));
        let found: Vec<String> = listed
            .iter()
            .map(|r| r["run"].as_str().unwrap().replace("runs/", ""))
            .collect();
        assert_eq!(found, runs, "figure {figure}");
        let sheet = image(&lab, &format!("figures/figure{figure}.png"));
        assert_varied(&sheet);
        heights.push(sheet.height());
    }
    // Rows: images and two losses; images and a layer; images and four iterations.
    assert!(heights[0] > 3 * 64 && heights[1] > 2 * 64 && heights[3] > 5 * 64);
    assert!(size("figures/figure1.png").0 > 4 * 64);
    lab.eval("figure 1 --out figures")
        .says(&["missing: no run with adversarial + image"]);
    lab.eval("figure 3 --encoder alexnet:pool5")
        .refuses(&["nothing to draw figure 3"]);
    lab.eval("figure 3 --filter unicorn").refuses(&["unicorn"]);
}

#[test]
fn mahendran_and_vedaldi_stand_in_table_2_and_figure_4() {
    let lab = Lab::trained(1);
    let mv = "baseline mv tiny.toml --images 3 --batch 2 --out mv";
    lab.eval(mv).exits(0);
    let record: Value =
        serde_json::from_str(&fs::read_to_string(lab.at("mv/mv.json")).unwrap()).unwrap();
    assert_eq!(record["version"], 1);
    assert_eq!(record["encoder"], "alexnet:pool2");
    let photos = record["photos"].as_array().unwrap();
    assert_eq!(photos.len(), 3);
    for p in photos {
        let term = |key: &str| p[key].as_f64().unwrap();
        assert!(term("feature_end") < term("feature_start") / 5.0, "{p}");
    }
    assert_varied(&image(&lab, "mv/mv.png"));
    let table = lab.rows("table2 --runs mv");
    assert_eq!(
        (&table[0]["method"], &table[0]["layer"], &table[0]["n"]),
        (&"mv".into(), &"alexnet:pool2".into(), &3.into())
    );
    let error = |key: &str| table[0][key].as_f64().unwrap();
    assert!(
        error("feature_error") < error("image_error"),
        "{}",
        table[0]
    );
    // The second batch is what it would be in another one: noise belongs to the image.
    lab.eval("baseline mv tiny.toml --images 3 --batch 3 --out mv3")
        .exits(0);
    let other = lab.rows("table2 --runs mv3");
    let (a, b) = (
        error("image_error"),
        other[0]["image_error"].as_f64().unwrap(),
    );
    assert!((a - b).abs() < 0.01 * a, "{a} {b}");

    let listed = lab.eval("figure 4 --runs . --out figures").prints();
    assert!(listed.contains("Mahendran & Vedaldi"), "{listed}");
    lab.eval(mv).refuses(&["mv is there already", "--fresh"]);
    lab.eval("baseline mv tiny.toml --images 3 --out run --fresh")
        .refuses(&["run is there already"]);
    // A changed reconstruction is no longer the record's.
    let file = lab.at("mv/reconstructions.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    lab.eval("table2 --runs mv")
        .says(&["reconstructions.safetensors"]);
}
