//! `--set a.b=c`: the only way to override an experiment file.

use crate::error::{ExperimentError, Result};

/// Applies one assignment to a parsed file. The value is read as TOML; what is not TOML
/// (`random:7`, a path) is taken as a string.
///
/// # Errors
/// No `=`, an empty key, or a path that runs through a value.
pub fn apply(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let refuse = |reason: String| ExperimentError::Override {
        assignment: assignment.to_owned(),
        reason,
    };
    let Some((path, text)) = assignment.split_once('=') else {
        return Err(refuse(
            "write it as KEY=VALUE, such as train.steps=100".into(),
        ));
    };
    let keys: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if keys.iter().any(|k| k.is_empty()) {
        return Err(refuse(
            "the key is empty; write it as train.steps=100".into(),
        ));
    }
    let Some((last, parents)) = keys.split_last() else {
        return Ok(());
    };
    let text = text.trim();
    let number = || {
        text.trim_start_matches(['+', '-'])
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'_')
    };
    let value = match value(text) {
        // TOML's parser would leave a word.
        toml::Value::String(_) if text.parse::<f64>().is_ok() && number() => {
            let (least, most) = (i64::MIN, i64::MAX);
            return Err(refuse(format!(
                "a whole number is between {least} and {most}, and begins with no 0"
            )));
        }
        value => value,
    };
    let mut at = table;
    for key in parents {
        let entry = at
            .entry((*key).to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = match entry {
            toml::Value::Table(inner) => inner,
            _ => return Err(refuse(format!("`{key}` is a value, not a table"))),
        };
    }
    at.insert((*last).to_owned(), value);
    Ok(())
}

fn value(text: &str) -> toml::Value {
    let parsed = format!("v = {text}").parse::<toml::Table>().ok();
    parsed
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_else_strings() {
        let mut t: toml::Table = "[train]\nsteps = 1".parse().unwrap();
        apply(&mut t, "train.steps=20").unwrap();
        apply(&mut t, "comparator.weights=random:7").unwrap();
        apply(&mut t, "data.scale=[0.5, 1.0]").unwrap();
        apply(&mut t, "data.mirror = false").unwrap();
        assert_eq!(t["train"]["steps"].as_integer(), Some(20));
        assert_eq!(t["comparator"]["weights"].as_str(), Some("random:7"));
        assert_eq!(t["data"]["scale"].as_array().map(Vec::len), Some(2));
        assert_eq!(t["data"]["mirror"].as_bool(), Some(false));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut t: toml::Table = "a = 1".parse().unwrap();
        assert!(apply(&mut t, "no equals sign").is_err());
        assert!(apply(&mut t, "=3").is_err());
        assert!(apply(&mut t, "a.b=3").is_err());
        for number in ["18446744073709551615", "-9223372036854775809", "007"] {
            let error = apply(&mut t, &format!("a={number}")).unwrap_err();
            assert!(error.to_string().contains("a whole number"), "{error}");
        }
    }
}
