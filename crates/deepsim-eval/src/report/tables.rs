//! Tables of the page.

use maud::{Markup, html};

use super::data::{Report, RunCard};
use super::names::duration;
use super::parts::command;
use crate::analysis::neighbors;
use crate::analysis::paper;
use crate::analysis::table2::Row;
use crate::measure::metrics::Score;
use crate::show::table2_text::{Set, sets};

/// What was run.
pub(super) fn runs(cards: &[RunCard]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Runs" {
            table {
                thead { tr {
                    th scope="col" { "run" } th.text scope="col" { "inverts" } th.text scope="col" { "loss" }
                    th.text scope="col" { "compared at" } th scope="col" { "crop" } th scope="col" { "steps" }
                    th scope="col" { "batch" } th scope="col" { "time" } th.text scope="col" { "arithmetic" }
                } }
                tbody {
                    @for card in cards {
                        tr {
                            th scope="row" { (card.name) }
                            td.text { (card.encoder) } td.text { (card.loss) }
                            td.text { @if card.comparator.is_empty() { "–" } @else { (card.comparator) } }
                            td { (card.crop) " px" }
                            td {
                                (card.steps.0)
                                @if card.steps.0 < card.steps.1 { span.unfinished { " of " (card.steps.1) } }
                            }
                            // Mahendran & Vedaldi's images depend on neither.
                            td { @if card.history.is_some() { (card.batch) } @else { "–" } }
                            td { (duration(card.seconds)) }
                            td.text { @if card.history.is_some() { (card.precision) } @else { "–" } }
                        }
                    }
                }
            }
        }
        details aria-label="Commands" {
            summary { "The command that made each run" }
            dl.commands {
                @for card in cards { dt { (card.name) } dd { (command(&card.command)) } }
            }
        }
    }
}

fn percent(v: Option<f64>) -> String {
    v.map_or("–".to_owned(), |v| format!("{v:.1}"))
}

fn score(score: Score, decimals: usize) -> String {
    match score {
        Score::Missing => "–".to_owned(),
        other => other.text(decimals),
    }
}

fn share(score: Score) -> String {
    match score {
        Score::Value(v) => format!("{:.0} %", 100.0 * v),
        other => self::score(other, 0),
    }
}

fn run_name(row: &Row) -> String {
    let run = row.run.as_deref().unwrap_or_default();
    crate::run::catalog::name(run)
}

/// Our rows, those of the same images in one table.
pub(super) fn ours(report: &Report) -> Markup {
    let sets = sets(&report.table);
    html! {
        @for (i, set) in sets.iter().enumerate() {
            (one_set(set, match i { 0 => "Our errors".to_owned(), n => format!("Our errors, table {}", n + 1) }.as_str()))
        }
        @if sets.len() > 1 {
            p.why { "Each of these tables stands on images of its own: compare rows within one of them only." }
        }
    }
}

fn one_set(set: &Set<'_>, name: &str) -> Markup {
    let mut rows = set.rows.clone();
    rows.sort_by_key(|r| (r.layer.clone(), r.method.clone()));
    let paper = rows.iter().any(|r| r.paper_image_error.is_some());
    let words = |r: &Row| {
        r.loss
            .map_or("Mahendran & Vedaldi", crate::run::catalog::Loss::words)
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table {
                caption { "Ours, on " (set.title) ": normalised inversion error in % (100 is a random other photo), and metrics that the paper lacks" }
                thead { tr {
                    th scope="col" { "run" } th.text scope="col" { "layer" } th.text scope="col" { "method" }
                    th scope="col" { "pixels" } th scope="col" { "features" }
                    @if paper { th scope="col" { "paper: pixels / features" } }
                    th scope="col" { "gradient energy" } th scope="col" { "LPIPS" } th scope="col" { "SSIM" }
                    th scope="col" { "PSNR" } th scope="col" { "label kept" } th scope="col" { "in first five" } th scope="col" { "photos" }
                } }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { (run_name(row)) }
                            td.text { (row.layer) } td.text { (words(row)) }
                            td.main { (percent(row.image_error)) } td.main { (percent(row.feature_error)) }
                            @if paper {
                                td.paper { @match row.paper_image_error {
                                    None => "–",
                                    image => { (whole(image)) " / " (whole(row.paper_feature_error)) }
                                } }
                            }
                            td { (row.gradient_energy.map_or("–".to_owned(), |v| format!("{v:.2}"))) }
                            td { (score(row.lpips, 3)) @if let (Some(net), Score::Value(_)) = (&row.lpips_net, row.lpips) { small { " " (net) } } }
                            td { (score(row.ssim, 3)) }
                            td { (score(row.psnr, 1)) @if let Score::Value(_) = row.psnr { small { " dB" } } }
                            td { (share(row.label_top1)) } td { (share(row.label_top5)) }
                            td { (images(row)) }
                        }
                    }
                }
            }
        }
    }
}

/// How many images, and what is to be known of them.
fn images(row: &Row) -> Markup {
    let n = row.n.unwrap_or(0);
    html! {
        (n)
        @match row.held_out_overlap {
            Some(all) if all > 0 && all == n => small { " training images" },
            Some(some) if some > 0 => small { ", " (some) " of them trained on" },
            _ => {},
        }
        @if let Some(from) = row.n_pairs_from.filter(|from| *from < n) {
            small { ", relative to the pairs of " (from) }
        }
    }
}

fn whole(v: Option<f64>) -> String {
    v.map_or("–".to_owned(), |v| format!("{v:.0}"))
}

/// The paper's own.
pub(super) fn papers() -> Markup {
    let layers = ["conv5", "fc6", "fc7", "fc8"];
    let lines = [
        ("Mahendran & Vedaldi", "mv", ""),
        ("Dosovitskiy & Brox", "db", ""),
        ("image loss only", "image-loss", ""),
        ("DeePSiM, AlexNet CONV5", "deepsim", "caffenet:pool5"),
        ("DeePSiM, VideoNet CONV5", "deepsim", "videonet:pool5"),
    ];
    html! {
        div.scroll tabindex="0" role="region" aria-label="The paper's Table 2" {
            table.papers {
                caption { "The paper's Table 2: pixels / features, CaffeNet on ILSVRC-2012 validation photos; not measured here" }
                thead { tr { th scope="col" { "method" } @for layer in layers { th scope="col" { (layer.to_uppercase()) } } } }
                tbody {
                    @for (title, method, comparator) in lines {
                        tr {
                            th scope="row" { (title) }
                            @for layer in layers {
                                @let cell = paper::TABLE_2.iter().find(|(m, c, l, _, _)| *m == method && *c == comparator && *l == layer);
                                td { @match cell {
                                    Some((_, _, _, image, feature)) => { (whole(*image)) " / " (whole(*feature)) }
                                    None => "–",
                                } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Does the network only retrieve?
pub(super) fn nearest(rows: &[neighbors::Row]) -> Markup {
    let part = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{:.0} %", 100.0 * v));
    html! {
        div.scroll tabindex="0" role="region" aria-label="Neighbours in numbers" {
            table {
                caption { "Means over " (rows.first().map_or(0, |r| r.n)) " held-out photos; errors in % of the distance of different photos" }
                thead { tr {
                    th scope="col" { "beside the photo" } th scope="col" { "pixels" } th scope="col" { "features" }
                    th scope="col" { "reconstruction is nearer, pixels" } th scope="col" { "reconstruction is nearer, features" }
                    th scope="col" { "same category" } th scope="col" { "by chance" }
                } }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { @if row.length.is_some() { "nearest in " } (row.space) }
                            td.main { (format!("{:.1}", row.image_error)) } td.main { (format!("{:.1}", row.feature_error)) }
                            td { (part(row.reconstruction_nearer_image)) } td { (part(row.reconstruction_nearer_feature)) }
                            td { (part(row.same_category)) } td { (part(row.same_category_by_chance)) }
                        }
                    }
                }
            }
        }
    }
}
