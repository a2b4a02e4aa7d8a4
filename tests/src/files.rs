//! What a run leaves behind, read without the crates under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

/// The lines of `metrics.jsonl`; a line that is still being written is left out.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Step, losses, gate and counters of every log line: all that must be equal where two runs are
/// equal, numbers to their last digit.
pub fn losses(run: &Path) -> Vec<String> {
    let of_the_clock = ["images_per_s", "sums_s"];
    metrics(run)
        .into_iter()
        .map(|mut line| {
            for key in of_the_clock {
                line.as_object_mut().unwrap().remove(key);
            }
            line.to_string()
        })
        .collect()
}

/// Values of a key, of the lines that have it.
pub fn column(run: &Path, key: &str) -> Vec<Value> {
    metrics(run)
        .iter()
        .filter_map(|line| line.get(key).cloned())
        .collect()
}

/// How many steps the log has lines of.
pub fn steps_logged(run: &Path) -> u64 {
    column(run, "lr").len() as u64
}

/// Steps of the visible checkpoints, ascending.
pub fn checkpoint_steps(run: &Path) -> Vec<u64> {
    let folder = run.join("checkpoints");
    if !folder.is_dir() {
        return Vec::new();
    }
    let names = names(&folder).into_iter();
    names
        .filter_map(|name| name.strip_prefix("step-")?.parse().ok())
        .collect()
}

/// Names of what is in a folder, ascending.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// The directory of a checkpoint.
pub fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step:09}"))
}

/// The manifest of a checkpoint.
pub fn manifest(run: &Path, step: u64) -> Value {
    let file = checkpoint(run, step).join("manifest.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// The bytes of a checkpoint's files of tensors; the manifest says whether a discriminator is one of them.
pub fn tensors(run: &Path, step: u64) -> BTreeMap<&'static str, Vec<u8>> {
    let trains = manifest(run, step).get("discriminator").is_some();
    ["generator", "discriminator", "state"]
        .into_iter()
        .filter_map(|stem| {
            let file = checkpoint(run, step).join(format!("{stem}.safetensors"));
            if stem == "discriminator" && !trains {
                return None;
            }
            let bytes = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            Some((stem, bytes))
        })
        .collect()
}

/// Every file below a directory with its bytes, so that a test can say that nothing changed.
pub fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(path) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            // Of a link that leads nowhere, where it leads.
            let target =
                |_| fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes());
            let bytes = fs::read(&path).or_else(target).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// Demands that a run is as it was, but for the lock, whose number is that of the last process.
#[track_caller]
pub fn assert_unchanged(run: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let after = contents(run);
    for (path, bytes) in before {
        let same = path.ends_with("lock") || after.get(path) == Some(bytes);
        assert!(same, "{} changed or went", path.display());
    }
    assert_eq!(after.len(), before.len());
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// Makes a named pipe.
pub fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Changes one byte in the middle of a file.
pub fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Cuts a file to a part of its length.
pub fn cut(path: &Path, part: f64) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..(bytes.len() as f64 * part) as usize]).unwrap();
}
