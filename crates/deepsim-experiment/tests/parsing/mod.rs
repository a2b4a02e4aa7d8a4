//! Experiment files as text.

use std::path::Path;

use deepsim_experiment::{Experiment, ExperimentError};

/// The text of the quickstart's file.
pub fn quickstart() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
    std::fs::read_to_string(file).unwrap()
}

/// An experiment of this text and these keys, as `--set` takes them.
pub fn parse(text: &str, sets: &[&str]) -> Result<Experiment, ExperimentError> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Experiment::parse(text, Path::new("x.toml"), &sets)
}

/// What is said of what is refused.
pub fn message(text: &str, sets: &[&str]) -> String {
    let error = parse(text, sets).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}
