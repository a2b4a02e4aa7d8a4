//! The program, and what it leaves behind.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use deepsim_data::Dataset;
use tempfile::TempDir;

/// The program's command; `arguments` as they are typed, without a space in one.
pub fn deepsim_data(root: &TempDir, arguments: &str) -> Command {
    let mut command = Command::cargo_bin("deepsim-data").unwrap();
    command.current_dir(root).args(arguments.split_whitespace());
    command
}

/// The program, run to its end.
pub fn run(root: &TempDir, arguments: &str) -> Assert {
    deepsim_data(root, arguments).assert()
}

pub fn prepare(root: &TempDir, arguments: &str) -> Assert {
    run(root, &format!("prepare {arguments}"))
}

pub fn open(root: &TempDir, set: &str) -> Dataset {
    Dataset::open(&root.path().join(set)).unwrap()
}

pub fn names(data: &Dataset) -> Vec<String> {
    (0..data.len())
        .map(|index| data.name(index).to_owned())
        .collect()
}

/// Everything under a folder, so that a test can say that nothing changed.
pub fn contents(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for item in walkdir::WalkDir::new(path).sort_by_file_name() {
        let item = item.unwrap();
        if item.file_type().is_file() {
            found.push((
                item.path().display().to_string(),
                fs::read(item.path()).unwrap(),
            ));
        }
    }
    found
}

pub fn no_partial_is_left(root: &TempDir) {
    for item in fs::read_dir(root).unwrap() {
        let name = item.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.contains(".partial-") && !name.contains(".old-"),
            "{name}"
        );
    }
}
