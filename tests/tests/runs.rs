//! `deepsim-eval runs`: the state of each run, told from its files alone and without touching them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use deepsim_experiment::{Experiment, Intent, RunDir};
use deepsim_nets::loss::KINDS;
use deepsim_tests::files::{self, checkpoint, contents, cut, pipe};
use deepsim_tests::process::{Running, program, root, run};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with `runs/`, into which runs of an earlier build are copied: 4 steps, of which the last is saved.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(TempDir::new().unwrap());
        fs::create_dir(place.0.path().join("runs")).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join("runs").join(name)
    }

    /// Copies a run under a name of its own.
    fn copy(&self, fixture: &str, name: &str) -> PathBuf {
        let fixtures = root().join("crates/deepsim-experiment/tests/fixtures/format-2");
        let to = self.at(name);
        files::copy(&fixtures.join(fixture), &to);
        to
    }

    /// A run that was to have more steps than it has.
    fn interrupted(&self, name: &str) -> PathBuf {
        let run = self.copy("diversity", name);
        replace(&run.join("experiment.toml"), "steps = 4", "steps = 8");
        run
    }

    /// A run of one step, which was not saved.
    fn begun(&self, name: &str) -> PathBuf {
        let run = self.copy("vaegan", name);
        fs::remove_dir_all(run.join("checkpoints")).unwrap();
        let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let first = log.lines().next().unwrap();
        fs::write(run.join("metrics.jsonl"), format!("{first}\n")).unwrap();
        run
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = program("deepsim-eval");
        command
            .current_dir(self.0.path())
            .arg("runs")
            .args(arguments.split_whitespace());
        command
    }

    /// The rows as JSON, and what was said beside them.
    #[track_caller]
    fn rows(&self, arguments: &str, code: i32) -> (Vec<Value>, String) {
        let command = &mut self.command(&format!("--format json {arguments}"));
        let ran = run(command).exits(code);
        (serde_json::from_str(&ran.stdout).unwrap(), ran.stderr)
    }
}

fn replace(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "no {old} in {}", file.display());
    fs::write(file, text.replace(old, new)).unwrap();
}

fn names(rows: &[Value]) -> Vec<&str> {
    let names = rows.iter().map(|row| row["run"].as_str().unwrap());
    names
        .map(|name| name.strip_prefix("runs/").unwrap())
        .collect()
}

#[track_caller]
fn named<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    let at = names(rows).iter().position(|n| *n == name);
    &rows[at.unwrap_or_else(|| panic!("no {name} in {rows:?}"))]
}

#[track_caller]
fn assert_state(row: &Value, state: &str, step: Option<u64>, logged: Option<u64>, of: u64) {
    assert_eq!(row["state"], state, "{row}");
    assert_eq!(row["step"], Value::from(step), "{row}");
    assert_eq!(row["logged_step"], Value::from(logged), "{row}");
    assert_eq!(row["steps"], of, "{row}");
    assert_eq!(row["reason"].is_string(), state == "damaged", "{row}");
}

#[test]
fn each_run_has_its_state_step_losses_and_size() {
    let place = Place::new();
    let finished = place.copy("inversion", "finished");
    place.interrupted("interrupted");
    place.begun("begun");
    let busy = place.interrupted("busy");
    fs::create_dir(place.at("notes")).unwrap();
    fs::write(place.at("notes/metrics.jsonl"), "{\"step\":1}\n").unwrap();
    symlink("/nowhere/run", place.at("away")).unwrap();
    let experiment = Experiment::load(&busy.join("experiment.toml"), &[]).unwrap();
    let (held, _) = RunDir::claim(&busy, &experiment, Intent::Resume).unwrap();

    let before = contents(&place.at(""));
    let (rows, said) = place.rows("", 0);
    assert_eq!(names(&rows), ["begun", "busy", "finished", "interrupted"]);
    assert!(
        said.contains("runs/away left out: a link to what is not there"),
        "{said}"
    );
    assert!(!said.contains("notes"), "{said}");
    assert_state(named(&rows, "begun"), "no_checkpoint", None, Some(1), 4);
    assert_state(named(&rows, "busy"), "running", Some(4), Some(4), 8);
    assert_state(named(&rows, "finished"), "finished", Some(4), Some(4), 4);
    assert_state(
        named(&rows, "interrupted"),
        "interrupted",
        Some(4),
        Some(4),
        8,
    );

    let row = named(&rows, "finished");
    assert_eq!(row["experiment"], "inversion");
    assert_eq!(row["method"], "deepsim");
    let bytes: usize = contents(&finished).values().map(Vec::len).sum();
    assert_eq!(row["disk_bytes"], bytes);
    assert!(row["age_seconds"].as_u64().unwrap() < 3600, "{row}");
    assert!(
        row["last_written"].as_str().unwrap().ends_with('Z'),
        "{row}"
    );
    // The last line of the log is an evaluation; losses are of the one before.
    let log = fs::read_to_string(finished.join("metrics.jsonl")).unwrap();
    let last = log
        .lines()
        .rfind(|line| line.contains("loss.feat"))
        .unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    for info in KINDS {
        let (shown, logged) = (
            &row["losses"][info.key],
            last.get(format!("loss.{}", info.key)),
        );
        assert_eq!(shown, logged.unwrap_or(&Value::Null), "{}", info.key);
    }
    assert!(
        row["losses"]["feat"].is_number() && row["losses"]["kl"].is_null(),
        "{row}"
    );
    assert!(named(&rows, "interrupted")["losses"]["diversity"].is_number());

    let text = run(&mut place.command("")).exits(0).stdout;
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    for words in ["inversion  deepsim  feat ", "diversity -0.1126"] {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
    let cells = |name: &str| -> Vec<&str> {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().collect()
    };
    assert_eq!(cells("begun")[..4], ["begun", "no", "checkpoint", "0/4"]);
    assert_eq!(cells("busy")[..3], ["busy", "running", "4/8"]);
    assert_eq!(cells("finished")[..3], ["finished", "finished", "4/4"]);
    run(&mut place.command("--format csv --out tables")).exits(0);
    let csv = fs::read_to_string(place.0.path().join("tables/runs.csv")).unwrap();
    assert!(
        csv.starts_with("run,experiment,method,state,reason,step,"),
        "{csv}"
    );
    assert!(
        csv.lines()
            .next()
            .unwrap()
            .contains("loss.feat,loss.adv,loss.img"),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 5);
    assert!(contents(&place.at("")) == before, "a run was written to");

    drop(held);
    let (rows, _) = place.rows("--runs runs/busy", 0);
    assert_eq!(rows.len(), 1);
    assert_state(&rows[0], "interrupted", Some(4), Some(4), 8);
}

#[test]
fn what_is_damaged_is_named_with_its_reason_beside_the_others() {
    let place = Place::new();
    place.copy("recorded", "whole");
    let torn = place.copy("vaegan", "torn-log");
    let log = torn.join("metrics.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, format!("{text}{{\"st\n")).unwrap();
    let file = |run: &Path| checkpoint(run, 4).join("generator.safetensors");
    cut(&file(&place.copy("inversion", "cut")), 0.5);
    fs::remove_file(file(&place.copy("inversion", "without-a-file"))).unwrap();
    let lost = place.copy("inversion", "lost");
    fs::remove_dir_all(lost.join("checkpoints")).unwrap();
    let unplugged = place.copy("inversion", "unplugged");
    fs::remove_dir_all(unplugged.join("checkpoints")).unwrap();
    symlink("/nowhere/disk", unplugged.join("checkpoints")).unwrap();
    let toml = place.copy("inversion", "toml");
    replace(&toml.join("experiment.toml"), "steps = 4", "steps = many");
    let bare = place.copy("inversion", "bare");
    fs::remove_file(bare.join("experiment.toml")).unwrap();

    // The last checkpoint of a run that was stopped before a due one.
    let unnamed = place.copy("inversion", "unnamed");
    fs::remove_file(checkpoint(&unnamed, 4).join("manifest.json")).unwrap();
    fs::remove_file(unnamed.join("metrics.jsonl")).unwrap();
    let edited = place.copy("inversion", "edited");
    let manifest = checkpoint(&edited, 4).join("manifest.json");
    replace(&manifest, "\"step\": 4", "\"step\": 9999");

    let (rows, said) = place.rows("", 1);
    assert!(said.contains("8 of 10 runs cannot be used"), "{said}");
    assert_eq!(named(&rows, "whole")["state"], "finished");
    for (name, words) in [
        ("cut", "generator.safetensors has"),
        ("without-a-file", "generator.safetensors"),
        (
            "lost",
            "checkpoints are missing: the run has reached step 4",
        ),
        ("unplugged", "is a link to /nowhere/disk"),
        ("toml", "steps"),
        ("bare", "experiment.toml is missing"),
        ("unnamed", "checkpoints are missing"),
        ("edited", "is not what its digest says"),
    ] {
        let row = named(&rows, name);
        assert_eq!(row["state"], "damaged", "{row}");
        assert!(row["reason"].as_str().unwrap().contains(words), "{row}");
        let logged = name != "unnamed";
        assert_eq!(row["losses"]["feat"].is_number(), logged, "{row}");
    }
    // A line costs no other, and no run.
    let row = named(&rows, "torn-log");
    assert_state(row, "finished", Some(4), Some(4), 4);
    assert!(row["losses"]["kl"].is_number(), "{row}");
    assert!(
        said.contains("runs/torn-log/metrics.jsonl: lines at its end"),
        "{said}"
    );

    let text = run(&mut place.command("")).exits(1).stdout;
    for words in [
        "generator.safetensors has",
        "experiment.toml is missing",
        "whole",
    ] {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
}

/// The trainer goes on from the older one, so that the run is not damaged.
#[test]
fn an_older_checkpoint_stands_for_a_damaged_newer_one() {
    let place = Place::new();
    let run = place.interrupted("run");
    let newer = checkpoint(&run, 6);
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("manifest.json"), "{").unwrap();
    let (rows, said) = place.rows("", 0);
    assert_state(&rows[0], "interrupted", Some(4), Some(4), 8);
    assert!(
        said.contains("passed over:") && said.contains("step-000000006"),
        "{said}"
    );
}

#[test]
fn without_runs_there_is_a_hint_and_a_named_folder_must_be_there() {
    let place = Place::new();
    let ran = run(&mut place.command("")).says(&["hint:", "no trained runs yet"]);
    assert_eq!(ran.prints(), "");
    let ran = run(&mut place.command("--runs runs --format json"));
    assert_eq!(ran.says(&["hint: no run in runs yet"]).prints(), "[]\n");
    fs::remove_dir(place.at("")).unwrap();
    let ran = run(&mut place.command("--format json")).says(&["hint:"]);
    assert_eq!(ran.prints(), "[]\n");
    run(&mut place.command("--runs nowhere")).refuses(&["--runs nowhere"]);
}

#[test]
fn runs_are_in_the_order_that_was_asked_for() {
    let place = Place::new();
    let age = [
        ("b-large", "inversion", 7200),
        ("c-old", "vaegan", 864_000),
        ("a-new", "recorded", 60),
    ];
    for (name, fixture, seconds) in age {
        let run = place.copy(fixture, name);
        let then = SystemTime::now() - Duration::from_secs(seconds);
        for file in [
            run.join("metrics.jsonl"),
            checkpoint(&run, 4).join("manifest.json"),
        ] {
            let file = File::options().append(true).open(file).unwrap();
            file.set_modified(then).unwrap();
        }
    }
    let order = |arguments: &str| {
        let (rows, _) = place.rows(arguments, 0);
        names(&rows).join(" ")
    };
    assert_eq!(order(""), "a-new b-large c-old");
    assert_eq!(order("--sort age"), "a-new b-large c-old");
    assert_eq!(order("--sort disk"), "b-large a-new c-old");
    let text = run(&mut place.command("")).exits(0).stdout;
    for words in [" 1 min ", " 2 h ", " 10 d "] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

/// Checkpoints on another disk are the run's; what other links lead to is not.
#[test]
fn of_links_the_one_to_checkpoints_is_followed() {
    let place = Place::new();
    let run = place.copy("vaegan", "run");
    let bytes: usize = contents(&run).values().map(Vec::len).sum();
    let disk = place.0.path().join("disk");
    fs::rename(run.join("checkpoints"), &disk).unwrap();
    symlink(&disk, run.join("checkpoints")).unwrap();
    fs::create_dir(place.0.path().join("pictures")).unwrap();
    fs::write(place.0.path().join("pictures/large"), vec![0; 1 << 20]).unwrap();
    symlink(place.0.path().join("pictures"), run.join("samples")).unwrap();
    symlink(
        place.0.path().join("pictures/large"),
        run.join("tensorboard"),
    )
    .unwrap();
    let (rows, _) = place.rows("", 0);
    assert_state(&rows[0], "finished", Some(4), Some(4), 4);
    assert_eq!(rows[0]["disk_bytes"], bytes);
}

#[test]
fn a_pipe_or_a_device_is_not_waited_for() {
    for name in [
        "lock",
        "metrics.jsonl",
        "experiment.toml",
        "checkpoints",
        "manifest.json",
    ] {
        for device in [false, true] {
            let place = Place::new();
            let run = place.copy("vaegan", "run");
            let file = match name {
                "manifest.json" => checkpoint(&run, 4).join(name),
                _ => run.join(name),
            };
            let _ = fs::remove_file(&file);
            let _ = fs::remove_dir_all(&file);
            if device {
                symlink("/dev/zero", &file).unwrap();
            } else {
                pipe(&file);
            }
            let mut command = place.command("--format json");
            let ran = Running::start(&mut command).ends_soon(name);
            let spared = ["lock", "metrics.jsonl"].contains(&name);
            let ran = ran.exits(i32::from(!spared));
            let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
            let wanted = if spared { "finished" } else { "damaged" };
            assert_eq!(rows[0]["state"], wanted, "{name}: {}", ran.stderr);
        }
    }
}

#[test]
fn names_reach_a_terminal_without_control_characters() {
    let place = Place::new();
    let run_dir = place.copy("inversion", "odd\u{1b}[31m\nname");
    let log = run_dir.join("metrics.jsonl");
    let line = "{\"step\":4,\"loss.feat\":1,\"loss.feat.x\\u001b[2J\\ny\":2}\n";
    fs::write(&log, line).unwrap();
    for format in ["text", "json"] {
        let ran = run(&mut place.command(&format!("--format {format}"))).exits(0);
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
        assert!(ran.stdout.contains("odd"), "{}", ran.stdout);
    }
    let (rows, _) = place.rows("", 0);
    assert_eq!(rows[0]["run"], "runs/odd\u{1b}[31m\nname");
    assert_eq!(rows[0]["losses"]["feat.x\u{1b}[2J\ny"], 2.0);
}
