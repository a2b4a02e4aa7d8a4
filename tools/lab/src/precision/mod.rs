//! `cargo xtask precision`: whether bf16 trains as well as fp32, on images that nobody
//! trained on.
//!
//! One sample experiment is trained with several seeds in each arithmetic and every run is evaluated
//! as any run is. The seeds' own spread in fp32 is the measure: a bf16 that stays within it does
//! no harm that another seed would not do. `docs/results/precision.json` keeps all numbers.

mod curves;
mod figure;
mod run;
mod summary;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use self::curves::Curves;
use self::run::{Precision, Run};
use self::summary::Comparison;
use crate::{experiment_file, samples};
use deepsim_tools::landing;
use deepsim_tools::machine;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::training::{self, Outcome, Training};
use deepsim_tools::workspace::Workspace;

const EXPERIMENT: &str = "experiments/quickstart.toml";
/// Where the curves are drawn.
const FIGURE: &str = "docs/pictures/precision.png";
/// Names the record.
const NAME: &str = "precision";

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Iterations of each run; the learning rate halves at the same fractions of them as in the
    /// experiment
    #[arg(long, value_name = "N", default_value_t = 900, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    steps: u64,
    /// Seeds, from 1 on: so many runs in each arithmetic
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    seeds: u64,
    /// Stop training after N minutes in all; checkpoints are kept
    #[arg(long, value_name = "N", value_parser = deepsim_tools::args::minutes)]
    minutes: Option<f64>,
}

/// Shown after the options.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask precision
      three seeds each, 900 steps, about 25 minutes on 2 cores
  cargo xtask precision --steps 60
      a look at how it goes, 3 minutes, printed only
  cargo xtask precision --minutes 10
      what fits; the same command goes on next time

Runs go to runs/precision-STEPS. Finished ones are only evaluated, cut ones go
on; delete that folder after a change of the arithmetic. Writes
docs/results/precision.json and docs/pictures/precision.png when all runs are
finished. On a CPU bf16 is fast only with AMX; without, the numbers are the
same and the runs take longer.";

/// One training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    precision: Precision,
    seed: u64,
}

/// Seed by seed, so that after any time both arithmetics have as many runs.
fn tasks(seeds: u64) -> Vec<Task> {
    let both = [Precision::Fp32, Precision::Bf16];
    (1..=seeds)
        .flat_map(|seed| both.map(|precision| Task { precision, seed }))
        .collect()
}

/// The whole file.
#[derive(Debug, Serialize)]
struct Evidence<'a> {
    name: &'static str,
    command: String,
    experiment: &'static str,
    steps: u64,
    /// Training time of all runs together.
    seconds: f64,
    commit: Option<String>,
    processor: Option<String>,
    summary: &'a [Comparison],
    runs: &'a [Run],
}

/// Trains what is not finished, evaluates all runs, and writes record, figure and table.
///
/// # Errors
/// A refusal for other photos than the samples; a failed set-up, training or evaluation.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let start = Instant::now();
    let deadline = args
        .minutes
        .map(|minutes| start + Duration::from_secs_f64(60.0 * minutes));
    let tasks = tasks(args.seeds);
    let mut stages = Stages::new(samples::STAGES + tasks.len() + 1);
    let (programs, _) = samples::ready(ws, &mut stages, false)?;
    let commit = samples::commit(ws);
    let schedule = Schedule::read(ws)?.scaled(args.steps);

    let mut unfinished = 0;
    for task in &tasks {
        stages.next(&format!("{}, seed {}", task.precision.name(), task.seed));
        if train(ws, &programs, args, *task, &schedule, deadline)? == Outcome::OutOfTime {
            note("out of time: its checkpoint is kept");
            unfinished += 1;
        }
    }
    if unfinished > 0 {
        note(format_args!(
            "{unfinished} of {} runs are not finished: no record; go on with `{}`",
            tasks.len(),
            command(args)
        ));
        return Ok(());
    }

    stages.next("judging all runs on the held-out photos");
    let mut runs = Vec::new();
    for task in &tasks {
        runs.push(evaluate(ws, &programs, args, *task, &schedule)?);
    }
    let summary = summary::compare(&runs);
    if !is_whole(args) {
        print!("{}", summary::table(&runs, &summary));
        note(format_args!(
            "no record: it takes {} steps and {} seeds",
            WHOLE.0, WHOLE.1
        ));
        return Ok(());
    }
    let evidence = Evidence {
        name: NAME,
        command: command(args),
        experiment: EXPERIMENT,
        steps: args.steps,
        seconds: runs.iter().filter_map(|run| run.record.seconds).sum(),
        commit,
        processor: machine::processor(),
        summary: &summary,
        runs: &runs,
    };
    samples::write(ws, NAME, &evidence)?;
    landing::write(&ws.path(FIGURE), &figure::draw(&runs)?)?;
    note(format_args!("written: {FIGURE}"));
    print!("{}", summary::table(&runs, &summary));
    note(format_args!("done in {}", seconds(stages.elapsed())));
    Ok(())
}

/// Steps and seeds of a record; with fewer of either it is a trial, printed only.
const WHOLE: (u64, u64) = (900, 3);

fn is_whole(args: &Args) -> bool {
    args.steps >= WHOLE.0 && args.seeds >= WHOLE.1
}

fn command(args: &Args) -> String {
    format!(
        "cargo xtask precision --steps {} --seeds {}",
        args.steps, args.seeds
    )
}

/// Steps of the experiment, and at which of them its learning rate halves.
#[derive(Debug, PartialEq, Eq)]
struct Schedule {
    steps: u64,
    halve_at: Vec<u64>,
}

impl Schedule {
    fn read(ws: &Workspace) -> Result<Schedule> {
        #[derive(Deserialize)]
        struct File {
            schedule: Halvings,
            train: Train,
        }
        #[derive(Deserialize)]
        struct Halvings {
            halve_at: Vec<u64>,
        }
        #[derive(Deserialize)]
        struct Train {
            steps: u64,
        }
        let file: File = experiment_file::read(&ws.path(EXPERIMENT))?;
        Ok(Schedule {
            steps: file.train.steps,
            halve_at: file.schedule.halve_at,
        })
    }

    fn scaled(&self, steps: u64) -> Schedule {
        let scale = |&at: &u64| at * steps / self.steps.max(1);
        Schedule {
            steps,
            halve_at: self.halve_at.iter().map(scale).collect(),
        }
    }
}

/// What a run changes in the experiment.
fn overrides(task: Task, schedule: &Schedule) -> Vec<String> {
    let steps = schedule.steps;
    vec![
        format!("name={}", label(task)),
        format!("schedule.halve_at={:?}", schedule.halve_at),
        format!("train.steps={steps}"),
        format!("train.seed={}", task.seed),
        format!("train.precision={}", task.precision.name()),
        format!("train.log_every={}", (steps / 45).max(1)),
        format!("train.eval_every={}", (steps / 9).max(1)),
        format!("train.checkpoint_every={}", (steps / 3).max(1)),
        "train.sample_every=0".to_owned(),
        "train.keep_checkpoints=1".to_owned(),
    ]
}

fn label(task: Task) -> String {
    format!("{}-seed{}", task.precision.name(), task.seed)
}

/// Not directly below runs/: `table2` of all runs would judge them each time.
fn folder(args: &Args) -> PathBuf {
    Path::new("runs").join(format!("{NAME}-{}", args.steps))
}

/// Trains a run to its end or to the deadline; a finished one is left alone.
fn train(
    ws: &Workspace,
    programs: &Programs,
    args: &Args,
    task: Task,
    schedule: &Schedule,
    deadline: Option<Instant>,
) -> Result<Outcome> {
    let run = folder(args).join(label(task));
    let manifest = training::newest_manifest(&ws.path(&run))?;
    let reached = manifest.and_then(|m| m["step"].as_u64()).unwrap_or(0);
    let finished = reached >= schedule.steps;
    if finished {
        note("finished before: not trained again");
    } else {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Outcome::OutOfTime);
        }
        stamp(ws, args, task, reached == 0)?;
    }
    // A finished run too: the trainer refuses one that was another experiment's.
    let sets = overrides(task, schedule);
    Training {
        experiment: EXPERIMENT.to_owned(),
        run,
        extra: sets
            .into_iter()
            .flat_map(|set| ["--set".into(), set.into()])
            .collect(),
        again: command(args),
    }
    .run(ws, programs, deadline.filter(|_| !finished))
}

fn stamps(ws: &Workspace, args: &Args, task: Task) -> PathBuf {
    ws.path(folder(args))
        .join(format!("{}.commits", label(task)))
}

/// Notes the commit that a run is trained at: by the time it is evaluated there may be another.
fn stamp(ws: &Workspace, args: &Args, task: Task, anew: bool) -> Result<()> {
    let path = stamps(ws, args, task);
    let commit = samples::commit(ws).unwrap_or_else(|| "unknown".to_owned());
    let note = || -> std::io::Result<()> {
        fs::create_dir_all(ws.path(folder(args)))?;
        let mut file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .append(!anew)
            .truncate(anew)
            .open(&path)?;
        writeln!(file, "{commit}")
    };
    note().with_context(|| format!("writing {}", path.display()))
}

fn evaluate(
    ws: &Workspace,
    programs: &Programs,
    args: &Args,
    task: Task,
    schedule: &Schedule,
) -> Result<Run> {
    let run = folder(args).join(label(task));
    let sets: Vec<String> = overrides(task, schedule)
        .iter()
        .map(|set| format!(" --set \"{set}\""))
        .collect();
    let command = format!(
        "cargo run -p deepsim-train -- {EXPERIMENT} --out {}{}",
        run.display(),
        sets.concat()
    );
    let record = samples::record(ws, programs, &label(task), command, &run)?;
    let stamps = fs::read_to_string(stamps(ws, args, task)).unwrap_or_default();
    Ok(Run {
        precision: task.precision,
        seed: task.seed,
        trained_at: stamps.lines().map(str::to_owned).collect(),
        record,
        curves: Curves::read(&ws.path(&run))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_arithmetics_take_turns_and_differ_in_nothing_else() {
        let all = tasks(3);
        assert_eq!(all.len(), 6);
        let schedule = Schedule {
            steps: 900,
            halve_at: vec![507, 738],
        };
        for pair in all.chunks(2) {
            assert_eq!(pair[0].seed, pair[1].seed);
            let [a, b] = [0, 1].map(|i| overrides(pair[i], &schedule));
            let differ = a.iter().zip(&b).filter(|(a, b)| a != b);
            let differ: Vec<_> = differ.map(|(a, _)| a.split_once('=').unwrap().0).collect();
            assert_eq!(differ, ["name", "train.precision"]);
        }
    }

    #[test]
    fn the_learning_rate_halves_at_the_same_fractions() {
        let full = Schedule {
            steps: 1950,
            halve_at: vec![1100, 1600],
        };
        assert_eq!(full.scaled(1950), full);
        assert_eq!(full.scaled(900).halve_at, [507, 738]);
        let ws = Workspace::find(None).unwrap();
        let file = Schedule::read(&ws).unwrap();
        assert!(file.halve_at.iter().all(|&at| at < file.steps));
    }

    #[test]
    fn stamps_begin_anew_with_a_new_run() {
        let (_folder, ws) = deepsim_tools::testing::workspace();
        let args = Args {
            steps: 9,
            seeds: 1,
            minutes: None,
        };
        let task = tasks(1)[0];
        for (anew, lines) in [(true, 1), (false, 2), (true, 1)] {
            stamp(&ws, &args, task, anew).unwrap();
            let text = fs::read_to_string(stamps(&ws, &args, task)).unwrap();
            assert_eq!(text.lines().count(), lines);
        }
    }
}
