//! The soak's curves as one small PNG.

use anyhow::Result;
use plotters::prelude::*;

use super::look::Look;
use crate::chart::{axes, figure};

const SIZE: (u32, u32) = (900, 560);
const LINE: RGBColor = RGBColor(0x1f, 0x4e, 0x9c);

/// A panel's title, and its value of a look.
type Panel = (&'static str, fn(&Look) -> Option<f64>);

const PANELS: [Panel; 4] = [
    ("resident memory, MiB", |l| Some(l.resident_mib)),
    ("milliseconds a step", |l| l.step_ms),
    ("file handles", |l| Some(l.handles)),
    ("threads", |l| Some(l.threads)),
];

/// The PNG's bytes. Every axis begins at 0: what is flat looks flat, and what is not does not.
///
/// # Errors
/// None that is known of.
pub fn draw(looks: &[Look]) -> Result<Vec<u8>> {
    let end = looks.last().map_or(1.0, |l| l.minutes.max(0.1));
    figure(SIZE, |root| {
        for (area, (title, of)) in root.split_evenly((2, 2)).iter().zip(PANELS) {
            let points: Vec<(f64, f64)> = looks
                .iter()
                .filter_map(|l| Some((l.minutes, of(l)?)))
                .collect();
            // One slow look must not press all others to the ground.
            let mut sorted: Vec<f64> = points.iter().map(|p| p.1).collect();
            sorted.sort_by(f64::total_cmp);
            let high = sorted
                .get(sorted.len().saturating_sub(1) * 98 / 100)
                .map_or(1.0, |v| 1.3 * v);
            let mut chart = axes(area, title, "minutes", 0.0..end, 0.0..high)?;
            let shown = points.into_iter().map(|(x, y)| (x, y.min(high)));
            chart.draw_series(LineSeries::new(shown, LINE.stroke_width(2)))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_and_nothing_to_draw_is_no_error() {
        let looks: Vec<Look> = (0..50)
            .map(|i| Look {
                minutes: f64::from(i),
                step: 0.0,
                resident_mib: 500.0,
                handles: 30.0,
                threads: 6.0,
                cpu_s: 0.0,
                step_ms: (i > 0).then_some(20.0),
            })
            .collect();
        let (full, empty) = (draw(&looks).unwrap(), draw(&[]).unwrap());
        assert!(full.len() > empty.len() && full.len() < 200_000);
    }
}
