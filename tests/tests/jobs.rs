//! The job files in `deploy/`: what they ask of deepsim-train and torchrun is there, they save in time, and what was tried
//! with them was tried with these files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::process::Command;

use deepsim_tests::process::{program, python, root, run};
use serde_json::Value;

const SLURM: &str = "deploy/slurm/train.sbatch";
const KUBERNETES: &str = "deploy/kubernetes/trainjob.yaml";

fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// What a job file runs: torchrun's words, and behind its program those of deepsim-train.
fn words(file: &str) -> (Vec<String>, Vec<String>) {
    let text = text(file);
    let lines = text.lines().map(str::trim);
    let all: Vec<String> = if file == SLURM {
        let lines = lines.skip_while(|line| !line.starts_with("python3 -m torch.distributed.run"));
        let command: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        let command = command.join(" ").replace(['\\', '"'], " ");
        command.split_whitespace().map(str::to_owned).collect()
    } else {
        let lines = lines.skip_while(|line| *line != "args:").skip(1);
        let items = lines.map_while(|line| line.strip_prefix("- "));
        items.map(str::to_owned).collect()
    };
    let program = all.iter().position(|word| word.contains("deepsim-train"));
    let program = program.expect("it runs deepsim-train");
    (all[..program].to_vec(), all[program + 1..].to_vec())
}

/// The options among words, without their values.
fn options(words: &[String]) -> Vec<&str> {
    let options = words.iter().filter(|word| word.starts_with("--"));
    options
        .map(|word| word.split_once('=').map_or(word.as_str(), |(name, _)| name))
        .collect()
}

/// The number behind `key` in a file.
fn number(text: &str, key: &str) -> u64 {
    let (_, behind) = text.split_once(key).unwrap_or_else(|| panic!("no {key}"));
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number behind {key}"))
}

#[test]
fn every_option_of_the_job_files_exists() {
    let train = run(program("deepsim-train").arg("--help")).prints();
    let mut torchrun =
        python("from torch.distributed.run import get_args_parser\nget_args_parser().print_help()");
    let torchrun = run(&mut torchrun).prints();
    for file in [SLURM, KUBERNETES] {
        let (launcher, trainer) = words(file);
        let (launcher, trainer) = (options(&launcher), options(&trainer));
        assert!(launcher.contains(&"--no-python"), "{file}: {launcher:?}");
        assert!(trainer.contains(&"--resume"), "{file}: {trainer:?}");
        for (help, all) in [(&torchrun, launcher), (&train, trainer)] {
            for option in all {
                let known = help.match_indices(option).any(|(at, _)| {
                    let next = help[at + option.len()..].chars().next();
                    !next.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_')
                });
                assert!(known, "{file}: {option}");
            }
        }
    }
}

/// From the signal to the end there is time for torchrun's patience with processes that save.
#[test]
fn there_is_time_to_save() {
    for (file, grace) in [
        (SLURM, "#SBATCH --signal=B:USR1@"),
        (KUBERNETES, "terminationGracePeriodSeconds: "),
    ] {
        let text = text(file);
        let grace = number(&text, grace);
        let patience = number(&text, " --shutdown-timeout=");
        assert!(
            grace > patience && patience > 30,
            "{file}: {grace}, {patience}"
        );
    }
}

#[test]
fn the_slurm_job_goes_on_by_itself() {
    let text = text(SLURM);
    assert!(text.contains("\n#SBATCH --requeue\n"));
    assert!(text.contains("scontrol requeue"));
    let mut parses = Command::new("bash");
    run(parses.arg("-n").arg(root().join(SLURM))).exits(0);
    let mut parses = Command::new("bash");
    run(parses.arg("-n").arg(root().join("deploy/slurm/try.sh"))).exits(0);
}

#[test]
fn the_pods_have_the_runtime_of_the_job_and_no_tabs() {
    let text = text(KUBERNETES);
    assert!(!text.contains('\t'));
    let documents: Vec<&str> = text.split("\n---\n").collect();
    assert_eq!(documents.len(), 2);
    for (document, kind) in documents.iter().zip(["TrainingRuntime", "TrainJob"]) {
        assert!(document.contains("apiVersion: trainer.kubeflow.org/v1alpha1\n"));
        assert!(document.contains(&format!("\nkind: {kind}\n")));
    }
    assert!(documents[0].contains("\n  name: deepsim\n"));
    assert!(documents[1].contains("kind: TrainingRuntime\n    name: deepsim\n"));
}

/// After a change of a file: `deploy/slurm/try.sh docs/results/jobs-slurm.json` (needs Slurm) or
/// `deploy/kubernetes/check.py docs/results/jobs-kubernetes.json`.
#[test]
fn the_records_are_of_these_files() {
    for (record, file) in [("jobs-slurm", SLURM), ("jobs-kubernetes", KUBERNETES)] {
        let record: Value =
            serde_json::from_str(&text(&format!("docs/results/{record}.json"))).unwrap();
        let sum = run(Command::new("sha256sum").arg(root().join(file))).prints();
        let recorded = record["sha256"][file].as_str().unwrap();
        assert!(
            sum.starts_with(recorded),
            "{file} was changed: run `{}` again",
            record["command"].as_str().unwrap()
        );
    }
}

#[test]
fn the_experiments_of_the_job_files_exist() {
    for file in [SLURM, KUBERNETES] {
        let text = text(file);
        let named: Vec<&str> = text
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|word| word.starts_with("experiments/") && word.ends_with(".toml"))
            .collect();
        assert!(!named.is_empty(), "{file}");
        for experiment in named {
            assert!(root().join(experiment).is_file(), "{file}: {experiment}");
        }
    }
}
