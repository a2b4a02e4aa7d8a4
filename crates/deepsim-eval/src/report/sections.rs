//! Sections with images.

use maud::{Markup, html};

use super::again::{command, evaluate};
use super::data::{Closer, Group, Headline, Neighbor, Part, RunCard};
use super::gate;
use super::parts::{choice, errors, img, made_by, why};
use super::tables;

/// The image on top.
pub(super) fn headline(part: &Part<Headline>) -> Markup {
    let made = match part {
        Ok(made) => made,
        Err(reason) => return why("The image", reason),
    };
    html! {
        figure.headline {
            div.sheet style=(format!("--columns:{}", made.names.len())) {
                @for (label, row) in &made.rows {
                    p.row-label { (label) }
                    div.row {
                        @for (embedded, name) in row.iter().zip(&made.names) {
                            (img(embedded, &format!("{name}: {label}")))
                        }
                    }
                }
            }
            figcaption {
                "Held-out photos, and images made from nothing but their features at " code { (made.encoder) } "."
            }
        }
    }
}

/// Curves of every run.
pub(super) fn curves(cards: &[RunCard]) -> Markup {
    let with: Vec<(&RunCard, &Part<super::data::History>)> = cards
        .iter()
        .filter_map(|c| Some((c, c.history.as_ref()?)))
        .collect();
    let options: Vec<(String, String)> = with
        .iter()
        .enumerate()
        .map(|(i, (c, _))| (format!("h{i}"), format!("{}: {}", c.name, c.loss)))
        .collect();
    html! {
        (choice("choose-curves", "Run", &options))
        @for (i, (card, history)) in with.iter().enumerate() {
            div data-of=(format!("h{i}")) hidden[i > 0] {
                @match history {
                    Ok(history) => (gate::plots(history)),
                    Err(reason) => (why(&format!("Curves of {}", card.name), reason)),
                }
                (made_by(&card.command))
            }
        }
    }
}

/// Original images and reconstructions with a slider between them.
pub(super) fn sliders(groups: &[Group]) -> Markup {
    let key = |g: usize, r: usize| format!("g{g}r{r}");
    let options: Vec<(String, String)> = groups
        .iter()
        .enumerate()
        .flat_map(|(g, group)| {
            let runs = group.runs.iter().enumerate();
            runs.map(move |(r, (name, label, _))| (key(g, r), format!("{name} ({label})")))
        })
        .collect();
    html! {
        (choice("choose-run", "Run", &options))
        @for (g, group) in groups.iter().enumerate() {
            @let keys: Vec<String> = (0..group.runs.len()).map(|r| key(g, r)).collect();
            div data-of=(keys.join(" ")) hidden[g > 0] {
                p.aside { (group.label) }
                div.cards.small {
                    @for (p, photo) in group.photos.iter().enumerate() {
                        figure.slider data-slider style="--at:50%" {
                            div.pair {
                                (img(&photo.embedded, &format!("Image {}", photo.name)))
                                @for (r, (name, _, made)) in group.runs.iter().enumerate() {
                                    div.over data-of=(key(g, r)) hidden[r > 0] {
                                        (img(&made[p].embedded, &format!("{} by {name}", photo.name)))
                                    }
                                }
                                span.divider aria-hidden="true" {}
                                input type="range" min="0" max="100" value="50"
                                    aria-label=(format!("How much of the reconstruction of {} is seen", photo.name))
                                    aria-valuetext="50 % reconstruction";
                            }
                            figcaption {
                                strong { (photo.name) }
                                @for (r, (_, _, made)) in group.runs.iter().enumerate() {
                                    span data-of=(key(g, r)) hidden[r > 0] { (errors(made[p].image, made[p].feature)) }
                                }
                            }
                        }
                    }
                }
                @for (r, path) in group.paths.iter().enumerate() {
                    div data-of=(key(g, r)) hidden[r > 0] {
                        (made_by(&command("deepsim-eval", ["compare".as_ref(), path.as_os_str(), "--out".as_ref(), "compare.png".as_ref()])))
                    }
                }
            }
        }
    }
}

/// Does the network only retrieve?
pub(super) fn neighbors(closer: &[Closer]) -> Markup {
    let options: Vec<(String, String)> = closer
        .iter()
        .enumerate()
        .map(|(i, c)| (format!("n{i}"), c.label.clone()))
        .collect();
    html! {
        (choice("choose-neighbors", "Run", &options))
        @for (i, run) in closer.iter().enumerate() {
            div data-of=(format!("n{i}")) hidden[i > 0] {
                @match &run.neighbors {
                    Err(reason) => (why("Neighbours", reason)),
                    Ok(made) => {
                        (tables::nearest(&made.rows))
                        div.neighbors { @for one in &made.shown { (neighbor(one)) } }
                        (made_by(&evaluate(["neighbors"], &run.path)))
                    }
                }
            }
        }
    }
}

fn neighbor(one: &Neighbor) -> Markup {
    html! {
        section.neighbor aria-label=(format!("Beside {}", one.photo.name)) {
            figure { (img(&one.photo.embedded, &format!("Image {}", one.photo.name)))
                figcaption { strong { "photo" } span { (one.photo.name) } } }
            figure.own { (img(&one.own.embedded, &format!("Reconstruction of {}", one.photo.name)))
                figcaption { strong { "reconstruction" } span { (errors(one.own.image, one.own.feature)) } } }
            @for beside in &one.nearest {
                figure { (img(&beside.found.embedded, &format!("Training image {}", beside.name)))
                    figcaption {
                        strong { "nearest in " (beside.space) }
                        span { (beside.name) @if beside.mirrored { ", mirrored" } }
                        span { (errors(beside.found.image, beside.found.feature)) }
                    }
                }
            }
        }
    }
}
