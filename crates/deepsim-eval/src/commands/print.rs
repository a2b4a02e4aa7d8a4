//! What commands print and write, and what they check of their arguments.

use std::collections::BTreeSet;
use std::path::Path;

use deepsim_data::terminal::{one_line, path as shown};
use deepsim_eval::EvalError;
use deepsim_eval::run::catalog;
use deepsim_eval::run::loaded::Loaded;
use deepsim_eval::show::format::{Format, render};
use deepsim_eval::show::output;
use serde::Serialize;

/// Result of a command.
pub type Result<T> = std::result::Result<T, EvalError>;

/// A remark on stderr.
pub fn warn(text: String) {
    tracing::warn!("{text}");
}

/// Writes a file and says so.
pub fn wrote(path: &Path, bytes: &[u8]) -> Result<()> {
    output::write(path, bytes)?;
    tracing::info!("wrote {}", shown(path));
    Ok(())
}

/// A run's name for files and titles.
pub fn run_name(run: &Loaded) -> String {
    catalog::name(&run.path)
}

/// A number from 1 on.
pub fn at_least_one(option: &'static str, value: usize) -> Result<()> {
    at_least(1, option, value, "")
}

/// So many images that they have distances.
pub fn at_least_two(option: &'static str, value: usize) -> Result<()> {
    let why = ": errors are relative to the distance between images";
    at_least(2, option, value, why)
}

/// A number from `least` on; `why` ends the sentence.
pub fn at_least(least: usize, option: &'static str, value: usize, why: &str) -> Result<()> {
    if value < least {
        let reason = format!("must be at least {least}{why}");
        return Err(EvalError::usage(option, value, reason));
    }
    Ok(())
}

/// Says that there are no runs, and how to get one.
pub fn no_runs(asked: Option<&Path>) {
    let none = match asked {
        Some(path) => format!("no run in {} yet", shown(path)),
        None => "no trained runs yet".to_owned(),
    };
    tracing::info!("hint: {none}; `cargo xtask quickstart` trains one on sample photos");
}

/// Prints numbers and keeps them beside the images; `text` makes them readable.
pub fn put<T: Serialize + Default>(
    rows: &[T],
    text: impl FnOnce(&[T]) -> String,
    name: &str,
    format: Format,
    out: &Path,
) -> Result<()> {
    let text = render(rows, format, text)?;
    output::show_as(format, &text)?;
    wrote(
        &out.join(format!("{name}.{}", format.extension())),
        text.as_bytes(),
    )
}

/// Letters and digits of a name; everything else becomes a dash, and a number follows where that was taken already.
pub fn file_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' })
        .collect();
    output::unused(&plain, taken)
}

/// What was made: one line each, or all that is known.
pub fn list<T: Serialize + Default>(
    made: &[T],
    format: Format,
    line: impl Fn(&T) -> &String,
) -> Result<String> {
    let text = |m: &T| format!("{}\n", one_line(line(m)));
    render(made, format, |made| made.iter().map(text).collect())
}
