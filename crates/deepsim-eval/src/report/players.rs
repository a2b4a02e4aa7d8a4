//! Frames with a play button and a slider. Without scripts they are a strip of images.

use maud::{Markup, html};

use super::again::evaluate;
use super::curves::{Axis, Line, Plot, bars, plot};
use super::data::{Closer, EmbeddedImage, Interpolation, Reencoding};
use super::parts::{choice, img, made_by, percent, why};

/// Milliseconds of a frame between images, and of a round of re-encoding.
const DELAYS: [u32; 2] = [140, 900];

/// One frame: image, text for those who do not see it, caption.
struct Frame<'a> {
    embedded: &'a EmbeddedImage,
    alt: String,
    caption: String,
}

/// `turn`: what follows the last frame, `back` or `again`.
fn player(label: &str, frames: &[Frame<'_>], delay: u32, turn: &str) -> Markup {
    html! {
        div.player role="group" aria-label=(label) data-player data-delay=(delay) data-turn=(turn) {
            div.screen {
                @for (i, frame) in frames.iter().enumerate() {
                    div.frame data-caption=(frame.caption) hidden[i > 0] { (img(frame.embedded, &frame.alt)) }
                }
            }
            div.controls {
                button.play type="button" aria-pressed="false" {
                    span.sign aria-hidden="true" {} span.word { "Play" }
                }
                input type="range" min="0" max=(frames.len().saturating_sub(1)) value="0" step="1"
                    aria-label=(format!("Frame: {label}"))
                    aria-valuetext=(frames.first().map_or("", |f| f.caption.as_str()));
            }
            p.caption { output { (frames.first().map_or("", |f| f.caption.as_str())) } }
        }
    }
}

fn options(closer: &[Closer]) -> Vec<(String, String)> {
    let all = closer.iter().enumerate();
    all.map(|(i, c)| (format!("c{i}"), c.label.clone()))
        .collect()
}

/// Between images.
pub(super) fn interpolations(closer: &[Closer]) -> Markup {
    html! {
        (choice("choose-interpolation", "Run", &options(closer)))
        @for (i, run) in closer.iter().enumerate() {
            div data-of=(format!("c{i}")) hidden[i > 0] {
                @match &run.interpolations {
                    Err(reason) => (why("Interpolation", reason)),
                    Ok(all) => {
                        div.cards.wide { @for one in all { (interpolation(one)) } }
                        (made_by(&evaluate(["interpolate", "A.jpg", "B.jpg", "--steps", "13"], &run.path)))
                    }
                }
            }
        }
    }
}

fn interpolation(made: &Interpolation) -> Markup {
    let [a, b] = &made.ends;
    let frames: Vec<Frame<'_>> = made
        .frames
        .iter()
        .map(|(t, embedded, step)| Frame {
            embedded,
            alt: format!(
                "Image from {:.0} % of the features of {} and {:.0} % of {}",
                100.0 * (1.0 - t),
                a.name,
                100.0 * t,
                b.name
            ),
            caption: match step {
                Some(step) => format!("t = {t:.2} · step {step:.1} grey levels"),
                None => format!("t = {t:.2}"),
            },
        })
        .collect();
    let steps: Vec<f64> = made.frames.iter().filter_map(|f| f.2).collect();
    html! {
        article.card {
            h3 { (a.name) " → " (b.name) }
            div.triple {
                figure { (img(&a.embedded, &format!("Image {}", a.name))) figcaption { "photo, t = 0" } }
                (player(&format!("from {} to {}", a.name, b.name), &frames, DELAYS[0], "back"))
                figure { (img(&b.embedded, &format!("Image {}", b.name))) figcaption { "photo, t = 1" } }
            }
            (bars("change of pixels from frame to frame, grey levels (root mean square)", &steps))
            p.numbers {
                "largest step " strong { (format!("{:.2}", made.max_over_mean)) } " × the mean step (1 is even, "
                (steps.len()) " a jump); path " strong { (format!("{:.2}", made.path_over_ends)) }
                " × the distance of its ends (1 is straight)"
            }
        }
    }
}

/// Again and again.
pub(super) fn reencodings(closer: &[Closer]) -> Markup {
    html! {
        (choice("choose-reencoding", "Run", &options(closer)))
        @for (i, run) in closer.iter().enumerate() {
            div data-of=(format!("c{i}")) hidden[i > 0] {
                @match &run.reencoding {
                    Err(reason) => (why("Re-encoding", reason)),
                    Ok(made) => {
                        (reencoding(made))
                        (made_by(&evaluate(["reencode", "--iterations", "1,2,4,8"], &run.path)))
                    }
                }
            }
        }
    }
}

fn reencoding(made: &Reencoding) -> Markup {
    let points = |of: fn(&crate::analysis::reencode::Drift) -> f64| -> Vec<(f64, f64)> {
        made.drift
            .iter()
            .map(|d| (d.iteration as f64, of(d)))
            .collect()
    };
    let line = |label: &'static str, colour, points| Line {
        label: label.into(),
        colour,
        points,
    };
    html! {
        div.cards {
            @for (photo, rounds) in &made.photos {
                article.card {
                    h3 { (photo.name) }
                    (player(
                        &format!("{} again and again", photo.name),
                        &std::iter::once((0, &photo.embedded))
                            .chain((1..).zip(rounds))
                            .map(|(round, embedded)| Frame {
                                embedded,
                                alt: match round {
                                    0 => format!("Image {}", photo.name),
                                    _ => format!("{} after {round} rounds", photo.name),
                                },
                                caption: match (round, made.drift.get(round.max(1) - 1)) {
                                    (0, _) => "the photo".to_owned(),
                                    (_, Some(d)) => format!("round {round} · all photos: pixels {:.0} %", d.image_to_original),
                                    _ => format!("round {round}"),
                                },
                            })
                            .collect::<Vec<_>>(),
                        DELAYS[1],
                        "again",
                    ))
                }
            }
        }
        div.plots {
            (plot(&Plot {
                title: "Distance to the photo, %",
                x: "round",
                axis: Axis::Linear,
                lines: vec![
                    line("features", 1, points(|d| d.feature_to_original)),
                    line("pixels", 2, points(|d| d.image_to_original)),
                ],
                marks: vec![],
            }))
            div.scroll tabindex="0" role="region" aria-label="Drift in numbers" {
                table {
                    caption { "Drift, mean of " (made.drift.first().map_or(0, |d| d.n)) " held-out photos; 100 % is a random other photo" }
                    thead { tr { th scope="col" { "round" } th scope="col" { "pixels" } th scope="col" { "features" }
                        th scope="col" { "pixels, to the round before" } th scope="col" { "features, to the round before" } } }
                    tbody {
                        @for d in &made.drift {
                            tr {
                                th scope="row" { (d.iteration) }
                                td { (percent(d.image_to_original)) } td { (percent(d.feature_to_original)) }
                                td { (percent(d.image_to_previous)) } td { (percent(d.feature_to_previous)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
