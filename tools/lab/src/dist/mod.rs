//! `cargo xtask dist`: what several processes that train together exchange on this machine, how long their steps take, and
//! what a model says of several GPUs.

mod forecast;
mod model;
mod steps;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use self::forecast::{Forecast, Inputs};
use self::steps::Steps;
use crate::numbers::{significant, summary};
use deepsim_tools::child::Child;
use deepsim_tools::files;
use deepsim_tools::machine::processor;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

/// Shown after the options.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask dist
      exchanges and steps of 1, 2 and 4 processes, about ten minutes; the model
  cargo xtask dist --only exchanges
      sums of tensors alone, a minute
  cargo xtask dist --only model
      what the paper's networks would take on 8 and 64 GPUs: nothing is timed
  cargo xtask dist --json dist.json
      keep the numbers

The processes run on this machine and share its cores and memory: over a
network, exchanges take what it takes. The model's assumptions are printed
with it; docs/scaling.md discusses them. Needs `cargo xtask setup`.";

/// Numbers of processes.
const PROCESSES: [u32; 2] = [2, 4];
/// The works of the program that measures, in the table's order, and what they are.
const WORKS: [(&str, &str); 8] = [
    ("one_tensor", "sum of one tensor, 50 MB"),
    ("fifty_tensors", "sums of 50 tensors, 1 MB"),
    ("flat_buckets_async", "sums of buckets, 50 MB"),
    ("flat_buckets_bf16", "the same, sent in bf16"),
    ("backward_alone", "a backward pass, no sums"),
    ("backward_then_reduce", "the same, then buckets"),
    ("backward_overlapped", "the same, buckets beside"),
    ("barrier", "barrier"),
];

/// A part of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Sums of tensors, and a barrier
    Exchanges,
    /// Steps of two trainings
    Steps,
    /// A model of steps on GPUs
    Model,
}

/// How often, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these parts, separated by commas
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,

    /// How often each exchange is timed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,

    /// Write all times to a file, in seconds, and what the model took and gave
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Record {
    processor: Option<String>,
    note: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Group>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Steps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model>,
}

/// One number of processes: the seconds of every repetition, by work.
#[derive(Debug, Serialize)]
struct Group {
    processes: u32,
    times_s: BTreeMap<String, Vec<f64>>,
}

/// What the model took and gave.
#[derive(Debug, Serialize)]
struct Model {
    inputs: Inputs,
    forecasts: Vec<Forecast>,
}

/// Measures, and prints tables.
///
/// # Errors
/// A failed build, processes that do not find each other, a refusal for what is missing, a file that cannot be written.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let mut record = Record {
        processor: processor(),
        note: "all processes are on this machine and share its cores",
        groups: Vec::new(),
        steps: Vec::new(),
        model: None,
    };
    if args.wants(Part::Exchanges) {
        record.groups = exchanges(ws, args.repetitions)?;
    }
    if args.wants(Part::Steps) {
        record.steps = steps::measure(ws)?;
    }
    if args.wants(Part::Model) {
        let inputs = Inputs::read(ws)?;
        let forecasts = forecast::all(&inputs);
        record.model = Some(Model { inputs, forecasts });
    }
    print!("{}", tables(&record));
    if let Some(file) = &args.json {
        files::write_json(file, &record)?;
        note(format_args!("written: {}", file.display()));
    }
    Ok(())
}

/// Times the exchanges of 2 and 4 processes.
fn exchanges(ws: &Workspace, repetitions: u32) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for processes in PROCESSES {
        note(format_args!("{processes} processes"));
        let program = Child::cargo("the measurement", ws.root())
            .args(["run", "--quiet", "--release", "--package", "deepsim-aten"])
            .args(["--example", "exchange", "--"])
            .args([processes, repetitions].map(|n| n.to_string()));
        let times_s =
            serde_json::from_slice(&program.output()?).context("reading the measured times")?;
        groups.push(Group { processes, times_s });
    }
    Ok(groups)
}

/// The tables of what was asked for.
fn tables(record: &Record) -> String {
    let mut all = Vec::new();
    if !record.groups.is_empty() || !record.steps.is_empty() {
        let processor = record.processor.as_deref().unwrap_or("unknown processor");
        all.push(format!("{processor}; {}\n", record.note));
    }
    if !record.groups.is_empty() {
        all.push(table(&record.groups));
    }
    if !record.steps.is_empty() {
        all.push(steps::table(&record.steps));
    }
    if let Some(model) = &record.model {
        all.push(forecast::table(&model.inputs));
    }
    all.join("\n")
}

/// A line for each number of processes and exchange.
fn table(groups: &[Group]) -> String {
    let mut out = String::new();
    let mut line = |cells: [&str; 4]| {
        let [processes, work, median, range] = cells;
        let _ = writeln!(out, "{processes:>9}  {work:<24}  {median:>9}  {range:>15}");
    };
    line(["processes", "", "median ms", "range ms"]);
    for group in groups {
        for (key, what) in WORKS {
            let times = group.times_s.get(key).map(Vec::as_slice);
            let Some(found) = summary(times.unwrap_or_default()) else {
                continue;
            };
            let ms = |seconds: f64| significant(1e3 * seconds, 3);
            let range = format!("{} to {}", ms(found.min), ms(found.max));
            let processes = group.processes.to_string();
            line([&processes, what, &ms(found.median), &range]);
        }
    }
    out
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

    fn record() -> Record {
        let times = [
            ("one_tensor", vec![0.05, 0.04, 0.08]),
            ("barrier", vec![0.0001]),
        ];
        let times_s = times.map(|(name, seconds)| (name.to_owned(), seconds));
        Record {
            processor: Some("2 x Model".to_owned()),
            note: "shared",
            groups: vec![Group {
                processes: 4,
                times_s: times_s.into(),
            }],
            steps: Vec::new(),
            model: None,
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_exchange_and_says_what_was_measured_on() {
        assert_eq!(
            tables(&record()),
            "\
2 x Model; shared

processes                            median ms         range ms
        4  sum of one tensor, 50 MB       50.0     40.0 to 80.0
        4  barrier                       0.100   0.100 to 0.100
"
        );
    }

    #[test]
    fn what_was_not_asked_for_is_in_neither_table_nor_record() {
        let mut record = record();
        record.groups.clear();
        assert_eq!(tables(&record), "");
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.args);
        let all = parse("dist").unwrap();
        let some = parse("dist --only exchanges,model").unwrap();
        for (part, wanted) in [
            (Part::Exchanges, true),
            (Part::Steps, false),
            (Part::Model, true),
        ] {
            assert!(all.wants(part));
            assert_eq!(some.wants(part), wanted);
        }
        assert!(parse("dist --only links").is_err());
    }
}
