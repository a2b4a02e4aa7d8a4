//! `cargo xtask parity`: the comparisons with PyTorch over seeds and settings.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};

use crate::verdict::{self, Verdict};
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::machine::cpuinfo;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::workspace::Workspace;

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask parity
      ten seeds under every setting that this processor can run
  cargo xtask parity --seeds 1 --setting avx2
      one of each
  cargo xtask parity --seeds 1 --large
      with the tests of large tensors, as `cargo xtask test` runs them
  cargo xtask parity --record
      write docs/results/parity.json, after each seed that passed
  cargo xtask parity --record --add
      go on where that was cut: recorded seeds are left out

Settings, by the variables that libtorch, oneDNN, MKL and our own kernels read:
  native   none: as the machine is
  avx2     ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
           DEEPSIM_CPU_CAPABILITY=avx2
  mkl      MKL_CBWR=COMPATIBLE DEEPSIM_CPU_CAPABILITY=default
  sse41    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41
           DEEPSIM_CPU_CAPABILITY=default
  oldest   all variables of mkl and sse41: with avx2 what `cargo xtask test`
           runs, and only run if it is named

One test by hand with another seed:
  DEEPSIM_PARITY_SEED=7 cargo test -p deepsim-train --test parity
Exit codes: 0 all passed, 101 a test failed (the last lines name it), 2 an
unknown setting.";

/// The variable with the tests' seed (`crates/deepsim-nets/tests/common/mod.rs`).
const SEED: &str = "DEEPSIM_PARITY_SEED";
const RESULTS: &str = "docs/results/parity.json";

/// The variable with the file that the tests write their errors to.
const RECORD: &str = "DEEPSIM_PARITY_RECORD";
/// The variable that lets them compare the reference's two precisions as well.
const REFERENCE: &str = "DEEPSIM_PARITY_REFERENCE";

/// The variable with the folder that keeps what PyTorch answers, for all settings.
pub const CACHE: &str = "DEEPSIM_PARITY_CACHE";

/// Test programs that compare with PyTorch.
const PROGRAMS: [&str; 5] = ["parity", "vae", "vaegan", "one_pass", "shared_pass"];

/// Tests of large tensors whose kernels a smaller test runs too (with other sizes, or another network's), and what no
/// processor's arithmetic can change. They take about half of the time.
const LARGE: [&str; 18] = [
    "alexnet_fully_connected",
    "caffenet_fully_connected",
    "vgg16_fully_connected",
    "weight_gradients_of",
    "generator_for_fc",
    "generators_of_dosovitskiy_and_brox",
    "the_reference_agrees_with_the_published_facts",
    "without_its_weight_the_divergence",
    "lpips_with_trained_weights",
    "dists_with_trained_weights",
    "encoders::",
    "decoder::",
    "features_of_fid",
    "inception_is",
    "distances_of_distributions",
    "at_227",
    "noise_beside_the_features",
    "two_iterations_of_one_pass",
];

/// An arithmetic that libtorch's and our own kernels are held to.
#[derive(Debug)]
pub struct Setting {
    /// What it is called on the command line.
    pub name: &'static str,
    variables: &'static [(&'static str, &'static str)],
    /// A processor flag that it needs.
    needs: Option<&'static str>,
}

/// All settings, the machine's own first.
pub static SETTINGS: [Setting; 4] = [
    Setting {
        name: "native",
        variables: &[],
        needs: None,
    },
    Setting {
        name: "avx2",
        variables: &[
            ("ATEN_CPU_CAPABILITY", "avx2"),
            ("ONEDNN_MAX_CPU_ISA", "AVX2"),
            ("DEEPSIM_CPU_CAPABILITY", "avx2"),
        ],
        needs: Some("avx2"),
    },
    Setting {
        name: "mkl",
        variables: &[
            ("MKL_CBWR", "COMPATIBLE"),
            ("DEEPSIM_CPU_CAPABILITY", "default"),
        ],
        needs: None,
    },
    Setting {
        name: "sse41",
        variables: &[
            ("ATEN_CPU_CAPABILITY", "default"),
            ("ONEDNN_MAX_CPU_ISA", "SSE41"),
            ("DEEPSIM_CPU_CAPABILITY", "default"),
        ],
        needs: None,
    },
];

/// What `mkl` and `sse41` force, at once: the suite has no time for each of them.
static OLDEST: Setting = Setting {
    name: "oldest",
    variables: &[
        ("MKL_CBWR", "COMPATIBLE"),
        ("ATEN_CPU_CAPABILITY", "default"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41"),
        ("DEEPSIM_CPU_CAPABILITY", "default"),
    ],
    needs: None,
};

/// The settings of `cargo xtask test` beside the machine's own.
pub fn of_the_suite() -> [&'static Setting; 2] {
    [&SETTINGS[1], &OLDEST]
}

impl Setting {
    /// Whether this processor can run it.
    fn runs_here(&self) -> bool {
        self.needs
            .is_none_or(|flag| flags().iter().any(|f| f == flag))
    }

    /// Why it cannot be run here, or need not be.
    pub fn left_out(&self) -> Option<String> {
        if !self.runs_here() {
            return Some(self.lacks());
        }
        let forces_nothing =
            self.needs == Some("avx2") && !flags().iter().any(|flag| flag == "avx512f");
        forces_nothing.then(|| "what this processor has: run already".to_owned())
    }

    /// What it needs.
    fn lacks(&self) -> String {
        format!("this processor has no {}", self.needs.unwrap_or("reason"))
    }
}

fn flags() -> Vec<String> {
    cpuinfo("flags")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// The processor's name, and of the instruction sets that matter those that it has.
fn processor() -> String {
    let flags = flags();
    let has: Vec<&str> = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"]
        .into_iter()
        .filter(|&set| flags.iter().any(|f| f == set))
        .collect();
    let name = cpuinfo("model name").unwrap_or_default();
    format!("{name} ({})", has.join(", "))
}

/// The parity tests under a setting, ready to run. The whole workspace is selected: another selection of
/// packages would have cargo build everything with other features.
///
/// `answers` is a folder for PyTorch's answers.
pub fn tests(ws: &Workspace, setting: &Setting, large: bool, answers: &Path) -> Child {
    let skipped: &[&str] = if large { &[] } else { &LARGE };
    let child = Child::cargo(format!("cargo test ({})", setting.name), ws.root())
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(PROGRAMS.iter().flat_map(|program| ["--test", program]))
        .args(["--"])
        .args(skipped.iter().flat_map(|test| ["--skip", test]))
        .env("PYTHONPATH", ws.python())
        .env(CACHE, answers)
        // Tests run side by side: with a thread for each processor, each would wait for the others' threads.
        .env("OMP_NUM_THREADS", "1");
    let all = setting.variables.iter();
    all.fold(child, |child, (name, value)| child.env(name, value))
}

/// A folder for PyTorch's answers that goes when it is dropped: some gigabytes, for which the system's own folder for
/// temporary files may be too small.
///
/// # Errors
/// When it cannot be made.
pub fn answers(ws: &Workspace) -> Result<tempfile::TempDir> {
    let target = ws.path("target");
    std::fs::create_dir_all(&target)
        .and_then(|()| tempfile::tempdir_in(&target))
        .with_context(|| format!("making a folder in {}", target.display()))
}

/// Runs tests with their output passed on, each line behind `prefix`: what it said, and how it ended.
///
/// # Errors
/// When cargo cannot be started or heard.
pub fn watched(tests: Child, prefix: &str) -> Result<(Verdict, Result<()>)> {
    let mut verdict = Verdict::default();
    let ended = tests.together(|output| verdict.watch(output, prefix))?;
    Ok((verdict, ended))
}

/// What `cargo xtask parity` takes.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,
    /// The first of them; the others follow
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first: u32,
    /// Only this setting (repeatable)
    #[arg(long, value_name = "NAME")]
    setting: Vec<String>,
    /// Also the tests of large tensors: more than twice the time
    #[arg(long)]
    large: bool,
    /// Print the record on standard output as JSON
    #[arg(long)]
    json: bool,
    /// Write docs/results/parity.json
    #[arg(long)]
    record: bool,
    /// Keep the seeds that are recorded there for this processor, and leave them out
    #[arg(long, requires = "record")]
    add: bool,
}

/// One line of what the tests write.
#[derive(Debug, Deserialize)]
struct Line {
    test: String,
    what: String,
    error: Option<f64>,
    bound: Option<f64>,
}

/// How near a test came to its bounds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Worst {
    /// Comparisons made, over all seeds and settings.
    comparisons: u64,
    /// The largest error, as a share of its bound.
    ratio: f64,
    error: f64,
    bound: f64,
    what: String,
    seed: u32,
    setting: String,
}

/// What one processor did; the file holds a list of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    processor: String,
    seeds: Vec<u32>,
    /// Whether the tests of large tensors ran as well.
    large: bool,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    not_run: BTreeMap<String, String>,
    tests: BTreeMap<String, Worst>,
    /// How far the reference in single precision is from itself in double: the largest gradient's and
    /// output's error over the seeds, for each case.
    reference: BTreeMap<String, f64>,
    failures: Vec<String>,
}

impl Record {
    /// Whether another record is of the same tests on the same kind of machine.
    fn is_like(&self, other: &Record) -> bool {
        self.processor == other.processor
            && self.large == other.large
            && self.settings == other.settings
    }

    fn take(&mut self, text: &str, seed: u32, setting: &str) -> Result<()> {
        for line in text.lines() {
            let line: Line = serde_json::from_str(line).context("reading the tests' errors")?;
            let error = line.error.unwrap_or(f64::INFINITY);
            let Some(bound) = line.bound else {
                let case = line
                    .what
                    .rsplit_once(": ")
                    .map_or(&*line.what, |(case, _)| case);
                let case = case.trim_start_matches("reference: ").to_owned();
                let known = self.reference.entry(case).or_insert(0.0);
                *known = known.max(error);
                continue;
            };
            let worst = self.tests.entry(line.test).or_default();
            worst.comparisons += 1;
            if error / bound >= worst.ratio {
                let comparisons = worst.comparisons;
                *worst = Worst {
                    comparisons,
                    ratio: error / bound,
                    error,
                    bound,
                    what: line.what,
                    seed,
                    setting: setting.to_owned(),
                };
            }
        }
        Ok(())
    }
}

/// Runs the tests over seeds and settings.
///
/// # Errors
/// An unknown setting or one that this processor cannot run, a build that failed, failed tests.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let settings = chosen(&args.setting)?;
    let mut seeds: Vec<u32> = (0..args.seeds).map(|i| args.first + i).collect();
    let mut record = Record {
        processor: processor(),
        large: args.large,
        ..Record::default()
    };
    for setting in SETTINGS.iter().filter(|_| args.setting.is_empty()) {
        if let Some(why) = setting.left_out() {
            record.not_run.insert(setting.name.to_owned(), why);
        }
    }
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let file = folder.path().join("errors.jsonl");
    for setting in &settings {
        let variables = setting.variables.iter();
        let variables = variables
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        record.settings.insert(setting.name.to_owned(), variables);
    }
    let (mut others, alike): (Vec<Record>, Vec<Record>) = recorded(ws)?
        .into_iter()
        .partition(|other| !record.is_like(other));
    if args.add
        && let Some(earlier) = alike.into_iter().next()
    {
        record = earlier;
        seeds.retain(|seed| !record.seeds.contains(seed));
    }
    let mut stages = Stages::new(settings.len() * seeds.len());
    let mut failed = None;
    for &seed in &seeds {
        let answers = answers(ws)?;
        for setting in &settings {
            stages.next(&format!("parity: seed {seed}, {}", setting.name));
            let mut tests = tests(ws, setting, args.large, answers.path())
                .env(SEED, seed.to_string())
                .env(RECORD, &file);
            if args.record && setting.name == SETTINGS[0].name {
                tests = tests.env(REFERENCE, "1");
            }
            let (verdict, ended) = watched(tests, "")?;
            record.take(&read(&file)?, seed, setting.name)?;
            if let Err(why) = ended {
                if !verdict::of_tests(&verdict, &why) {
                    return Err(why);
                }
                let where_from = format!("{}, seed {seed}", setting.name);
                let all = verdict.failures.iter();
                record
                    .failures
                    .extend(all.map(|f| verdict::listed(&where_from, f)));
                failed.get_or_insert(why);
            }
        }
        record.seeds.push(seed);
        if args.record && failed.is_none() {
            others.push(record.clone());
            write(ws, &others)?;
            others.pop();
        }
    }
    if args.json {
        print!("{}", json(&record)?);
    }
    note(format_args!(
        "{}: {} comparisons in {}",
        record.processor,
        record.tests.values().map(|w| w.comparisons).sum::<u64>(),
        seconds(stages.elapsed())
    ));
    for (test, worst) in &record.tests {
        note(format_args!(
            "{:4.0} % of the bound  {test}: {} ({}, seed {})",
            100.0 * worst.ratio,
            worst.what,
            worst.setting,
            worst.seed
        ));
    }
    match failed {
        None => {
            note("all passed");
            Ok(())
        }
        Some(why) => {
            note("failed:");
            record.failures.iter().for_each(note);
            Err(why)
        }
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    let mut json = serde_json::to_string_pretty(value).context("writing the record")?;
    json.push('\n');
    Ok(json)
}

/// The records that are there.
fn recorded(ws: &Workspace) -> Result<Vec<Record>> {
    let path = ws.path(RESULTS);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {RESULTS}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {RESULTS}")),
    }
}

fn write(ws: &Workspace, records: &[Record]) -> Result<()> {
    let path = ws.path(RESULTS);
    std::fs::write(&path, json(&records)?).with_context(|| format!("writing {RESULTS}"))?;
    note(format_args!("wrote {RESULTS}"));
    Ok(())
}

/// What the tests have written since the last time; the file begins anew.
fn read(file: &Path) -> Result<String> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            std::fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
            Ok(text)
        }
        // A test program that ended at once has written nothing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Setting>> {
    if names.is_empty() {
        let all = SETTINGS.iter();
        return Ok(all.filter(|s| s.left_out().is_none()).collect());
    }
    let find = |name: &String| {
        let all = || SETTINGS.iter().chain([&OLDEST]);
        let known: Vec<&str> = all().map(|s| s.name).collect();
        let known = known.join(", ");
        let setting = all()
            .find(|s| s.name == name)
            .ok_or_else(|| refuse(format!("there is no setting `{name}`; there are {known}")))?;
        if setting.runs_here() {
            Ok(setting)
        } else {
            Err(refuse(format!(
                "{name} cannot be run here: {}",
                setting.lacks()
            )))
        }
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_every_test_and_the_reference_s_own_difference_are_kept() {
        let mut record = Record::default();
        let lines = |error: f64| {
            format!(
                "{{\"test\":\"t\",\"what\":\"loss\",\"error\":{error},\"bound\":1e-5}}\n\
                 {{\"test\":\"t\",\"what\":\"reference: vae --crop 64: gE/x\",\"error\":3e-4,\"bound\":null}}\n"
            )
        };
        record.take(&lines(1e-6), 1, "native").unwrap();
        record.take(&lines(5e-6), 2, "avx2").unwrap();
        record.take(&lines(2e-6), 3, "mkl").unwrap();
        let worst = &record.tests["t"];
        assert_eq!(
            (worst.comparisons, worst.seed, &*worst.setting),
            (3, 2, "avx2")
        );
        assert!((worst.ratio - 0.5).abs() < 1e-12);
        assert_eq!(record.reference["vae --crop 64"], 3e-4);
        // An error that is no number is beyond every bound.
        record
            .take(
                "{\"test\":\"t\",\"what\":\"x\",\"error\":null,\"bound\":1.0}",
                4,
                "mkl",
            )
            .unwrap();
        assert!(record.tests["t"].ratio.is_infinite());
    }

    #[test]
    fn settings_are_known_by_name_and_the_first_changes_nothing() {
        assert!(SETTINGS[0].variables.is_empty());
        assert_eq!(chosen(&["mkl".to_owned()]).unwrap()[0].name, "mkl");
        let error = chosen(&["sse9".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("native, avx2, mkl, sse41"), "{error}");
        let ours = SETTINGS[1..].iter().map(|s| s.variables);
        assert!(
            ours.into_iter()
                .all(|v| v.iter().any(|(k, _)| *k == "DEEPSIM_CPU_CAPABILITY"))
        );
        let oldest = chosen(&["oldest".to_owned()]).unwrap()[0].variables;
        let forced = SETTINGS[2..].iter().flat_map(|s| s.variables);
        assert!(forced.into_iter().all(|one| oldest.contains(one)));
    }
}
