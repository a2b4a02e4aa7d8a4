//! Times of training steps: deepsim-train with several processes on this machine, as a user starts them.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::numbers::{significant, summary};
use deepsim_tools::failure::refuse;
use deepsim_tools::held_out::SAMPLE;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

const TRAIN: &str = "deepsim-train";
/// Numbers of processes.
const PROCESSES: [u32; 3] = [1, 2, 4];

/// A training whose steps are timed.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// In the record.
    name: &'static str,
    /// In the table.
    what: &'static str,
    experiment: &'static str,
    batch: u32,
    /// The first steps, which are not counted.
    warm_up: usize,
    /// Steps that are counted.
    timed: usize,
}

const WORKS: [Work; 2] = [
    Work {
        name: "quickstart_b8",
        what: "quickstart, 128 px, batch 8",
        experiment: "experiments/quickstart.toml",
        batch: 8,
        warm_up: 5,
        timed: 40,
    },
    Work {
        name: "fc6_b16",
        what: "FC6, 227 px, batch 16",
        experiment: "experiments/fc6.toml",
        batch: 16,
        warm_up: 2,
        timed: 8,
    },
];

/// What changes in the experiments: weights and images that every workspace has, a gate that never closes, so that each
/// step updates both networks, a line of the log for each step, and as few reports as there can be.
const SETS: [&str; 12] = [
    "data.train=data/debian/train",
    "data.test=data/debian/test",
    "encoder.weights=random:1",
    "comparator.weights=random:1",
    "gate.d_off_below=-1.0",
    "gate.g_off_above=1e300",
    "train.precision=fp32",
    "train.log_every=1",
    "train.checkpoint_every=1000000",
    "train.sample_every=0",
    "train.eval_every=0",
    "train.eval_images=2",
];

/// The steps of one work by one number of processes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Steps {
    /// The work.
    pub work: &'static str,
    /// How many processes.
    pub processes: u32,
    /// Threads of each.
    pub threads: usize,
    /// Seconds of each step, as rank 0 logs them.
    pub step_s: Vec<f64>,
    /// Those of them that rank 0 spent in sums over all processes. Empty for one process.
    pub sums_s: Vec<f64>,
}

/// Times all works by 1, 2 and 4 processes.
///
/// # Errors
/// A refusal where the sample photos are not prepared; a failed build or training.
pub fn measure(ws: &Workspace) -> Result<Vec<Steps>> {
    if !ws.path(SAMPLE).is_dir() {
        return Err(refuse(
            "the steps are those of a training on the sample photos: \
             cargo xtask setup --only torch,build,photos,weights,sample",
        ));
    }
    note("building deepsim-train (release; some minutes the first time)");
    let programs = Programs::for_speed(ws, &[TRAIN])?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Vec::new();
    for work in &WORKS {
        for (processes, threads) in settings(cores) {
            note(format_args!(
                "{}: processes {processes}, threads of each {threads}",
                work.what
            ));
            all.push(train(ws, &programs, work, processes, threads)?);
        }
    }
    Ok(all)
}

/// Processes, and threads of each: one thread alone, then all cores divided.
fn settings(cores: usize) -> Vec<(u32, usize)> {
    let mut all = vec![(1, 1)];
    for processes in PROCESSES {
        let share = cores / usize::try_from(processes).unwrap_or(1);
        let next = (processes, share.max(1));
        if !all.contains(&next) {
            all.push(next);
        }
    }
    all
}

/// Trains, and reads what was logged.
fn train(
    ws: &Workspace,
    programs: &Programs,
    work: &Work,
    processes: u32,
    threads: usize,
) -> Result<Steps> {
    let target = ws.path("target");
    fs::create_dir_all(&target).with_context(|| format!("creating {}", target.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("dist-")
        .tempdir_in(&target)
        .with_context(|| format!("writing in {}", target.display()))?;
    let run = folder.path().join("run");
    let arguments = arguments(work, threads, &run);
    let port = free_port()?;
    let place = |rank: u32| {
        [
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", processes.to_string()),
            ("MASTER_ADDR", "127.0.0.1".to_owned()),
            ("MASTER_PORT", port.to_string()),
        ]
    };
    let mut others = Others::default();
    for rank in 1..processes {
        let child = Command::new(programs.path(TRAIN)?)
            .current_dir(ws.root())
            .args(&arguments)
            .envs(place(rank))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting rank {rank}"))?;
        others.0.push(child);
    }
    let mut first = programs.get(ws, "training", TRAIN)?.args(&arguments);
    for (key, value) in place(0) {
        first = first.env(key, value);
    }
    first.without_stdout().run()?;
    others.end()?;
    let log = run.join("metrics.jsonl");
    let text = fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
    let (step_s, sums_s) = logged(&text, work);
    if step_s.len() != work.timed || (processes > 1) != (sums_s.len() == work.timed) {
        bail!(
            "{} has the times of {} steps and {} sums, not of {}",
            log.display(),
            step_s.len(),
            sums_s.len(),
            work.timed
        );
    }
    Ok(Steps {
        work: work.name,
        processes,
        threads,
        step_s,
        sums_s,
    })
}

/// The trainer's arguments.
fn arguments(work: &Work, threads: usize, run: &Path) -> Vec<String> {
    // The last step has the checkpoint in its time, and is not counted.
    let steps = work.warm_up + work.timed + 1;
    let mut all: Vec<String> = ["--quiet", "--device", "cpu", "--out"]
        .map(str::to_owned)
        .into();
    all.insert(0, work.experiment.to_owned());
    all.push(run.display().to_string());
    let own = [
        format!("train.steps={steps}"),
        format!("train.batch_size={}", work.batch),
        format!("train.threads={threads}"),
    ];
    for set in SETS.map(str::to_owned).into_iter().chain(own) {
        all.extend(["--set".to_owned(), set]);
    }
    all
}

/// Seconds of the steps that count, and of their sums, out of a run's log.
fn logged(log: &str, work: &Work) -> (Vec<f64>, Vec<f64>) {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    // Lines of an evaluation have no rate.
    let steps: Vec<(f64, Option<f64>)> = lines
        .filter_map(|line| {
            let rate = line.get("images_per_s")?.as_f64()?;
            let sums = line.get("sums_s").and_then(Value::as_f64);
            Some((f64::from(work.batch) / rate, sums))
        })
        .skip(work.warm_up)
        .take(work.timed)
        .collect();
    let sums = steps.iter().filter_map(|(_, sums)| *sums).collect();
    (steps.iter().map(|(step, _)| *step).collect(), sums)
}

/// A port of this machine that nobody listens at.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("its address")?.port())
}

/// The processes beside rank 0; none is left behind.
#[derive(Debug, Default)]
struct Others(Vec<std::process::Child>);

impl Others {
    /// Waits for their end.
    fn end(&mut self) -> Result<()> {
        for child in &mut self.0 {
            let status = child.wait().context("waiting for a process")?;
            if !status.success() {
                bail!("a process failed ({status})");
            }
        }
        Ok(())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Nothing to do for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A line for each work and number of processes.
pub fn table(all: &[Steps]) -> String {
    let mut out = String::from(
        "steps of deepsim-train in fp32; the batch is split over the processes\n\
         share of sums: of rank 0's step, waiting for slower processes included\n\
         speed: against one process with one thread\n\n",
    );
    let mut line = |cells: [&str; 7]| {
        let [work, processes, threads, median, range, speed, share] = cells;
        let _ = writeln!(
            out,
            "{work:<28}  {processes:>9}  {threads:>7}  {median:>9}  {range:>16}  {speed:>6}  {share:>13}"
        );
    };
    line([
        "",
        "processes",
        "threads",
        "median ms",
        "range ms",
        "speed",
        "share of sums",
    ]);
    for work in &WORKS {
        let own: Vec<&Steps> = all.iter().filter(|s| s.work == work.name).collect();
        let single = own.iter().find(|s| (s.processes, s.threads) == (1, 1));
        let single = single.and_then(|s| summary(&s.step_s));
        for steps in own {
            let Some(found) = summary(&steps.step_s) else {
                continue;
            };
            let ms = |seconds: f64| significant(1e3 * seconds, 3);
            let speed = single.map_or("-".to_owned(), |single| {
                format!("{:.2} x", single.median / found.median)
            });
            line([
                work.what,
                &steps.processes.to_string(),
                &steps.threads.to_string(),
                &ms(found.median),
                &format!("{} to {}", ms(found.min), ms(found.max)),
                &speed,
                &share(steps),
            ]);
        }
    }
    out
}

/// The median over the steps of the share that sums have of each.
fn share(steps: &Steps) -> String {
    let both = steps.sums_s.iter().zip(&steps.step_s);
    let shares: Vec<f64> = both.map(|(sums, step)| 100.0 * sums / step).collect();
    summary(&shares).map_or("-".to_owned(), |found| format!("{:.0} %", found.median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_are_divided_and_one_thread_is_the_measure() {
        assert_eq!(settings(2), [(1, 1), (1, 2), (2, 1), (4, 1)]);
        assert_eq!(settings(1), [(1, 1), (2, 1), (4, 1)]);
        assert_eq!(settings(16), [(1, 1), (1, 16), (2, 8), (4, 4)]);
    }

    #[test]
    fn times_are_those_of_the_steps_that_count() {
        let work = Work {
            batch: 8,
            warm_up: 1,
            timed: 2,
            ..WORKS[0]
        };
        let log = "{\"step\":1,\"images_per_s\":1.0,\"sums_s\":9.0}\n\
                   {\"step\":2,\"images_per_s\":80.0,\"sums_s\":0.02}\n\
                   {\"step\":3,\"images_per_s\":40.0,\"sums_s\":0.05}\n\
                   {\"step\":4,\"images_per_s\":2.0,\"sums_s\":0.03}\n\
                   {\"step\":4,\"eval.n\":2}\n";
        assert_eq!(logged(log, &work), (vec![0.1, 0.2], vec![0.02, 0.05]));
        let alone = log.replace("sums_s", "other");
        assert_eq!(logged(&alone, &work), (vec![0.1, 0.2], vec![]));
        assert_eq!(logged("", &work), (vec![], vec![]));
    }

    #[test]
    fn the_trainer_takes_one_step_more_than_is_counted() {
        let all = arguments(&WORKS[1], 3, Path::new("target/x")).join(" ");
        assert!(all.starts_with("experiments/fc6.toml --quiet --device cpu --out target/x --set "));
        for set in ["train.steps=11", "train.batch_size=16", "train.threads=3"] {
            assert!(all.contains(&format!("--set {set}")), "{all}");
        }
    }

    #[test]
    fn the_table_has_speed_and_share() {
        let steps = |processes, threads, step_s: &[f64], sums_s: &[f64]| Steps {
            work: WORKS[0].name,
            processes,
            threads,
            step_s: step_s.to_vec(),
            sums_s: sums_s.to_vec(),
        };
        let all = [
            steps(1, 1, &[0.4, 0.5, 0.4], &[]),
            steps(2, 1, &[0.25, 0.2, 0.3], &[0.05, 0.05, 0.03]),
        ];
        let printed = table(&all);
        let lines: Vec<Vec<&str>> = printed
            .lines()
            .skip(5)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0].join(" "),
            "quickstart, 128 px, batch 8 1 1 400 400 to 500 1.00 x -"
        );
        assert_eq!(
            lines[1].join(" "),
            "quickstart, 128 px, batch 8 2 1 250 200 to 300 1.60 x 20 %"
        );
        assert_eq!(lines.len(), 2);
        // Nothing runs over the column beside it.
        let widths: Vec<usize> = printed.lines().skip(4).map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{printed}");
    }
}
