//! The objectives of `cargo xtask losses` are experiments: the lab, which starts the trainer, cannot read them itself.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use deepsim_experiment::Experiment;
use toml::{Table, Value};

fn words(of: &Table, key: &str) -> Vec<String> {
    let all = of[key].as_array().unwrap();
    all.iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

fn tables<'a>(of: &'a Table, key: &str) -> Vec<&'a Table> {
    let all = of[key].as_array().unwrap();
    all.iter().map(|value| value.as_table().unwrap()).collect()
}

#[test]
fn every_objective_is_an_experiment_of_every_task_and_another_one() {
    let file: Table = include_str!("../../../tools/lab/src/losses/objectives.toml")
        .parse()
        .unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (common, hinge) = (words(&file, "common"), words(&file, "hinge"));
    for task in tables(&file, "task") {
        let path = root.join(task["experiment"].as_str().unwrap());
        let mut losses: Vec<String> = Vec::new();
        for objective in tables(&file, "objective") {
            let is = |key: &str| objective.get(key).and_then(Value::as_bool) == Some(true);
            let adversaries = [Vec::new(), hinge.clone()];
            let count = if is("adversary") { 1 } else { 2 };
            for adversary in adversaries.into_iter().take(count) {
                let sets = [words(objective, "set"), adversary, common.clone()].concat();
                let name = objective["name"].as_str().unwrap();
                let read = Experiment::load(&path, &sets)
                    .unwrap_or_else(|error| panic!("{name} on {}: {error}", path.display()));
                let config = &read.config;
                losses.push(format!(
                    "{:?} {:?} {:?} {:?}",
                    config.loss,
                    config.pixels,
                    config.adversary,
                    read.compared_in(ToString::to_string)
                ));
            }
        }
        let count = losses.len();
        losses.sort();
        losses.dedup();
        assert_eq!(losses.len(), count, "two objectives are one");
    }
}
