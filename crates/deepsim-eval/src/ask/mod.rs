//! Which of two do people prefer? A blind two-choice page, and the count of its answers (the yardstick of
//! Snell, Ridgeway et al.).

mod tally;

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deepsim_experiment::Consent;
use maud::{DOCTYPE, PreEscaped, html};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::analysis::compare::rows;
use crate::error::{EvalError, Result};
use crate::run::catalog::name;
use crate::show::sheet::{images, png};

pub use tally::{Preference, count, text};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Nothing is fetched and nothing is sent: answers stay with whoever gave them until they are saved.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// What the page's script works on.
#[derive(Debug, Serialize)]
struct Questions {
    /// Digest of runs and images: answers to another page are no answers to this one.
    page: String,
    runs: Vec<String>,
    photos: Vec<Photo>,
}

#[derive(Debug, Serialize)]
struct Photo {
    name: String,
    photo: String,
    made: Vec<String>,
}

/// A page that asks of `n` held-out images and every two of the runs which one is more like the
/// original image: HTML that needs nothing beside it, and the number of questions. Images are lossless, sides
/// and order are drawn by the page, and no run is named on it before the last answer.
///
/// # Errors
/// Fewer than two runs, two of one name, runs that cannot be opened or were held out on other images.
pub fn page(
    runs: &[PathBuf],
    n: usize,
    filters: &[String],
    consent: &Consent,
    device: Device,
) -> Result<(String, usize)> {
    let names: Vec<String> = runs.iter().map(name).collect();
    let refuse = |reason: &str| EvalError::usage("RUN", names.join(" "), reason);
    if names.len() < 2 {
        return Err(refuse("name at least two runs to choose between"));
    }
    if (1..names.len()).any(|i| names[..i].contains(&names[i])) {
        return Err(refuse(
            "two runs have one name, and answers could not tell them apart: rename a folder",
        ));
    }
    let rows = rows(runs, n, filters, consent, device)?;
    let images = embedded(&rows.photos)?;
    let made = rows
        .made
        .iter()
        .map(embedded)
        .collect::<Result<Vec<Vec<String>>>>()?;
    let mut photos = Vec::new();
    for (i, (name, photo)) in rows.names.into_iter().zip(images).enumerate() {
        let made = made.iter().filter_map(|of_run| of_run.get(i).cloned());
        photos.push(Photo {
            name,
            photo,
            made: made.collect(),
        });
    }
    let questions = photos.len() * names.len() * (names.len() - 1) / 2;
    let mut asked = Questions {
        page: String::new(),
        runs: names,
        photos,
    };
    let bytes = serde_json::to_vec(&asked).map_err(|e| EvalError::Format(e.to_string()))?;
    asked.page = blake3::hash(&bytes).to_hex().as_str()[..16].to_owned();
    Ok((html(&asked)?, questions))
}

fn embedded(caffe: &Tensor) -> Result<Vec<String>> {
    let address = |bytes: Vec<u8>| format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    images(caffe)?
        .iter()
        .map(|image| Ok(address(png(image)?)))
        .collect()
}

fn html(asked: &Questions) -> Result<String> {
    let data = serde_json::to_string(asked).map_err(|e| EvalError::Format(e.to_string()))?;
    // A name must not end the script.
    let data = format!("const ASKED = {};", data.replace('<', "\\u003c"));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(crate::show::output::GENERATOR);
                link rel="icon" href="data:,";
                title { "Which is more like the photo?" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    section #begin {
                        h1 { "Which is more like the photo?" }
                        p {
                            "You will see a photo and, below it, two images that programs made of what they remember of it. "
                            "Choose the one that is more like the photo. There is no right answer: your first impression counts."
                        }
                        p { "Click an image, or press " kbd { "←" } " or " kbd { "→" } ". " span #length {} }
                        button #start type="button" { "Start" }
                    }
                    section #ask hidden {
                        div.bar { div #done role="progressbar" aria-valuemin="0" aria-label="answered" {} }
                        p #count aria-live="polite" {}
                        img #photo alt="the photo";
                        div.pair {
                            button #left type="button" aria-label="the left one is more like the photo" { img alt=""; kbd { "←" } }
                            button #right type="button" aria-label="the right one is more like the photo" { img alt=""; kbd { "→" } }
                        }
                        button #back type="button" { "Back one" }
                    }
                    section #end hidden tabindex="-1" {
                        h1 { "Thank you" }
                        p { "Please save your answers and send the file to whoever asked you. They are nowhere else." }
                        button #save type="button" { "Save answers" }
                        details { summary { "What you answered" } textarea #answers readonly rows="12" aria-label="answers" {} }
                    }
                    noscript { p { "This page needs JavaScript." } }
                }
                script { (PreEscaped(data)) (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_the_script() {
        let page = html(&Questions {
            page: "p".to_owned(),
            runs: vec!["</script><b>".to_owned(), "b".to_owned()],
            photos: Vec::new(),
        })
        .unwrap();
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("\\u003c/script>"));
    }
}
