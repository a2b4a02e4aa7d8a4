//! Manifests that lie: every one is an error, none a panic or a file outside the dataset.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::folder;
use deepsim_data::{DataError, Dataset, Flow, Manifest, Prepare, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn dataset(root: &TempDir) -> PathBuf {
    let out = root.path().join("set");
    let request = Prepare::new(folder(root.path(), 3), &out, 16);
    prepare(&request, &mut |_| Flow::Continue).unwrap();
    out
}

fn parse(bytes: &[u8]) -> Result<Manifest, DataError> {
    Manifest::parse(bytes, Path::new("manifest.json"))
}

#[test]
fn what_is_written_is_read_back() {
    let root = tempdir().unwrap();
    let bytes = fs::read(dataset(&root).join("manifest.json")).unwrap();
    let manifest = parse(&bytes).unwrap();
    assert_eq!(manifest.to_json().unwrap(), bytes);
    assert_eq!(manifest.count, 3);
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        !text.contains(root.path().to_str().unwrap()),
        "no absolute paths"
    );
}

#[test]
fn lies_are_refused() {
    let root = tempdir().unwrap();
    let set = dataset(&root);
    let file = set.join("manifest.json");
    let honest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let lies: [(&str, Value, &str); 15] = [
        ("/format", json!("zip"), "format is \"zip\""),
        ("/version", json!(2), "format version 2"),
        ("/size", json!(0), "size 0"),
        ("/size", json!(17), "impossible for raw"),
        ("/count", json!(4), "count 4 but 3 samples"),
        ("/store", json!("zip"), "unknown variant"),
        ("/shards/0/file", json!("../../etc/passwd"), "is called"),
        ("/shards/0/file", json!("/etc/passwd"), "is called"),
        ("/shards/0/bytes", json!(99), "reaches behind the end"),
        ("/samples/1/shard", json!(7), "shard 7"),
        (
            "/samples/1/offset",
            json!(u64::MAX),
            "reaches behind the end",
        ),
        (
            "/samples/1/bytes",
            json!(1_u64 << 40),
            "reaches behind the end",
        ),
        ("/samples/1/blake3", json!("beef"), "line"),
        ("/samples/1/path", json!(""), "sample 1 has no path"),
        (
            "/samples/1/path",
            honest["samples"][0]["path"].clone(),
            "two samples are called",
        ),
    ];
    for (place, value, expected) in lies {
        let mut lie = honest.clone();
        *lie.pointer_mut(place).unwrap() = value.clone();
        fs::write(&file, lie.to_string()).unwrap();
        let message = Dataset::open(&set).err().expect(place).to_string();
        assert!(message.contains(expected), "{place} = {value}: {message}");
        assert!(message.contains("manifest.json"), "{message}");
    }
    let mut extra = honest.clone();
    extra["colour"] = json!("blue");
    fs::write(&file, extra.to_string()).unwrap();
    let message = Dataset::open(&set).err().unwrap().to_string();
    assert!(message.contains("colour"), "{message}");
    fs::write(&file, honest.to_string()).unwrap();
    assert_eq!(Dataset::open(&set).unwrap().len(), 3);
}

proptest! {
    /// Any change to a manifest's bytes is an error or another valid manifest.
    #[test]
    fn damaged_manifests_never_panic(at in any::<prop::sample::Index>(), value: u8, cut: bool) {
        let text = include_bytes!("manifest-v1.json");
        let mut bytes = text.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if cut {
            bytes.truncate(at);
        }
        if let Ok(manifest) = parse(&bytes) {
            prop_assert_eq!(manifest.count, manifest.samples.len());
        }
    }
}

/// A manifest as version 1 wrote it; datasets on people's disks look so.
#[test]
fn version_1_stays_readable() {
    let manifest = parse(include_bytes!("manifest-v1.json")).unwrap();
    assert_eq!((manifest.size, manifest.count), (16, 2));
    assert_eq!(manifest.samples[1].label.as_deref(), Some("n02105855"));
    assert_eq!(manifest.quarantined[0].path, "n01440764/b.JPEG");
}
