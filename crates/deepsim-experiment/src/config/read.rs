//! Reading an experiment file: what it extends, what the command line overrides, and where its errors are.

use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::file::Config;
use crate::contents::EXPERIMENT;
use crate::error::{ExperimentError, Result};
use crate::extends;
use crate::files;
use crate::overrides;
use crate::suggest;

/// Bytes of the longest experiment file: far more than any has.
const MOST: u64 = 16 << 20;

/// The assignment that makes the error by itself; all of them where none does.
fn culprit(text: &str, sets: &[String], error: &toml::de::Error) -> String {
    let alone = |assignment: &&String| {
        let mut table: toml::Table = toml::from_str(text).unwrap_or_default();
        overrides::apply(&mut table, assignment).is_ok()
            && Config::deserialize(table).is_err_and(|e| e.message() == error.message())
    };
    match sets.iter().find(alone) {
        Some(one) => one.clone(),
        None => sets.join(" --set "),
    }
}

/// An experiment may come through a pipe of the shell (`<(sed … FILE)`), but not without end; and no pipe on disk is
/// waited for.
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let bytes = files::open_or_stream(path)?
        .take(MOST + 1)
        .read_to_string(&mut text)?;
    if bytes as u64 > MOST {
        return Err(std::io::Error::other("is too large for an experiment file"));
    }
    Ok(text)
}

/// The text of an experiment file.
pub(crate) fn text_of(path: &Path) -> Result<String> {
    read_text(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ExperimentError::NoExperiment {
            path: path.to_owned(),
            meant: suggest::experiment_file(path),
        },
        std::io::ErrorKind::IsADirectory => ExperimentError::Folder {
            path: path.to_owned(),
            own: Some(path.join(EXPERIMENT)).filter(|own| own.is_file()),
        },
        _ => ExperimentError::io(path)(source),
    })
}

/// An error of a file's own lines.
fn located(path: &Path, text: &str, error: &toml::de::Error) -> ExperimentError {
    ExperimentError::Toml {
        path: path.to_owned(),
        message: suggest::shortened(
            suggest::taps_of_the_network(text, &error.to_string()).trim_end(),
        ),
    }
}

/// Validates what a file says.
pub(crate) type Valid<'a> = &'a dyn Fn(Config, &Path) -> Result<()>;

/// What a file says with what it extends, and that as text.
fn complete(text: &str, path: &Path, valid: Valid<'_>) -> Result<(Config, String)> {
    let mut own: toml::Table = match toml::from_str(text) {
        Ok(own) => own,
        // A number that no table holds: the section that has it says what may be there.
        Err(e) => {
            return match toml::from_str(text) {
                Ok(config) => Ok((config, text.to_owned())),
                Err(_) => Err(located(path, text, &e)),
            };
        }
    };
    let Some(base) = extends::take(&mut own, path)? else {
        // The file alone, so that its errors point at its own lines.
        let config = toml::from_str(text).map_err(|e| located(path, text, &e))?;
        return Ok((config, text.to_owned()));
    };
    let base_text = text_of(&base).map_err(|e| extends::unreadable(path, &e))?;
    let at_base = |e: toml::de::Error| located(&base, &base_text, &e);
    let mut table: toml::Table = toml::from_str(&base_text).map_err(at_base)?;
    extends::is_complete(&table, &base)?;
    // Valid by itself, so that what is wrong with the rest is this file's doing.
    let config: Config = toml::from_str(&base_text).map_err(at_base)?;
    valid(config, &base)?;
    extends::merge(&mut table, own);
    let whole = toml::to_string(&table).unwrap_or_default();
    let config = Config::deserialize(table).map_err(|e| {
        // Of a merged table it is known which key is wrong, not where it stands.
        let message = suggest::taps_of_the_network(&whole, &e.to_string());
        let line = extends::line_of_error(text, &message);
        ExperimentError::Toml {
            path: path.to_owned(),
            message: match line {
                Some(line) => format!("line {line}: {}", suggest::shortened(message.trim_end())),
                None => suggest::shortened(message.trim_end()),
            },
        }
    })?;
    Ok((config, whole))
}

/// The sections of a file, with what it extends and `KEY=VALUE` overrides applied. The extended file must be `valid` by
/// itself; the result is not validated.
///
/// # Errors
/// Unknown, mistyped or missing keys, located in the file or named by the override that has them.
pub(crate) fn config(text: &str, path: &Path, sets: &[String], valid: Valid<'_>) -> Result<Config> {
    let (mut config, text) = complete(text, path, valid)?;
    if !sets.is_empty() {
        let mut table: toml::Table = toml::from_str(&text).map_err(|e| located(path, &text, &e))?;
        for assignment in sets {
            overrides::apply(&mut table, assignment)?;
        }
        let whole = toml::to_string(&table).unwrap_or_default();
        config = Config::deserialize(table).map_err(|e| {
            let reason = suggest::taps_of_the_network(&whole, &e.to_string());
            ExperimentError::Override {
                assignment: culprit(&text, sets, &e),
                reason: suggest::shortened(reason.trim()).replace('\n', "; "),
            }
        })?;
    }
    Ok(config)
}
