//! Numbers of all commands are of the same images, and what could not be measured is no number.

use std::fs;

use deepsim_tests::files::{column, manifest, names};
use deepsim_tests::lab::Lab;
use deepsim_tests::photos::photo;
use deepsim_tests::process::{Ran, Running, run};
use serde_json::Value;

/// Held-out images that are first in the order of names are of one kind; the first four of these are one image.
#[test]
fn images_of_every_number_are_spread_over_the_set() {
    let lab = Lab::new();
    let test = lab.at("test");
    let names = names(&test);
    let first = image::open(test.join(&names[0])).unwrap();
    for (i, name) in names[..4].iter().enumerate() {
        fs::remove_file(test.join(name)).unwrap();
        first.save(test.join(format!("{i:02}.png"))).unwrap();
    }
    let ran = lab.train("--set train.eval_images=4 --steps 1").exits(0);
    assert!(!ran.stderr.contains("no held-out error"), "{}", ran.stderr);
    let rows = lab.rows("table2 --runs run --images 4");
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
    let drift = lab.rows("reencode --runs run --images 4 --out re");
    let near = lab.rows("neighbors --runs run --images 4 --out nn");
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
    lab.eval("table2 --runs . --images 1")
        .refuses(&["--images 1", "at least 2"]);
    lab.eval("table2 --images 0").refuses(&["--images 0"]);
    for other in ["reencode", "neighbors", "losses"] {
        lab.eval(&format!("{other} --runs run --images 1"))
            .refuses(&["--images 1"]);
    }
    // A folder without runs is one without runs.
    fs::create_dir(lab.at("empty")).unwrap();
    let ran = lab.eval("table2 --runs empty --format csv");
    assert_eq!(
        ran.says(&["no run in empty yet"]).prints().lines().count(),
        15
    );
    // The data of the only run is gone.
    fs::rename(lab.at("test"), lab.at("elsewhere")).unwrap();
    for format in ["json", "text"] {
        let ran = lab
            .eval(&format!("table2 --runs . --format {format}"))
            .exits(1);
        assert_eq!(ran.stdout, "");
        let ran = ran.says(&["run left out", "none of 1 runs could be used"]);
        assert!(
            !ran.stderr.contains("no trained runs yet"),
            "{}",
            ran.stderr
        );
    }
    // One that can be used beside one that cannot.
    lab.eval("compare rnu")
        .refuses(&["no run at rnu", "there are: run"]);
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
        "table1",
        "table2",
        "table2 --runs run",
        "neighbors --runs run --out nn",
        "invert test/12.jpg --run run --out in",
    ] {
        let mut command = lab.command("deepsim-eval", arguments);
        let ran: Ran = command.stdout(full()).output().unwrap().into();
        ran.exits(1).says(&["standard output", "No space"]);
    }
    // A folder that is a file: found when the image is written.
    fs::write(lab.at("file"), "").unwrap();
    lab.eval("reencode --runs run --out file/x").exits(1);
    lab.eval("table2 --runs run --out file/x").exits(1);
    lab.eval("invert test/12.jpg --run run --out file/x")
        .exits(1);
    // An image that turns out to be damaged in the middle of the work.
    // (A folder is known by its names and sizes.)
    let photo = lab.at("test/14.jpg");
    let mut bytes = fs::read(&photo).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&photo, bytes).unwrap();
    for command in ["neighbors", "reencode"] {
        lab.eval(&format!("{command} --runs run --out nn"))
            .exits(1)
            .says(&["14.jpg"]);
    }
    // What was asked is refused before, with 2.
    lab.eval("table1 nowhere.toml").refuses(&["nowhere.toml"]);
    lab.eval("sample --runs run").refuses(&["no prior"]);
    lab.eval("figure 7 --runs run --images 1").exits(2);
}

#[test]
fn tables_of_an_experiment_take_its_file_as_it_comes() {
    let lab = Lab::new();
    let named = lab.eval("table1 tiny.toml").prints();
    let flagged = lab.eval("table1 --experiment tiny.toml").prints();
    assert_eq!(named, flagged);
}

/// Rows of one table stand on the same images; a record of fewer stands apart, and both say on what.
#[test]
fn rows_on_other_images_stand_in_a_table_of_their_own() {
    let lab = Lab::trained(1);
    for (n, out) in [("3", "mv"), ("8", "mv8")] {
        let mv = format!("baseline mv tiny.toml --images {n} --batch 8 --out {out}");
        lab.eval(&mv).exits(0).says(&["table2 --runs ."]);
    }
    let rows = lab.rows("table2 --runs .");
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
    let text = lab.eval("table2 --runs .").prints();
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
    let few = "figure 4 --runs . --out figures";
    let ran = lab.eval(few).exits(0);
    assert!(!ran.stderr.contains("figure 4 shows"), "{}", ran.stderr);
    fs::remove_dir_all(lab.at("mv8")).unwrap();
    lab.eval(few)
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
        lab.train_into(out, &format!("--steps {steps}")).exits(0);
    }
    let text = lab.eval("table2").prints();
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
    let ran = lab.train("--steps 1 --set train.eval_images=12").exits(0);
    let told = ran.stderr.matches("held-out images are").count();
    assert_eq!(told, 1, "once: {}", ran.stderr);
    ran.says(&["2 of 10 held-out images are also training images"]);
    assert_eq!(column(&lab.run_dir(), "eval.held_out_overlap"), [2]);
    assert_eq!(manifest(&lab.run_dir(), 1)["held_out_overlap"], 2);
    let ran = lab
        .eval("table2 --runs run --format json")
        .says(&["2 of 10 held-out images are also training images"]);
    let rows: Vec<Value> = serde_json::from_str(&ran.prints()).unwrap();
    assert_eq!(
        (&rows[0]["held_out_overlap"], &rows[0]["split"]),
        (&2.into(), &"test".into())
    );
    let text = lab.eval("table2 --runs run").prints();
    assert!(text.contains("2 of them were trained on"), "{text}");

    // All of them: the test set is the training set.
    let same = format!("--steps 1 --set data.test=\"{}\"", lab.text("train"));
    lab.train_into("same", &same)
        .says(&["all 12 held-out images are training images"])
        .exits(0);
    let rows = lab.rows("table2 --runs same");
    assert_eq!(
        (&rows[0]["held_out_overlap"], &rows[0]["split"]),
        (&12.into(), &"train".into())
    );
    let text = lab.eval("table2 --runs same").prints();
    assert!(text.contains("Measured on 12 training images"), "{text}");
    lab.eval("report --runs same --out page.html").exits(0);
    let page = fs::read_to_string(lab.at("page.html")).unwrap();
    assert!(page.contains("12 training images of"), "the report says so");
}

/// A program that evaluates ends when it is told to, in whatever it is doing, and leaves nothing half made.
#[test]
fn a_signal_ends_every_phase_of_an_evaluation() {
    use rustix::process::Signal;
    use std::time::{Duration, Instant};
    let lab = Lab::trained(1);
    let many = "--out re --iterations 1000";
    for (phase, arguments, wait) in [
        ("loading", "table2 --runs run", 0),
        ("evaluating", "table2 --runs run", 60),
        ("optimising", "baseline mv tiny.toml --out mv", 300),
        ("re-encoding", &format!("reencode --runs run {many}"), 300),
    ] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut at_work = Running::start(&mut lab.command("deepsim-eval", arguments));
            std::thread::sleep(Duration::from_millis(wait));
            let told = Instant::now();
            at_work.tell(signal);
            let ran = at_work.ends();
            assert!(told.elapsed() < Duration::from_secs(5), "{phase}");
            assert!(ran.code.is_none_or(|code| code == 0), "{phase}: {ran:?}");
        }
    }
    let left: Vec<_> = names(lab.path())
        .into_iter()
        .filter(|name| name.starts_with(".partial") || name == "mv")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What must be known to treat other images like a run's own is kept in the run.
#[test]
fn a_run_frames_images_alike_when_its_own_are_gone() {
    let lab = Lab::new();
    let prepare = "prepare test squashed --resize squash --size 96";
    run(&mut lab.command("deepsim-data", prepare)).exits(0);
    let set = format!("--set data.test=\"{}\"", lab.text("squashed"));
    lab.train(&format!("--steps 1 {set}")).exits(0);
    photo(300, 120, 5).save(lab.at("wide.png")).unwrap();
    let invert =
        |out: &str, more: &str| lab.eval(&format!("invert wide.png --run run --out {out} {more}"));
    let pair = |out: &str| fs::read(lab.at(&format!("{out}/wide-pair.png"))).unwrap();
    invert("there", "").exits(0);
    fs::rename(lab.at("squashed"), lab.at("elsewhere")).unwrap();
    invert("gone", "").exits(0);
    assert!(
        pair("there") == pair("gone"),
        "cut otherwise without the data"
    );
    invert("other", "--frame 96:short-crop").exits(0);
    assert!(pair("there") != pair("other"), "the framing shows");

    // A run of an older program does not say it: nothing is guessed.
    let file = lab.at("run/checkpoints/step-000000001/manifest.json");
    let mut manifest = manifest(&lab.run_dir(), 1);
    let fields = manifest.as_object_mut().unwrap();
    assert!(fields.remove("framing").is_some());
    fields.remove("held_out_overlap");
    fields.remove("digest");
    fields.insert("format".to_owned(), 1.into());
    fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
    invert("older", "").refuses(&["do not say how", "is not there", "--frame"]);
    assert!(!lab.at("older").exists());
    invert("older", "--frame 96:squash").exits(0);
    assert!(pair("there") == pair("older"), "as it was said");
    fs::rename(lab.at("elsewhere"), lab.at("squashed")).unwrap();
    invert("back", "").exits(0);
    assert!(pair("there") == pair("back"), "as the data does it");
    fs::remove_dir_all(lab.at("squashed")).unwrap();
    deepsim_tests::photos::folder(&lab.at("squashed"), 0, 3);
    invert("changed", "").refuses(&["has changed since"]);
}
