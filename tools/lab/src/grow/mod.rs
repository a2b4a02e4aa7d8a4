//! `cargo xtask grow`: how time and memory grow with batch, crop, width, threads, entries of a dataset and images of an
//! evaluation; of trainings beside the tuned PyTorch's.
//!
//! Every axis starts from one base case and varies one thing. The record is written after each cell, so that a run
//! that was cut off goes on.

pub mod axis;
mod figure;
mod measure;
mod model;
pub mod record;
pub mod table;

use anyhow::Result;
use clap::ValueEnum;

use self::axis::{Axis, WORK};
use self::measure::Lab;
use self::record::{Cell, Record};
use crate::bench::head::Head;
use crate::bench::preparation::Bench;
use crate::samples;
use deepsim_tools::failure::refuse;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{landing, machine};

/// Shown after the options.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask grow
      all axes: docs/results/grow-KIND.json and docs/pictures/grow-KIND.png
  cargo xtask grow --only batch,crop
      these two; what the record has of the others stays
  cargo xtask grow --limit 60
      leave out what would take more than a minute a side
  cargo xtask grow --fresh
      measure all cells anew

The base case is the paper's CONV5 with batch 16, 227 pixels, width 1 and all
cores, with random weights. Its fastest arithmetic and settings are found by
trial and kept on all axes. Each cell runs in processes of its own: ours, then
PyTorch's. What would take longer than --limit or more memory than is free is
left out, judged by the cells that were measured; the table says so. A run that
was cut off goes on with the same command. Hours on 2 cores.

Needs `cargo xtask setup --torch full`. Leave the machine alone meanwhile.";

/// Which axes, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only these axes, separated by commas
    #[arg(long, value_name = "AXIS", value_delimiter = ',')]
    only: Vec<Axis>,
    /// Measure all cells anew, those of the record too
    #[arg(long, conflicts_with = "only")]
    fresh: bool,
    /// Leave out cells of which a side would take more than so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    limit: u32,
}

/// Measures what the record lacks, and prints its table.
///
/// # Errors
/// A refusal for what is missing or for a record of another machine, a program that failed.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let lowered = machine::lowered();
    if !lowered.is_empty() {
        return Err(refuse(format!(
            "the record is of a kind of processor, but {} is set, by which libraries use less than there is: leave it \
             out, and run this again",
            lowered.join(", ")
        )));
    }
    // Now: it is this one that is measured.
    let commit = samples::commit(ws);
    let bench = Bench::prepare(ws, &[WORK], "auto", "cpu", None)?;
    let head = Head::ask(&bench, commit.clone())?;
    print!("{}", head.lines());
    let mut record = Record::take(ws, &head, args.fresh)?;
    let lab = Lab::new(ws, bench, f64::from(args.limit), commit);
    let axes = args.axes();
    if axes.iter().any(|axis| axis.trains()) && record.base.is_none() {
        let (base, cells) = lab.base()?;
        record.base = Some(base);
        for cell in cells {
            record.put(cell);
        }
        record.write(ws)?;
    }
    for axis in axes {
        for size in order(axis) {
            if record.cell(axis, size).is_some_and(Cell::is_whole) {
                continue;
            }
            note(format_args!("{}: {} {size}", axis.what(), axis.name()));
            let cell = lab.cell(axis, size, &record)?;
            record.put(cell);
            record.write(ws)?;
        }
    }
    print!("\n{}", table::render(&record));
    let picture = format!("docs/pictures/{}.png", record.name);
    landing::write(&ws.path(&picture), &figure::draw(&record)?)?;
    note(format_args!(
        "written: {}/{}.json, {picture}",
        samples::RECORDS,
        record.name
    ));
    note("the documents follow by: cargo xtask reproduce --only nothing");
    Ok(())
}

impl Args {
    /// The wished axes in their usual order, each once; all without a wish.
    fn axes(&self) -> Vec<Axis> {
        let all = Axis::value_variants().iter().copied();
        all.filter(|axis| self.only.is_empty() || self.only.contains(axis))
            .collect()
    }
}

/// The sizes of an axis, those near the base case first: what is measured says what the others would take.
fn order(axis: Axis) -> Vec<f64> {
    let mut sizes = axis.sizes().to_vec();
    if let Some(base) = axis.base() {
        let far = |size: f64| (size / base).ln().abs();
        sizes.sort_by(|a, b| far(*a).total_cmp(&far(*b)));
    }
    sizes
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
    fn axes_are_chosen_by_name_and_come_in_their_order() {
        let some = parse("grow --only width,batch,width").unwrap();
        assert_eq!(some.axes(), [Axis::Batch, Axis::Width]);
        let all = parse("grow").unwrap();
        assert_eq!(all.axes(), Axis::value_variants());
        assert_eq!((all.limit, all.fresh), (600, false));
    }

    #[test]
    fn typing_errors_are_refused() {
        for line in [
            "grow --only size",
            "grow --limit 0",
            "grow --limit soon",
            "grow --only batch --fresh",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn sizes_near_the_base_case_come_first() {
        assert_eq!(order(Axis::Batch)[0], 16.0);
        assert_eq!(order(Axis::Batch).last(), Some(&256.0));
        assert_eq!(order(Axis::Crop)[..2], [227.0, 256.0]);
        assert_eq!(order(Axis::Images), Axis::Images.sizes());
    }
}
