//! The page: head, order of the sections, words between them.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::again::evaluate;
use super::data::{Report, RunCard};
use super::parts::{command, made_by};
use super::{players, sections, tables};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Nothing is fetched, whatever a run is called.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page.
pub fn render(report: &Report) -> String {
    let made = &report.made;
    let sections: [(&str, &str, Markup); 7] = [
        ("runs", "What was run", what(report)),
        ("table", "Table 2, beside the paper's", table(report)),
        ("curves", "Losses and the gate", curves(report)),
        ("photos", "Photo and reconstruction", sliders(report)),
        ("between", "Between two photos", between(report)),
        ("again", "Again and again", again(report)),
        (
            "nearest",
            "Does the network only retrieve?",
            nearest(report),
        ),
    ];
    let of_images = ["photos", "between"];
    let sections: Vec<_> = sections
        .into_iter()
        .filter(|(id, ..)| report.shown || !of_images.contains(id))
        .collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(format!("{} {}", crate::show::output::GENERATOR, made.version));
                link rel="icon" href="data:,";
                title { "DeepSim: what the trained runs show" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the results" }
                header.top {
                    div.bar {
                        span.brand { "DeepSim" }
                        button.theme type="button" aria-pressed="false" { "Dark" }
                    }
                    h1 { "Images from features" }
                    p.lead {
                        "A generator inverts a network's features, trained with losses in feature space, in pixels and "
                        "against a discriminator. This page shows what trained runs do, with numbers beside the paper's."
                    }
                    (sections::headline(&report.headline))
                    (caution(&report.runs))
                    nav aria-label="Sections" { ul { @for (id, title, _) in &sections { li { a href={ "#" (id) } { (title) } } } } }
                }
                main #main tabindex="-1" {
                    @for (id, title, body) in &sections {
                        section #(id) aria-labelledby=(format!("{id}-title")) {
                            h2 id=(format!("{id}-title")) { (title) }
                            (body)
                        }
                    }
                }
                footer {
                    p {
                        "Evaluated " time { (made.when) } ", "
                        @match &made.commit { Some(commit) => { "commit " code { (commit) } }, None => { "commit unknown" } }
                        ", deepsim-eval " (made.version) "."
                        @if report.shown { " Images on this page are JPEGs of quality 90; all numbers are of the images before that." }
                    }
                    (command(&made.command))
                }
                p.status role="status" aria-live="polite" {}
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// What the numbers are not.
fn caution(cards: &[RunCard]) -> Markup {
    let all = |of: fn(&RunCard) -> &String| {
        let mut words: Vec<&str> = cards.iter().map(|c| of(c).as_str()).collect();
        words.sort_unstable();
        words.dedup();
        words.join("; ")
    };
    html! {
        p.caution {
            strong { "Read with care. " }
            "Photos: " (all(|c| &c.data)) ". Inverted networks: " (all(|c| &c.weights)) ". "
            @if cards.iter().any(|c| c.weights.contains("AlexNet") || c.data.contains("photo crops")) {
                "Neither ImageNet photos nor the paper's CaffeNet: compare rows of this page with each other, and with the paper only in kind."
            }
        }
    }
}

fn what(report: &Report) -> Markup {
    let mut sets: Vec<String> = report
        .runs
        .iter()
        .map(|c| match c.counts {
            Some((train, test)) => {
                format!("{}: {train} photos to train on, {test} held out", c.data)
            }
            None => c.data.clone(),
        })
        .collect();
    sets.sort();
    sets.dedup();
    html! {
        ul.facts { @for set in &sets { li { (set) } } }
        (tables::runs(&report.runs))
        @if !report.left_out.is_empty() {
            details aria-label="Runs and figures not shown" { summary { (report.left_out.len()) " not shown, and why" }
                ul { @for why in &report.left_out { li { (why) } } } }
        }
    }
}

fn table(report: &Report) -> Markup {
    html! {
        p { "Pixels and features of held-out photos, divided by the mean distance between different ones. "
            "Gradient energy is relative to the photos (1 is as sharp, less is blur). LPIPS: less is nearer. "
            "Label kept: EfficientNet-Lite0 gives the reconstruction the photo's own label. "
            em { "shared" } ": the network of the metric had a part in the training, and the metric is left out." }
        (tables::ours(report))
        (tables::papers())
        @if !report.missing_weights.is_empty() {
            p.why { strong { "Metrics left out for want of weights: " }
                @for (i, path) in report.missing_weights.iter().enumerate() { @if i > 0 { ", " } code { (path.display()) } }
                " not there; " code { "cargo xtask setup" } " fetches them." }
        }
        (made_by(&evaluate(
            ["table2", "--judges", "--images", &report.made.images.to_string()],
            &report.made.runs,
        )))
    }
}

fn curves(report: &Report) -> Markup {
    html! {
        p { "The gate pauses the discriminator (D) when it gets too good, and the generator (G) when D falls behind." }
        (sections::curves(&report.runs))
    }
}

fn sliders(report: &Report) -> Markup {
    html! {
        p { "Drag the divider, or focus an image and use the arrow keys. Left of it the reconstruction, right the photo." }
        (sections::sliders(&report.groups))
    }
}

fn between(report: &Report) -> Markup {
    html! {
        p { "Images made from features on the straight line between those of two photos. Even steps say that the "
            "generator does not jump from one stored image to the next." }
        (players::interpolations(&report.closer))
    }
}

fn again(report: &Report) -> Markup {
    html! {
        p { "Each round encodes the last image and reconstructs it." }
        (players::reencodings(&report.closer))
    }
}

fn nearest(report: &Report) -> Markup {
    html! {
        p { "The nearest training photos of held-out ones, in the space of pixels and of features. If the network only "
            "retrieved, its reconstruction would be no nearer to the photo than the best training photo." }
        (sections::neighbors(&report.closer))
    }
}
