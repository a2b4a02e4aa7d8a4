//! `cargo xtask losses TASK`: one task, one generator, the same images and the same time, trained for several objectives
//! with several seeds; then every run is measured by every metric (`deepsim-eval losses`).
//!
//! The objectives are those of `objectives.toml`. A cut run goes on, one that has had its time is left alone.

mod table;
mod timed;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::samples;
use deepsim_tools::failure::{is_interrupted, refuse};
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::training::Training;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{files, landing, machine};

use table::{Objective, Table, Task};
use timed::Clock;

/// Seeds of a record; with fewer it is a trial, printed only.
const WHOLE: u64 = 3;
/// Below the folder of the runs: what was measured of them.
const RESULTS: &str = "results";
/// How `deepsim-eval losses` names its plot.
const PLOT: &str = "distortion-perception-";

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What is trained: inversion, autoencoder or super-resolution
    #[arg(value_name = "TASK")]
    task: String,
    /// Minutes that each run trains
    #[arg(long, value_name = "M", default_value_t = 1.5, value_parser = deepsim_tools::args::minutes)]
    minutes_each: f64,
    /// Seeds, from 1 on: so many runs of each objective
    #[arg(long, value_name = "N", default_value_t = WHOLE, value_parser = clap::value_parser!(u64).range(1..=20))]
    seeds: u64,
    /// Only these objectives
    #[arg(long, value_name = "NAME,NAME…", value_delimiter = ',')]
    only: Vec<String>,
    /// Folder of the runs, anywhere [default: runs/losses-TASK-SECONDSs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Measure on the validation photos, to choose weights by; no record
    #[arg(long)]
    validation: bool,
    /// Override a key of every run, such as a weight to be tried (repeatable)
    #[arg(long, value_name = "KEY=VALUE", requires = "validation")]
    set: Vec<String>,
    /// Print the commands of all runs and train nothing
    #[arg(long)]
    list: bool,
}

/// Shown after the options.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask losses inversion
      all objectives, three seeds, 90 seconds each: about an hour and a half
  cargo xtask losses inversion --only l1,ms-ssim,deepsim --seeds 1
      three of them once, five minutes, printed only
  cargo xtask losses super-resolution --minutes-each 10 --out ~/losses
      elsewhere and longer
  cargo xtask losses inversion --list --seeds 1
      the commands of all runs
  cargo xtask losses inversion --validation --only vgg16 \\
      --set loss.feat=0.1 --out runs/try
      another weight, judged by the validation photos

Time is the trainer's own, without opening weights and images; every run has
the same, to about a fiftieth. The same command goes on after an interruption.
With three seeds and all photos it writes docs/results/losses-TASK.json and
docs/pictures/distortion-perception-TASK.png. The folder of the runs gets
results/: tables, a sheet of images, the plot.";

/// One training.
struct One<'a> {
    objective: &'a Objective,
    seed: u64,
}

impl One<'_> {
    fn label(&self) -> String {
        format!("{}-seed{}", self.objective.name, self.seed)
    }
}

/// What all trainings share.
struct Plan<'a> {
    task: &'a Task,
    args: &'a Args,
    folder: PathBuf,
}

impl Plan<'_> {
    fn seconds(&self) -> f64 {
        60.0 * self.args.minutes_each
    }

    /// What a run changes in the task's experiment.
    fn overrides(&self, one: &One) -> Vec<String> {
        let mut all = one.objective.set.clone();
        all.push(format!("name={}", one.label()));
        all.push(format!("train.seed={}", one.seed));
        if self.args.validation {
            all.push("data.test=data/debian/val".to_owned());
        }
        all.extend(self.args.set.iter().cloned());
        all
    }

    fn training(&self, one: &One) -> Training {
        let sets = self.overrides(one).into_iter();
        Training {
            experiment: self.task.experiment.clone(),
            run: self.folder.join(one.label()),
            extra: sets.flat_map(|set| ["--set".into(), set.into()]).collect(),
            again: command(self.args),
        }
    }

    /// A run's settings as lines, kept beside it.
    fn settings(&self, one: &One) -> String {
        let mut lines = vec![
            self.task.experiment.clone(),
            format!("{} seconds", self.seconds()),
        ];
        lines.extend(self.overrides(one));
        lines.join("\n") + "\n"
    }

    /// Refuses a run of other settings: it would not be trained again, and stand in the table as if it had been.
    fn claim(&self, ws: &Workspace, one: &One) -> Result<()> {
        let file = ws
            .path(&self.folder)
            .join(format!("{}.settings", one.label()));
        let wanted = self.settings(one);
        if !file.exists() {
            return landing::write(&file, wanted.as_bytes());
        }
        if files::text(&file)? == wanted {
            return Ok(());
        }
        Err(refuse(format!(
            "{} says that this run has other settings: name another folder by --out, or delete the run and that file",
            ws.show(&file)
        )))
    }
}

/// The whole record.
#[derive(Debug, Serialize)]
struct Evidence<'a> {
    name: String,
    command: String,
    experiment: &'a str,
    seconds_each: f64,
    seeds: u64,
    commit: Option<String>,
    processor: Option<String>,
    objectives: &'a [Objective],
    /// What `deepsim-eval losses` says of each run.
    runs: Vec<Map<String, Value>>,
}

/// Trains what has not had its time, measures all runs, and writes the record of a whole comparison.
///
/// # Errors
/// A refusal for an unknown task or objective, or runs of other settings; a failed set-up, training or evaluation.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let table = Table::read()?;
    let task = table.task(&args.task)?;
    let objectives = table.chosen(&args.only)?;
    if !args.set.is_empty() && args.out.is_none() {
        return Err(refuse(
            "--set: name a folder of its own by --out, so that these runs stand beside no others",
        ));
    }
    let plan = Plan {
        task,
        args,
        folder: folder(args),
    };
    let runs: Vec<One> = (1..=args.seeds)
        // Seed by seed, so that after any time all objectives have as many runs.
        .flat_map(|seed| {
            objectives
                .iter()
                .map(move |objective| One { objective, seed })
        })
        .collect();
    if args.list {
        for one in &runs {
            println!("{}", listed(&plan, one));
        }
        return Ok(());
    }
    for one in &runs {
        plan.claim(ws, one)?;
    }
    let mut stages = Stages::new(samples::STAGES + runs.len() + 1);
    let (programs, _) = samples::ready(ws, &mut stages, false)?;
    let commit = samples::commit(ws);
    let mut clock = Clock::default();
    let mut failed = Vec::new();
    for one in &runs {
        let objective = one.objective;
        stages.next(&format!(
            "{}, seed {}: {}",
            objective.name, one.seed, objective.shows
        ));
        let training = plan.training(one);
        if timed::is_done(&training, timed::seconds(ws, &training)?, plan.seconds())? {
            note("has had its time: not trained again");
            continue;
        }
        // One objective that fails costs none of the others.
        match clock.train(ws, &programs, &training, plan.seconds()) {
            Ok(()) => {}
            Err(error) if is_interrupted(&error) => return Err(error),
            Err(error) => {
                note(format_args!("{}: {error:#}", one.label()));
                failed.push(one.label());
            }
        }
    }
    stages.next("measuring all runs");
    let results = plan.folder.join(RESULTS);
    let rows = measure(ws, &programs, &plan.folder, &results)?;
    note(format_args!(
        "which do people prefer? `cargo run -p deepsim-eval -- ask` takes any of the runs in {}",
        plan.folder.display()
    ));
    note(format_args!("done in {}", seconds(stages.elapsed())));
    if !failed.is_empty() {
        bail!("these runs failed (see above): {}", failed.join(", "));
    }
    if args.seeds < WHOLE || args.validation {
        note(format_args!(
            "no record: it takes {WHOLE} seeds and the held-out photos"
        ));
        return Ok(());
    }
    let name = format!("losses-{}", task.name);
    if let Some(other) = left_out(&samples::place(ws, &name), &objectives)? {
        note(format_args!(
            "no record: the one that is there has the objective {other}, which --only leaves out; delete it to begin anew"
        ));
        return Ok(());
    }
    let evidence = Evidence {
        name,
        command: command(args),
        experiment: &task.experiment,
        seconds_each: plan.seconds(),
        seeds: args.seeds,
        commit,
        processor: machine::processor(),
        objectives: &objectives,
        runs: of(rows, &runs),
    };
    samples::write(ws, &evidence.name, &evidence)?;
    if let Some(plot) = plot(&ws.path(&results))? {
        let to = format!("docs/pictures/distortion-perception-{}.png", task.name);
        let bytes = fs::read(&plot).with_context(|| format!("reading {}", plot.display()))?;
        landing::write(&ws.path(&to), &bytes)?;
        note(format_args!("written: {to}"));
    }
    Ok(())
}

/// Not directly below runs/: `table2` of all runs would judge them each time.
fn folder(args: &Args) -> PathBuf {
    args.out.clone().unwrap_or_else(|| {
        let validation = if args.validation { "-validation" } else { "" };
        let seconds = 60.0 * args.minutes_each;
        Path::new("runs").join(format!("losses-{}-{seconds}s{validation}", args.task))
    })
}

/// The command of a run, as a person would type it; it has no end.
fn listed(plan: &Plan, one: &One) -> String {
    let mut words = vec!["cargo run -p deepsim-train --".to_owned()];
    words.extend(plan.training(one).arguments().iter().map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,".contains(c);
        if word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{word}'")
        }
    }));
    words.join(" ")
}

fn command(args: &Args) -> String {
    let mut words = vec![format!(
        "cargo xtask losses {} --minutes-each {} --seeds {}",
        args.task, args.minutes_each, args.seeds
    )];
    if !args.only.is_empty() {
        words.push(format!("--only {}", args.only.join(",")));
    }
    if let Some(out) = &args.out {
        words.push(format!("--out '{}'", out.display()));
    }
    if args.validation {
        words.push("--validation".to_owned());
    }
    words.extend(args.set.iter().map(|set| format!("--set '{set}'")));
    words.join(" ")
}

/// Prints the tables of all runs of a folder, and gives a row for each run.
fn measure(
    ws: &Workspace,
    programs: &Programs,
    folder: &Path,
    results: &Path,
) -> Result<Vec<Map<String, Value>>> {
    programs
        .get(ws, "measuring", "deepsim-eval")?
        .args(["losses", "--runs"])
        .args([folder])
        .args([Path::new("--out"), results])
        .run()?;
    files::json(&ws.path(results).join("losses.json"))
}

/// An objective of the record that is there and none of these: a part of a comparison does not replace the whole.
fn left_out(record: &Path, objectives: &[Objective]) -> Result<Option<String>> {
    if !record.exists() {
        return Ok(None);
    }
    let there: Value = files::json(record)?;
    let names = there["objectives"].as_array().into_iter().flatten();
    let mut names = names.filter_map(|one| one["name"].as_str());
    Ok(names
        .find(|name| objectives.iter().all(|one| one.name != *name))
        .map(str::to_owned))
}

/// The rows of these runs: the folder may hold others.
fn of(rows: Vec<Map<String, Value>>, runs: &[One]) -> Vec<Map<String, Value>> {
    let labels: Vec<String> = runs.iter().map(One::label).collect();
    let mut own = Vec::new();
    for mut row in rows {
        let name = row.get("run").and_then(Value::as_str).unwrap_or_default();
        let name = Path::new(name).file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        if labels.contains(&name) {
            // Where the folder lies is nobody's business.
            row.insert("run".to_owned(), name.into());
            own.push(row);
        }
    }
    own
}

/// The plot of the runs, if there is one.
///
/// # Errors
/// Plots of several tasks, whose runs lie in one folder.
fn plot(results: &Path) -> Result<Option<PathBuf>> {
    let entries =
        fs::read_dir(results).with_context(|| format!("reading {}", results.display()))?;
    let mut plots = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(PLOT)
        })
        .collect::<Vec<_>>();
    if plots.len() > 1 {
        bail!(
            "{} has plots of several tasks: give the runs of each a folder of their own by --out",
            results.display()
        );
    }
    Ok(plots.pop())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_tools::testing::workspace;
    use serde_json::json;

    fn args() -> Args {
        Args {
            task: "inversion".to_owned(),
            minutes_each: 1.5,
            seeds: 2,
            only: vec!["l1".to_owned()],
            out: None,
            validation: false,
            set: Vec::new(),
            list: false,
        }
    }

    #[test]
    fn runs_of_one_objective_differ_in_their_seeds_alone() {
        let table = Table::read().unwrap();
        let objective = table.chosen(&["l1".to_owned()]).unwrap().remove(0);
        let mut args = args();
        args.validation = true;
        args.set = vec!["loss.img=2e-3".to_owned()];
        let plan = Plan {
            task: table.task("inversion").unwrap(),
            args: &args,
            folder: folder(&args),
        };
        assert_eq!(
            plan.folder,
            Path::new("runs/losses-inversion-90s-validation")
        );
        let [a, b] = [1, 2].map(|seed| {
            let objective = &objective;
            plan.overrides(&One { objective, seed })
        });
        let differ = a.iter().zip(&b).filter(|(a, b)| a != b);
        let differ: Vec<_> = differ.map(|(a, _)| a.split_once('=').unwrap().0).collect();
        assert_eq!(differ, ["name", "train.seed"]);
        // What is tried stands last, over the table's own.
        assert_eq!(a.last().unwrap(), "loss.img=2e-3");
        assert!(a.contains(&"data.test=data/debian/val".to_owned()));
    }

    #[test]
    fn a_run_of_other_settings_is_not_taken_for_this_one() {
        let (_folder, ws) = workspace();
        let table = Table::read().unwrap();
        let objective = table.chosen(&["l1".to_owned()]).unwrap().remove(0);
        let one = One {
            objective: &objective,
            seed: 1,
        };
        let claim = |minutes_each: f64| {
            let args = Args {
                minutes_each,
                out: Some("elsewhere".into()),
                ..args()
            };
            let plan = Plan {
                task: table.task("inversion").unwrap(),
                args: &args,
                folder: folder(&args),
            };
            plan.claim(&ws, &one)
        };
        claim(1.5).unwrap();
        claim(1.5).unwrap();
        let error = claim(3.0).unwrap_err().to_string();
        assert!(
            error.contains("l1-seed1.settings") && error.contains("--out"),
            "{error}"
        );
    }

    #[test]
    fn a_part_of_a_comparison_replaces_no_larger_one() {
        let (folder, _) = workspace();
        let record = folder.path().join("losses.json");
        let one = |name: &str| Objective {
            name: name.to_owned(),
            shows: String::new(),
            set: Vec::new(),
        };
        let (l1, l2) = (one("l1"), one("l2"));
        assert_eq!(left_out(&record, std::slice::from_ref(&l1)).unwrap(), None);
        let there = json!({ "objectives": [{ "name": "l1" }, { "name": "l2" }] });
        fs::write(&record, there.to_string()).unwrap();
        let lost = left_out(&record, std::slice::from_ref(&l1)).unwrap();
        assert_eq!(lost.as_deref(), Some("l2"));
        assert_eq!(left_out(&record, &[l1, l2, one("dists")]).unwrap(), None);
    }

    #[test]
    fn a_record_has_its_own_runs_by_their_names() {
        let row = |run: &str| {
            json!({ "run": run, "l1": 1.0 })
                .as_object()
                .unwrap()
                .clone()
        };
        let objective = Objective {
            name: "l1".to_owned(),
            shows: String::new(),
            set: Vec::new(),
        };
        let one = One {
            objective: &objective,
            seed: 2,
        };
        let rows = of(
            vec![row("/elsewhere/l1-seed2"), row("runs/l2-seed2")],
            &[one],
        );
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["run"], "l1-seed2");
    }
}
