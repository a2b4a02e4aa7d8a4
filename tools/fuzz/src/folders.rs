//! Formats that are folders: the fuzzed bytes are laid out as files in a temporary folder, which each
//! thread has for itself.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::thread::LocalKey;

use deepsim_data::Dataset;
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

/// A prepared dataset: four bytes give the manifest's length, little-endian; what follows it is the first shard.
/// Every image is read.
pub(crate) fn dataset(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return false;
    };
    let length = u32::from_le_bytes(*length) as usize;
    let (manifest, shard) = rest.split_at(length.min(rest.len()));
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
