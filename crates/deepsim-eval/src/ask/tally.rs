//! Answers to the page, counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_experiment::{ExperimentError, files};
use serde::{Deserialize, Serialize};

use crate::error::{EvalError, Result};
use crate::show::format::{number, table};

/// A file that the page saved.
#[derive(Debug, Deserialize)]
struct Answers {
    page: String,
    session: String,
    runs: Vec<String>,
    answers: Vec<Answer>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    left: String,
    right: String,
    chosen: String,
}

/// How often people preferred one run to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Preference {
    /// A run.
    pub a: String,
    /// Another.
    pub b: String,
    /// People who were asked.
    pub people: usize,
    /// Questions that they answered.
    pub answers: usize,
    /// Share that chose `a`; none where nobody was asked.
    pub prefer_a: Option<f64>,
    /// Bounds of that share (Wilson's interval, 95 %), as if answers did not depend on who gives them.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// Share that chose the left image: far from half, they did not look.
    pub left: Option<f64>,
}

/// Counts the answers of all files, for every two of their runs.
///
/// # Errors
/// A file that is no answer file, answers to different pages, or one person's answers twice.
pub fn count(files: &[PathBuf]) -> Result<Vec<Preference>> {
    let mut sessions = BTreeSet::new();
    let mut page: Option<(String, Vec<String>)> = None;
    // Chosen a, all, chosen left; and who answered.
    let mut pairs: BTreeMap<(String, String), ([usize; 3], BTreeSet<String>)> = BTreeMap::new();
    for path in files {
        let refuse = |reason: String| EvalError::usage("ANSWERS", shown(path), reason);
        let text = files::read(path).map_err(ExperimentError::io(path))?;
        let given: Answers = serde_json::from_slice(&text)
            .map_err(|e| refuse(format!("is not what the page saves: {e}")))?;
        if !sessions.insert(given.session.clone()) {
            return Err(refuse("holds answers that another file holds".to_owned()));
        }
        let (first, runs) = page.get_or_insert((given.page.clone(), given.runs.clone()));
        if *first != given.page || *runs != given.runs {
            return Err(refuse(
                "answers another page than the first file: count each page by itself".to_owned(),
            ));
        }
        for answer in given.answers {
            let Answer {
                left,
                right,
                chosen,
            } = answer;
            let known = |run: &String| runs.contains(run);
            if !known(&left)
                || !known(&right)
                || left == right
                || (chosen != left && chosen != right)
            {
                return Err(refuse(format!(
                    "has an answer that the page cannot give: {chosen} of {left} and {right}"
                )));
            }
            let mut both = [left.clone(), right];
            both.sort();
            let [a, b] = both;
            let ([prefer, all, on_left], people) = pairs.entry((a.clone(), b)).or_default();
            *prefer += usize::from(chosen == a);
            *all += 1;
            *on_left += usize::from(chosen == left);
            people.insert(given.session.clone());
        }
    }
    Ok(pairs
        .into_iter()
        .map(|((a, b), ([prefer, all, on_left], people))| {
            let (low, high) = wilson(prefer, all);
            Preference {
                a,
                b,
                people: people.len(),
                answers: all,
                prefer_a: Some(prefer as f64 / all as f64),
                low: Some(low),
                high: Some(high),
                left: Some(on_left as f64 / all as f64),
            }
        })
        .collect())
}

/// Wilson's 95 % interval of a share.
fn wilson(hits: usize, of: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// The numbers as a table.
pub fn text(rows: &[Preference]) -> String {
    if rows.is_empty() {
        return "What people prefer: not asked.\n".to_owned();
    }
    let percent = |v: Option<f64>| number(v.map(|v| 100.0 * v), 0);
    let table = table(
        rows,
        &[
            ("A", &|r| r.a.clone()),
            ("B", &|r| r.b.clone()),
            ("people", &|r| r.people.to_string()),
            ("answers", &|r| r.answers.to_string()),
            ("prefer A", &|r| format!("{} %", percent(r.prefer_a))),
            ("95 %", &|r| {
                format!("{} to {} %", percent(r.low), percent(r.high))
            }),
            ("left", &|r| format!("{} %", percent(r.left))),
        ],
    );
    format!("{table}\n95 %: Wilson's interval, as if a person's answers did not hang together.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &std::path::Path, session: &str, page: &str, chosen: &[&str]) -> PathBuf {
        let answers: Vec<String> = chosen
            .iter()
            .map(|c| format!(r#"{{"photo":"p","left":"b","right":"a","chosen":"{c}","ms":5}}"#))
            .collect();
        let text = format!(
            r#"{{"page":"{page}","session":"{session}","runs":["a","b"],"answers":[{}]}}"#,
            answers.join(",")
        );
        let path = folder.join(format!("{session}.json"));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn answers_are_counted_by_pair_and_person() {
        let folder = tempfile::tempdir().unwrap();
        let one = file(folder.path(), "1", "p", &["a", "a", "b"]);
        let two = file(folder.path(), "2", "p", &["a"]);
        let rows = count(&[one.clone(), two]).unwrap();
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.a.as_str(), row.people, row.answers), ("a", 2, 4));
        assert_eq!((row.prefer_a, row.left), (Some(0.75), Some(0.25)));
        // statsmodels' proportion_confint(3, 4, method="wilson").
        let (low, high) = (row.low.unwrap(), row.high.unwrap());
        assert!(
            (low - 0.300_6).abs() < 1e-3 && (high - 0.954_4).abs() < 1e-3,
            "{low} {high}"
        );
        assert!(text(&rows).contains("75 %"));

        let again = folder.path().join("copy.json");
        std::fs::copy(&one, &again).unwrap();
        let other = file(folder.path(), "3", "q", &["a"]);
        let wild = file(folder.path(), "4", "p", &["c"]);
        for (bad, why) in [
            (again, "another file"),
            (other, "another page"),
            (wild, "cannot give"),
        ] {
            let error = count(&[one.clone(), bad]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn nobody_asked_is_said() {
        assert_eq!(count(&[]).unwrap(), []);
        assert!(text(&[]).contains("not asked"));
    }
}
