//! Fresh machine → trained inversion, its table and its pictures.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::failure::refuse;
use crate::programs::Programs;
use crate::setup::{self, Wishes};
use crate::stages::{Stages, note, seconds};
use crate::training::{Outcome, Training};
use crate::workspace::Workspace;
use crate::{photos, programs};

const EXPERIMENT: &str = "experiments/quickstart.toml";

/// Held-out photos that are inverted, spread evenly over the set: nobody chose them.
const PICTURES: usize = 6;

/// Where the sample photos lie, prepared.
pub const SAMPLE: &str = "data/sample";

/// What differs between the sample photos and the user's own.
struct Plan {
    prepared: &'static str,
    run: &'static str,
    overrides: Vec<OsString>,
    command: &'static str,
}

impl Plan {
    fn new(choice: &photos::Choice) -> Self {
        match choice {
            photos::Choice::Sample => Self {
                prepared: SAMPLE,
                run: "runs/quickstart",
                overrides: Vec::new(),
                command: "cargo xtask quickstart",
            },
            photos::Choice::Own(_) => Self {
                prepared: "data/own",
                run: "runs/quickstart-own",
                overrides: [
                    "--set",
                    "data.train=data/own/train",
                    "--set",
                    "data.test=data/own/test",
                ]
                .map(OsString::from)
                .to_vec(),
                command: "cargo xtask quickstart",
            },
        }
    }
}

/// One program call.
struct Step {
    title: &'static str,
    package: &'static str,
    args: Vec<OsString>,
}

fn step<const N: usize>(title: &'static str, package: &'static str, args: [&Path; N]) -> Step {
    Step {
        title,
        package,
        args: args.map(|arg| arg.as_os_str().to_owned()).to_vec(),
    }
}

impl Step {
    fn run(&self, ws: &Workspace, programs: &Programs, again: &str) -> Result<()> {
        programs
            .get(ws, self.title, self.package)?
            .args(&self.args)
            .hint(format!("After mending it, go on with: {again}"))
            .run()
    }
}

/// Runs it all; `minutes` bounds the training, for a quick look.
///
/// # Errors
/// What set-up refuses, or a program's failure with its exit code.
pub fn run(ws: &Workspace, wishes: &Wishes, minutes: Option<f64>) -> Result<()> {
    if !ws.path(EXPERIMENT).is_file() {
        return Err(refuse(format!(
            "{EXPERIMENT} is missing: restore it (git checkout {EXPERIMENT})"
        )));
    }
    let mut stages = Stages::new(setup::QUICK.len() + 5);
    let ready = setup::run(ws, wishes, &setup::QUICK, &programs::ALL, &mut stages)?;
    let source = ready.photos.context("set-up gave no photos")?;
    let plan = Plan::new(&ready.choice);

    stages.next("building");
    let programs = Programs::build(ws, &programs::ALL)?;

    stages.next("preparing the photos: 256 px, split into training and held-out photos");
    prepare(ws, &programs, &source, &plan)?;

    stages.next("training (Ctrl-C saves; the same command goes on)");
    let training = Training {
        experiment: EXPERIMENT.to_owned(),
        run: plan.run.into(),
        extra: plan.overrides.clone(),
        again: plan.command.to_owned(),
    };
    let deadline = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    if training.run(ws, &programs, deadline)? == Outcome::OutOfTime {
        note("out of time: evaluating what was reached");
    }

    stages.next("evaluating on held-out photos");
    // Only this run: a workspace with many would take minutes.
    step(
        "evaluating",
        "deepsim-eval",
        [
            Path::new("table2"),
            Path::new("--runs"),
            Path::new(plan.run),
        ],
    )
    .run(ws, &programs, plan.command)?;

    stages.next("inverting held-out photos");
    let out = Path::new(plan.run).join("inverted");
    let mut invert = step("inverting", "deepsim-eval", [Path::new("invert")]);
    invert.args.extend(
        held_out(ws, &source, plan.prepared)?
            .into_iter()
            .map(PathBuf::into_os_string),
    );
    invert.args.extend([
        "--run".into(),
        plan.run.into(),
        "--out".into(),
        out.clone().into(),
    ]);
    invert.run(ws, &programs, plan.command)?;

    note(format_args!("done in {}", seconds(stages.elapsed())));
    note(format_args!(
        "look at {}/*-pair.png: held-out photos above their reconstructions",
        out.display()
    ));
    if let Some(sheet) = last_sheet(&ws.path(plan.run)) {
        note(format_args!("and at  {}", ws.show(&sheet)));
    }
    Ok(())
}

fn prepare(ws: &Workspace, programs: &Programs, source: &Path, plan: &Plan) -> Result<()> {
    // The workspace's own photos by their short name: it stays true when the workspace moves.
    let source = source.strip_prefix(ws.root()).unwrap_or(source);
    let mut prepare = step(
        "preparing the photos",
        "deepsim-data",
        [Path::new("prepare"), source, Path::new(plan.prepared)],
    );
    let settings = "--size 256 --resize short-crop --store raw --holdout 0.15";
    prepare.args.extend(settings.split(' ').map(OsString::from));
    if ignores_orientation(&ws.path(plan.prepared).join("train/manifest.json")) {
        // as it was prepared: another dataset would be refused, and so would the run that trained on this one
        prepare
            .args
            .extend(["--orientation", "ignore"].map(OsString::from));
    }
    prepare.run(ws, programs, plan.command)
}

/// Is this the manifest of a dataset none of whose photos was turned, as all were that older versions prepared?
fn ignores_orientation(manifest: &Path) -> bool {
    let json = fs::read(manifest)
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    json.is_some_and(|json| json["orientation"] != "apply")
}

/// The sample photos prepared as the quickstart does, for those who train without it.
pub fn prepare_sample(
    ws: &Workspace,
    programs: &Programs,
    source: &Path,
    again: &'static str,
) -> Result<()> {
    let plan = Plan {
        command: again,
        ..Plan::new(&photos::Choice::Sample)
    };
    prepare(ws, programs, source, &plan)
}

/// Source files of some held-out photos, spread evenly over the set.
pub fn held_out(ws: &Workspace, source: &Path, prepared: &str) -> Result<Vec<PathBuf>> {
    let manifest = ws.path(prepared).join("test/manifest.json");
    let text = fs::read(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("in {}", manifest.display()))?;
    let samples = json["samples"].as_array().map_or(&[][..], Vec::as_slice);
    let paths: Vec<_> = samples
        .iter()
        .filter_map(|sample| sample["path"].as_str())
        .map(|path| source.join(path))
        .filter(|path| path.is_file())
        .collect();
    if paths.is_empty() {
        return Err(refuse(format!(
            "none of the held-out photos named in {} is in {} any more: put them back, or delete {prepared} and run again",
            ws.show(&manifest),
            source.display()
        )));
    }
    Ok(spread(paths, PICTURES))
}

/// `n` items at even distances; all of them where there are fewer.
fn spread<T>(items: Vec<T>, n: usize) -> Vec<T> {
    let len = items.len();
    let wanted = |i: usize| len <= n || (0..n).any(|k| i == (2 * k + 1) * len / (2 * n));
    items
        .into_iter()
        .enumerate()
        .filter(|(i, _)| wanted(*i))
        .map(|(_, item)| item)
        .collect()
}

/// The newest sheet of held-out photos that the training wrote.
fn last_sheet(run: &Path) -> Option<PathBuf> {
    let sheets = fs::read_dir(run.join("samples"))
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    sheets
        .filter(|path| path.extension().is_some_and(|e| e == "png"))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_of_an_older_version_stays_as_it_was_prepared() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("manifest.json");
        assert!(!ignores_orientation(&file));
        for (text, ignores) in [
            (r#"{"format": "deepsim-dataset", "size": 256}"#, true),
            (
                r#"{"format": "deepsim-dataset", "orientation": "apply", "turned": 3}"#,
                false,
            ),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(ignores_orientation(&file), ignores);
        }
    }

    #[test]
    fn the_spread_covers_the_set_and_gives_the_wanted_number() {
        assert_eq!(spread((0..12).collect(), 6), [1, 3, 5, 7, 9, 11]);
        assert_eq!(spread((0..38).collect(), 6), [3, 9, 15, 22, 28, 34]);
        assert_eq!(spread(vec!['a', 'b'], 6), ['a', 'b']);
        for len in 6..200 {
            assert_eq!(spread((0..len).collect::<Vec<_>>(), 6).len(), 6, "of {len}");
        }
    }
}
