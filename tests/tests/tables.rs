//! `deepsim-eval table1`, `table2` and `invert`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeSet;
use std::fs;

use deepsim_tests::files::column;
use deepsim_tests::lab::{Lab, TEST};
use deepsim_tests::photos::photo;
use deepsim_tests::process::{program, run};
use serde_json::Value;

/// The keys of a row of `table2`, in order: scripts rely on them.
const KEYS: [&str; 26] = [
    "method",
    "layer",
    "comparator",
    "image_error",
    "feature_error",
    "gradient_energy",
    "data",
    "split",
    "crop",
    "weights",
    "n",
    "clipped",
    "run",
    "step",
    "paper_image_error",
    "paper_feature_error",
    "lpips",
    "lpips_net",
    "ssim",
    "psnr",
    "label_top1",
    "label_top5",
    "n_pairs_from",
    "held_out_overlap",
    "image_set",
    "recipe",
];

#[test]
fn table_1_is_the_paper_s() {
    let lab = Lab::new();
    let text = run(&mut lab.eval(&["table1"])).prints();
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
    let own =
        run(&mut lab.eval(&["table1", "--experiment", "tiny.toml", "--format", "csv"])).prints();
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
    let ran = run(&mut lab.eval(&["table2", "--format", "json"]))
        .says(&["hint:", "cargo xtask quickstart"]);
    let rows: Vec<Value> = serde_json::from_str(&ran.prints()).unwrap();
    assert_eq!(rows.len(), 14);
    for row in &rows {
        let keys: BTreeSet<&str> = row
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, KEYS.into());
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
    let csv = run(&mut lab.eval(&["table2", "--format", "csv"])).prints();
    assert_eq!(csv.lines().next().unwrap(), KEYS.join(","));
    assert_eq!(csv.lines().count(), 15);

    run(&mut lab.eval(&["table2", "--runs", "nowhere"]))
        .refuses(&["--runs nowhere", "train an experiment first"]);
}

#[test]
fn table_2_over_a_run() {
    let lab = Lab::trained(2);
    let json = [
        "table2", "--runs", ".", "--format", "json", "--out", "tables",
    ];
    let printed = run(&mut lab.eval(&json)).prints();
    assert_eq!(
        fs::read_to_string(lab.at("tables/table2.json")).unwrap(),
        printed
    );
    let rows: Vec<Value> = serde_json::from_str(&printed).unwrap();
    assert_eq!(rows.len(), 15);
    let row = &rows[0];
    let keys: BTreeSet<&str> = row
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, KEYS.into());
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
        ("recipe", Value::from("paper")),
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
    let unclipped = run(&mut lab.eval(&[
        "table2",
        "--runs",
        "run",
        "--format",
        "json",
        "--no-clip",
        "--images",
        "5",
    ]));
    let rows: Vec<Value> = serde_json::from_str(&unclipped.prints()).unwrap();
    assert_eq!(
        (&rows[0]["clipped"], &rows[0]["n"]),
        (&Value::from(false), &Value::from(5))
    );

    let text = run(&mut lab.eval(&["table2", "--runs", "run"])).prints();
    assert!(
        text.lines()
            .any(|l| l.starts_with("run") && l.contains("alexnet:pool2")),
        "{text}"
    );
    // An image-loss run is another method and compares nowhere.
    let set = ["--set", "loss.feat=0.0", "--set", "loss.adv=0.0"];
    run(lab.train_into("blur").args(set).args(["--steps", "1"])).exits(0);
    let rows: Vec<Value> = serde_json::from_str(
        &run(&mut lab.eval(&["table2", "--runs", "blur", "--format", "json"])).prints(),
    )
    .unwrap();
    assert_eq!(
        (&rows[0]["method"], &rows[0]["comparator"]),
        (&Value::from("image-loss"), &Value::from(""))
    );
}

#[test]
fn photographs_of_any_size_and_shape_are_inverted() {
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
    let paths: Vec<String> = names.map(|n| format!("odd/{n}")).to_vec();
    let ran = run(lab
        .eval(&["invert", "--run", "run", "--out", "pictures"])
        .args(&paths));
    let listed = ran.prints();
    assert_eq!(listed.lines().count(), 4);
    for (name, line) in names.iter().zip(listed.lines()) {
        let stem = name.split('.').next().unwrap();
        assert_eq!(line, format!("pictures/{stem}-pair.png"));
        let size = |file: String| image::open(lab.at(&file)).unwrap().to_rgb8().dimensions();
        assert_eq!(size(format!("pictures/{stem}-inverted.png")), (64, 64));
        assert_eq!(size(format!("pictures/{stem}-pair.png")), (64, 64 + 2 + 64));
    }
    let json = run(lab
        .eval(&[
            "invert", "--run", "run", "--out", "more", "--format", "json",
        ])
        .args(&paths[..1]))
    .prints();
    let list: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(list[0]["image"], "odd/narrow.png");
    assert_eq!(list[0]["inverted"], "more/narrow-inverted.png");
}

#[test]
fn what_cannot_be_inverted_is_named_and_nothing_is_written() {
    let lab = Lab::trained(1);
    fs::copy(lab.at("test/12.jpg"), lab.at("cut.jpg")).unwrap();
    deepsim_tests::files::cut(&lab.at("cut.jpg"), 0.7);
    let good = "test/13.png";
    for (bad, words) in [
        ("nowhere.jpg", &["nowhere.jpg", "does not exist"][..]),
        ("cut.jpg", &["cut.jpg"]),
        ("tiny.toml", &["tiny.toml"]),
        ("test", &["test"]),
    ] {
        run(&mut lab.eval(&["invert", good, bad, "--run", "run", "--out", "pictures"]))
            .refuses(words);
    }
    run(&mut lab.eval(&["invert", good, "--run", "train", "--out", "pictures"]))
        .refuses(&["no run at train", "there are: run"]);
    fs::create_dir(lab.at("young")).unwrap();
    fs::copy(
        lab.at("run/experiment.toml"),
        lab.at("young/experiment.toml"),
    )
    .unwrap();
    run(&mut lab.eval(&["invert", good, "--run", "young", "--out", "pictures"]))
        .refuses(&["young", "no checkpoint yet"]);
    run(&mut lab.eval(&["invert", "--run", "run"])).refuses(&["IMAGES"]);
    assert!(!lab.at("pictures").exists());
}

/// Held-out images that are first in the order of names are of one kind; the first four of these are one image.
#[test]
fn images_of_every_number_are_spread_over_the_set() {
    let lab = Lab::new();
    let mut names: Vec<_> = fs::read_dir(lab.at("test"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    let first = image::open(&names[0]).unwrap();
    for (i, name) in names[..4].iter().enumerate() {
        fs::remove_file(name).unwrap();
        first.save(lab.at(&format!("test/{i:02}.png"))).unwrap();
    }
    let few = ["--set", "train.eval_images=4", "--steps", "1"];
    let ran = run(lab.train().args(few)).exits(0);
    assert!(!ran.stderr.contains("no held-out error"), "{}", ran.stderr);
    let table = [
        "table2", "--runs", "run", "--images", "4", "--format", "json",
    ];
    let rows: Vec<Value> = serde_json::from_str(&run(&mut lab.eval(&table)).prints()).unwrap();
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    // Training and table choose the same ones.
    for key in ["image_error", "feature_error"] {
        let then = column(&lab.run_dir(), &format!("eval.{key}"))[0]
            .as_f64()
            .unwrap();
        let now = number(&rows[0], key);
        assert!((now - then).abs() <= 1e-4 * then, "{key}: {now} {then}");
    }
    // So do re-encoding and nearest neighbours.
    let drift = run(&mut lab.eval(&[
        "reencode", "--runs", "run", "--images", "4", "--format", "json", "--out", "re",
    ]));
    let drift: Vec<Value> = serde_json::from_str(&drift.prints()).unwrap();
    let near = run(&mut lab.eval(&[
        "neighbors",
        "--runs",
        "run",
        "--images",
        "4",
        "--format",
        "json",
        "--out",
        "nn",
    ]));
    let near: Vec<Value> = serde_json::from_str(&near.prints()).unwrap();
    let want = number(&rows[0], "image_error");
    for (what, found) in [
        ("reencode", number(&drift[0], "image_to_original")),
        ("neighbors", number(&near[0], "image_error")),
    ] {
        assert!((found - want).abs() < 1e-3 * want, "{what}: {found} {want}");
    }
    for row in [&rows[0], &drift[0], &near[0]] {
        assert_eq!((&row["n"], &row["n_pairs_from"]), (&4.into(), &4.into()));
    }
    // The sheet of a training that is held out on many shows some of all, not the first of them.
    let sheet = image::open(lab.at("run/samples/step-000000001.png")).unwrap();
    assert_eq!(sheet.width(), 8 * 66 - 2, "eight of eight");
}

#[test]
fn runs_that_are_there_and_cannot_be_used_are_no_empty_table() {
    let lab = Lab::trained(1);
    let ran = run(&mut lab.eval(&["table2", "--runs", ".", "--images", "1"]));
    ran.refuses(&["--images 1", "at least 2"]);
    run(&mut lab.eval(&["table2", "--images", "0"])).refuses(&["--images 0"]);
    for other in ["reencode", "neighbors", "losses"] {
        run(&mut lab.eval(&[other, "--runs", "run", "--images", "1"])).refuses(&["--images 1"]);
    }
    // A folder without runs is one without runs.
    fs::create_dir(lab.at("empty")).unwrap();
    let ran = run(&mut lab.eval(&["table2", "--runs", "empty", "--format", "csv"]));
    assert_eq!(
        ran.says(&["no run in empty yet"]).prints().lines().count(),
        15
    );
    // The data of the only run is gone.
    fs::rename(lab.at("test"), lab.at("elsewhere")).unwrap();
    for format in ["json", "text"] {
        let ran = run(&mut lab.eval(&["table2", "--runs", ".", "--format", format])).exits(1);
        assert_eq!(ran.stdout, "");
        let ran = ran.says(&["run left out", "none of 1 runs could be used"]);
        assert!(
            !ran.stderr.contains("no trained runs yet"),
            "{}",
            ran.stderr
        );
    }
    // One that can be used beside one that cannot.
    let ran = run(&mut lab.eval(&["compare", "rnu"]));
    ran.refuses(&["no run at rnu", "there are: run"]);
}

/// What goes wrong once the work has begun is no mistake of the command line.
#[test]
fn exit_codes_tell_what_was_asked_from_what_went_wrong() {
    use std::process::Stdio;
    let lab = Lab::trained(1);
    let full = || {
        Stdio::from(
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    for arguments in [
        &["table1"][..],
        &["table2"],
        &["table2", "--runs", "run"],
        &["neighbors", "--runs", "run", "--out", "nn"],
        &["invert", "test/12.jpg", "--run", "run", "--out", "in"],
    ] {
        let mut command = lab.eval(arguments);
        let ran: deepsim_tests::process::Ran = command.stdout(full()).output().unwrap().into();
        ran.exits(1).says(&["standard output", "No space"]);
    }
    // A folder that is a file: found when the picture is written.
    fs::write(lab.at("file"), "").unwrap();
    run(&mut lab.eval(&["reencode", "--runs", "run", "--out", "file/x"])).exits(1);
    run(&mut lab.eval(&["table2", "--runs", "run", "--out", "file/x"])).exits(1);
    run(&mut lab.eval(&["invert", "test/12.jpg", "--run", "run", "--out", "file/x"])).exits(1);
    // An image that turns out to be damaged in the middle of the work.
    // (A folder is known by its names and sizes.)
    let photo = lab.at("test/14.jpg");
    let mut bytes = fs::read(&photo).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&photo, bytes).unwrap();
    for command in ["neighbors", "reencode"] {
        let ran = run(&mut lab.eval(&[command, "--runs", "run", "--out", "nn"]));
        ran.exits(1).says(&["14.jpg"]);
    }
    // What was asked is refused before, with 2.
    run(&mut lab.eval(&["table1", "nowhere.toml"])).refuses(&["nowhere.toml"]);
    run(&mut lab.eval(&["sample", "--runs", "run"])).refuses(&["no prior"]);
    run(&mut lab.eval(&["figure", "7", "--runs", "run", "--images", "1"])).exits(2);
}

#[test]
fn tables_of_an_experiment_take_its_file_as_it_comes() {
    let lab = Lab::new();
    let named = run(&mut lab.eval(&["table1", "tiny.toml"])).prints();
    let flagged = run(&mut lab.eval(&["table1", "--experiment", "tiny.toml"])).prints();
    assert_eq!(named, flagged);
}

/// Rows of one table stand on the same images; a record of fewer stands apart, and both say on what.
#[test]
fn rows_on_other_images_stand_in_a_table_of_their_own() {
    let lab = Lab::trained(1);
    let tiny = lab.text("tiny.toml");
    for (n, out) in [("3", "mv"), ("8", "mv8")] {
        let mv = [
            "baseline", "mv", &tiny, "--images", n, "--batch", "8", "--out", out,
        ];
        let ran = run(&mut lab.eval(&mv)).exits(0);
        ran.says(&["table2 --runs ."]);
    }
    let table = ["table2", "--runs", ".", "--format", "json"];
    let rows: Vec<Value> = serde_json::from_str(&run(&mut lab.eval(&table)).prints()).unwrap();
    let of = |run: &str| {
        let found = rows.iter().find(|r| r["run"] == format!("./{run}"));
        found.unwrap_or_else(|| panic!("no {run} in {rows:?}"))
    };
    assert_eq!(of("mv8")["image_set"], of("run")["image_set"]);
    assert_ne!(of("mv")["image_set"], of("run")["image_set"]);
    for (run, n) in [("run", 8), ("mv8", 8), ("mv", 3)] {
        let row = of(run);
        assert_eq!(
            (&row["n"], &row["n_pairs_from"]),
            (&n.into(), &n.into()),
            "{run}"
        );
    }
    assert!(of("mv")["held_out_overlap"].is_null() && of("mv")["recipe"].is_null());
    let text = run(&mut lab.eval(&["table2", "--runs", "."])).prints();
    let place = |words: &str| {
        text.find(words)
            .unwrap_or_else(|| panic!("no `{words}` in\n{text}"))
    };
    let (eight, three) = (
        place("Measured on 8 held-out images"),
        place("Measured on 3 held-out images"),
    );
    assert!(
        eight < three && three < place("stand on different images"),
        "{text}"
    );
    assert!(
        text[three..].contains("a record that has no others"),
        "{text}"
    );
    assert!(
        !text.contains("in brackets"),
        "the paper has none of these: {text}"
    );
    // A figure spreads its choice over what all of its rows have, and says why there is less.
    let few = ["figure", "4", "--runs", ".", "--out", "figures"];
    let ran = run(&mut lab.eval(&few)).exits(0);
    assert!(!ran.stderr.contains("figure 4 shows"), "{}", ran.stderr);
    fs::remove_dir_all(lab.at("mv8")).unwrap();
    run(&mut lab.eval(&few))
        .says(&[
            "figure 4 shows 3 of 8 images",
            "mv has reconstructions of no others",
        ])
        .exits(0);
    let sheet = image::open(lab.at("figures/figure4.png")).unwrap();
    assert!(sheet.width() > 3 * 64 && sheet.width() < 6 * 64);
}

/// Two runs of one method and layer share a cell: the table says which stands in it.
#[test]
fn a_cell_of_several_runs_says_which_one_it_shows() {
    let lab = Lab::new();
    for (out, steps) in [("runs/first", "1"), ("runs/second", "2")] {
        run(lab.train_into(out).args(["--steps", steps])).exits(0);
    }
    let text = run(&mut lab.eval(&["table2"])).prints();
    assert!(
        text.contains("alexnet:pool2: second, the longest trained; not first"),
        "{text}"
    );
}

/// Numbers on images that were trained on are not held-out numbers.
#[test]
fn held_out_images_that_were_trained_on_are_counted_and_named() {
    let lab = Lab::new();
    for name in ["00.jpg", "03.png"] {
        fs::copy(lab.at("train").join(name), lab.at("test").join(name)).unwrap();
    }
    let all = ["--steps", "1", "--set", "train.eval_images=12"];
    let ran = run(lab.train().args(all)).exits(0);
    let told = ran.stderr.matches("held-out images are").count();
    assert_eq!(told, 1, "once: {}", ran.stderr);
    ran.says(&["2 of 10 held-out images are also training images"]);
    assert_eq!(column(&lab.run_dir(), "eval.held_out_overlap"), [2]);
    let manifest = lab.at("run/checkpoints/step-000000001/manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["held_out_overlap"], 2);
    let json = ["table2", "--runs", "run", "--format", "json"];
    let ran = run(&mut lab.eval(&json)).says(&["2 of 10 held-out images are also training images"]);
    let rows: Vec<Value> = serde_json::from_str(&ran.prints()).unwrap();
    assert_eq!(
        (&rows[0]["held_out_overlap"], &rows[0]["split"]),
        (&2.into(), &"test".into())
    );
    let text = run(&mut lab.eval(&["table2", "--runs", "run"])).prints();
    assert!(text.contains("2 of them were trained on"), "{text}");

    // All of them: the test set is the training set.
    let same = format!("data.test=\"{}\"", lab.text("train"));
    run(lab
        .train_into("same")
        .args(["--steps", "1", "--set", &same]))
    .says(&["all 12 held-out images are training images"])
    .exits(0);
    let json = ["table2", "--runs", "same", "--format", "json"];
    let rows: Vec<Value> = serde_json::from_str(&run(&mut lab.eval(&json)).prints()).unwrap();
    assert_eq!(
        (&rows[0]["held_out_overlap"], &rows[0]["split"]),
        (&12.into(), &"train".into())
    );
    let text = run(&mut lab.eval(&["table2", "--runs", "same"])).prints();
    assert!(text.contains("Measured on 12 training images"), "{text}");
    run(&mut lab.eval(&["report", "--runs", "same", "--out", "page.html"])).exits(0);
    let page = fs::read_to_string(lab.at("page.html")).unwrap();
    assert!(page.contains("12 training images of"), "the report says so");
}

/// A program that evaluates ends when it is told to, in whatever it is doing, and leaves nothing half made.
#[test]
fn a_signal_ends_every_phase_of_an_evaluation() {
    use deepsim_tests::process::Running;
    use rustix::process::Signal;
    use std::time::{Duration, Instant};
    let lab = Lab::trained(1);
    let tiny = lab.text("tiny.toml");
    let long = ["--iterations", "1000"];
    for (phase, arguments, wait) in [
        ("loading", vec!["table2", "--runs", "run"], 0),
        ("evaluating", vec!["table2", "--runs", "run"], 60),
        (
            "optimising",
            vec!["baseline", "mv", &tiny, "--out", "mv"],
            300,
        ),
        (
            "re-encoding",
            ["reencode", "--runs", "run", "--out", "re"]
                .into_iter()
                .chain(long)
                .collect(),
            300,
        ),
    ] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut at_work = Running::start(&mut lab.eval(&arguments));
            std::thread::sleep(Duration::from_millis(wait));
            let told = Instant::now();
            at_work.tell(signal);
            let ran = at_work.ends();
            assert!(told.elapsed() < Duration::from_secs(5), "{phase}");
            assert!(ran.code.is_none_or(|code| code == 0), "{phase}: {ran:?}");
        }
    }
    let left: Vec<_> = fs::read_dir(lab.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".partial") || name == "mv")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What must be known to treat other images like a run's own is kept in the run.
#[test]
fn a_run_frames_images_alike_when_its_own_are_gone() {
    let lab = Lab::new();
    let prepare = [
        "prepare", "test", "squashed", "--resize", "squash", "--size", "96",
    ];
    run(program("deepsim-data")
        .current_dir(lab.path())
        .args(prepare))
    .exits(0);
    let set = format!("data.test=\"{}\"", lab.text("squashed"));
    run(lab.train().args(["--steps", "1", "--set", &set])).exits(0);
    photo(300, 120, 5).save(lab.at("wide.png")).unwrap();
    let invert = |out: &str, more: &[&str]| {
        let asked = ["invert", "wide.png", "--run", "run", "--out", out];
        run(lab.eval(&asked).args(more))
    };
    let pair = |out: &str| fs::read(lab.at(&format!("{out}/wide-pair.png"))).unwrap();
    invert("there", &[]).exits(0);
    fs::rename(lab.at("squashed"), lab.at("elsewhere")).unwrap();
    invert("gone", &[]).exits(0);
    assert!(
        pair("there") == pair("gone"),
        "cut otherwise without the data"
    );
    invert("other", &["--frame", "96:short-crop"]).exits(0);
    assert!(pair("there") != pair("other"), "the framing shows");

    // A run of an older program does not say it: nothing is guessed.
    let file = lab.at("run/checkpoints/step-000000001/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let fields = manifest.as_object_mut().unwrap();
    assert!(fields.remove("framing").is_some());
    fields.remove("held_out_overlap");
    fields.remove("digest");
    fields.insert("format".to_owned(), 1.into());
    fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
    invert("older", &[]).refuses(&["do not say how", "is not there", "--frame"]);
    assert!(!lab.at("older").exists());
    invert("older", &["--frame", "96:squash"]).exits(0);
    assert!(pair("there") == pair("older"), "as it was said");
    fs::rename(lab.at("elsewhere"), lab.at("squashed")).unwrap();
    invert("back", &[]).exits(0);
    assert!(pair("there") == pair("back"), "as the data does it");
    fs::remove_dir_all(lab.at("squashed")).unwrap();
    deepsim_tests::photos::folder(&lab.at("squashed"), 0, 3);
    invert("changed", &[]).refuses(&["has changed since"]);
}
