//! `runs`: all training runs below a folder.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::one_line;
use deepsim_eval::EvalError;
use deepsim_eval::analysis::runs::{self as table, Row, Run, Sort, State};
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::run::{catalog, runs};
use deepsim_eval::show::format::{Format, columns, csv, json};
use deepsim_experiment::{Consent, ExperimentError};
use deepsim_nets::loss::{KINDS, Term};

use super::args::Output;
use super::print::{Result, no_runs, warn};

/// Columns that the text has.
const COLUMNS: usize = 80;
/// What lines about a run begin with.
const INDENT: &str = "    ";

/// All training runs below a folder: state, step, last losses, age, disk.
#[derive(clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- runs
  cargo run -p deepsim-eval -- runs --sort disk --format json

State:
  running        a process holds the run's lock
  finished       the newest checkpoint is of the last step
  interrupted    `deepsim-train … --resume` goes on from the step that is shown
  no checkpoint  nothing is saved yet: `--resume` begins at step 0
  damaged        it can neither go on nor be evaluated; the line below says why

The losses are the unweighted terms in the last line of the log. The age is the
time since the log or a checkpoint was last written. The disk is what the run's
files take; of links only `checkpoints` is followed.

Checkpoints are not verified: only their manifests and the sizes of their files
are looked at. `table2 --runs RUN` verifies the newest one by its hashes.

Folders that are no runs are left out. Exit code 1 if a run is damaged.")]
pub struct Runs {
    /// Folder of runs, or one run [default: runs, where it exists].
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// What comes first.
    #[arg(long, value_enum, default_value = "name")]
    sort: Sort,
    #[command(flatten)]
    output: Output,
}

impl super::run::Run for Runs {
    /// Does it.
    ///
    /// # Errors
    /// What the command line names wrongly, and runs that are damaged, after the table is printed.
    fn run(self, _consent: &Consent) -> Result<()> {
        let folder = runs::folder(self.runs.clone())?;
        let mut rows = match &folder {
            Some(folder) => table::read(folder, warn)?,
            None => Vec::new(),
        };
        if rows.is_empty() {
            no_runs(self.runs.as_deref());
        }
        table::sort(&mut rows, self.sort);
        let text = render(&rows, self.output.format)?;
        self.output.put("runs", &text)?;
        let damaged = rows.iter().filter(|row| row.run.state == State::Damaged);
        match damaged.count() {
            0 => Ok(()),
            n => {
                let all = rows.len();
                Err(ExperimentError::Io {
                    path: folder.unwrap_or_default(),
                    source: io::Error::other(format!(
                        "{n} of {all} runs cannot be used; the table says why"
                    )),
                })
                .while_running()
            }
        }
    }
}

/// Rows in a format. In JSON the losses are an object by the terms' keys, in CSV a column each, by their names in the log.
///
/// # Errors
/// None of ours.
fn render(rows: &[Row], format: Format) -> Result<String> {
    match format {
        Format::Json => json(rows),
        Format::Csv => separated(rows),
        Format::Text => Ok(text(rows)),
    }
}

fn separated(rows: &[Row]) -> Result<String> {
    let bad = |e: &dyn std::fmt::Display| EvalError::Format(e.to_string());
    let kinds = KINDS.iter().map(|info| Term::from(info.kind));
    let logged = rows.iter().flat_map(|row| row.losses.0.iter());
    let terms: BTreeSet<Term> = kinds.chain(logged.map(|(term, _)| term.clone())).collect();
    let known = csv(&[] as &[Run])?;
    let known = known.trim_end().split(',').map(str::to_owned);
    let header: Vec<String> = known.chain(terms.iter().map(Term::log_key)).collect();
    let mut builder = csv::WriterBuilder::new();
    let mut writer = builder.has_headers(false).from_writer(Vec::new());
    writer.write_record(&header).map_err(|e| bad(&e))?;
    for row in rows {
        let losses: Vec<Option<f64>> = terms
            .iter()
            .map(|term| row.losses.0.get(term).copied().flatten())
            .collect();
        writer.serialize((&row.run, losses)).map_err(|e| bad(&e))?;
    }
    let bytes = writer.into_inner().map_err(|e| bad(&e))?;
    String::from_utf8(bytes).map_err(|e| bad(&e))
}

/// A line of columns for each run, and below it what has no place there: as many losses as there are, and why a run is
/// damaged.
fn text(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(&row.run)).collect();
    let table = columns(&["run", "state", "step", "age", "disk"], &cells);
    let mut out = String::new();
    if rows.is_empty() {
        return out;
    }
    // The first line names the columns.
    let about = std::iter::once(Vec::new()).chain(rows.iter().map(about));
    for (line, about) in table.lines().zip(about) {
        out.push_str(line);
        out.push('\n');
        for line in about {
            out.push_str(&format!("{INDENT}{line}\n"));
        }
    }
    out
}

/// Name of a run in its folder, also where that is a link.
fn name(run: &str) -> String {
    let path = Path::new(run);
    path.file_name().map_or_else(
        || catalog::name(path),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn words(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Finished => "finished",
        State::Interrupted => "interrupted",
        State::NoCheckpoint => "no checkpoint",
        State::Damaged => "damaged",
    }
}

fn cells(run: &Run) -> Vec<String> {
    let none = || "-".to_owned();
    let reached = match run.state {
        State::Running => run.logged_step.max(run.step),
        _ => run.step,
    };
    let steps = run.steps.filter(|_| run.state != State::Damaged);
    vec![
        name(&run.run),
        words(run.state).to_owned(),
        steps.map_or_else(none, |of| format!("{}/{of}", reached.unwrap_or(0))),
        run.age_seconds.map_or_else(none, age),
        size(run.disk_bytes),
    ]
}

/// Lines about a run, below its own: its experiment, where that has another name, its method and its losses; and why it is
/// damaged.
fn about(row: &Row) -> Vec<String> {
    let run = &row.run;
    let experiment = run.experiment.as_ref().filter(|e| **e != name(&run.run));
    let method = run.method.filter(|method| *method != "other");
    let losses = row.losses.0.iter().filter_map(|(term, value)| {
        let key = term.key();
        value.map(|value| format!("{} {}", one_line(&key), short(value)))
    });
    let words = experiment.into_iter().map(|e| one_line(e).into_owned());
    let words = words.chain(method.map(str::to_owned)).chain(losses);
    let mut lines = wrapped(words, COLUMNS - INDENT.len());
    let reason = run.reason.iter().flat_map(|reason| reason.lines());
    lines.extend(reason.map(|line| one_line(line.trim_end()).into_owned()));
    lines
}

/// Words on lines of at most so many columns, two spaces apart; only a word that is longer alone is on a longer line.
fn wrapped(words: impl Iterator<Item = String>, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        let length = word.chars().count() + 2;
        match lines.last_mut() {
            Some(line) if line.chars().count() + length <= columns => {
                line.push_str("  ");
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// Three significant digits or more, without a long tail: `0.6931`, `12.34`, `268`, `2.67e6`.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        a if !(1e-3..1e5).contains(&a) => format!("{value:.2e}"),
        a if a >= 100.0 => format!("{value:.0}"),
        a if a >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Seconds for people, rounded down: `12 s`, `3 min`, `2 h`, `5 d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Bytes for people: `12.3 MB`.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64 / 1000.0;
    for unit in ["kB", "MB", "GB"] {
        if value < 999.95 {
            return format!("{value:.1} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use deepsim_eval::analysis::runs::Losses;
    use deepsim_nets::loss::TermKind;

    use super::*;

    #[test]
    fn numbers_for_people_are_short() {
        let ages = [0, 59, 60, 3599, 3600, 172_799, 172_800];
        let wanted = ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 d"];
        assert_eq!(ages.map(age), wanted);
        let sizes = [0, 812, 999_949, 999_950, 12_345_678, 7_000_000_000_000_000];
        let wanted = [
            "0.0 kB",
            "0.8 kB",
            "999.9 kB",
            "1.0 MB",
            "12.3 MB",
            "7000.0 TB",
        ];
        assert_eq!(sizes.map(size), wanted);
        let losses = [0.0, -0.112_64, 0.000_2, 12.345, 268.4, 2_671_682.25];
        let wanted = ["0", "-0.1126", "2.00e-4", "12.35", "268", "2.67e6"];
        assert_eq!(losses.map(short), wanted);
    }

    /// Every kind of term has its column, and one with a name of its own another.
    #[test]
    fn csv_has_a_column_for_each_term() {
        let mut losses = Losses::default();
        losses.0.set(TermKind::Image, Some(2.5));
        losses
            .0
            .set(Term::named(TermKind::Feature, "deep"), Some(1.5));
        let row = Row {
            run: Run {
                run: "runs/a".to_owned(),
                reason: Some("a, b\nc".to_owned()),
                ..Run::default()
            },
            losses,
        };
        let text = render(std::slice::from_ref(&row), Format::Csv).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        let record = reader.records().next().unwrap().unwrap();
        let value = |key: &str| {
            let at = header.iter().position(|name| name == key).unwrap();
            record[at].to_owned()
        };
        for info in KINDS {
            value(&Term::from(info.kind).log_key());
        }
        assert_eq!(value("loss.feat"), "");
        assert_eq!(value("loss.feat.deep"), "1.5");
        assert_eq!(value("loss.img"), "2.5");
        assert_eq!(value("reason"), "a, b\nc");
        assert_eq!(value("state"), "no_checkpoint");
        let empty = render(&[], Format::Csv).unwrap();
        assert!(empty.starts_with("run,experiment,") && empty.lines().count() == 1);
        assert_eq!(render(&[], Format::Text).unwrap(), "");
    }

    #[test]
    fn six_losses_stay_within_80_columns() {
        let mut losses = Losses::default();
        let kinds: Vec<Term> = losses.0.iter().map(|(term, _)| term.clone()).collect();
        for term in kinds {
            losses.0.set(term, Some(-2_671_682.25));
        }
        losses
            .0
            .set(Term::named(TermKind::Feature, "deep"), Some(-1e-9));
        let row = Row {
            run: Run {
                run: "runs/sample-noise-conditioned".to_owned(),
                experiment: Some("another-name".to_owned()),
                method: Some("deepsim"),
                state: State::NoCheckpoint,
                steps: Some(1_000_000),
                step: Some(999_999),
                age_seconds: Some(3599),
                disk_bytes: 999_900_000,
                ..Run::default()
            },
            losses,
        };
        let text = render(&[row], Format::Text).unwrap();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(
            text.contains("another-name  deepsim  feat -2.67e6"),
            "{text}"
        );
        assert!(text.contains("feat.deep -1.00e-9"), "{text}");
        assert!(text.contains("diversity -2.67e6"), "{text}");
    }
}
