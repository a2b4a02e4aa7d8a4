//! Seeds are accepted, and inputs that once broke something never do again.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use deepsim_fuzz::{TARGETS, target};
use serde::Deserialize;

/// Whole files of these are megabytes: their seeds are read to the point where the shapes are refused.
const TOO_SMALL: [&str; 2] = ["flax", "wheel"];

#[derive(Deserialize)]
struct Table {
    target: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
}

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// The files in a folder with their bytes; none where there is no folder.
fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(&path).unwrap())
        })
        .collect()
}

#[test]
fn every_target_is_in_the_table_and_has_seeds() {
    let table: Table = toml::from_str(&fs::read_to_string(here("targets.toml")).unwrap()).unwrap();
    let listed: Vec<&str> = table.target.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(listed, TARGETS.map(|target| target.name));
    for name in listed {
        let seeds = inputs(&here("seeds").join(name));
        assert!(name == "toml" || !seeds.is_empty(), "{name}");
    }
}

#[test]
fn seeds_are_accepted() {
    for target in &TARGETS {
        for (path, bytes) in inputs(&here("seeds").join(target.name)) {
            let accepted = (target.read)(&bytes);
            assert_eq!(accepted, !TOO_SMALL.contains(&target.name), "{path}");
        }
    }
}

#[test]
fn what_once_broke_something_is_read_without_harm() {
    for entry in fs::read_dir(here("found")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue; // README.md
        }
        let name = folder.file_name().unwrap().to_str().unwrap();
        let target = target(name).unwrap_or_else(|| panic!("found/{name}: no such target"));
        for (_, bytes) in inputs(&folder) {
            (target.read)(&bytes);
        }
    }
}
