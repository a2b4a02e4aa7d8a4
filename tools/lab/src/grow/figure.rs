//! The curves of all axes as one PNG; both axes of a panel are logarithms.

use anyhow::Result;
use plotters::prelude::*;

use super::axis::Axis;
use super::record::{Quantity, Record, Who};
use crate::chart::{Area, FONT, figure, log_axes};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 900;
const HEAD: u32 = 34;

const OURS: RGBColor = RGBColor(0x1f, 0x4e, 0x9c);
const TORCH: RGBColor = RGBColor(0xe0, 0x7b, 0x1a);

/// One panel.
struct Panel {
    title: &'static str,
    axis: Axis,
    of: Quantity,
}

const fn panel(title: &'static str, axis: Axis, of: Quantity) -> Panel {
    Panel { title, axis, of }
}

const PANELS: [Panel; 9] = [
    panel("a step, s", Axis::Batch, Quantity::Seconds),
    panel("a step, s", Axis::Crop, Quantity::Seconds),
    panel("a step, s", Axis::Width, Quantity::Seconds),
    panel("a step, peak MiB", Axis::Batch, Quantity::Mib),
    panel("a step, peak MiB", Axis::Crop, Quantity::Mib),
    panel("a step, peak MiB", Axis::Width, Quantity::Mib),
    panel("a step, s", Axis::Threads, Quantity::Seconds),
    panel("opening a dataset, s", Axis::Entries, Quantity::Seconds),
    panel("an evaluation, s", Axis::Images, Quantity::Seconds),
];

/// The PNG's bytes. Axes without measured cells give empty panels.
///
/// # Errors
/// None that is known of.
pub fn draw(record: &Record) -> Result<Vec<u8>> {
    figure((WIDTH, HEIGHT), |root| {
        let (head, body) = root.split_vertically(HEAD);
        let mut x = 16;
        for (words, colour) in [("ours", OURS), ("PyTorch, tuned", TORCH)] {
            head.draw(&PathElement::new(
                [(x, 20), (x + 26, 20)],
                colour.stroke_width(3),
            ))?;
            head.draw(&Text::new(words, (x + 34, 11), (FONT, 17).into_font()))?;
            x += 200;
        }
        for (area, panel) in body.split_evenly((3, 3)).iter().zip(&PANELS) {
            chart(area, panel, record)?;
        }
        Ok(())
    })
}

fn chart(area: &Area, panel: &Panel, record: &Record) -> Result<()> {
    let of = |who| -> Vec<(f64, f64)> {
        let points = record.points(panel.axis, who, panel.of).into_iter();
        points
            .filter(|(x, y)| *x > 0.0 && *y > 0.0)
            .map(|(x, y)| (x.log2(), y.log2()))
            .collect()
    };
    let curves = [(OURS, of(Who::Ours)), (TORCH, of(Who::Torch))];
    let all = || curves.iter().flat_map(|(_, points)| points);
    let x = range(all().map(|p| p.0));
    let y = range(all().map(|p| p.1));
    let mut chart = log_axes(area, panel.title, panel.axis.name(), x, y)?;
    for (colour, points) in &curves {
        chart.draw_series(LineSeries::new(
            points.iter().copied(),
            colour.stroke_width(2),
        ))?;
        let dots = points.iter().map(|at| Circle::new(*at, 3, colour.filled()));
        chart.draw_series(dots)?;
    }
    Ok(())
}

/// From the lowest to the highest value with a margin; a range for no values or one.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
        (a.min(v), b.max(v))
    });
    if low > high {
        return 0.0..1.0;
    }
    let margin = (0.08 * (high - low)).max(0.25);
    low - margin..high + margin
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::example;
    use super::*;
    use crate::bench::head::tests::example as head;

    #[test]
    fn curves_are_drawn_and_nothing_to_draw_is_no_error() {
        let full = draw(&example()).unwrap();
        let empty = draw(&Record::new(&head())).unwrap();
        assert!(full.len() > empty.len() && full.len() < 300_000);
    }

    #[test]
    fn a_range_holds_all_values() {
        assert_eq!(range([].into_iter()), 0.0..1.0);
        let one = range([3.0].into_iter());
        assert!(one.start < 3.0 && one.end > 3.0);
        let two = range([1.0, 9.0].into_iter());
        assert!(two.start < 1.0 && two.end > 9.0);
    }
}
