//! Coverage-guided fuzzing with libFuzzer, on the stable toolchain.
//!
//! rustc's own pass for coverage (`sancov-module`) is LLVM's and needs no nightly compiler; only
//! AddressSanitizer for Rust would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::host;
use super::progress::{self, Progress};
use crate::documents::markdown::markdown;
use crate::numbers::thousands;
use crate::samples;
use deepsim_tools::child::Child;
use deepsim_tools::failure::{ChildFailed, Ending, is_interrupted, refuse};
use deepsim_tools::files;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::workspace::Workspace;

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask fuzz --record
      all targets, as often as their table says: docs/results/fuzz.json
  cargo xtask fuzz npy pth
      these two
  cargo xtask fuzz images --seconds 600
      ten minutes, however many executions that makes
  cargo xtask fuzz --runs 10000
      a quick look at each

What breaks something is kept in tools/fuzz/found/TARGET, where every
`cargo xtask test` tries it again: commit it with the repair. What the fuzzer
learned stays in target/fuzz/corpus and is used next time.";

const NAME: &str = "fuzz";
const FOLDER: &str = "tools/fuzz";
/// Slowest that one input may be, seconds, and largest that the process may become, MiB.
const SLOWEST: u32 = 20;
const LARGEST: u32 = 4096;

/// Which targets, how often.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these targets of tools/fuzz/targets.toml
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Executions of each target, instead of its table's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// Stop each target after N seconds, however many executions it had
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Start without what earlier runs learned, and write docs/results/fuzz.json
    #[arg(long, conflicts_with_all = ["targets", "runs", "seconds"])]
    record: bool,
}

#[derive(Debug, Deserialize)]
struct Table {
    target: Vec<Target>,
}

/// A line of `tools/fuzz/targets.toml`.
#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    reads: String,
    runs: u64,
    max_len: u32,
    #[serde(default)]
    also: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Evidence<'a> {
    name: &'static str,
    command: &'static str,
    commit: Option<String>,
    targets: &'a [Outcome],
}

/// What a target went through.
#[derive(Debug, Serialize)]
struct Outcome {
    target: String,
    reads: String,
    seconds: u64,
    #[serde(flatten)]
    progress: Progress,
    /// Inputs that broke something in this run.
    found: Vec<String>,
}

/// Runs the targets one after the other.
///
/// # Errors
/// An unknown target, a failed build, and inputs that broke something.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let Table { target: all } = files::toml(&ws.path(FOLDER).join("targets.toml"))?;
    let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
    if let Some(unknown) = args
        .targets
        .iter()
        .find(|name| !names.contains(&name.as_str()))
    {
        return Err(refuse(format!(
            "no target {unknown}; there are {}",
            names.join(", ")
        )));
    }
    let chosen: Vec<&Target> = all
        .iter()
        .filter(|target| args.targets.is_empty() || args.targets.contains(&target.name))
        .collect();

    let mut stages = Stages::new(chosen.len() + 3);
    stages.next("set-up");
    samples::set_up(ws, &["torch", "build"], &[])?;
    stages.next("building with coverage");
    let commit = samples::commit(ws);
    let program = build(ws)?;
    stages.next("a fault made on purpose, which must be found");
    control(ws, &program)?;
    let mut outcomes = Vec::new();
    for target in chosen {
        let runs = match (args.runs, args.seconds) {
            (Some(runs), _) => Some(runs),
            (None, Some(_)) => None,
            (None, None) => Some(target.runs),
        };
        stages.next(&format!("{}: {}", target.name, target.reads));
        outcomes.push(one(ws, &program, target, runs, args)?);
    }
    print!("{}", table(&outcomes));
    let found: Vec<&str> = outcomes
        .iter()
        .flat_map(|o| &o.found)
        .map(String::as_str)
        .collect();
    if args.record {
        let evidence = Evidence {
            name: NAME,
            command: "cargo xtask fuzz --record",
            commit,
            targets: &outcomes,
        };
        samples::write(ws, NAME, &evidence)?;
    }
    if !found.is_empty() {
        bail!(
            "{} inputs broke something:\n  {}\nrepair it, and commit them with the repair",
            found.len(),
            found.join("\n  ")
        );
    }
    Ok(())
}

fn build(ws: &Workspace) -> Result<PathBuf> {
    let host = host(ws)?;
    // The flags of cargo-fuzz, less its sanitizer. The program lies one folder deeper than
    // .cargo/config.toml reckons with, and the variable replaces what stands there.
    let flags = [
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
        "-Clink-dead-code",
        "--cfg=fuzzing",
        "-Clink-arg=-Wl,-rpath,$ORIGIN/../../../../third_party/py/torch/lib",
    ];
    Child::cargo("building the fuzzer", ws.root())
        .args(["build", "--quiet", "--package", "deepsim-fuzz"])
        .args(["--features", "libfuzzer", "--profile", "fuzz"])
        .args(["--target", &host, "--target-dir", "target/fuzz"])
        .env("RUSTFLAGS", flags.join(" "))
        .run()?;
    Ok(ws.path("target/fuzz").join(host).join("fuzz/deepsim-fuzz"))
}

/// Whether the fuzzer finds eight bytes of which each opens another branch.
fn control(ws: &Workspace, program: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("making a temporary folder")?;
    let prefix = format!("-artifact_prefix={}/", scratch.path().display());
    let child = Child::new("the control", program, ws.root())
        .args(["-seed=1", "-runs=5000000", "-max_len=16", &prefix])
        .env("DEEPSIM_FUZZ_TARGET", "control");
    let log = ws.path("target/fuzz/control.log");
    let (ended, progress, found) = progress::watch(child, &log, None)?;
    if let Err(error) = plainly(ended)
        && is_interrupted(&error)
    {
        return Err(error);
    }
    if found.is_empty() {
        bail!(
            "the fuzzer did not find the fault that is there on purpose in {} executions: it is not guided by coverage here; \
             see {}",
            progress.executions,
            ws.show(&log)
        )
    } else {
        Ok(())
    }
}

/// What libFuzzer ends with after a Ctrl-C or SIGTERM.
const INTERRUPTED: u8 = 72;

/// Ctrl-C is Ctrl-C, whatever number a program has for it.
fn plainly(ended: Result<()>) -> Result<()> {
    ended.map_err(|error| match error.downcast::<ChildFailed>() {
        Ok(failed) if failed.ending.code() == INTERRUPTED => ChildFailed {
            ending: Ending::Signal(2),
            ..failed
        }
        .into(),
        Ok(failed) => failed.into(),
        Err(error) => error,
    })
}

fn one(
    ws: &Workspace,
    program: &Path,
    target: &Target,
    runs: Option<u64>,
    args: &Args,
) -> Result<Outcome> {
    let found = ws.path(FOLDER).join("found").join(&target.name);
    let corpus = ws.path("target/fuzz/corpus").join(&target.name);
    if args.record && corpus.exists() {
        fs::remove_dir_all(&corpus).with_context(|| format!("removing {}", corpus.display()))?;
    }
    for folder in [&found, &corpus] {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    // Formats that are folders are laid out there at each execution: in memory, if there is any.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .context("making a temporary folder")?;
    let mut arguments = vec![
        "-seed=1".to_owned(),
        "-print_final_stats=1".to_owned(),
        format!("-max_len={}", target.max_len),
        format!("-timeout={SLOWEST}"),
        // Slower than it likes is no finding; slower than the limit is.
        format!("-report_slow_units={SLOWEST}"),
        format!("-rss_limit_mb={LARGEST}"),
        format!("-artifact_prefix={}/", found.display()),
    ];
    arguments.extend(runs.map(|runs| format!("-runs={runs}")));
    arguments.extend(
        args.seconds
            .map(|seconds| format!("-max_total_time={seconds}")),
    );
    // The first folder is written to, the others are only read.
    arguments.push(corpus.display().to_string());
    let seeds = Path::new(FOLDER).join("seeds").join(&target.name);
    for folder in std::iter::once(&seeds).chain(&target.also) {
        let folder = ws.path(folder);
        if folder.exists() {
            arguments.push(folder.display().to_string());
        }
    }
    let begun = Instant::now();
    let log = ws.path("target/fuzz").join(format!("{}.log", target.name));
    let child = Child::new(format!("fuzzing {}", target.name), program, ws.root())
        .args(&arguments)
        .env("DEEPSIM_FUZZ_TARGET", &target.name)
        .env("OMP_NUM_THREADS", "1")
        .env("TMPDIR", scratch.path());
    let (ended, progress, written) = progress::watch(child, &log, runs)?;
    let found: Vec<String> = written
        .iter()
        .map(|path| ws.show(Path::new(path)).to_string())
        .collect();
    match (plainly(ended), found.is_empty()) {
        // Without an input to blame it is the fuzzer that failed, or Ctrl-C.
        (Err(error), true) => return Err(error.context(format!("see {}", ws.show(&log)))),
        (_, false) => note(format_args!(
            "broken by {}; see {}",
            found.join(", "),
            ws.show(&log)
        )),
        (Ok(()), true) => {}
    }
    Ok(Outcome {
        target: target.name.clone(),
        reads: target.reads.clone(),
        seconds: begun.elapsed().as_secs(),
        progress,
        found,
    })
}

/// What a person reads, and docs/reliability.md holds.
fn table(outcomes: &[Outcome]) -> String {
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .map(|outcome| {
            let Progress {
                executions,
                edges_of_seeds,
                edges,
                corpus,
                peak_mib,
                ..
            } = outcome.progress;
            vec![
                outcome.target.clone(),
                outcome.reads.clone(),
                thousands(executions as f64),
                seconds(Duration::from_secs(outcome.seconds)),
                edges_of_seeds.to_string(),
                edges.to_string(),
                corpus.to_string(),
                format!("{peak_mib} MiB"),
                outcome.found.len().to_string(),
            ]
        })
        .collect();
    let head = [
        "target",
        "reads",
        "executions",
        "time",
        "edges by the seeds",
        "edges in the end",
        "kept inputs",
        "largest",
        "found",
    ];
    markdown(&head, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_target() {
        let outcome = Outcome {
            target: "npy".into(),
            reads: "arrays".into(),
            seconds: 61,
            progress: Progress {
                executions: 1000,
                edges_of_seeds: 3,
                edges: 5,
                ..Progress::default()
            },
            found: vec![],
        };
        let text = table(&[outcome]);
        assert!(
            text.contains("| npy | arrays | 1,000 | 1m01s | 3 | 5 |"),
            "{text}"
        );
    }
}
