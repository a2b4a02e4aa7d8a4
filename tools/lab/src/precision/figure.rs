//! The curves of all runs as one small PNG.

use anyhow::Result;
use plotters::prelude::*;

use super::curves::{HeldOut, Losses};
use super::run::{Precision, Run};
use crate::chart::{Area, FONT, axes, figure};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 620;
const HEAD: u32 = 34;

/// One panel: what it shows, and where a run's curve goes.
struct Panel {
    title: &'static str,
    points: fn(&Run) -> Vec<(f64, f64)>,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "image error, held-out photos, %",
        points: |run| held_out(run, |e| e.image_error),
    },
    Panel {
        title: "feature error, held-out photos, %",
        points: |run| held_out(run, |e| e.feature_error),
    },
    Panel {
        title: "image loss, training",
        points: |run| losses(run, |l| l.img),
    },
    Panel {
        title: "feature loss, training",
        points: |run| losses(run, |l| l.feat),
    },
];

fn held_out(run: &Run, of: fn(&HeldOut) -> f64) -> Vec<(f64, f64)> {
    let all = run.curves.held_out.iter();
    all.map(|e| (e.step as f64, of(e))).collect()
}

fn losses(run: &Run, of: fn(&Losses) -> f64) -> Vec<(f64, f64)> {
    let all = run.curves.losses.iter();
    all.map(|l| (l.step as f64, of(l))).collect()
}

/// Told apart by people who see few colours as well.
fn colour(precision: Precision) -> RGBColor {
    match precision {
        Precision::Fp32 => RGBColor(0x1f, 0x4e, 0x9c),
        Precision::Bf16 => RGBColor(0xe0, 0x7b, 0x1a),
    }
}

/// A curve under another of the same values must show at its sides.
fn width(precision: Precision) -> u32 {
    match precision {
        Precision::Fp32 => 4,
        Precision::Bf16 => 2,
    }
}

/// The PNG's bytes.
///
/// # Errors
/// None that is known of: runs without curves give empty panels.
pub fn draw(runs: &[Run]) -> Result<Vec<u8>> {
    figure((WIDTH, HEIGHT), |root| {
        let (head, body) = root.split_vertically(HEAD);
        let mut x = 16;
        for (precision, words) in [
            (Precision::Fp32, "fp32, one line for each seed"),
            (Precision::Bf16, "bf16, the same seeds"),
        ] {
            let c = colour(precision);
            head.draw(&PathElement::new(
                [(x, 20), (x + 26, 20)],
                c.stroke_width(width(precision)),
            ))?;
            head.draw(&Text::new(words, (x + 34, 11), (FONT, 17).into_font()))?;
            x += 300;
        }
        for (area, panel) in body.split_evenly((2, 2)).iter().zip(&PANELS) {
            chart(area, panel, runs)?;
        }
        Ok(())
    })
}

fn chart(area: &Area, panel: &Panel, runs: &[Run]) -> Result<()> {
    let curves: Vec<(Precision, Vec<(f64, f64)>)> = runs
        .iter()
        .map(|run| (run.precision, finite((panel.points)(run))))
        .collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    let last = all().map(|(step, _)| *step).fold(1.0, f64::max);
    // The fall of the first steps would leave no room for what differs later.
    let late = |step: f64| 10.0 * step >= last;
    let shown = all().filter(|(step, _)| late(*step)).map(|(_, y)| *y);
    let (low, high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), y| {
        (a.min(y), b.max(y))
    });
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let margin = 0.05 * (high - low);
    let y = low - margin..high + margin;
    let mut chart = axes(area, panel.title, "step", last / 10.0..last, y)?;
    let (below, above): (Vec<_>, Vec<_>) =
        curves.into_iter().partition(|(p, _)| *p == Precision::Fp32);
    for (precision, points) in below.into_iter().chain(above) {
        let points = points.into_iter().filter(|(step, _)| late(*step));
        let style = colour(precision).stroke_width(width(precision));
        chart.draw_series(LineSeries::new(points, style))?;
    }
    Ok(())
}

fn finite(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.into_iter().filter(|(_, y)| y.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::run;
    use super::*;

    #[test]
    fn both_arithmetics_and_text_are_on_a_small_figure() {
        let runs = [
            run(Precision::Fp32, 1, 40.0),
            run(Precision::Fp32, 2, 44.0),
            run(Precision::Bf16, 1, 42.0),
        ];
        let png = draw(&runs).unwrap();
        assert!(png.len() < 200_000, "{} bytes", png.len());
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let count = |c: RGBColor| {
            let all = pixels.chunks(3);
            all.filter(|p| [p[0], p[1], p[2]] == [c.0, c.1, c.2])
                .count()
        };
        assert!(count(colour(Precision::Fp32)) > 500);
        assert!(count(colour(Precision::Bf16)) > 300);
        // Letters: without a font there would be none of these but the axes' lines.
        let head = &pixels[..(WIDTH * HEAD * 3) as usize];
        let dark = head.chunks(3).filter(|p| p.iter().all(|&v| v < 100));
        assert!(dark.count() > 100);
    }

    #[test]
    fn runs_without_curves_give_empty_panels() {
        assert!(!draw(&[]).unwrap().is_empty());
    }
}
