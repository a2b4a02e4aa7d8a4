//! Curves as SVG. Colours come from the page's style sheet, so that they follow light and dark.

use std::borrow::Cow;

use maud::{Markup, html};

/// Width of a plot in its own units; the page scales it.
pub(super) const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 250.0;
/// Where the axes are.
pub(super) const LEFT: f64 = 52.0;
pub(super) const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 40.0;

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// From zero on.
    Linear,
    /// Powers of ten.
    Log,
}

/// A curve.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    /// For the legend.
    pub label: Cow<'a, str>,
    /// Its colour: 1 to 5.
    pub colour: u8,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A plot before it is drawn.
#[derive(Clone, Debug)]
pub(super) struct Plot<'a> {
    /// What it shows.
    pub title: &'a str,
    /// Below.
    pub x: &'a str,
    /// Of the heights.
    pub axis: Axis,
    /// The curves.
    pub lines: Vec<Line<'a>>,
    /// Heights of dashed lines, each with a word.
    pub marks: Vec<(f64, &'a str)>,
}

/// Smallest and largest; `None` of nothing.
fn span(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |found, v| {
        let (lo, hi) = found.unwrap_or((v, v));
        Some((v.min(lo), v.max(hi)))
    })
}

/// A round step that divides a span into about five.
fn step(span: f64) -> f64 {
    let raw = (span / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0];
    power * nice.into_iter().find(|n| n * power >= raw).unwrap_or(10.0)
}

/// A number on an axis.
fn number(v: f64) -> String {
    match v.abs() {
        a if a >= 10_000.0 => format!("{}k", v / 1000.0),
        a if a >= 1.0 || a == 0.0 => format!("{v:.0}").replace("-0", "0"),
        _ => format!("{v}"),
    }
}

/// Ticks between two ends, and the ends themselves widened to ticks.
fn ticks(axis: Axis, lo: f64, hi: f64) -> (Vec<f64>, f64, f64) {
    match axis {
        Axis::Linear => {
            // A flat line still gets an axis: steps below its precision would not move it.
            let flat = if hi == 0.0 { 1.0 } else { hi.abs() };
            let step = step(if hi - lo > 1e-9 * flat { hi - lo } else { flat });
            let (from, to) = ((lo / step).floor() * step, (hi / step).ceil() * step);
            let n = ((to - from) / step).round().clamp(1.0, 20.0) as usize;
            (
                (0..=n).map(|i| from + i as f64 * step).collect(),
                from,
                to.max(from + step),
            )
        }
        Axis::Log => {
            let (a, b) = (lo.log10().floor(), hi.log10().ceil());
            let b = b.max(a + 1.0);
            let every = ((b - a) / 6.0).ceil().max(1.0);
            let n = ((b - a) / every).floor() as usize;
            let all = (0..=n).map(|i| 10f64.powf(a + i as f64 * every));
            (all.collect(), 10f64.powf(a), 10f64.powf(b))
        }
    }
}

/// Steps to the right, from 0 to `most`.
pub(super) fn across(step: f64, most: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * step / most.max(1.0)
}

/// Ticks of steps below a plot.
pub(super) fn steps(most: f64, y: f64, label: &str) -> Markup {
    let each = step(most.max(1.0)).max(1.0);
    let n = (most / each).floor().clamp(0.0, 20.0) as usize;
    html! {
        @for i in 0..=n {
            @let at = across(i as f64 * each, most);
            line.tick x1=(format!("{at:.1}")) x2=(format!("{at:.1}")) y1=(y) y2=(y + 4.0) {}
            // A number centred on the right edge would be cut.
            @let anchor = if RIGHT - at < 14.0 { "end" } else { "middle" };
            text.axis x=(format!("{at:.1}")) y=(y + 18.0) text-anchor=(anchor) { (number(i as f64 * each)) }
        }
        text.axis x=(RIGHT) y=(y + 35.0) text-anchor="end" { (label) }
    }
}

/// Draws a plot with its legend; nothing where there is nothing to draw.
pub(super) fn plot(plot: &Plot<'_>) -> Markup {
    let usable = |v: f64| v.is_finite() && (plot.axis == Axis::Linear || v > 0.0);
    let lines: Vec<(&Line<'_>, Vec<(f64, f64)>)> = plot
        .lines
        .iter()
        .map(|l| {
            let points = l.points.iter().copied();
            (l, points.filter(|(_, v)| usable(*v)).collect())
        })
        .filter(|(_, points): &(_, Vec<_>)| !points.is_empty())
        .collect();
    let heights = lines.iter().flat_map(|(_, p)| p.iter().map(|(_, v)| *v));
    if lines.is_empty() {
        return html! {};
    }
    let thresholds: Vec<(f64, &str)> = plot
        .marks
        .iter()
        .copied()
        .filter(|(v, _)| usable(*v))
        .collect();
    let Some((lo, hi)) = span(heights.chain(thresholds.iter().map(|(v, _)| *v))) else {
        return html! {};
    };
    let most = lines.iter().flat_map(|(_, p)| p.iter().map(|(s, _)| *s));
    let most = span(most).map_or(1.0, |(_, hi)| hi);
    let lo = if plot.axis == Axis::Linear {
        lo.min(0.0)
    } else {
        lo
    };
    let (marks, from, to) = ticks(plot.axis, lo, hi);
    let up = |v: f64| {
        let share = match plot.axis {
            Axis::Linear => (v - from) / (to - from),
            Axis::Log => (v / from).ln() / (to / from).ln(),
        };
        BOTTOM - (BOTTOM - TOP) * share
    };
    html! {
        figure.plot {
            figcaption {
                strong { (plot.title) }
                @if lines.len() > 1 || !thresholds.is_empty() {
                    span.legend {
                        @for (line, _) in &lines {
                            span.key { span class={ "swatch c" (line.colour) } {} (line.label) }
                        }
                    }
                }
            }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(spoken(plot.title, &lines)) {
                @for v in &marks {
                    @let y = format!("{:.1}", up(*v));
                    line.grid x1=(LEFT) x2=(RIGHT) y1=(y) y2=(y) {}
                    text.axis x=(LEFT - 7.0) y=(format!("{:.1}", up(*v) + 4.0)) text-anchor="end" { (number(*v)) }
                }
                (steps(most, BOTTOM, plot.x))
                @for (v, word) in &thresholds {
                    @let y = up(*v);
                    line.mark x1=(LEFT) x2=(RIGHT) y1=(format!("{y:.1}")) y2=(format!("{y:.1}")) {}
                    text.axis.word x=(RIGHT) y=(format!("{:.1}", y - 4.0)) text-anchor="end" { (word) }
                }
                @for (line, points) in &lines {
                    polyline class={ "curve c" (line.colour) } points=(points.iter().map(|(s, v)| format!("{:.1},{:.1}", across(*s, most), up(*v))).collect::<Vec<_>>().join(" ")) {}
                    @if points.len() < 20 {
                        @for (s, v) in points {
                            circle class={ "dot c" (line.colour) } cx=(format!("{:.1}", across(*s, most))) cy=(format!("{:.1}", up(*v))) r="3" {}
                        }
                    }
                }
            }
        }
    }
}

/// The plot for those who hear it.
fn spoken(title: &str, lines: &[(&Line<'_>, Vec<(f64, f64)>)]) -> String {
    let mut text = title.to_owned();
    for (line, points) in lines {
        if let (Some((_, first)), Some((step, last))) = (points.first(), points.last()) {
            let number = |v: f64| match v.abs() {
                a if a >= 100.0 => format!("{v:.0}"),
                _ => format!("{v:.2}"),
            };
            text.push_str(&format!(
                "; {}: from {} to {} at {step:.0}",
                line.label,
                number(*first),
                number(*last)
            ));
        }
    }
    text
}

/// Heights as bars, from left to right.
pub(super) fn bars(title: &str, values: &[f64]) -> Markup {
    let most = values
        .iter()
        .copied()
        .fold(0.0, f64::max)
        .max(f64::MIN_POSITIVE);
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let width = 240.0 / values.len().max(1) as f64;
    html! {
        figure.bars {
            svg viewBox="0 0 240 46" role="img" preserveAspectRatio="none"
                aria-label=(format!("{title}: mean {mean:.1}, largest {most:.1}")) {
                @for (i, v) in values.iter().enumerate() {
                    @let height = 44.0 * v / most;
                    rect x=(format!("{:.1}", i as f64 * width + 1.0)) y=(format!("{:.1}", 46.0 - height))
                        width=(format!("{:.1}", (width - 2.0).max(0.5))) height=(format!("{height:.1}")) {}
                }
            }
            figcaption { (title) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover() {
        assert_eq!(step(3000.0), 1000.0);
        assert_eq!(step(97.0), 20.0);
        let (marks, from, to) = ticks(Axis::Linear, 0.0, 83.0);
        assert_eq!((from, to), (0.0, 100.0));
        assert_eq!(marks.len(), 6);
        let (marks, from, to) = ticks(Axis::Log, 0.3, 42.0);
        assert!((from - 0.1).abs() < 1e-12 && (to - 100.0).abs() < 1e-9);
        assert_eq!(marks.len(), 4);
        let (_, from, to) = ticks(Axis::Linear, 5.0, 5.0);
        assert!(to > from);
        let (_, from, to) = ticks(Axis::Log, 1.0, 1.0);
        assert!(to > from);
    }

    #[test]
    fn what_a_logarithm_lacks_is_left_out() {
        let made = plot(&Plot {
            title: "t",
            x: "iteration",
            axis: Axis::Log,
            lines: vec![Line {
                label: "a".into(),
                colour: 1,
                points: vec![(1.0, 0.0), (2.0, 10.0), (3.0, f64::NAN), (4.0, 100.0)],
            }],
            marks: vec![(0.0, "never"), (f64::INFINITY, "never"), (5.0, "there")],
        })
        .into_string();
        assert!(!made.contains("NaN") && !made.contains("inf"), "{made}");
        assert_eq!(made.matches("<circle").count(), 2);
        assert!(made.contains("there") && !made.contains("never"), "{made}");
    }
}
