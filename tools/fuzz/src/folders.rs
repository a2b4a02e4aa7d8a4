//! Formats that are folders: the fuzzed bytes are laid out as files in a temporary folder, which each
//! thread has for itself.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::thread::LocalKey;

use deepsim_data::prepare::Existing;
use deepsim_data::{Dataset, Flow, Merge, merge};
use deepsim_experiment::Checkpoint;
use tempfile::TempDir;

/// The files beside the manifest of a checkpoint of format 1; the manifest's digests are theirs.
const BESIDE: [(&str, &[u8]); 4] = [
    (
        "discriminator.safetensors",
        include_bytes!(
            "../../../crates/deepsim-experiment/tests/fixtures/checkpoint-v1/step-000001234/discriminator.safetensors"
        ),
    ),
    (
        "encoder.safetensors",
        include_bytes!(
            "../../../crates/deepsim-experiment/tests/fixtures/checkpoint-v1/step-000001234/encoder.safetensors"
        ),
    ),
    (
        "generator.safetensors",
        include_bytes!(
            "../../../crates/deepsim-experiment/tests/fixtures/checkpoint-v1/step-000001234/generator.safetensors"
        ),
    ),
    (
        "state.safetensors",
        include_bytes!(
            "../../../crates/deepsim-experiment/tests/fixtures/checkpoint-v1/step-000001234/state.safetensors"
        ),
    ),
];

type Slot = RefCell<Option<TempDir>>;

thread_local! {
    static CHECKPOINT: Slot = const { RefCell::new(None) };
    static DATASET: Slot = const { RefCell::new(None) };
    static PART: Slot = const { RefCell::new(None) };
}

/// Does something with this thread's folder, which holds `fixed`; false where there is none to be had.
fn with_folder(
    folder: &'static LocalKey<Slot>,
    fixed: &[(&str, &[u8])],
    act: impl FnOnce(&Path) -> bool,
) -> bool {
    folder.with_borrow_mut(|slot| {
        if slot.is_none() {
            let Ok(folder) = tempfile::tempdir() else {
                return false;
            };
            for (name, bytes) in fixed {
                if fs::write(folder.path().join(name), bytes).is_err() {
                    return false;
                }
            }
            *slot = Some(folder);
        }
        slot.as_ref().is_some_and(|folder| act(folder.path()))
    })
}

/// A checkpoint's manifest: the bytes are `manifest.json` beside four good files. What verifies is read on,
/// up to the generator that it describes.
pub(crate) fn checkpoint(bytes: &[u8]) -> bool {
    with_folder(&CHECKPOINT, &BESIDE, |folder| {
        if fs::write(folder.join("manifest.json"), bytes).is_err() {
            return false;
        }
        let Ok(checkpoint) = Checkpoint::open(folder) else {
            return false;
        };
        // No manifest can describe a network that fits the good files. This must be found before a network is
        // built.
        let device = tch::Device::Cpu;
        let built =
            checkpoint.generator(device).is_ok() || checkpoint.discriminator(device).is_ok();
        assert!(!built, "a network of a few numbers");
        checkpoint.state().is_ok()
    })
}

/// What four bytes give the length of, little-endian, and what follows it.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    Some(rest.split_at(length.min(rest.len())))
}

/// A prepared dataset: four bytes give the manifest's length, little-endian; what follows it is the first shard.
/// Every image is read.
pub(crate) fn dataset(bytes: &[u8]) -> bool {
    let Some((manifest, shard)) = counted(bytes) else {
        return false;
    };
    with_folder(&DATASET, &[], |folder| {
        let written = fs::write(folder.join("manifest.json"), manifest)
            .and_then(|()| fs::write(folder.join("shard-00000.bin"), shard));
        let Ok(data) = written.map(|()| Dataset::open(folder)) else {
            return false;
        };
        let Ok(data) = data else {
            return false;
        };
        // A manifest of a few kilobytes may list as many images as it has lines.
        (0..data.len()).all(|index| data.image(index).is_ok())
    })
}

/// A part of a dataset: four bytes give the length of its description, which follows, four more that of its records; what
/// follows these is its shard. Alone it is merged.
pub(crate) fn part(bytes: &[u8]) -> bool {
    let Some((description, rest)) = counted(bytes) else {
        return false;
    };
    let Some((records, shard)) = counted(rest) else {
        return false;
    };
    with_folder(&PART, &[], |folder| {
        let (part, out) = (folder.join("part"), folder.join("out"));
        // Where the dataset is there already, the records are not read.
        if out.exists() && fs::remove_dir_all(&out).is_err() {
            return false;
        }
        let written = fs::create_dir_all(&part)
            .and_then(|()| fs::write(part.join("part.json"), description))
            .and_then(|()| fs::write(part.join("records.jsonl"), records))
            .and_then(|()| fs::write(part.join("shard-00000.bin"), shard));
        let request = Merge {
            out,
            parts: vec![part],
            quarantine: None,
            existing: Existing::Keep,
        };
        written.is_ok() && merge(&request, &mut |_| Flow::Continue).is_ok()
    })
}
