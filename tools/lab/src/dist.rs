//! `cargo xtask dist`: what the exchanges of processes that train together cost on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::numbers::{significant, summary};
use deepsim_tools::child::Child;
use deepsim_tools::landing;
use deepsim_tools::machine::processor;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

/// Shown after the options.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask dist
      2 and 4 processes, a table
  cargo xtask dist --json dist.json
      keep the numbers

The processes run on this machine and share its cores and memory: over a
network, exchanges take what it takes. Needs `cargo xtask setup`.";

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

/// How often, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each exchange is timed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,

    /// Write all times to a file, in seconds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Record {
    processor: Option<String>,
    note: &'static str,
    groups: Vec<Group>,
}

/// One number of processes: the seconds of every repetition, by work.
#[derive(Debug, Serialize)]
struct Group {
    processes: u32,
    times_s: BTreeMap<String, Vec<f64>>,
}

/// Measures, and prints a table.
///
/// # Errors
/// A failed build, processes that do not find each other, a file that cannot be written.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let mut record = Record {
        processor: processor(),
        note: "all processes are on this machine and share its cores",
        groups: Vec::new(),
    };
    for processes in PROCESSES {
        note(format_args!("{processes} processes"));
        let program = Child::cargo("the measurement", ws.root())
            .args(["run", "--quiet", "--release", "--package", "deepsim-aten"])
            .args(["--example", "exchange", "--"])
            .args([processes, args.repetitions].map(|n| n.to_string()));
        let times_s =
            serde_json::from_slice(&program.output()?).context("reading the measured times")?;
        record.groups.push(Group { processes, times_s });
    }
    print!("{}", table(&record));
    if let Some(file) = &args.json {
        let mut text = serde_json::to_string_pretty(&record).context("writing the times")?;
        text.push('\n');
        landing::write(file, text.as_bytes())?;
        note(format_args!("written: {}", file.display()));
    }
    Ok(())
}

fn table(record: &Record) -> String {
    let processor = record.processor.as_deref().unwrap_or("unknown processor");
    let mut out = format!("{processor}; {}\n\n", record.note);
    let mut line = |cells: [&str; 4]| {
        let [processes, work, median, range] = cells;
        let _ = writeln!(out, "{processes:>9}  {work:<24}  {median:>9}  {range:>15}");
    };
    line(["processes", "", "median ms", "range ms"]);
    for group in &record.groups {
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

    #[test]
    fn the_table_has_a_line_for_each_exchange_and_says_what_was_measured_on() {
        let times = [
            ("one_tensor", vec![0.05, 0.04, 0.08]),
            ("barrier", vec![0.0001]),
        ];
        let times_s = times.map(|(name, seconds)| (name.to_owned(), seconds));
        let record = Record {
            processor: Some("2 x Model".to_owned()),
            note: "shared",
            groups: vec![Group {
                processes: 4,
                times_s: times_s.into(),
            }],
        };
        assert_eq!(
            table(&record),
            "\
2 x Model; shared

processes                            median ms         range ms
        4  sum of one tensor, 50 MB       50.0     40.0 to 80.0
        4  barrier                       0.100   0.100 to 0.100
"
        );
    }
}
