//! Pieces that several sections share.

use maud::{Markup, html};

use super::data::EmbeddedImage;

/// An image with a text for those who do not see it.
pub(super) fn img(embedded: &EmbeddedImage, alt: &str) -> Markup {
    html! {
        img src=(embedded.address) alt=(alt) width=(embedded.width) height=(embedded.height);
    }
}

/// A command that can be copied.
pub(super) fn command(text: &str) -> Markup {
    html! {
        div.command {
            code tabindex="0" { (text) }
            button type="button" data-copy aria-label=(format!("Copy the command {text}")) { "Copy" }
        }
    }
}

/// The command of a section.
pub(super) fn made_by(text: &str) -> Markup {
    html! {
        div.made-by { span { "made by" } (command(text)) }
    }
}

/// Why a part is not there.
pub(super) fn why(what: &str, reason: &str) -> Markup {
    html! {
        p.why { strong { (what) " not shown: " } (reason) }
    }
}

/// A choice of which parts of a section are seen; nothing where there is none to make.
/// Parts carry `data-of` with the keys for which they are seen.
pub(super) fn choice(id: &str, label: &str, options: &[(String, String)]) -> Markup {
    html! {
        @if options.len() > 1 {
            p.choice {
                label for=(id) { (label) }
                select id=(id) data-choose {
                    @for (key, text) in options {
                        option value=(key) { (text) }
                    }
                }
            }
        } @else if let Some((_, text)) = options.first() {
            p.choice { span { (label) } strong { (text) } }
        }
    }
}

/// Percent with a decimal.
pub(super) fn percent(v: f64) -> String {
    format!("{v:.1} %")
}

/// `image 52.7 % · features 59.4 %`
pub(super) fn errors(image: f64, feature: Option<f64>) -> String {
    match feature {
        Some(f) => format!("pixels {image:.0}\u{a0}% · features {f:.0}\u{a0}%"),
        None => format!("pixels {image:.0}\u{a0}%"),
    }
}
