//! What is measured of a run beside the errors of `table2`: each study is one command of `deepsim-eval`, whose JSON
//! rows go into the run's record.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::samples::Rows;
use deepsim_tools::files;
use deepsim_tools::programs::Programs;
use deepsim_tools::workspace::Workspace;

/// A command of `deepsim-eval` about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Study {
    /// Samples of a variational autoencoder's prior.
    Samples,
    /// Attribute vectors in the codes of faces.
    Attributes,
    /// Nearest training photos.
    Neighbors,
    /// Encoding and reconstructing again and again.
    Reencode,
    /// The way from one held-out photo to another.
    Interpolate,
    /// Several images of the same features.
    Preimages,
    /// All metrics of an autoencoder or of super-resolution.
    Losses,
    /// The layer inverted by Mahendran & Vedaldi's method, without a generator.
    Mv,
}

impl Study {
    /// Its key in the record: the name of the command.
    pub fn key(self) -> &'static str {
        match self {
            Study::Samples => "sample",
            Study::Attributes => "attributes",
            Study::Neighbors => "neighbors",
            Study::Reencode => "reencode",
            Study::Interpolate => "interpolate",
            Study::Preimages => "preimages",
            Study::Losses => "losses",
            Study::Mv => "mv",
        }
    }
}

/// What a study is made of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Names the record.
    pub name: &'a str,
    /// The experiment's file, relative to the workspace.
    pub file: &'a str,
    /// The run directory, relative to the workspace.
    pub run: &'a Path,
    /// Two held-out photos.
    pub pair: Option<[&'a Path; 2]>,
}

/// Makes one study and gives its command and rows.
///
/// # Errors
/// A failed command; an answer that is no list of objects or an empty one.
pub fn make(ws: &Workspace, programs: &Programs, study: Study, of: &Subject) -> Result<Rows> {
    if study == Study::Mv {
        return mahendran_vedaldi(ws, programs, of);
    }
    let args = arguments(study, of)?;
    let answer = programs
        .get(ws, study.key(), "deepsim-eval")?
        .args(&args)
        // Its images are not part of the record; the folder lies in target/ and is written over.
        .args([
            "--out".into(),
            sheets(of).join(study.key()).into_os_string(),
        ])
        .output()?;
    Ok(Rows {
        command: command(&args),
        rows: rows(study, &answer)?,
    })
}

fn sheets(of: &Subject) -> PathBuf {
    Path::new("target/reproduce").join(of.name)
}

fn arguments(study: Study, of: &Subject) -> Result<Vec<OsString>> {
    let run = of.run.as_os_str();
    let mut args: Vec<OsString> = vec![study.key().into()];
    match study {
        Study::Attributes => {
            args.extend([run.into(), "--labels".into(), "data/labels/orl.csv".into()]);
        }
        Study::Preimages => args.push(run.into()),
        Study::Interpolate => {
            let pair = of.pair.context("two held-out photos are needed")?;
            args.extend(pair.map(|photo| photo.as_os_str().to_owned()));
            args.extend(["--runs".into(), run.into()]);
        }
        _ => args.extend(["--runs".into(), run.into()]),
    }
    args.extend(["--format".into(), "json".into()]);
    Ok(args)
}

/// As a person would type it.
fn command(args: &[OsString]) -> String {
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    format!("cargo run -p deepsim-eval -- {}", words.join(" "))
}

/// The rows of an answer, without the names of files that were written on the way.
fn rows(study: Study, answer: &[u8]) -> Result<Vec<Map<String, Value>>> {
    let mut rows: Vec<Map<String, Value>> = serde_json::from_slice(answer)
        .with_context(|| format!("reading the JSON of deepsim-eval {}", study.key()))?;
    if rows.is_empty() {
        bail!("deepsim-eval {} gave no rows", study.key());
    }
    for row in &mut rows {
        row.remove("file");
    }
    Ok(rows)
}

/// Optimises the held-out photos unless that is done, then asks `table2` for the errors.
fn mahendran_vedaldi(ws: &Workspace, programs: &Programs, of: &Subject) -> Result<Rows> {
    let out = Path::new("runs").join(format!("mv-{}", of.name));
    let record = ws.path(&out).join("mv.json");
    let args: Vec<OsString> = vec![
        "baseline".into(),
        "mv".into(),
        of.file.into(),
        "--out".into(),
        out.clone().into_os_string(),
    ];
    if !record.is_file() {
        programs
            .get(ws, "baseline mv", "deepsim-eval")?
            .args(&args)
            .without_stdout()
            .run()?;
    }
    let answer = programs
        .get(ws, "evaluating", "deepsim-eval")?
        .args(["table2", "--format", "json", "--runs"])
        .args([&out])
        .output()?;
    let mut rows = rows(Study::Mv, &answer)?;
    rows.retain(|row| row.get("method").and_then(Value::as_str) == Some("mv"));
    // The paper's own rows have the method as well, and no run.
    rows.retain(|row| row.get("run").is_some_and(|run| !run.is_null()));
    let Some(row) = rows.first_mut() else {
        bail!("deepsim-eval table2 gave no row for {}", out.display());
    };
    for (key, value) in feature_terms(&record)? {
        row.insert(key.to_owned(), value.into());
    }
    Ok(Rows {
        command: command(&args),
        rows,
    })
}

/// What the feature term was at the beginning and in the end, means over the photos.
fn feature_terms(record: &Path) -> Result<[(&'static str, f64); 2]> {
    let json: Value = files::json(record)?;
    let photos = json["photos"].as_array().map_or(&[][..], Vec::as_slice);
    let mean = |key: &str| {
        let all: Vec<f64> = photos.iter().filter_map(|p| p[key].as_f64()).collect();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    };
    Ok(["feature_start", "feature_end"].map(|key| (key, mean(key))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_tools::testing::{stand_in, workspace};

    fn subject<'a>(pair: Option<[&'a Path; 2]>) -> Subject<'a> {
        Subject {
            name: "x",
            file: "experiments/x.toml",
            run: Path::new("runs/x"),
            pair,
        }
    }

    #[test]
    fn the_command_of_a_study_can_be_typed_again() {
        let pair = Some([Path::new("a.webp"), Path::new("b.webp")]);
        let of = |study| command(&arguments(study, &subject(pair)).unwrap());
        assert_eq!(
            of(Study::Samples),
            "cargo run -p deepsim-eval -- sample --runs runs/x --format json"
        );
        assert_eq!(
            of(Study::Attributes),
            "cargo run -p deepsim-eval -- attributes runs/x --labels data/labels/orl.csv --format json"
        );
        assert_eq!(
            of(Study::Interpolate),
            "cargo run -p deepsim-eval -- interpolate a.webp b.webp --runs runs/x --format json"
        );
        assert!(arguments(Study::Interpolate, &subject(None)).is_err());
    }

    #[test]
    fn rows_of_every_study_come_from_the_program_and_an_empty_answer_is_an_error() {
        let (tmp, ws) = workspace();
        let script = r#"case "$1" in
  baseline) mkdir -p runs/mv-x
    echo '{"photos":[{"feature_start":1.0,"feature_end":0.25},{"feature_start":2.0,"feature_end":0.75}]}' > runs/mv-x/mv.json ;;
  table2) echo '[{"method":"mv","run":null},{"method":"mv","run":"runs/mv-x","image_error":66.5},{"method":"deepsim","run":"y"}]' ;;
  neighbors) echo '[]' ;;
  interpolate) echo '[{"run":"runs/x","step":2.5,"file":"target/frame-000.png"}]' ;;
  *) echo '[{"run":"runs/x","command":"'"$1"'"}]' ;;
esac"#;
        stand_in(tmp.path(), "deepsim-eval", script);
        let programs = Programs::at(tmp.path(), &["deepsim-eval"]).unwrap();
        let pair = Some([Path::new("a"), Path::new("b")]);
        let made = |study| make(&ws, &programs, study, &subject(pair));
        for study in [
            Study::Samples,
            Study::Attributes,
            Study::Reencode,
            Study::Preimages,
            Study::Losses,
        ] {
            assert_eq!(made(study).unwrap().rows[0]["command"], study.key());
        }
        let frame = &made(Study::Interpolate).unwrap().rows[0];
        assert_eq!(
            (frame["step"].as_f64(), frame.get("file")),
            (Some(2.5), None)
        );
        let mv = made(Study::Mv).unwrap();
        assert_eq!(mv.rows.len(), 1);
        assert_eq!(mv.rows[0]["image_error"], 66.5);
        assert_eq!(mv.rows[0]["feature_start"], 1.5);
        assert_eq!(mv.rows[0]["feature_end"], 0.5);
        let error = made(Study::Neighbors).unwrap_err().to_string();
        assert!(error.contains("neighbors gave no rows"), "{error}");
    }
}
