//! Fresh machine → trained inversion, its table and its images.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::setup::{self, Wishes};
use crate::{photos, prepared};
use deepsim_tools::failure::refuse;
use deepsim_tools::held_out::{SAMPLE, held_out};
use deepsim_tools::programs;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::training::{Outcome, Training};
use deepsim_tools::workspace::Workspace;

const EXPERIMENT: &str = "experiments/quickstart.toml";

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

    stages.next("preparing the photos: 256 px, split by photo");
    prepared::prepare(ws, &programs, &source, plan.prepared, plan.command)?;

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
