//! Runs of earlier builds are gone on with and evaluated as by the build that wrote them: those of earlier checkpoint
//! formats, and those with networks that their loss does not use. The `make.py` of each folder of
//! `crates/deepsim-experiment/tests/fixtures` says how its runs were made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::path::Path;

use deepsim_tests::files::{checkpoint, copy, manifest, metrics, tensors};
use deepsim_tests::process::{Ran, program, root, run};
use serde_json::Value;
use tempfile::TempDir;

const RUNS: [&str; 4] = ["inversion", "vaegan", "recorded", "diversity"];
/// Losses after a few steps differ between processors by the order of their sums.
const TOLERANCE: f64 = 1e-3;

/// Copies a folder of fixtures.
fn unpack(name: &str, to: &Path) {
    let fixtures = root().join("crates/deepsim-experiment/tests/fixtures");
    copy(&fixtures.join(name), to);
}

/// A copy of the runs of format 2 and of all that they need.
fn unpacked() -> TempDir {
    let to = TempDir::new().unwrap();
    unpack("format-2", to.path());
    to
}

/// Makes a run's checkpoint one of format 1, which had no digest of its manifest and fewer counters and keys.
fn to_format_1(run: &Path) {
    let file = checkpoint(run, 4).join("manifest.json");
    let mut manifest = manifest(run, 4);
    let fields = manifest.as_object_mut().unwrap();
    assert_eq!(fields["format"], 2);
    fields.remove("digest").unwrap();
    fields["format"] = 1.into();
    fs::write(&file, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    let file = run.join("experiment.toml");
    let text = fs::read_to_string(&file).unwrap();
    let later = [
        "tf32",
        "deterministic",
        "discriminator_passes",
        "not_finite",
        "quarantine",
    ];
    let older: String = text
        .lines()
        .filter(|line| !later.iter().any(|key| line.starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(text.lines().count(), older.lines().count() + later.len());
    fs::write(&file, older).unwrap();
}

fn in_folder(name: &str, folder: &Path, arguments: &str) -> Ran {
    let mut command = program(name);
    command
        .current_dir(folder)
        .args(arguments.split_whitespace());
    run(&mut command)
}

fn expected(folder: &Path, name: &str) -> Value {
    let text = fs::read(folder.join("expected.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()[name].take()
}

#[track_caller]
fn assert_alike(found: &Value, wanted: &Value, what: &str) {
    for (key, wanted) in wanted.as_object().unwrap() {
        let found = &found[key];
        let same = match (found.as_f64(), wanted.as_f64()) {
            (Some(found), Some(wanted)) => {
                found.is_finite() && (found - wanted).abs() <= TOLERANCE * wanted.abs()
            }
            _ => found == wanted,
        };
        assert!(same, "{what}: {key} is {found}, was {wanted}");
    }
}

fn evaluates_and_goes_on(folder: &Path, name: &str) {
    let expected = expected(folder, name);
    let table = format!("table2 --runs {name} --format json");
    let rows = in_folder("deepsim-eval", folder, &table).prints();
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["run"].is_string());
    assert_alike(
        row.expect("the run is in the table"),
        &expected["table2"],
        name,
    );

    let on = format!("{name}.toml --out {name} --resume --steps 8");
    in_folder("deepsim-train", folder, &on)
        .says(&["resumed at step 4 of 8"])
        .exits(0);
    let lines = metrics(&folder.join(name));
    let later: Vec<&Value> = lines
        .iter()
        .filter(|l| l["step"].as_u64() > Some(4))
        .collect();
    let wanted = expected["losses"].as_array().unwrap();
    assert_eq!(later.len(), wanted.len(), "{name}");
    for (found, wanted) in later.into_iter().zip(wanted) {
        assert_alike(found, wanted, &format!("{name}, step {}", wanted["step"]));
    }
    // And what it writes is this build's own.
    in_folder("deepsim-eval", folder, &table).exits(0);
}

#[test]
fn runs_of_format_2_are_evaluated_and_gone_on_with_as_by_their_own_build() {
    let folder = unpacked();
    for name in RUNS {
        evaluates_and_goes_on(folder.path(), name);
    }
    let sample = "sample --runs vaegan --count 4 --out samples";
    in_folder("deepsim-eval", folder.path(), sample).exits(0);
}

#[test]
fn runs_of_format_1_are_evaluated_and_gone_on_with() {
    let folder = unpacked();
    for name in RUNS {
        to_format_1(&folder.path().join(name));
        evaluates_and_goes_on(folder.path(), name);
    }
}

/// Formats 1 and 2 say nothing of the experiment: the file beside the checkpoints does.
#[test]
fn a_run_of_format_2_binds_by_its_experiment_file() {
    let folder = unpacked();
    let on = "inversion.toml --out inversion --resume --steps 8";
    for (set, words) in [
        ("train.seed=2", "train.seed: there 1, here 2"),
        (
            "train.discriminator_passes=one",
            "train.discriminator_passes: there \"paper\", here \"one\"",
        ),
    ] {
        in_folder("deepsim-train", folder.path(), &format!("{on} --set {set}")).refuses(&[words]);
    }
    fs::remove_file(folder.path().join("inversion/experiment.toml")).unwrap();
    in_folder("deepsim-train", folder.path(), on)
        .refuses(&["experiment.toml is missing", "--fresh"]);
}

/// Builds once made every network that the file describes, and kept a discriminator that no adversarial term asked.
#[test]
fn runs_with_networks_that_their_loss_does_not_use_are_evaluated_and_gone_on_with() {
    let folder = TempDir::new().unwrap();
    unpack("format-2/images", &folder.path().join("images"));
    unpack("unused-networks", folder.path());
    let manifest = |name: &str, step: u64| -> Value {
        let file = checkpoint(&folder.path().join(name), step).join("manifest.json");
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    };
    let files = |name: &str, step: u64| -> Vec<&'static str> {
        tensors(&folder.path().join(name), step)
            .into_keys()
            .collect()
    };
    let all = ["discriminator", "generator", "state"];
    for name in ["no-adversary", "no-features"] {
        let before = manifest(name, 4);
        assert_eq!(files(name, 4), all, "{name}");
        assert!(before["discriminator"].is_object(), "{name}");
        assert_ne!(before["comparator_weights"], "", "{name}");
        evaluates_and_goes_on(folder.path(), name);
    }
    let report = "report --runs . --out page.html --images 4";
    in_folder("deepsim-eval", folder.path(), report).exits(0);
    // What goes on is without them.
    assert_eq!(files("no-adversary", 8), ["generator", "state"]);
    assert_eq!(files("no-features", 8), all);
    assert_eq!(manifest("no-features", 8)["comparator_weights"], "");
    for name in ["no-adversary", "no-features"] {
        let on = format!("{name}.toml --out {name} --resume --steps 10");
        in_folder("deepsim-train", folder.path(), &on)
            .says(&["resumed at step 8 of 10"])
            .exits(0);
    }
}
