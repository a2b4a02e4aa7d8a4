//! The program, and what it leaves behind.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use deepsim_data::Dataset;
use tempfile::TempDir;

pub fn deepsim_data(root: &TempDir) -> Command {
    let mut command = Command::cargo_bin("deepsim-data").unwrap();
    command.current_dir(root);
    command
}

pub fn prepare(root: &TempDir, rest: &[&str]) -> assert_cmd::assert::Assert {
    deepsim_data(root).arg("prepare").args(rest).assert()
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
