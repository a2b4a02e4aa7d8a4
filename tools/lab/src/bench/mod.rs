//! `cargo xtask bench`: DeepSim against PyTorch on the machine at hand.
//!
//! For each work the contenders are started as processes that load, warm up and wait. Then they
//! do one unit of work each in turn, never two at once, in an order that rotates from round to
//! round: what disturbs the machine disturbs all of them alike.

pub mod agree;
pub mod head;
mod load;
mod measure;
pub mod preparation;
mod record;
mod table;
pub mod tuning;
pub mod work;
pub mod worker;
pub mod wrap;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use self::head::Head;
use self::measure::{Measured, Peak};
use self::preparation::Bench;
use self::work::Work;
use crate::samples;
use deepsim_tools::failure::refuse;
use deepsim_tools::stages::{note, seconds};
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{landing, machine};

/// What the benchmark is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only these works, separated by commas
    #[arg(long, value_name = "WORK", value_delimiter = ',')]
    only: Vec<Work>,
    /// Rounds of each work; without it, what fits in half an hour on 2 cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Also write what was measured to FILE, a JSON list with one entry for each work
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the training works are done: cpu, cuda or cuda:N. The other works are the CPU's
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    device: String,
    /// Arithmetic of ours and of the tuned PyTorch; auto: for each the faster of fp32 and bf16 here
    #[arg(
        long,
        value_name = "auto|fp32|tf32|bf16",
        default_value = "auto",
        hide_possible_values = true
    )]
    precision: Precision,
    /// torch.compile's mode, on a GPU; max-autotune takes minutes longer
    #[arg(
        long,
        value_name = "MODE",
        default_value = "reduce-overhead",
        hide_possible_values = true
    )]
    compile_mode: CompileMode,
    /// Our worker, built before, for a machine without cargo
    #[arg(long, value_name = "FILE", hide = true)]
    worker: Option<PathBuf>,
}

/// Modes of torch.compile that use CUDA graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CompileMode {
    /// CUDA graphs.
    ReduceOverhead,
    /// CUDA graphs, and a search for the fastest kernels.
    MaxAutotune,
}

impl CompileMode {
    fn name(self) -> &'static str {
        match self {
            CompileMode::ReduceOverhead => "reduce-overhead",
            CompileMode::MaxAutotune => "max-autotune",
        }
    }
}

/// Arithmetic of those contenders that have a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Precision {
    /// Each contender takes what is faster, found by a short trial.
    Auto,
    /// Single precision.
    Fp32,
    /// Single precision whose products keep ten bits of mantissa, on GPUs.
    Tf32,
    /// bfloat16 in convolutions and matrix products.
    Bf16,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// Shown after the options.
pub const EXAMPLES: &str = "\
Contenders:
  ours         this project, by the trainer's own iteration
  torch tuned  PyTorch (Python) without wasted work, channels-last, fused Adam,
               LRN rewritten; tools/bench/python/train_tuned.py says what was
               tried. Before each training work it is found by trial here what
               is fastest for it: fp32 or bf16, on 1 thread or on all cores,
               with torch.compile or without. What was tried is printed
  torch naive  PyTorch as a typical script is written: modules, eager, fp32 (on
               a GPU with convolutions in TF32, as PyTorch ships)
On a GPU ours computes by CUDA graphs, and there are two more:
  ours uncaptured  ours without CUDA graphs
  torch compiled   torch tuned by torch.compile with CUDA graphs
All have the same weights and images, and before a number is printed their
losses must agree; otherwise they do not do the same work, and the benchmark
fails.

Examples:
  cargo xtask bench
      all works, about half an hour on 2 cores, and the record of this kind of
      processor, docs/results/bench-KIND.json
  cargo xtask bench --only fc6_b16,sample
      two of them
  cargo xtask bench --only fc6_b64 --rounds 9
      more rounds: a surer median
  cargo xtask bench --json bench.json
      keep the numbers
  cargo xtask bench --device cuda --precision bf16
      the training works on a GPU

A kind is maker and widest instruction set: intel-amx, intel-avx512-bf16,
amd-avx512-bf16, amd-avx2, ... Processors of one kind run the same kernels. The
first lines say which kind this is, and which code computes. There is a record
only of all works by default settings, on the CPU.

Needs `cargo xtask setup --torch full`; torchvision and faiss are fetched into
third_party/bench-py by the first run that needs them. Leave the machine alone
meanwhile: each unit tells how much of the processor other programs took.";

/// The tables that [`run`] printed, out of the file that it wrote.
///
/// # Errors
/// Another file.
pub fn table_of(file: &serde_json::Value) -> Result<String> {
    let (all, peak) = record::parse(file)?;
    Ok(table::render(&all, &peak))
}

/// Measures the works and prints the tables.
///
/// # Errors
/// A refusal for what is missing, a worker that failed, contenders that disagree.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let works = works(&args.only, &args.device)?;
    let begun = std::time::Instant::now();
    // Now: it is this one that is measured.
    let commit = samples::commit(ws);
    let (precision, worker) = (args.precision.name(), args.worker.as_deref());
    let bench = Bench::prepare(ws, &works, precision, &args.device, worker)?
        .compiled_by(args.compile_mode.name());
    let head = Head::ask(&bench, commit)?;
    print!("{}", head.lines());
    let mut peak = Peak::default();
    let mut all: Vec<Measured> = Vec::new();
    for &work in &works {
        let rounds = args.rounds.unwrap_or(work.rounds());
        all.push(measure::run(&bench, work, rounds, &mut peak)?);
        if let Some(file) = &args.json {
            landing::write(file, record::json(&all, &peak, &head)?.as_bytes())?;
        }
    }
    print!("{}", table::render(&all, &peak));
    if let Some(file) = &args.json {
        note(format_args!("written: {}", file.display()));
    }
    match args.no_record(&machine::lowered()) {
        None => {
            let name = format!("{}/bench-{}.json", samples::RECORDS, head.kind);
            landing::write(
                &ws.path(&name),
                record::json(&all, &peak, &head)?.as_bytes(),
            )?;
            note(format_args!("written: {name}"));
            note("the documents follow by: cargo xtask reproduce --only nothing");
        }
        Some(reason) => note(format_args!("no record: {reason}")),
    }
    note(format_args!("measured in {}", seconds(begun.elapsed())));
    Ok(())
}

impl Args {
    /// Why this run is no record of a kind of processor; none where it is one.
    fn no_record(&self, lowered: &[&str]) -> Option<String> {
        if self.device != "cpu" {
            return Some("it is of the CPU".to_owned());
        }
        let usual = self.only.is_empty() && self.rounds.is_none();
        if !usual || self.precision != Precision::Auto {
            return Some(
                "it is of all works by default settings: leave --only, --rounds and --precision out"
                    .to_owned(),
            );
        }
        (!lowered.is_empty()).then(|| {
            format!(
                "it is of the whole processor: leave {} out",
                lowered.join(", ")
            )
        })
    }
}

/// cpu, cuda or cuda:N.
fn device(text: &str) -> std::result::Result<String, String> {
    let number = text.strip_prefix("cuda:");
    let known = matches!(text, "cpu" | "cuda") || number.is_some_and(|n| n.parse::<u32>().is_ok());
    if known {
        Ok(text.to_owned())
    } else {
        Err("give cpu, cuda or cuda:N".to_owned())
    }
}

/// The wished works in their usual order, each once; without a wish, all that the device does.
fn works(only: &[Work], device: &str) -> Result<Vec<Work>> {
    let cpu = device == "cpu";
    if let Some(work) = only.iter().find(|work| !cpu && !work.trains()) {
        return Err(refuse(format!(
            "{} is measured on the CPU alone: leave --device out",
            work.name()
        )));
    }
    let all = Work::value_variants().iter().copied();
    Ok(all
        .filter(|work| cpu || work.trains())
        .filter(|work| only.is_empty() || only.contains(work))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.args)
    }

    #[test]
    fn works_are_chosen_by_name_and_come_in_their_order_once() {
        let args = parse("bench --only sample,fc6_b16,sample --rounds 3").unwrap();
        let chosen = works(&args.only, &args.device).unwrap();
        assert_eq!(chosen, [Work::Fc6B16, Work::Sample]);
        assert_eq!(args.rounds, Some(3));
        assert_eq!(works(&[], "cpu").unwrap(), Work::value_variants());
    }

    #[test]
    fn only_a_whole_run_is_a_record() {
        let reason = |line: &str, lowered: &[&str]| parse(line).unwrap().no_record(lowered);
        assert_eq!(reason("bench", &[]), None);
        assert_eq!(reason("bench --json x.json", &[]), None);
        for line in [
            "bench --only sample",
            "bench --rounds 3",
            "bench --precision fp32",
            "bench --device cuda",
        ] {
            assert!(reason(line, &[]).is_some(), "{line}");
        }
        let lowered = reason("bench", &["ATEN_CPU_CAPABILITY"]).unwrap();
        assert!(lowered.contains("ATEN_CPU_CAPABILITY"), "{lowered}");
    }

    #[test]
    fn a_gpu_is_for_the_training_works() {
        let all = works(&[], "cuda").unwrap();
        assert!(all.contains(&Work::Fc6B64) && all.iter().all(|work| work.trains()));
        let error = works(&[Work::Sample, Work::Pairs], "cuda:1").unwrap_err();
        assert!(error.to_string().contains("pairs"), "{error}");
    }

    #[test]
    fn typing_errors_are_refused() {
        for line in [
            "bench --only fc6",
            "bench --rounds 0",
            "bench --precision fp16",
            "bench --only",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let text = parse("bench --only fc6").unwrap_err().to_string();
        assert!(
            text.contains("fc6_b64") && text.contains("neighbours"),
            "{text}"
        );
    }
}
