//! What to do with a run that is done.

use std::path::Path;

use deepsim_data::terminal::quote;
use deepsim_experiment::Experiment;
use deepsim_experiment::source::Source;
use deepsim_nets::Code;

/// The command that shows what a run has learned.
pub fn command(experiment: &Experiment, run: &Path) -> String {
    let run = quote(run);
    let eval = "cargo run -p deepsim-eval --";
    let gaussian = experiment
        .config
        .latent
        .is_some_and(|l| l.code == Code::Gaussian);
    let consent = if experiment.needs_consent() {
        " --trust-code"
    } else {
        ""
    };
    match &experiment.encoder {
        // It opens the generator alone, and runs no module.
        Source::Recorded(_) => format!("{eval} decode FEATURES.npy --run {run}"),
        _ if gaussian => format!("{eval} sample --runs {run}{consent}"),
        _ if experiment.config.generator.noise > 0 => format!("{eval} preimages {run}{consent}"),
        _ => format!("{eval} table2 --runs {run}{consent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TorchScript module for a comparator.
    const MODULE: [&str; 4] = [
        "comparator.net=torchscript",
        "comparator.weights=module.pt",
        "comparator.tap=output",
        "comparator.units=rgb-0-1",
    ];

    /// The command after a training of one of this project's experiments.
    fn after(file: &str, sets: &[&str]) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let experiment = Experiment::load(&folder.join(file), &sets).unwrap();
        command(&experiment, Path::new("runs/own"))
    }

    #[test]
    fn a_command_allows_modules_where_it_opens_them() {
        for (file, set, words) in [
            ("conv5.toml", "train.seed=1", "table2 --runs runs/own"),
            ("conv5.toml", "generator.noise=4", "preimages runs/own"),
            ("vae-alexnet.toml", "train.seed=1", "sample --runs runs/own"),
        ] {
            let plain = format!("cargo run -p deepsim-eval -- {words}");
            assert_eq!(after(file, &[set]), plain);
            let allowed = format!("{plain} --trust-code");
            assert_eq!(after(file, &[&MODULE[..], &[set]].concat()), allowed);
        }
    }

    #[test]
    fn a_comparator_that_takes_no_part_asks_for_no_flag() {
        let sets = [&MODULE[..], &["loss.feat=0"]].concat();
        assert!(after("conv5.toml", &sets).ends_with("table2 --runs runs/own"));
    }

    #[test]
    fn recorded_features_are_decoded_without_a_module() {
        let found = after("sample/recorded.toml", &MODULE);
        assert!(
            found.ends_with("decode FEATURES.npy --run runs/own"),
            "{found}"
        );
    }
}
