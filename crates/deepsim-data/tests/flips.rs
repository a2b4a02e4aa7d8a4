//! No byte of a prepared dataset can change unnoticed.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::folder;
use deepsim_data::manifest::Store;
use deepsim_data::{Dataset, Flow, Prepare, prepare};
use tempfile::{TempDir, tempdir};

fn dataset(root: &TempDir, store: Store) -> PathBuf {
    let out = root.path().join("set");
    let request = Prepare {
        store: Some(store),
        ..Prepare::new(folder(root.path(), 3), &out, 16)
    };
    prepare(&request, &mut |_| Flow::Continue).unwrap();
    out
}

/// The first complaint of opening the dataset and reading all its images.
fn complaint(set: &Path) -> Option<String> {
    let data = match Dataset::open(set) {
        Ok(data) => data,
        Err(e) => return Some(e.to_string()),
    };
    (0..data.len()).find_map(|index| data.image(index).err().map(|e| e.to_string()))
}

#[test]
fn every_flipped_or_missing_byte_of_a_shard_is_refused_by_name() {
    for store in [Store::Raw, Store::Jpeg] {
        let root = tempdir().unwrap();
        let set = dataset(&root, store);
        let shard = set.join("shard-00000.bin");
        let whole = fs::read(&shard).unwrap();
        assert_eq!(complaint(&set), None);
        let refused = |bytes: &[u8], what: String| {
            fs::write(&shard, bytes).unwrap();
            let message = complaint(&set).unwrap_or_else(|| panic!("{what}: not seen"));
            assert!(message.contains("shard-00000.bin"), "{what}: {message}");
        };
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            refused(&bytes, format!("byte {at} flipped"));
        }
        for cut in 0..whole.len() {
            refused(&whole[..cut], format!("cut at {cut}"));
        }
    }
}

/// The checkpoint of a run holds the digests of its datasets, so that a change that is still a manifest stops a resume.
#[test]
fn every_flipped_or_missing_byte_of_a_manifest_is_refused_or_makes_another_dataset() {
    let root = tempdir().unwrap();
    let set = dataset(&root, Store::Raw);
    let file = set.join("manifest.json");
    let whole = fs::read(&file).unwrap();
    let digest = Dataset::open(&set).unwrap().digest();
    let noticed = |bytes: &[u8], what: String| {
        fs::write(&file, bytes).unwrap();
        match Dataset::open(&set) {
            Ok(data) => assert_ne!(data.digest(), digest, "{what}: the same dataset"),
            Err(e) => assert!(e.to_string().contains("manifest"), "{what}: {e}"),
        }
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        noticed(&bytes, format!("byte {at} flipped"));
    }
    for cut in 0..whole.len() {
        noticed(&whole[..cut], format!("cut at {cut}"));
    }
}
