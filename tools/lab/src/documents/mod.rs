//! Documents whose numbers come from the committed records, `docs/results/*.json`, and from nowhere else.
//!
//! Three marks, invisible where Markdown is shown:
//!
//! - `<!-- begin generated: TABLE ARGUMENTS -->` … `<!-- end generated -->`: a table, see [`tables`], [`studies`],
//!   [`objectives`], [`speed`] and [`processors`];
//! - `<!--= RECORD KEY [FORMAT] -->57.1<!--/-->`: one number within a sentence, see [`Records::text`];
//! - `<!--? RECORD KEY < RECORD KEY -->`: what the words beside it say; a record that says otherwise is an error.
//!
//! `cargo xtask reproduce` writes what stands within the marks anew; `cargo xtask tidy` and a test hold the documents to
//! it. Numbers with a unit that stand outside of marks are complaints: see [`loose`].

mod loose;
pub mod markdown;
mod objectives;
mod processors;
mod records;
mod speed;
mod studies;
mod tables;

use std::fs;

use anyhow::{Context, Result};

use deepsim_tools::failure::refuse;
use deepsim_tools::landing;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

pub use records::Records;

/// The documents.
const PAGES: [&str; 4] = [
    "README.md",
    "docs/performance.md",
    "docs/reliability.md",
    "docs/reproduction.md",
];

const BEGIN: &str = "<!-- begin generated: ";
const END: &str = "<!-- end generated -->";
const VALUE: &str = "<!--= ";
const VALUE_END: &str = "<!--/-->";
const CLAIM: &str = "<!--? ";
const CLOSE: &str = " -->";

/// Writes the documents that are not what the records give.
///
/// # Errors
/// An unreadable record, a mark that names none, a sentence that the records contradict.
pub fn write(ws: &Workspace) -> Result<()> {
    let records = Records::read(ws)?;
    for page in PAGES {
        let path = ws.path(page);
        let Ok(old) = fs::read_to_string(&path) else {
            continue;
        };
        let new = render(&old, &records).with_context(|| format!("in {page}"))?;
        if new != old {
            landing::write(&path, new.as_bytes())?;
            note(format_args!("written: {page}"));
        }
    }
    Ok(())
}

/// What is wrong with the documents: numbers that are not the records', and such as have no record.
///
/// # Errors
/// An unreadable record.
pub fn complaints(ws: &Workspace) -> Result<Vec<String>> {
    let records = Records::read(ws)?;
    let mut all = Vec::new();
    for page in PAGES {
        let Ok(text) = fs::read_to_string(ws.path(page)) else {
            continue;
        };
        match render(&text, &records) {
            Ok(wanted) if wanted == text => {}
            Ok(_) => all.push(format!(
                "{page}: not what the records give; run `cargo xtask reproduce --only nothing`"
            )),
            Err(error) => all.push(format!("{page}: {error:#}")),
        }
        // A document without a mark is none of these (yet).
        let marked = text.contains(BEGIN) || text.contains(VALUE);
        for (line, found) in loose::numbers(&text).into_iter().filter(|_| marked) {
            all.push(format!(
                "{page}:{line}: `{found}` is no record's: put it into a mark, or leave it out"
            ));
        }
    }
    Ok(all)
}

/// Names every complaint.
///
/// # Errors
/// Any complaint; an unreadable record.
pub fn check(ws: &Workspace) -> Result<()> {
    let complaints = complaints(ws)?;
    for complaint in &complaints {
        deepsim_terminal::tell(format_args!("tidy: {complaint}"));
    }
    anyhow::ensure!(
        complaints.is_empty(),
        "tidy: {} complaints of documents",
        complaints.len()
    );
    Ok(())
}

/// The document with everything within its marks made anew.
fn render(text: &str, records: &Records) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("<!--") {
        let (before, here) = rest.split_at(at);
        out.push_str(before);
        let line = || 1 + text[..text.len() - here.len()].matches('\n').count();
        let taken = if let Some(inner) = here.strip_prefix(BEGIN) {
            let (what, _) = argument(inner, line())?;
            let end = body_end(here, END, line())?;
            let table = tables::table(records, what)
                .with_context(|| format!("line {}, `{what}`", line()))?;
            out.push_str(&format!("{BEGIN}{what}{CLOSE}\n{table}{END}"));
            end
        } else if let Some(inner) = here.strip_prefix(VALUE) {
            let (what, _) = argument(inner, line())?;
            let end = body_end(here, VALUE_END, line())?;
            let value = records
                .text(what)
                .with_context(|| format!("line {}, `{what}`", line()))?;
            out.push_str(&format!("{VALUE}{what}{CLOSE}{value}{VALUE_END}"));
            end
        } else if let Some(inner) = here.strip_prefix(CLAIM) {
            let (what, used) = argument(inner, line())?;
            if !records
                .holds(what)
                .with_context(|| format!("line {}, `{what}`", line()))?
            {
                return Err(refuse(format!(
                    "line {}: the records say otherwise than `{what}`: correct the sentence beside it, and its mark",
                    line()
                )));
            }
            let end = CLAIM.len() + used;
            out.push_str(&here[..end]);
            end
        } else {
            out.push_str("<!--");
            "<!--".len()
        };
        rest = &here[taken..];
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands in a mark behind its beginning, and how many bytes it took, its end included.
fn argument(inner: &str, line: usize) -> Result<(&str, usize)> {
    let end = inner
        .find(CLOSE)
        .filter(|end| !inner[..*end].contains('\n'));
    let end = end.ok_or_else(|| refuse(format!("line {line}: a mark that does not end")))?;
    Ok((inner[..end].trim(), end + CLOSE.len()))
}

/// Where the text of a mark ends, its closing mark included. No other mark may stand before.
fn body_end(here: &str, close: &str, line: usize) -> Result<usize> {
    let behind = here.find(CLOSE).map_or(0, |at| at + CLOSE.len());
    let end = here[behind..].find("<!--").map(|at| at + behind);
    end.filter(|at| here[*at..].starts_with(close))
        .map(|at| at + close.len())
        .ok_or_else(|| refuse(format!("line {line}: `{close}` is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn records() -> Records {
        Records::of([
            (
                "quickstart",
                json!({ "step": 1950, "seconds": 443.0, "metrics": [{ "image_error": 39.43, "feature_error": 57.12 }] }),
            ),
            (
                "sample-pool5",
                json!({ "step": 3000, "metrics": [{ "image_error": 52.7, "feature_error": 59.4 }] }),
            ),
        ])
    }

    #[test]
    fn numbers_in_sentences_are_the_records() {
        let page = "It gives <!--= quickstart image_error -->old<!--/--> % in <!--= quickstart seconds minutes --><!--/--> \
                    minutes. <!-- a remark -->\n";
        let made = render(page, &records()).unwrap();
        assert_eq!(
            made,
            "It gives <!--= quickstart image_error -->39.4<!--/--> % in <!--= quickstart seconds minutes -->7.4<!--/--> \
             minutes. <!-- a remark -->\n"
        );
        assert_eq!(render(&made, &records()).unwrap(), made);
    }

    #[test]
    fn a_number_without_a_record_is_an_error_that_names_its_line() {
        for bad in [
            "<!--= quickstart lpips -->0.6<!--/-->",
            "<!--= fc6 image_error -->1<!--/-->",
            "<!--= quickstart image_error -->39.4",
            "<!--= quickstart image_error",
            "<!-- begin generated: nonsense -->\n<!-- end generated -->",
            "<!-- begin generated: runs -->\n",
        ] {
            let error = format!(
                "{:#}",
                render(&format!("\n\n{bad}\n"), &records()).unwrap_err()
            );
            assert!(error.contains("line 3"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_sentence_that_the_records_contradict_is_an_error() {
        let holds = "<!--? quickstart image_error < sample-pool5 image_error --> lower";
        assert_eq!(render(holds, &records()).unwrap(), holds);
        let not = "<!--? quickstart image_error > sample-pool5 image_error --> higher";
        let error = render(not, &records()).unwrap_err().to_string();
        assert!(error.contains("the records say otherwise"), "{error}");
    }

    #[test]
    fn the_committed_documents_hold_the_records_numbers_and_no_others() {
        let ws = Workspace::find(None).unwrap();
        assert_eq!(complaints(&ws).unwrap(), [""; 0]);
        for page in ["README.md", "docs/performance.md", "docs/reproduction.md"] {
            let text = fs::read_to_string(ws.path(page)).unwrap();
            assert!(text.contains(BEGIN) && text.contains(VALUE), "{page}");
        }
    }

    #[test]
    fn a_changed_number_in_a_document_is_a_complaint() {
        let (_folder, ws) = deepsim_tools::testing::workspace();
        fs::create_dir_all(ws.path("docs/results")).unwrap();
        let record = json!({ "metrics": [{ "image_error": 39.43 }] }).to_string();
        fs::write(ws.path("docs/results/quickstart.json"), record).unwrap();
        fs::write(
            ws.path("README.md"),
            "<!--= quickstart image_error -->38.0<!--/--> %, beside 12.5 %\n",
        )
        .unwrap();
        let found = complaints(&ws).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("not what the records give"), "{found:?}");
        assert!(found[1].contains("README.md:1: `12.5 %`"), "{found:?}");
        write(&ws).unwrap();
        assert_eq!(complaints(&ws).unwrap().len(), 1);
    }
}
