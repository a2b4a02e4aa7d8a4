//! Shipped experiments with other keys, and states that train on them.

#![allow(dead_code, reason = "each test needs a part of it")]

use std::path::Path;

use deepsim_experiment::{Checkpoint, Experiment, Manifest, Perception, checkpoint};
use deepsim_nets::params::f32_bytes;
use deepsim_train::state::State;
use tch::Device;

/// A file of `experiments` with these keys, as `--set` takes them, between spaces.
pub fn shipped(file: &str, sets: &str) -> Experiment {
    // Of this run, where there is one: the program may have been built on another machine.
    let own = std::env::var("CARGO_MANIFEST_DIR");
    let own = own.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let folder = Path::new(&own).join("../../experiments");
    let sets: Vec<String> = sets.split_whitespace().map(str::to_owned).collect();
    Experiment::load(&folder.join(file), &sets).unwrap()
}

/// An experiment's networks before the first step.
pub fn begin(experiment: &Experiment, device: Device) -> (Perception, State) {
    let mut perception = Perception::load(experiment, device).unwrap();
    let state = State::new(experiment, perception.take_learned(), device).unwrap();
    (perception, state)
}

/// Everything of a state that a checkpoint holds, by name.
pub fn values(state: &State) -> Vec<(String, Vec<u8>)> {
    let snapshot = state.snapshot();
    let tensors = snapshot.files.iter().flat_map(|(file, tensors)| {
        tensors
            .iter()
            .map(move |(name, t)| (format!("{file}/{name}"), f32_bytes(t).unwrap()))
    });
    let counters = snapshot.counters.iter();
    tensors
        .chain(counters.map(|(k, v)| (k.clone(), v.to_le_bytes().to_vec())))
        .collect()
}

/// A state's checkpoint in this folder, read again.
pub fn saved(
    folder: &Path,
    experiment: &Experiment,
    perception: &Perception,
    state: &State,
) -> Checkpoint {
    let manifest = Manifest {
        step: state.step,
        encoder_weights: perception.encoder_hash.clone(),
        comparator_weights: perception.comparator_hash.clone(),
        ..Manifest::of(
            experiment.generator.clone(),
            experiment.trained_discriminator().cloned(),
        )
    };
    let path = checkpoint::write(folder, manifest, &state.snapshot()).unwrap();
    Checkpoint::open(&path).unwrap()
}
