//! The sample experiments in order, and the committed records of what they gave.
//!
//! A record is `docs/results/NAME.json`, or `docs/results/NAME@LABEL.json` for the same experiment on another machine.
//! The numbers of the documents are made from the records alone (`crate::documents`).

mod check;
mod experiments;
mod studies;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::{documents, experiment_file, samples};
use deepsim_tools::failure::{is_interrupted, refuse};
use deepsim_tools::held_out;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::training::{Outcome, Training};
use deepsim_tools::workspace::Workspace;

pub use check::check;
use experiments::FACES;
pub use experiments::{EXPERIMENTS, Experiment, reconstructs};

/// What `reproduce` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only experiments whose name contains PATTERN, or exactly those of NAME,NAME…
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Stop training after N minutes in all; checkpoints are kept
    #[arg(long, value_name = "N", value_parser = deepsim_tools::args::minutes, conflicts_with = "check")]
    minutes: Option<f64>,
    /// Keep the record beside the one that is there, as docs/results/NAME@LABEL.json
    #[arg(long = "as", value_name = "LABEL", value_parser = label, conflicts_with = "check")]
    label: Option<String>,
    /// Evaluate the runs that are in runs/ and print the recorded numbers beside them; train and write nothing
    #[arg(long)]
    check: bool,
}

/// A label becomes part of a file's name.
fn label(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && !text.starts_with('.') && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, `-`, `_` and `.` are allowed".to_owned())
    }
}

/// Shown after the options.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask reproduce --check
      are the recorded numbers those of the runs here? (after quickstart)
  cargo xtask reproduce --check --only quickstart
      of one run
  cargo xtask reproduce --only pool5
      train those whose name contains pool5, and write their records
  cargo xtask reproduce --only quickstart,sample-pool5
      these two
  cargo xtask reproduce --only quickstart --as epyc
      a second record of this experiment, from this machine
  cargo xtask reproduce --minutes 10
      what fits; the rest goes on next time
  cargo xtask reproduce --only nothing
      only write the documents' numbers anew from the records

--check writes nothing in docs/ and trains nothing. It exits with 0 where all
numbers agree, with 1 where some do not, and with 2 where there is no finished
run to compare. A training elsewhere is another draw, as another seed is:
errors may differ by a tenth of the recorded ones (at least by 2), gradient
energy by a quarter. Without --check the records of what was run are replaced.";

/// Runs what is not finished, and writes records and documents; with `--check` only compares.
///
/// # Errors
/// A refusal when `--only` matches nothing; a failed set-up, training or evaluation.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let chosen = chosen(args.only.as_deref())?;
    if args.check {
        return check(ws, &chosen);
    }
    if !chosen.is_empty() {
        train_and_record(ws, &chosen, args)?;
    }
    documents::write(ws)
}

/// The experiments that `--only` means. "nothing" only makes the documents anew; any other word that matches
/// nothing is a typing error.
fn chosen(only: Option<&str>) -> Result<Vec<&'static Experiment>> {
    let unknown = only.filter(|only| *only != "nothing").and_then(|only| {
        let mut words = only.split(',').map(str::trim);
        words.find(|word| {
            let known = |e: &Experiment| {
                if only.contains(',') {
                    e.name == *word
                } else {
                    e.name.contains(word)
                }
            };
            word.is_empty() || !EXPERIMENTS.iter().any(known)
        })
    });
    if let Some(unknown) = unknown {
        let names: Vec<_> = EXPERIMENTS.iter().map(|e| e.name).collect();
        return Err(refuse(format!(
            "--only {unknown}: no such experiment; there are {}",
            names.join(", ")
        )));
    }
    Ok(EXPERIMENTS
        .iter()
        .filter(|experiment| only.is_none_or(|only| matches(experiment.name, only)))
        .collect())
}

/// Whether `--only` means this experiment: its name contains the word, or is one of several that a
/// comma separates.
fn matches(name: &str, only: &str) -> bool {
    if only.contains(',') {
        only.split(',').any(|one| one.trim() == name)
    } else {
        name.contains(only)
    }
}

fn train_and_record(ws: &Workspace, chosen: &[&Experiment], args: &Args) -> Result<()> {
    let start = Instant::now();
    let deadline = args
        .minutes
        .map(|minutes| start + Duration::from_secs_f64(60.0 * minutes));
    let again = "cargo xtask reproduce";
    let faces = chosen.iter().any(|e| e.name.starts_with(FACES));
    let mut stages = Stages::new(samples::STAGES + chosen.len());
    let (programs, source) = samples::ready(ws, &mut stages, faces)?;
    let mut failed = Vec::new();

    for experiment in chosen {
        stages.next(&format!("{}: {}", experiment.name, experiment.shows));
        let file = experiment.file();
        if !ws.path(&file).is_file() {
            note(format_args!("{file} is missing: left out"));
            continue;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            note("out of time: not run");
            continue;
        }
        let run = run_directory(ws, experiment)?;
        let training = Training {
            experiment: file.clone(),
            run: run.clone(),
            extra: Vec::new(),
            again: again.to_owned(),
        };
        if training.run(ws, &programs, deadline)? == Outcome::OutOfTime {
            note(format_args!(
                "out of time: saved, no record; go on with `{again}`"
            ));
            continue;
        }
        let command = format!("cargo run -p deepsim-train -- {file}");
        let mut record = samples::record(ws, &programs, experiment.name, command, &run)?;
        let pair = held_out::held_out(ws, &source, held_out::SAMPLE).ok();
        let pair = pair.as_deref().and_then(|photos| {
            let (first, last) = (photos.first()?, photos.last()?);
            let short = |path| Path::strip_prefix(path, ws.root()).unwrap_or(path);
            Some([short(first.as_path()), short(last.as_path())])
        });
        let subject = studies::Subject {
            name: experiment.name,
            file: &file,
            run: &run,
            pair,
        };
        for study in experiment.studies {
            // One study that fails costs neither the record nor the experiments behind it.
            match studies::make(ws, &programs, *study, &subject) {
                Ok(rows) => {
                    record.studies.insert(study.key().to_owned(), rows);
                }
                Err(error) if is_interrupted(&error) => return Err(error),
                Err(error) => {
                    note(format_args!("{}: no record: {error:#}", study.key()));
                    failed.push(format!("{} of {}", study.key(), experiment.name));
                }
            }
        }
        let name = match &args.label {
            Some(label) => format!("{}@{label}", experiment.name),
            None => experiment.name.to_owned(),
        };
        samples::write(ws, &name, &record)?;
    }
    note(format_args!("reproduced in {}", seconds(stages.elapsed())));
    if !failed.is_empty() {
        documents::write(ws)?;
        bail!("these studies failed (see above): {}", failed.join(", "));
    }
    Ok(())
}

/// Where the trainer puts the experiment by itself: `runs/NAME`, the name out of its file.
fn run_directory(ws: &Workspace, experiment: &Experiment) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let Named { name } = experiment_file::read(&ws.path(experiment.file()))?;
    Ok(Path::new("runs").join(name))
}

#[cfg(test)]
mod tests {
    use super::studies::Study;
    use super::*;

    #[test]
    fn every_experiment_has_its_file_and_its_own_name() {
        let ws = Workspace::find(None).unwrap();
        for experiment in EXPERIMENTS {
            let run = run_directory(&ws, experiment).unwrap();
            assert_eq!(run, Path::new("runs").join(experiment.name));
            assert!(samples::settings(&ws.path(experiment.file())).is_ok());
        }
    }

    #[test]
    fn every_study_is_made_of_some_experiment() {
        for study in [
            Study::Samples,
            Study::Attributes,
            Study::Neighbors,
            Study::Reencode,
            Study::Interpolate,
            Study::Preimages,
            Study::Losses,
            Study::Mv,
        ] {
            assert!(
                EXPERIMENTS.iter().any(|e| e.studies.contains(&study)),
                "{study:?}"
            );
        }
    }

    #[test]
    fn labels_of_records_are_parts_of_file_names() {
        for good in ["epyc", "amd-avx2", "seed.2"] {
            assert!(label(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "a b", "..", "@"] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }
}
