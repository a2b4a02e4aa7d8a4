//! What happens around a run while it trains, and must not cost it anything: readers that go away, wishes that arrive
//! twice, images that turn out to be damaged, files that are hidden or too many.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use deepsim_experiment::Checkpoint;
use deepsim_tests::files::{
    self, checkpoint_steps, column, contents, losses, names, steps_logged, tensors,
};
use deepsim_tests::lab::{ENDLESS, Lab, TRAIN};
use deepsim_tests::process::{Ran, Running, program, run, run_by};
use rustix::process::Signal;

/// `2>&1 | tee log` whose tee has ended, a terminal that was closed, a log on a full disk.
#[test]
fn a_run_that_nobody_listens_to_goes_on_and_saves() {
    let lab = Lab::new();
    let mut at_work = lab.start(ENDLESS);
    at_work.until(|| steps_logged(&lab.run_dir()) > 1);
    at_work.deafen();
    let heard = steps_logged(&lab.run_dir());
    at_work.until(|| steps_logged(&lab.run_dir()) > heard + 3);
    at_work.signal(Signal::TERM).exits(143);
    let saved = *checkpoint_steps(&lab.run_dir()).last().unwrap();
    assert_eq!(saved, steps_logged(&lab.run_dir()));
    Checkpoint::open(&files::checkpoint(&lab.run_dir(), saved)).unwrap();
}

/// `timeout` tells the process and then its group; a script may pass a Ctrl-C on that the terminal has sent to all.
#[test]
fn one_wish_that_arrives_as_two_signals_saves() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let lab = Lab::new();
        let mut at_work = lab.start(ENDLESS);
        at_work.until(|| steps_logged(&lab.run_dir()) > 1);
        at_work.tell(first);
        std::thread::sleep(Duration::from_millis(2));
        // It may have ended between the two.
        at_work.tell(second);
        let ran = at_work.ends().says(&["saved step"]);
        assert!(matches!(ran.code, Some(130 | 143)), "{:?}", ran.code);
        assert_eq!(checkpoint_steps(&lab.run_dir()).len(), 1);
    }
}

#[test]
fn a_closed_terminal_saves_unless_the_user_asked_otherwise() {
    let lab = Lab::new();
    let mut at_work = lab.start(ENDLESS);
    at_work.until(|| steps_logged(&lab.run_dir()) > 1);
    at_work.signal(Signal::HUP).exits(129).says(&["saved step"]);

    let plain = lab.train_command("run", ENDLESS);
    let mut immune = run_by(Command::new("nohup"), &plain);
    let mut at_work = Running::start(&mut immune);
    let before = steps_logged(&lab.run_dir());
    at_work.until(|| steps_logged(&lab.run_dir()) > before + 1);
    at_work.tell(Signal::HUP);
    let before = steps_logged(&lab.run_dir());
    at_work.until(|| steps_logged(&lab.run_dir()) > before + 3);
    at_work.signal(Signal::TERM).exits(143);
}

/// Not at the first evaluation, hours later and then at each resume: before anything is deleted.
#[test]
fn a_damaged_held_out_image_is_found_before_the_run_begins() {
    let lab = Lab::trained(2);
    let photo = lab.at("test").join(format!("{TRAIN}.jpg"));
    files::cut(&photo, 0.6);
    let before = contents(&lab.run_dir());
    lab.train("--fresh").refuses(&[photo.to_str().unwrap()]);
    assert_eq!(contents(&lab.run_dir()), before);
}

/// Where all held-out images are alike there is nothing to measure errors by, and nothing wrong with the training.
#[test]
fn held_out_images_that_are_all_alike_end_no_run() {
    let lab = Lab::new();
    let test = lab.at("test");
    let photos = names(&test);
    let bytes = fs::read(test.join(&photos[0])).unwrap();
    for photo in &photos {
        fs::write(test.join(photo), &bytes).unwrap();
    }
    lab.train("--steps 4 --set train.eval_every=2")
        .exits(0)
        .says(&["no held-out error", "all the same"]);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2, 4]);
}

/// The budget of the quarantine is the run's, and what is logged of the steps between two lines does not depend on where
/// it was cut.
#[test]
fn what_is_reported_does_not_depend_on_where_a_run_was_cut() {
    let lab = Lab::new();
    files::cut(&lab.at("train/00.jpg"), 0.6);
    let sets = "--set data.quarantine=1 --set train.log_every=3 --set train.checkpoint_every=1";
    let nine = format!("{sets} --steps 9 --resume");
    lab.train_into("whole", &nine).exits(0);
    // Between two lines, twice; right after one.
    for at in ["parent-synced@4", "parent-synced@5", "parent-synced@6"] {
        lab.crash("cut", &nine, at);
    }
    lab.train_into("cut", &nine).exits(0);
    let (whole, cut) = (lab.at("whole"), lab.at("cut"));
    assert_eq!(tensors(&cut, 9), tensors(&whole, 9));
    assert_eq!(losses(&cut), losses(&whole));
    assert_eq!(column(&whole, "data.quarantined"), [1, 1, 1]);
}

/// A file system that cannot exchange two names hides both for a moment.
#[test]
fn a_whole_checkpoint_that_was_being_replaced_comes_back() {
    let lab = Lab::trained(4);
    let checkpoints = lab.run_dir().join("checkpoints");
    lab.train("--steps 6 --resume --set train.keep_checkpoints=1")
        .exits(0);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [6]);
    let hidden = checkpoints.join(".partial-step-000000006-x.replaced");
    fs::rename(files::checkpoint(&lab.run_dir(), 6), &hidden).unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    let half = checkpoints.join(".partial-step-000000006-x");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("generator.safetensors"), "half").unwrap();
    lab.train("--steps 8 --resume")
        .says(&["resumed at step 6"])
        .exits(0);
    assert!(!hidden.exists() && !half.exists());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let back = files::checkpoint(&lab.run_dir(), 6);
    assert_eq!(mode(&back), mode(&checkpoints), "readable as any other");
}

/// A gradient that is finite and whose square is not would leave its weights standing still for good.
#[test]
fn a_gradient_too_large_to_square_stops_the_run() {
    let lab = Lab::new();
    lab.train("--set loss.img=1e22")
        .exits(1)
        .says(&["step 1: the generator's gradient is"]);
    assert!(checkpoint_steps(&lab.run_dir()).is_empty());
}

/// Nothing in it that a terminal obeys, but line ends.
#[track_caller]
fn shows(ran: &Ran, words: &[&str]) {
    for text in [&ran.stdout, &ran.stderr] {
        let obeyed = |c: char| deepsim_data::terminal::is_obeyed(c) && c != '\n';
        assert!(!text.contains(obeyed), "{text:?}");
    }
    let both = format!("{}{}", ran.stdout, ran.stderr);
    assert!(words.iter().all(|w| both.contains(w)), "{both}");
}

#[test]
fn text_from_files_reaches_a_terminal_escaped() {
    let lab = Lab::trained(1);
    let name = "n\u{1b}]0;title\u{7}\nFAKE\u{202e}\u{9b}m";
    let escaped = "n\\u{1b}]0;title\\u{7}\\nFAKE\\u{202e}\\u{9b}m";
    // A folder, a file, an argument of any program.
    let eval = |arguments: &str, last: &str| {
        run(lab.command("deepsim-eval", arguments).arg(last)).exits(2)
    };
    shows(&eval("invert a.jpg --run", name), &[escaped]);
    shows(&eval("invert --run run --", name), &["n\\u{1b}"]);
    shows(&eval("", &format!("--{name}")), &["n\\u{1b}"]);
    let mut trained = program("deepsim-train");
    shows(&run(trained.arg(name)).exits(2), &[escaped]);
    let mut import = program("deepsim-weights");
    let import = import.args(["import", "torchvision", name, "out"]);
    shows(&run(import).exits(2), &[escaped]);
    let mut inspected = program("deepsim-data");
    shows(
        &run(inspected.args(["inspect", name])).exits(2),
        &["n\\u{1b}"],
    );
    // A key of a tensor, and the file's own text.
    let key = "k\u{1b}[2J\nFAKE";
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]);
    let bytes = safetensors::serialize([(key, view.unwrap())], None).unwrap();
    fs::write(lab.at("in.safetensors"), bytes).unwrap();
    let forward = "forward tiny.toml --net encoder --output y --input";
    let ran = lab.eval(&format!("{forward} in.safetensors")).exits(2);
    shows(&ran, &["k\\u{1b}[2J\\nFAKE"]);
    // A run's name in a table of text; JSON keeps it as data.
    fs::create_dir(lab.at("runs")).unwrap();
    fs::rename(lab.run_dir(), lab.at("runs").join(name)).unwrap();
    let table = |format: &str| lab.eval(&format!("table2 --runs runs --format {format}"));
    shows(&table("text").exits(0), &[]);
    let json = table("json").exits(0);
    shows(&json, &[]);
    let rows: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let run_of = |row: &serde_json::Value| row["run"].as_str().map(str::to_owned);
    let runs: Vec<String> = rows.as_array().unwrap().iter().filter_map(run_of).collect();
    assert_eq!(runs, [format!("runs/{name}")]);
}

#[test]
fn the_umask_decides_who_may_read_results() {
    let lab = Lab::new();
    let table = lab.command("deepsim-eval", "table1 --out tables");
    let mut shell = Command::new("bash");
    shell.args(["-c", "umask 027; exec \"$0\" \"$@\""]);
    let mut shell = run_by(shell, &table);
    run(&mut shell).exits(0);
    let mode = |name: &str| fs::metadata(lab.at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("tables/table1.txt"), 0o640);
    assert_eq!(mode("tables"), 0o750);
}

/// Results that nobody reads to their end (`| head`).
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut command = program("deepsim-eval");
    let mut at_work = Running::start(command.arg("table1"));
    at_work.deafen();
    at_work.ends().exits(0);
}
