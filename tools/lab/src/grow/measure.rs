//! How a cell is measured: each side in a process of its own, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::axis::{Axis, WORK};
use super::model::Limits;
use super::record::{Base, Cell, Record, Side, Who};
use crate::bench::agree::{Claim, agree};
use crate::bench::preparation::{Bench, cores};
use crate::bench::tuning::Tuning;
use crate::bench::worker::{Ready, Worker};
use crate::numbers::summary;
use deepsim_terminal::tell;
use deepsim_tools::failure::is_interrupted;
use deepsim_tools::machine;
use deepsim_tools::workspace::Workspace;

/// Timed steps of a cell, at least and at most.
const STEPS: (usize, usize) = (3, 9);
/// Seconds of timed steps that are enough.
const ENOUGH: f64 = 6.0;
/// Steps of a training cell that the limit counts: two warm-ups, and the fewest timed ones.
const COUNTED: f64 = 5.0;
/// Where inputs and datasets lie, which the next cell replaces.
const FOLDER: &str = "target/grow";

/// Everything that measuring needs.
#[derive(Debug)]
pub struct Lab<'a> {
    bench: Bench<'a>,
    folder: PathBuf,
    limit_s: f64,
    commit: Option<String>,
}

impl<'a> Lab<'a> {
    /// With cells of so many seconds a side at most.
    pub fn new(ws: &Workspace, bench: Bench<'a>, limit_s: f64, commit: Option<String>) -> Lab<'a> {
        Lab {
            bench,
            folder: ws.path(FOLDER),
            limit_s,
            commit,
        }
    }

    /// The base case: looks for the fastest settings of both sides, and measures them. Gives a cell for each axis of
    /// training.
    ///
    /// # Errors
    /// A program that fails.
    pub fn base(&self) -> Result<(Base, Vec<Cell>)> {
        let folder = self.folder.join("inputs");
        self.bench.training_inputs(WORK, &[], &folder).run()?;
        tell("the base case: trying settings of the tuned PyTorch (a minute or two)");
        let tuning = self.bench.tuned_on(WORK, &folder)?;
        tell(format_args!("torch tuned: {}", tuning.words()));
        let threads = u32::try_from(cores()).unwrap_or(1);
        let more = [format!("--threads={threads}")];
        let command = self.bench.our_worker(WORK, &folder, "auto", &more);
        let (our_ready, ours) = timed("ours, the base case", command)?;
        let precision = our_ready.precision.clone();
        let precision = precision.context("our worker does not say its arithmetic")?;
        let (their_ready, torch) = self.torch("torch tuned, the base case", &tuning)?;
        same_work(&our_ready, &their_ready)?;
        let cells = [Axis::Batch, Axis::Crop, Axis::Width, Axis::Threads].map(|axis| Cell {
            axis,
            size: axis.base().unwrap_or(1.0),
            commit: self.commit.clone(),
            gflop: our_ready.gflop,
            ours: ours.clone(),
            torch: Some(torch.clone()),
        });
        let base = Base {
            work: WORK.name().to_owned(),
            threads,
            precision,
            tuning,
        };
        Ok((base, cells.into()))
    }

    /// A cell of an axis; sides that the record has are taken from it, and what would take too much is left out.
    ///
    /// # Errors
    /// Ctrl-C; a full disk.
    pub fn cell(&self, axis: Axis, size: f64, record: &Record) -> Result<Cell> {
        let mut cell = Cell {
            axis,
            size,
            commit: self.commit.clone(),
            gflop: None,
            ours: Side::default(),
            torch: None,
        };
        if axis.trains() {
            let base = record.base.as_ref();
            let base = base.context("the base case was not measured")?;
            self.training(&mut cell, record, base)?;
            return Ok(cell);
        }
        let limits = self.limits();
        cell.ours = match record.too_much(axis, Who::Ours, size, 1.0, &limits) {
            Some(reason) => Side::skipped(reason),
            None if axis == Axis::Entries => self.entries(size)?,
            None => self.images(size)?,
        };
        Ok(cell)
    }

    fn limits(&self) -> Limits {
        Limits {
            seconds: self.limit_s,
            mib: machine::available_mib().map(|mib| mib as f64),
        }
    }

    /// A training step at another size.
    fn training(&self, cell: &mut Cell, record: &Record, base: &Base) -> Result<()> {
        let (axis, size) = (cell.axis, cell.size);
        let known = record.cell(axis, size);
        cell.gflop = known.and_then(|known| known.gflop);
        let limits = self.limits();
        let side = |who| {
            let measured = known.and_then(|known| known.side(who)).cloned();
            measured.filter(|side| side.seconds.is_some()).or_else(|| {
                let reason = record.too_much(axis, who, size, COUNTED, &limits)?;
                Some(Side::skipped(reason))
            })
        };
        let (ours, torch) = (side(Who::Ours), side(Who::Torch));
        if let (Some(ours), Some(torch)) = (&ours, &torch) {
            cell.ours = ours.clone();
            cell.torch = Some(torch.clone());
            return Ok(());
        }
        let sizes = axis.arguments(size);
        if let Some(refusal) = self.refused(&sizes)? {
            cell.ours = ours.unwrap_or_else(|| Side::skipped(refusal.as_str()));
            cell.torch = Some(torch.unwrap_or_else(|| Side::skipped(refusal.as_str())));
            return Ok(());
        }
        let folder = self.folder.join("inputs");
        let name = format!("{} {size}", axis.name());
        let mut ready = (None, None);
        cell.ours = match ours {
            Some(there) => there,
            None => {
                let mut more = sizes;
                more.push(format!("--threads={}", threads(axis, size, base.threads)));
                let command = self.bench.our_worker(WORK, &folder, &base.precision, &more);
                let (said, side) = or_failed(timed(&format!("ours, {name}"), command));
                cell.gflop = said.as_ref().and_then(|said| said.gflop).or(cell.gflop);
                ready.0 = said;
                side
            }
        };
        cell.torch = Some(match torch {
            Some(there) => there,
            None => {
                let tuning = Tuning {
                    threads: threads(axis, size, base.tuning.threads),
                    ..base.tuning.clone()
                };
                let (said, side) = or_failed(self.torch(&format!("torch tuned, {name}"), &tuning));
                ready.1 = said;
                side
            }
        });
        if let (Some(ours), Some(theirs)) = ready
            && let Err(error) = same_work(&ours, &theirs)
        {
            tell(format_args!("{error:#}"));
            cell.torch = Some(Side::skipped("its losses are not ours: it is other work"));
        }
        Ok(())
    }

    /// The tuned PyTorch on the inputs that lie there.
    fn torch(&self, what: &str, tuning: &Tuning) -> Result<(Ready, Side)> {
        let folder = self.folder.join("inputs");
        let command = self.bench.tuned_worker(WORK, &folder, tuning);
        timed(what, command.context("the work has no script")?)
    }

    /// Writes the inputs of other sizes; why there are none, where our networks do not have that size.
    fn refused(&self, sizes: &[String]) -> Result<Option<String>> {
        let folder = self.folder.join("inputs");
        let mut said = String::new();
        let ended = self
            .bench
            .training_inputs(WORK, sizes, &folder)
            .together(|output| {
                output
                    .read_to_string(&mut said)
                    .context("reading what the program says")?;
                Ok(())
            })?;
        match ended {
            Ok(()) => Ok(None),
            Err(error) if is_interrupted(&error) => Err(error),
            Err(_) => {
                tell(said.trim_end());
                Ok(Some(last_words(&said)))
            }
        }
    }

    /// Opening a dataset of so many entries.
    fn entries(&self, size: f64) -> Result<Side> {
        let folder = self.folder.join("entries");
        let entries = format!("{size:.0}");
        self.bench
            .program("writing a dataset")
            .args(["make-entries", entries.as_str()])
            .args([&folder])
            .run()?;
        let opened = self
            .bench
            .program("opening a dataset")
            .args(["entries".as_ref(), folder.as_os_str()])
            .output()?;
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        let mut found: BTreeMap<String, f64> = numbers(&opened)?;
        let mut side = Side {
            seconds: found.remove("open_s"),
            peak_mib: found.remove("peak_mib"),
            ..Side::default()
        };
        for key in ["epoch_order_s", "batch_s", "manifest_mib", "before_mib"] {
            if let Some(value) = found.remove(key) {
                side.more.insert(key.to_owned(), value);
            }
        }
        Ok(side)
    }

    /// An evaluation of so many images.
    fn images(&self, size: f64) -> Result<Side> {
        let images = format!("{size:.0}");
        let folder = self.folder.join("images");
        let evaluated = self
            .bench
            .program("evaluating")
            .args(["memory", images.as_str()])
            .args([&folder])
            .output()?;
        let mut found: BTreeMap<String, f64> = numbers(&evaluated)?;
        Ok(Side {
            seconds: found.remove("seconds"),
            peak_mib: found.remove("peak_mib"),
            ..Side::default()
        })
    }
}

fn numbers<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).context("reading what our program measured")
}

/// Threads of a cell: its size on that axis, else the base case's.
fn threads(axis: Axis, size: f64, base: u32) -> u32 {
    match axis {
        Axis::Threads => size as u32,
        _ => base,
    }
}

/// Loads, warms up, times steps and takes the peak of memory, in a process of its own.
fn timed(what: &str, command: Command) -> Result<(Ready, Side)> {
    tell(format_args!("{what}: loading"));
    let (mut worker, ready) = Worker::start(what, command)?;
    let mut side = Side::default();
    let (fewest, most) = STEPS;
    let enough = |times: &[f64]| {
        let sum: f64 = times.iter().sum();
        times.len() >= most || (times.len() >= fewest && sum >= ENOUGH)
    };
    while !enough(&side.times_s) {
        let unit = worker.go()?;
        side.times_s.push(unit.seconds);
        side.others_cpu = match (side.others_cpu, unit.others) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
    }
    side.seconds = summary(&side.times_s).map(|found| found.median);
    side.peak_mib = Some(worker.stop()?.peak_mib);
    if let (Some(seconds), Some(peak)) = (side.seconds, side.peak_mib) {
        tell(format_args!("{what}: {seconds:.3} s, {peak:.0} MiB"));
    }
    Ok((ready, side))
}

/// A worker that failed is said and leaves its cell open: the next run tries it again.
fn or_failed(found: Result<(Ready, Side)>) -> (Option<Ready>, Side) {
    match found {
        Ok((ready, side)) => (Some(ready), side),
        Err(error) => {
            tell(format_args!("{error:#}"));
            (None, Side::skipped("failed; the next run tries it again"))
        }
    }
}

/// Both sides must have computed the same losses.
fn same_work(ours: &Ready, torch: &Ready) -> Result<()> {
    let claims = [("ours", ours), ("torch tuned", torch)].map(|(who, ready)| Claim {
        who,
        ours: who == "ours",
        precision: ready.precision.as_deref().unwrap_or("fp32"),
        on_gpu: false,
        checks: &ready.checks,
    });
    agree(WORK.name(), &claims)
}

/// The last line of what a program said, without the word that begins an error.
fn last_words(said: &str) -> String {
    let mut lines = said.lines().rev();
    let last = lines.find(|line| !line.trim().is_empty());
    let last = last.map(|line| line.trim().trim_start_matches("error: "));
    last.unwrap_or("refused without a word").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker in the shell that takes a tenth of a second, as it says.
    fn worker() -> Command {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"echo '{"ready":true,"precision":"fp32","gflop":2.5,"checks":[{"feat":1.0}]}'
            while read word; do
              if [ "$word" = stop ]; then echo '{"peak_mib":12.5}'; exit 0; fi
              echo '{"seconds":0.1}'
            done"#,
        ]);
        command
    }

    #[test]
    fn a_cell_has_the_median_of_its_steps_and_the_peak() {
        let (ready, side) = timed("the test's worker", worker()).unwrap();
        assert_eq!(ready.gflop, Some(2.5));
        // Quick steps are timed as often as they may be.
        assert_eq!(side.times_s.len(), STEPS.1);
        assert_eq!((side.seconds, side.peak_mib), (Some(0.1), Some(12.5)));
        same_work(&ready, &ready).unwrap();
    }

    #[test]
    fn a_worker_that_dies_leaves_its_cell_open() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo oh dear >&2; exit 3"]);
        let (ready, side) = or_failed(timed("the test's worker", command));
        assert!(ready.is_none() && side.seconds.is_none());
        assert!(side.skipped.unwrap().contains("failed"));
    }

    #[test]
    fn a_refusal_is_the_program_s_last_line() {
        let said = "a note\nerror: generator: makes crops of 8 to 256 pixels, not 512\n\n";
        assert_eq!(
            last_words(said),
            "generator: makes crops of 8 to 256 pixels, not 512"
        );
        assert_eq!(last_words("\n"), "refused without a word");
    }

    #[test]
    fn only_the_axis_of_threads_changes_them() {
        assert_eq!(threads(Axis::Threads, 1.0, 2), 1);
        assert_eq!(threads(Axis::Batch, 64.0, 2), 2);
    }
}
