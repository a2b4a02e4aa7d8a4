//! kill -9 of processes that train one run together: torchrun begins again each time, and what comes out in the end must be
//! what an undisturbed training gives, bit for bit.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::kills::{hashes, verify};
use super::small::{arguments, clear, newest, random, ready};
use crate::samples;
use deepsim_tools::failure::refuse;
use deepsim_tools::machine::processor;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::training::newest_checkpoint;
use deepsim_tools::workspace::Workspace;

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask rank-kills              10 kills: docs/results/rank-kills.json
  cargo xtask rank-kills --times 2    a trial, printed only

Needs torchrun: cargo xtask setup --torch full.";

const NAME: &str = "rank-kills";
/// A trial with fewer leaves no record.
const WHOLE: u32 = 10;
/// Processes that train together.
const RANKS: u64 = 2;
/// With it the bits do not depend on the number of processes.
const SHARDS: u64 = 4;
/// Steps for each kill: the moments are spread over all of them.
const STEPS: u64 = 40;
/// Not a divisor of the steps: a kill may lose one step, or six.
const CHECKPOINT_EVERY: u64 = 7;
/// A kill whose step was done by earlier processes comes up to so many milliseconds after its own have started, most
/// likely before their first step. Others come up to a fifteenth of that after their step.
const WITHIN_MS: u64 = 1500;
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(2);

/// How many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often one of the processes is killed
    #[arg(long, value_name = "N", default_value_t = WHOLE, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// Seed of the moments and of the processes that are hit
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
}

/// A kill that is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Plan {
    /// Not before this step is logged.
    step: u64,
    /// Milliseconds after the start; a fifteenth of it after a step.
    after_ms: u64,
    /// The process that is hit.
    rank: u64,
}

/// A kill that came.
#[derive(Debug, Serialize)]
struct Kill {
    rank: u64,
    /// The last step in the log.
    step: Option<u64>,
    /// Milliseconds after it was there, or after the start.
    after_ms: u64,
    /// The step that the processes had gone on from; none if it came before they could say so.
    began_at: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Evidence {
    name: &'static str,
    command: String,
    commit: Option<String>,
    processor: Option<String>,
    seed: u64,
    ranks: u64,
    shards: u64,
    steps: u64,
    checkpoint_every: u64,
    kills: u32,
    moments: Vec<Kill>,
    /// The step that the last processes went on from.
    last_began_at: Option<u64>,
    /// Newest checkpoints that verified after a kill; before the first one is due there is none.
    verified: u32,
    /// Files of the last checkpoint that equal the undisturbed run's.
    equal_files: usize,
}

/// torchrun and the processes that it has started; none outlives a trial that failed.
struct Launched {
    torchrun: Child,
    log: PathBuf,
}

impl Launched {
    fn start(ws: &Workspace, programs: &Programs, run: &Path, more: &[String]) -> Result<Launched> {
        let log = ws.path(run).with_extension("log");
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let out = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let err = out.try_clone().context("sharing the log")?;
        let torchrun = Command::new("python3")
            .arg(torchrun(ws))
            .args(["--no-python", "--standalone", "--nproc-per-node"])
            .arg(RANKS.to_string())
            .args(["--max-restarts", "1000"])
            .arg(programs.path("deepsim-train")?)
            .args(arguments(run, more))
            .args(["--resume", "--device", "cpu"])
            .current_dir(ws.root())
            .env("PYTHONPATH", ws.python())
            .env_remove("RANK")
            .env_remove("WORLD_SIZE")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .context("starting torchrun by python3")?;
        Ok(Launched { torchrun, log })
    }

    /// The processes by their ranks, those that are there.
    fn ranks(&self) -> BTreeMap<u64, u32> {
        let pid = self.torchrun.id();
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        let threads = threads.into_iter().flatten().flatten();
        let children =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|line| {
                let numbers = line.split_whitespace().filter_map(|n| n.parse().ok());
                numbers.collect::<Vec<u32>>()
            })
            .collect();
        let ranked = children
            .into_iter()
            .filter_map(|child| Some((rank_of(child)?, child)));
        ranked.collect()
    }

    fn lives(&mut self) -> Result<bool> {
        Ok(self.torchrun.try_wait().context("waiting")?.is_none())
    }

    /// Waits until `found` has something.
    fn until<T>(&mut self, what: &str, found: impl Fn(&Launched) -> Option<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = found(self) {
                return Ok(found);
            }
            let log = self.log.display();
            ensure!(
                begun.elapsed() < PATIENCE,
                "{what}: nothing came of it in {PATIENCE:?}; see {log}"
            );
            if !self.lives()? {
                bail!("{what}: the training ended; see {}", self.log.display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for the end of all.
    fn ends(mut self) -> Result<()> {
        let begun = Instant::now();
        while self.lives()? {
            ensure!(
                begun.elapsed() < PATIENCE,
                "the training does not end; see {}",
                self.log.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let status = self.torchrun.wait().context("waiting")?;
        ensure!(
            status.success(),
            "torchrun failed ({status}); see {}",
            self.log.display()
        );
        Ok(())
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.lives().unwrap_or(true) {
            let ranks = self.ranks();
            let _ = self.torchrun.kill();
            for pid in ranks.into_values() {
                let _ = kill(pid);
            }
        }
        let _ = self.torchrun.wait();
    }
}

fn torchrun(ws: &Workspace) -> PathBuf {
    ws.python().join("bin/torchrun")
}

/// The rank that a process was given, if it is one of several.
fn rank_of(pid: u32) -> Option<u64> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let rank = variables.find_map(|variable| variable.strip_prefix(b"RANK="))?;
    std::str::from_utf8(rank).ok()?.parse().ok()
}

fn kill(pid: u32) -> Result<()> {
    // Of signals, std has only that to its own children.
    let status = Command::new("sh")
        .args(["-c", &format!("kill -KILL {pid}")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("starting a shell")?;
    ensure!(status.success(), "process {pid} could not be killed");
    Ok(())
}

/// The kills of a seed, by their steps.
fn plans(seed: u64, times: u32, steps: u64) -> Vec<Plan> {
    let mut random = random(seed);
    let mut plans: Vec<Plan> = (0..times)
        .map(|_| Plan {
            // At the end there is too little left to hit.
            step: random((steps * 3 / 4).max(1)),
            after_ms: random(WITHIN_MS),
            rank: random(RANKS),
        })
        .collect();
    plans.sort_unstable();
    plans
}

/// What rank 0 has said in this part of the log of where it begins: the last of it.
fn began_at(said: &[u8]) -> Option<u64> {
    String::from_utf8_lossy(said)
        .lines()
        .rev()
        .find_map(|line| {
            let number = |after: &str| -> Option<u64> {
                let digits = line.split_once(after)?.1;
                let end = digits
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(digits.len());
                digits[..end].parse().ok()
            };
            number(", resumed at step ")
                .or_else(|| number(", steps ").map(|first| first.saturating_sub(1)))
        })
}

/// What was said so far.
fn said(log: &Path) -> Result<Vec<u8>> {
    fs::read(log).with_context(|| format!("reading {}", log.display()))
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let (programs, mut stages) = ready(ws)?;
    if !torchrun(ws).is_file() {
        return Err(refuse(
            "there is no torchrun: `cargo xtask setup --torch full` fetches it",
        ));
    }
    let commit = samples::commit(ws);
    let [whole, cut] = ["rank-kills-whole", "rank-kills-cut"].map(|n| Path::new("runs").join(n));
    for run in [&whole, &cut] {
        clear(&ws.path(run))?;
    }
    let steps = u64::from(args.times) * STEPS;
    let often = [
        format!("train.steps={steps}"),
        format!("train.deterministic_shards={SHARDS}"),
        format!("train.checkpoint_every={CHECKPOINT_EVERY}"),
        "train.log_every=1".to_owned(),
        "train.sample_every=0".to_owned(),
        "train.eval_every=0".to_owned(),
    ];
    stages.next("training undisturbed");
    Launched::start(ws, &programs, &whole, &often)?.ends()?;
    stages.next(&format!("killing {} times", args.times));
    let mut launched = Launched::start(ws, &programs, &cut, &often)?;
    let run = ws.path(&cut);
    let (mut moments, mut verified, mut heard) = (Vec::new(), 0, 0);
    let mut before: BTreeMap<u64, u32> = BTreeMap::new();
    for (at, plan) in plans(args.seed, args.times, steps).into_iter().enumerate() {
        let what = format!("kill {}", at + 1);
        let all = |launched: &Launched| {
            let ranks = launched.ranks();
            let new = ranks
                .iter()
                .all(|(rank, pid)| before.get(rank) != Some(pid));
            (new && ranks.len() as u64 == RANKS).then_some(ranks)
        };
        let ranks = launched.until(&what, all)?;
        let reached = || plan.step == 0 || step(&run) >= Some(plan.step);
        let done = reached();
        launched.until(&what, |_| reached().then_some(()))?;
        let after_ms = if done {
            plan.after_ms
        } else {
            plan.after_ms / 15
        };
        std::thread::sleep(Duration::from_millis(after_ms));
        let pid = ranks.get(&plan.rank).context("no such rank")?;
        let logged = step(&run);
        ensure!(
            rank_of(*pid) == Some(plan.rank),
            "{what}: the process had ended before; see {}",
            launched.log.display()
        );
        kill(*pid)?;
        let said = said(&launched.log)?;
        let began = began_at(said.get(heard..).unwrap_or_default());
        heard = said.len();
        note(format_args!(
            "{what}: rank {} after step {}, of processes that began after step {}",
            plan.rank,
            logged.map_or_else(|| "none".to_owned(), |step| step.to_string()),
            began.map_or_else(|| "none yet".to_owned(), |step| step.to_string())
        ));
        if let Some(newest) = newest_checkpoint(&run) {
            verify(&newest).with_context(|| format!("after {what}"))?;
            verified += 1;
        }
        moments.push(Kill {
            rank: plan.rank,
            step: logged,
            after_ms,
            began_at: began,
        });
        before = ranks;
    }
    stages.next("going on to the end");
    let log = launched.log.clone();
    launched.ends()?;
    let last_began_at = began_at(said(&log)?.get(heard..).unwrap_or_default());
    let [a, b] = [&whole, &cut].map(|run| -> Result<_> {
        let newest = newest_checkpoint(&ws.path(run)).context("no checkpoint")?;
        hashes(&newest)
    });
    let (a, b) = (a?, b?);
    if a != b {
        bail!("the last checkpoints differ: {a:?}, {b:?}");
    }
    println!(
        "{} kills under torchrun; {verified} newest checkpoints verified; after the last, {} files equal those of the \
         undisturbed run, byte for byte",
        args.times,
        a.len()
    );
    if args.times < WHOLE {
        note(format_args!("no record: it takes {WHOLE} kills"));
        return Ok(());
    }
    let evidence = Evidence {
        name: NAME,
        command: format!(
            "cargo xtask rank-kills --times {} --seed {}",
            args.times, args.seed
        ),
        commit,
        processor: processor(),
        seed: args.seed,
        ranks: RANKS,
        shards: SHARDS,
        steps,
        checkpoint_every: CHECKPOINT_EVERY,
        kills: args.times,
        moments,
        last_began_at,
        verified,
        equal_files: a.len(),
    };
    samples::write(ws, NAME, &evidence)
}

/// The last step that a run has logged.
fn step(run: &Path) -> Option<u64> {
    // Steps are whole numbers, far below what a double holds exactly.
    newest(run, "step").map(|step| step as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_plans_the_same_kills_and_hits_every_rank() {
        let planned = plans(1, 10, 400);
        assert_eq!(planned, plans(1, 10, 400));
        assert_ne!(planned, plans(2, 10, 400));
        assert!(planned.is_sorted());
        assert!(
            planned
                .iter()
                .all(|p| p.step < 300 && p.after_ms < WITHIN_MS)
        );
        for rank in 0..RANKS {
            assert!(planned.iter().any(|p| p.rank == rank), "{planned:?}");
        }
    }

    #[test]
    fn where_processes_begin_is_read_from_what_they_say() {
        let first = "tiny: a → 64x64 px; 12 images, batch 4, steps 1 to 400\nstep 7/400 ETA 1s\n";
        let again = "tiny: a → 64x64 px; 12 images, batch 4, resumed at step 14 of 400\n";
        assert_eq!(began_at(first.as_bytes()), Some(0));
        assert_eq!(
            began_at(format!("{first}{again}step 15/400\n").as_bytes()),
            Some(14)
        );
        assert_eq!(began_at(b"starting\n"), None);
    }

    #[test]
    fn a_process_is_known_by_its_rank() {
        let mut child = Command::new("sleep")
            .arg("60")
            .env("RANK", "3")
            .env_remove("WORLD_SIZE")
            .spawn()
            .unwrap();
        let begun = Instant::now();
        // Until the program is there, its environment is that of this process.
        while rank_of(child.id()) != Some(3) {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(POLL);
        }
        kill(child.id()).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
