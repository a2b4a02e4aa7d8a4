//! What is kept: `docs/results/grow-KIND.json`, written after every cell, so that a run that was cut off goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::axis::{Axis, Expected};
use super::model::{Limits, predicted};
use crate::bench::head::{Head, Paths};
use crate::bench::tuning::Tuning;
use crate::samples::RECORDS;
use deepsim_tools::failure::refuse;
use deepsim_tools::files;
use deepsim_tools::workspace::Workspace;

/// Everything that was measured on one kind of processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names the record: `grow-KIND`.
    pub name: String,
    /// Makes it again.
    pub command: String,
    /// As the kernel names it.
    pub processor: Option<String>,
    /// Its kind.
    pub kind: String,
    /// The code that computed.
    pub paths: Paths,
    /// The base case; none until it was measured.
    pub base: Option<Base>,
    /// The measured sizes of all axes, and those that were left out.
    pub cells: Vec<Cell>,
}

/// The case that the axes of training start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// The work of `cargo xtask bench`.
    pub work: String,
    /// Threads of ours.
    pub threads: u32,
    /// Arithmetic of ours: the faster one of the base case, kept on all axes.
    pub precision: String,
    /// The setting of the tuned PyTorch: the fastest one of the base case, kept on all axes.
    pub tuning: Tuning,
}

/// One size of one axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What is varied.
    pub axis: Axis,
    /// Its size.
    pub size: f64,
    /// The commit that was measured.
    pub commit: Option<String>,
    /// Operations of a step, 10⁹.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gflop: Option<f64>,
    /// Ours.
    pub ours: Side,
    /// The tuned PyTorch's; none where it has no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torch: Option<Side>,
}

/// What one side took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Seconds, the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Seconds of each unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times_s: Vec<f64>,
    /// The largest share of the processors that other programs took in a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_cpu: Option<f64>,
    /// Largest resident size of its process, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
    /// What else was measured, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, f64>,
    /// Why it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Side {
    /// One that was left out.
    pub fn skipped(reason: impl Into<String>) -> Side {
        Side {
            skipped: Some(reason.into()),
            ..Side::default()
        }
    }

    /// A quantity, where it was measured.
    fn value(&self, of: Quantity) -> Option<f64> {
        match of {
            Quantity::Seconds => self.seconds,
            Quantity::Mib => self.peak_mib,
        }
    }
}

/// Whose cells are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Ours.
    Ours,
    /// The tuned PyTorch.
    Torch,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Time.
    Seconds,
    /// Memory.
    Mib,
}

impl Cell {
    /// One side; none where it has no part.
    pub fn side(&self, who: Who) -> Option<&Side> {
        match who {
            Who::Ours => Some(&self.ours),
            Who::Torch => self.torch.as_ref(),
        }
    }

    /// Whether every side that has a part was measured.
    pub fn is_whole(&self) -> bool {
        let sides = [Some(&self.ours), self.torch.as_ref()];
        sides
            .into_iter()
            .flatten()
            .all(|side| side.seconds.is_some())
    }
}

impl Record {
    /// One with nothing in it.
    pub fn new(head: &Head) -> Record {
        Record {
            name: format!("grow-{}", head.kind),
            command: "cargo xtask grow".to_owned(),
            processor: head.processor.clone(),
            kind: head.kind.clone(),
            paths: head.paths.clone(),
            base: None,
            cells: Vec::new(),
        }
    }

    /// The one that an earlier run left for this kind of processor, or a new one.
    ///
    /// # Errors
    /// A refusal for one of another processor or other code: its cells say nothing of what is measured now.
    pub fn take(ws: &Workspace, head: &Head, fresh: bool) -> Result<Record> {
        let path = file(ws, &head.kind);
        if fresh || !path.exists() {
            return Ok(Record::new(head));
        }
        let found: Record = files::json(&path)?;
        if found.processor != head.processor || found.paths != head.paths {
            return Err(refuse(format!(
                "{} was measured on another processor of this kind, or with other code: cells of both do not compare. \
                 Give --fresh to measure all of them anew",
                ws.show(&path)
            )));
        }
        Ok(found)
    }

    /// Writes it where [`Record::take`] finds it.
    ///
    /// # Errors
    /// A full or unwritable disk.
    pub fn write(&self, ws: &Workspace) -> Result<()> {
        files::write_json(&file(ws, &self.kind), self)
    }

    /// A cell, if it is there.
    pub fn cell(&self, axis: Axis, size: f64) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells.find(|cell| cell.axis == axis && cell.size == size)
    }

    /// The cells of an axis, by size.
    pub fn along(&self, axis: Axis) -> Vec<&Cell> {
        let mut found: Vec<&Cell> = self.cells.iter().filter(|cell| cell.axis == axis).collect();
        found.sort_by(|a, b| a.size.total_cmp(&b.size));
        found
    }

    /// Takes a cell in, in the place of the one that was there.
    pub fn put(&mut self, cell: Cell) {
        self.cells
            .retain(|other| !(other.axis == cell.axis && other.size == cell.size));
        self.cells.push(cell);
        self.cells
            .sort_by(|a, b| a.axis.cmp(&b.axis).then(a.size.total_cmp(&b.size)));
    }

    /// The measured sizes of an axis with one quantity of one side.
    pub fn points(&self, axis: Axis, who: Who, of: Quantity) -> Vec<(f64, f64)> {
        let cells = self.along(axis).into_iter();
        cells
            .filter_map(|cell| Some((cell.size, cell.side(who)?.value(of)?)))
            .collect()
    }

    /// Why a size of an axis is left out: by what the measured ones say it would take. `units` of what is timed make up a
    /// cell.
    pub fn too_much(
        &self,
        axis: Axis,
        who: Who,
        size: f64,
        units: f64,
        limits: &Limits,
    ) -> Option<String> {
        let Expected { seconds, mib } = axis.expected();
        let of = |quantity, power| predicted(&self.points(axis, who, quantity), size, power);
        let whole = of(Quantity::Seconds, seconds).map(|unit| units * unit);
        limits.reason(whole, of(Quantity::Mib, mib))
    }
}

fn file(ws: &Workspace, kind: &str) -> PathBuf {
    ws.path(RECORDS).join(format!("grow-{kind}.json"))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::bench::head::tests::example as head;
    use crate::bench::tuning::tests::example as tuning;

    /// A side that took so long, and so much.
    pub fn side(seconds: f64, peak_mib: f64) -> Side {
        Side {
            seconds: Some(seconds),
            times_s: vec![seconds],
            peak_mib: Some(peak_mib),
            ..Side::default()
        }
    }

    /// A batch axis of three sizes, one of them not PyTorch's; a crop that is refused; two datasets.
    pub fn example() -> Record {
        let mut record = Record::new(&head());
        record.base = Some(Base {
            work: "conv5_b16".to_owned(),
            threads: 2,
            precision: "bf16".to_owned(),
            tuning: tuning(),
        });
        let mut put = |axis, size, gflop, ours, torch| {
            record.put(Cell {
                axis,
                size,
                commit: Some("abc".to_owned()),
                gflop,
                ours,
                torch,
            });
        };
        put(
            Axis::Batch,
            64.0,
            Some(1120.0),
            side(1.0, 1400.0),
            Some(side(1.6, 1900.0)),
        );
        put(
            Axis::Batch,
            16.0,
            Some(280.0),
            side(0.25, 1300.0),
            Some(side(0.4, 1600.0)),
        );
        let long = "would take about 900 s, more than the 300 s of --limit";
        put(
            Axis::Batch,
            256.0,
            Some(4480.0),
            side(4.0, 5000.0),
            Some(Side::skipped(long)),
        );
        let refused = "a generator makes crops of 8 to 256 pixels, not 512";
        put(
            Axis::Crop,
            512.0,
            None,
            Side::skipped(refused),
            Some(Side::skipped(refused)),
        );
        for (entries, seconds) in [(1281.0, 0.004), (1_281_167.0, 4.0)] {
            let mut opened = side(seconds, 100.0);
            opened
                .more
                .insert("epoch_order_s".to_owned(), seconds / 100.0);
            put(Axis::Entries, entries, None, opened, None);
        }
        record
    }

    #[test]
    fn cells_are_taken_in_once_and_come_in_their_order() {
        let mut record = example();
        let sizes = |record: &Record| -> Vec<f64> {
            record
                .along(Axis::Batch)
                .iter()
                .map(|cell| cell.size)
                .collect()
        };
        assert_eq!(sizes(&record), [16.0, 64.0, 256.0]);
        let mut again = record.cell(Axis::Batch, 64.0).unwrap().clone();
        again.ours = side(9.0, 1.0);
        record.put(again);
        assert_eq!(sizes(&record), [16.0, 64.0, 256.0]);
        assert_eq!(
            record.cell(Axis::Batch, 64.0).unwrap().ours.seconds,
            Some(9.0)
        );
        assert!(record.cell(Axis::Batch, 64.0).unwrap().is_whole());
        assert!(!record.cell(Axis::Batch, 256.0).unwrap().is_whole());
        assert!(record.cell(Axis::Entries, 1281.0).unwrap().is_whole());
    }

    #[test]
    fn what_is_left_out_follows_from_the_measured_cells() {
        let record = example();
        let limits = Limits {
            seconds: 300.0,
            mib: Some(4000.0),
        };
        let why = |who, size| record.too_much(Axis::Batch, who, size, 5.0, &limits);
        assert_eq!(why(Who::Torch, 4.0), None);
        // 1.6 s at 64, four times as long for each four times the images.
        assert!(why(Who::Torch, 4096.0).unwrap().contains("512 s"));
        assert!(why(Who::Ours, 256.0).unwrap().contains("5000 MiB"));
        // Nothing is measured: nothing is known.
        assert_eq!(
            record.too_much(Axis::Width, Who::Ours, 2.0, 5.0, &limits),
            None
        );
    }

    #[test]
    fn a_record_goes_on_on_its_own_processor_alone() {
        let (_folder, ws) = deepsim_tools::testing::workspace();
        let head = head();
        let record = example();
        assert!(Record::take(&ws, &head, false).unwrap().cells.is_empty());
        record.write(&ws).unwrap();
        let again = Record::take(&ws, &head, false).unwrap();
        assert_eq!(again.base, record.base);
        assert_eq!(again.cells.len(), record.cells.len());
        assert_eq!(again.along(Axis::Crop), record.along(Axis::Crop));
        assert!(Record::take(&ws, &head, true).unwrap().cells.is_empty());
        let other = Head {
            processor: Some("2 x B, no AMX".to_owned()),
            ..head
        };
        let error = Record::take(&ws, &other, false).unwrap_err().to_string();
        assert!(
            error.contains("--fresh") && error.contains("grow-amd"),
            "{error}"
        );
    }
}
