//! What a user sees of the lab's commands.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;

use deepsim_tools::testing::{help_fits, stand_in, workspace};

fn lab(ws: &Path, path: &Path) -> Command {
    let mut command = Command::cargo_bin("deepsim-lab").unwrap();
    command.arg("--root").arg(ws).env("PATH", path);
    command
}

#[test]
fn wrong_words_are_refused() {
    let ((ws, _), empty) = (workspace(), tempfile::tempdir().unwrap());
    let refused = |args: &[&str], complaint: &str| {
        lab(ws.path(), empty.path())
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(complaint));
    };
    refused(
        &["reproduce", "--only", "fc9"],
        "there are quickstart, sample-pool5",
    );
    refused(
        &["reproduce", "--only", "quickstart,sample-pol5"],
        "--only sample-pol5: no such experiment",
    );
    refused(&["reproduce", "--only", ""], "no such experiment");
    refused(&["bench", "--device", "gpu"], "give cpu, cuda or cuda:N");
    refused(&["precision", "--steps", "1"], "1 is not in 2..=1000000");
    refused(&["precision", "--seeds", "0"], "0 is not in 1..=20");
    refused(
        &["goldens", "--check", "none.json", "--only", "vea"],
        "no case `vea`",
    );
    refused(&["goldens", "--check", "none.json"], "none.json");
    refused(&["goldens"], "--record");
    refused(&["grow", "--only", "size"], "invalid value 'size'");
    refused(&["grow", "--limit", "0"], "0 is not in 1..=86400");
    refused(
        &["grow", "--only", "crop", "--fresh"],
        "cannot be used with",
    );
    refused(&["dist", "--only", "links"], "invalid value 'links'");
    refused(&["losses", "outpainting"], "no such task");
    refused(
        &["losses", "inversion", "--only", "l1,l3"],
        "--only l3: no such objective",
    );
    // Weights are tried on the validation photos alone.
    refused(
        &["losses", "inversion", "--set", "loss.img=1"],
        "--validation",
    );
}

#[test]
fn help_is_not_wrapped_at_80_columns() {
    let commands = [
        "goldens",
        "reproduce",
        "precision",
        "losses",
        "soak",
        "kills",
        "rank-kills",
        "fuzz",
        "asan",
        "deny",
        "memory",
        "bench",
        "grow",
        "dist",
    ];
    help_fits(env!("CARGO_BIN_EXE_deepsim-lab"), &commands);
}

#[test]
fn runs_of_objectives_are_listed_as_commands_and_nothing_is_made() {
    let ((ws, _), empty) = (workspace(), tempfile::tempdir().unwrap());
    let list = "losses inversion --list --seeds 2 --only l1-hinge --minutes-each 2";
    lab(ws.path(), empty.path())
        .args(list.split(' '))
        .assert()
        .success()
        .stdout(
            contains("--out runs/losses-inversion-120s/l1-hinge-seed2")
                .and(contains("--set adversary.loss=hinge").count(2)),
        );
    assert!(!ws.path().join("runs").exists());
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                all.push((entry.path(), fs::read(entry.path()).unwrap()));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn reproduce_check_prints_recorded_beside_here_and_writes_nothing() {
    let ((ws, _), bin) = (workspace(), tempfile::tempdir().unwrap());
    let put = |file: &str, text: &str| {
        let path = ws.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let row = |image: f64| {
        format!(
            r#"[{{"run": "runs/quickstart", "image_error": {image}, "feature_error": 57.1, "gradient_energy": 0.93}}]"#
        )
    };
    put("experiments/quickstart.toml", "name = \"quickstart\"\n");
    let record = format!(
        r#"{{"name": "quickstart", "command": "", "seconds": 443.0, "commit": null, "step": 1950, "hashes": {{}}, "metrics": {}}}"#,
        row(39.4)
    );
    put("docs/results/quickstart.json", &record);
    put(
        "docs/reproduction.md",
        "<!-- begin generated: runs -->\nold\n<!-- end generated -->\n",
    );
    let built = format!(
        r#"echo '{{"target":{{"name":"deepsim-eval"}},"executable":"{}/deepsim-eval"}}'"#,
        bin.path().display()
    );
    stand_in(bin.path(), "cargo", &built);
    let check = |here: f64| {
        stand_in(bin.path(), "deepsim-eval", &format!("echo '{}'", row(here)));
        let before = contents(ws.path());
        let mut command = lab(ws.path(), bin.path());
        command
            .args(["reproduce", "--check"])
            .env("CARGO", bin.path().join("cargo"));
        let done = command.assert();
        assert_eq!(contents(ws.path()), before);
        done
    };
    // No run, then a run that is not finished: nothing to compare.
    check(39.4)
        .code(2)
        .stderr(contains("cargo xtask quickstart"));
    put(
        "runs/quickstart/checkpoints/step-000000900/manifest.json",
        r#"{"step": 900}"#,
    );
    check(39.4).code(2).stderr(contains("at step 900 of 1950"));
    put(
        "runs/quickstart/checkpoints/step-000001950/manifest.json",
        r#"{"step": 1950}"#,
    );
    // As another processor trains it.
    check(38.3)
        .success()
        .stdout(contains("39.4").and(contains("38.3")).and(contains("-1.1")));
    check(50.0)
        .code(1)
        .stdout(contains("<- beyond"))
        .stderr(contains("further from the record than allowed: quickstart"));
    // On other photos it may be anything.
    let hashes = |of: &str| format!(r#"{{"test_data": "{}"}}"#, of.repeat(64));
    let named = format!(r#""hashes": {}"#, hashes("a"));
    put(
        "docs/results/quickstart.json",
        &record.replace(r#""hashes": {}"#, &named),
    );
    put(
        "runs/quickstart/checkpoints/step-000001950/manifest.json",
        &hashes("b").replace('{', r#"{"step": 1950, "#),
    );
    check(50.0)
        .success()
        .stdout(
            contains("quickstart: not held against the record: other photos\n")
                .and(contains("beyond").not()),
        )
        .stderr(contains("not the record's test data"));
}
