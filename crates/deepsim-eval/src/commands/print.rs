//! What commands print and write, and what they check of their arguments.

use std::collections::BTreeSet;
use std::path::Path;

use deepsim_data::terminal::{one_line, path as shown};
use deepsim_eval::EvalError;
use deepsim_eval::run::catalog;
use deepsim_eval::run::loaded::Loaded;
use deepsim_eval::show::format::{Format, csv, json};
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
    match value {
        0 => Err(EvalError::Usage {
            option,
            value: "0".to_owned(),
            reason: "must be at least 1".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// So many images that they have distances.
pub fn at_least_two(option: &'static str, value: usize) -> Result<()> {
    match value {
        0 | 1 => Err(EvalError::Usage {
            option,
            value: value.to_string(),
            reason: "must be at least 2: errors are relative to the distance between images"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Prints numbers; what is no text is kept beside the images, too.
pub fn put(text: &str, name: &str, format: Format, out: &Path) -> Result<()> {
    output::show_as(format, text)?;
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
    match format {
        Format::Json => json(made),
        Format::Csv => csv(made),
        Format::Text => Ok(made
            .iter()
            .map(|m| format!("{}\n", one_line(line(m))))
            .collect()),
    }
}
