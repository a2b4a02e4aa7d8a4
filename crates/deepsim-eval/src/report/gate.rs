//! What the gate of a run did: who was updated when, and the ratio that it looks at.

use std::borrow::Cow;
use std::collections::BTreeSet;

use deepsim_nets::loss::Term;
use maud::{Markup, html};

use super::curves::{Axis, Line, Plot, RIGHT, WIDTH, across, plot, steps};
use super::data::{History, Logged};

/// Colours of the terms, in their order.
const COLOURS: [u8; 5] = [1, 3, 2, 4, 5];

/// A curve for each term. A reward is negative: its size is drawn.
fn terms(history: &History) -> Vec<Line<'static>> {
    let known: BTreeSet<&Term> = history
        .logged
        .iter()
        .flat_map(|l| l.terms.iter().map(|(term, _)| term))
        .collect();
    let all = known.into_iter().enumerate();
    all.map(|(i, term)| {
        let points = history.logged.iter();
        let points = points.filter_map(|l| Some((l.step, l.terms.get(term)?.abs())));
        Line {
            label: term.label(),
            colour: COLOURS[match term.name() {
                None => term.kind() as usize,
                Some(_) => i,
            } % COLOURS.len()],
            points: points.collect(),
        }
    })
    .collect()
}

/// The three plots of a run.
pub(super) fn plots(history: &History) -> Markup {
    let points = |of: fn(&Logged) -> Option<f64>| {
        let all = history.logged.iter();
        all.filter_map(|l| Some((l.step, of(l)?)))
            .collect::<Vec<_>>()
    };
    let line = |label: &'static str, colour, points| Line {
        label: Cow::Borrowed(label),
        colour,
        points,
    };
    let evaluated = |of: fn(&super::data::Evaluated) -> Option<f64>| {
        let all = history.evaluated.iter();
        all.filter_map(|e| Some((e.step, of(e)?)))
            .collect::<Vec<_>>()
    };
    let gate = &history.gate;
    html! {
        div.plots {
            (plot(&Plot {
                title: "Terms of the generator's loss, weighted",
                x: "iteration",
                axis: Axis::Log,
                lines: terms(history),
                marks: vec![],
            }))
            @if history.evaluated.len() > 1 {
                (plot(&Plot {
                    title: "Error of held-out photos, %",
                    x: "iteration",
                    axis: Axis::Linear,
                    lines: vec![
                        line("features", 1, evaluated(|e| e.feature)),
                        line("pixels", 2, evaluated(|e| e.image)),
                    ],
                    marks: vec![],
                }))
            }
            @if history.adversarial {
                (plot(&Plot {
                    title: "Gate: discriminator's loss / adversarial loss",
                    x: "iteration",
                    axis: Axis::Log,
                    lines: vec![line("ratio", 3, points(|l| l.ratio))],
                    marks: vec![
                        (gate.d_off_below, "D pauses below"),
                        (gate.g_off_above, "G pauses above"),
                    ],
                }))
                (timeline(history))
            } @else {
                p.aside { "No adversarial term: no discriminator, and so no gate." }
            }
        }
    }
}

/// A network's letter, name, colour, and the share of iterations that updated it.
type Strip = (&'static str, &'static str, u8, fn(&Logged) -> Option<f64>);

/// Who was updated when: a strip for each network, the darker the more often.
fn timeline(history: &History) -> Markup {
    let most = history.logged.last().map_or(1.0, |l| l.step);
    let strips: [Strip; 2] = [
        ("D", "discriminator", 3, |l| l.discriminator),
        ("G", "generator", 1, |l| l.generator),
    ];
    let share = |of: fn(&Logged) -> Option<f64>| {
        let (mut sum, mut before) = (0.0, 0.0);
        for l in &history.logged {
            sum += of(l).unwrap_or(0.0) * (l.step - before);
            before = l.step;
        }
        100.0 * sum / most.max(1.0)
    };
    html! {
        figure.plot {
            figcaption {
                strong { "Gate: who was updated" }
                span.legend {
                    @for (_, name, colour, of) in &strips {
                        span.key { span class={ "swatch c" (colour) } {} (name) " " (format!("{:.0} %", share(*of))) }
                    }
                }
            }
            svg viewBox=(format!("0 0 {WIDTH} 132")) role="img"
                aria-label=(format!("Share of iterations that updated the discriminator: {:.0} %, the generator: {:.0} %",
                    share(strips[0].3), share(strips[1].3))) {
                @for (row, (letter, _, colour, of)) in strips.iter().enumerate() {
                    @let y = 10.0 + 42.0 * row as f64;
                    text.axis x="45" y=(y + 22.0) text-anchor="end" { (letter) }
                    rect.track x="52" y=(y) width=(RIGHT - 52.0) height="34" {}
                    @for (i, l) in history.logged.iter().enumerate() {
                        @let from = across(i.checked_sub(1).map_or(0.0, |b| history.logged[b].step), most);
                        @let to = across(l.step, most);
                        rect class={ "strip c" (colour) } x=(format!("{from:.2}")) y=(y)
                            width=(format!("{:.2}", to - from + 0.3)) height="34"
                            opacity=(format!("{:.2}", of(l).unwrap_or(0.0))) {}
                    }
                }
                (steps(most, 94.0, "iteration"))
            }
            p.note { "Full colour: updated in every iteration of that stretch; empty: paused." }
        }
    }
}
