//! The program on its own, without any run. (What needs a trained run is in the workspace's
//! `tests/`, which finds this program because a test of its own package makes cargo build it.)

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt as _;
use predicates::str::contains;

fn eval(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deepsim-eval"));
    command.current_dir(folder);
    command
}

#[test]
fn without_runs_the_paper_s_rows_and_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    eval(folder.path())
        .args(["table2", "--format", "csv"])
        .assert()
        .success()
        .stdout(contains("deepsim,fc6,caffenet:pool5,,,"))
        .stderr(contains("cargo xtask quickstart"));
}

#[test]
fn runs_that_are_not_there_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    eval(folder.path())
        .args(["table2", "--runs", "nowhere"])
        .assert()
        .code(2)
        .stdout("")
        .stderr(contains("nowhere").and(contains("--runs")));
    eval(folder.path())
        .args(["compare", "nowhere"])
        .assert()
        .code(2)
        .stderr(contains("nowhere"));
}
