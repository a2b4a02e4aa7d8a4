//! The table that people read, 80 columns at most.

use std::fmt::Write as _;

use super::axis::{Axis, BATCH, CROP, WIDTH};
use super::model::slope;
use super::record::{Cell, Quantity, Record, Side, Who};
use crate::bench::wrap::wrapped;
use crate::numbers::{significant, thousands};

/// The axes that were measured, each with its slopes.
pub fn render(record: &Record) -> String {
    let mut out = head(record);
    for axis in [Axis::Batch, Axis::Crop, Axis::Width, Axis::Threads] {
        let cells = record.along(axis);
        if !cells.is_empty() {
            out.push('\n');
            out.push_str(&training(record, axis, &cells));
        }
    }
    let entries = record.along(Axis::Entries);
    if !entries.is_empty() {
        out.push('\n');
        out.push_str(&datasets(record, &entries));
    }
    let images = record.along(Axis::Images);
    if !images.is_empty() {
        out.push('\n');
        out.push_str(&evaluations(record, &images));
    }
    out
}

/// What it was measured on, and the base case.
fn head(record: &Record) -> String {
    let processor = record.processor.as_deref().unwrap_or("unknown processor");
    let mut out = wrapped(&format!("{}: {processor}", record.kind));
    out.push_str(&record.paths.lines());
    if let Some(base) = &record.base {
        let how = if base.tuning.compiled {
            ", compiled"
        } else {
            ""
        };
        out.push_str(&wrapped(&format!(
            "base case: {} with batch {BATCH}, {CROP} pixels, width {WIDTH}; ours in {} on {} threads; torch tuned in {} \
             on {} threads{how}; each axis changes one of them",
            base.work, base.precision, base.threads, base.tuning.precision, base.tuning.threads
        )));
    }
    out
}

/// A training step's axis.
fn training(record: &Record, axis: Axis, cells: &[&Cell]) -> String {
    let mut out = String::new();
    let mut line = |cells: [&str; 8]| {
        let [size, a, b, c, d, e, f, ratio] = cells;
        let _ = writeln!(
            out,
            "{size:<8} {a:>9} {b:>8} {c:>7}  {d:>9} {e:>8} {f:>7} {ratio:>8}"
        );
    };
    line([
        axis.name(),
        "ours s",
        "GFLOP/s",
        "MiB",
        "torch s",
        "GFLOP/s",
        "MiB",
        "to ours",
    ]);
    for cell in cells {
        let [a, b, c] = three(cell, Some(&cell.ours));
        let [d, e, f] = three(cell, cell.torch.as_ref());
        let torch = cell.torch.as_ref().and_then(|torch| torch.seconds);
        let ratio = torch.zip(cell.ours.seconds);
        let ratio = ratio.map_or_else(dash, |(theirs, ours)| format!("{:.2} x", theirs / ours));
        line([&size(cell.size), &a, &b, &c, &d, &e, &f, &ratio]);
    }
    let power = |who, of| exponent(record, axis, who, of);
    line([
        "slope",
        &power(Who::Ours, Quantity::Seconds),
        "",
        &power(Who::Ours, Quantity::Mib),
        &power(Who::Torch, Quantity::Seconds),
        "",
        &power(Who::Torch, Quantity::Mib),
        "",
    ]);
    out.push_str(&left_out(axis, cells));
    out
}

/// Seconds, GFLOP/s and MiB of a side.
fn three(cell: &Cell, side: Option<&Side>) -> [String; 3] {
    let seconds = side.and_then(|side| side.seconds);
    let peak = side.and_then(|side| side.peak_mib);
    let rate = cell.gflop.zip(seconds).map(|(gflop, s)| gflop / s);
    [
        seconds.map_or_else(dash, |s| significant(s, 3)),
        rate.map_or_else(dash, |rate| format!("{rate:.0}")),
        peak.map_or_else(dash, |mib| format!("{mib:.0}")),
    ]
}

/// Opening datasets.
fn datasets(record: &Record, cells: &[&Cell]) -> String {
    let mut out = String::new();
    let mut line = |cells: [&str; 6]| {
        let [entries, open, order, batch, manifest, peak] = cells;
        let _ = writeln!(
            out,
            "{entries:<10} {open:>9} {order:>14} {batch:>14} {manifest:>13} {peak:>8}"
        );
    };
    line([
        "entries",
        "open s",
        "epoch order s",
        "batch of 64 s",
        "manifest MiB",
        "MiB",
    ]);
    for cell in cells {
        let side = &cell.ours;
        let more = |key: &str| {
            let found = side.more.get(key);
            found.map_or_else(dash, |value| significant(*value, 3))
        };
        line([
            &size(cell.size),
            &side.seconds.map_or_else(dash, |s| significant(s, 3)),
            &more("epoch_order_s"),
            &more("batch_s"),
            &more("manifest_mib"),
            &side.peak_mib.map_or_else(dash, |mib| format!("{mib:.0}")),
        ]);
    }
    let of = |key: &str| -> Vec<(f64, f64)> {
        let points = cells.iter();
        points
            .filter_map(|cell| Some((cell.size, *cell.ours.more.get(key)?)))
            .collect()
    };
    line([
        "slope",
        &exponent(record, Axis::Entries, Who::Ours, Quantity::Seconds),
        &power(slope(&of("epoch_order_s"))),
        &power(slope(&of("batch_s"))),
        &power(slope(&of("manifest_mib"))),
        &exponent(record, Axis::Entries, Who::Ours, Quantity::Mib),
    ]);
    out.push_str(&left_out(Axis::Entries, cells));
    out.push_str(&wrapped(
        "entries: 500 images in one shard, which is there under many names; the manifest is a whole one. What is read \
         comes from the page cache: batches say nothing of a disk",
    ));
    out
}

/// Evaluations.
fn evaluations(record: &Record, cells: &[&Cell]) -> String {
    let mut out = String::new();
    let mut line = |cells: [&str; 3]| {
        let [images, seconds, peak] = cells;
        let _ = writeln!(out, "{images:<8} {seconds:>9} {peak:>8}");
    };
    line(["images", "s", "MiB"]);
    for cell in cells {
        let [seconds, _, peak] = three(cell, Some(&cell.ours));
        line([&size(cell.size), &seconds, &peak]);
    }
    let power = |of| exponent(record, Axis::Images, Who::Ours, of);
    line(["slope", &power(Quantity::Seconds), &power(Quantity::Mib)]);
    out.push_str(&left_out(Axis::Images, cells));
    out.push_str(&wrapped(
        "images: an evaluation as in cargo xtask memory; pairs are compared of 2,000 images at most",
    ));
    out
}

/// The exponent of a quantity of an axis.
fn exponent(record: &Record, axis: Axis, who: Who, of: Quantity) -> String {
    power(slope(&record.points(axis, who, of)))
}

fn power(found: Option<f64>) -> String {
    found.map_or_else(dash, |power| format!("{power:.2}"))
}

/// Why sizes were left out, each reason once for both sides.
fn left_out(axis: Axis, cells: &[&Cell]) -> String {
    let mut out = String::new();
    for cell in cells {
        let ours = cell.ours.skipped.as_deref();
        let torch = cell.torch.as_ref().and_then(|side| side.skipped.as_deref());
        let both = match (ours, torch) {
            (Some(a), Some(b)) if a == b => vec![("both", a)],
            _ => [("ours", ours), ("torch", torch)]
                .into_iter()
                .filter_map(|(who, why)| Some((who, why?)))
                .collect(),
        };
        for (who, why) in both {
            let size = size(cell.size);
            out.push_str(&wrapped(&format!("{} {size}, {who}: {why}", axis.name())));
        }
    }
    out
}

fn dash() -> String {
    "-".to_owned()
}

/// `0.25`, `64`, `1,281,167`.
fn size(size: f64) -> String {
    if size.fract() == 0.0 {
        thousands(size)
    } else {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::example;
    use super::*;

    #[test]
    fn the_table_has_both_sides_their_slopes_and_what_was_left_out() {
        let text = render(&example());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for wanted in [
            "batch ours s GFLOP/s MiB torch s GFLOP/s MiB to ours",
            "16 0.250 1120 1300 0.400 700 1600 1.60 x",
            "256 4.00 1120 5000 - - - -",
            "slope 1.00 0.49 1.00 0.12",
            "1,281,167 4.00 0.0400 - - 100",
            "slope 1.00 1.00 - - 0.00",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted}:\n{text}");
        }
        for words in [
            "batch 256, torch: would take about 900 s",
            "crop 512, both: a generator makes crops",
            "base case: conv5_b16 with batch 16, 227 pixels, width 1;",
            "page cache",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        assert!(!text.contains("evaluation as in"), "{text}");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            [0.25, 64.0, 1_281_167.0].map(size),
            ["0.25", "64", "1,281,167"]
        );
    }
}
