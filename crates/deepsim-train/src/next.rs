//! What to do with a run that is done.

use std::path::Path;

use deepsim_experiment::Experiment;
use deepsim_experiment::config::Source;
use deepsim_nets::Code;

/// The command that shows what a run has learned.
pub fn command(experiment: &Experiment, run: &Path) -> String {
    let run = quoted(&run.display().to_string());
    let eval = "cargo run -p deepsim-eval --";
    let gaussian = experiment
        .raw
        .latent
        .is_some_and(|l| l.code == Code::Gaussian);
    match &experiment.encoder {
        Source::Recorded(_) => format!("{eval} decode FEATURES.npy --run {run}"),
        _ if gaussian => format!("{eval} sample --runs {run}"),
        _ if experiment.raw.generator.noise > 0 => format!("{eval} preimages {run}"),
        _ => format!("{eval} table2 --runs {run}"),
    }
}

/// A word as a shell takes it whole.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_for_a_shell() {
        assert_eq!(quoted("runs/a-1"), "runs/a-1");
        assert_eq!(quoted("my runs"), "'my runs'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
