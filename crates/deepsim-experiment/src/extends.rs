//! `extends = "FILE.toml"`: an experiment that says only what it changes.
//!
//! One level: the file that is extended is complete. Tables are merged key by key, but a section that names a `net` of its
//! own replaces the other's section whole: what belongs to one source of features means nothing to another.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::config::KEYS;
use crate::error::{ExperimentError, Result};

/// The key.
pub const KEY: &str = "extends";

/// The file that a table extends, by its path from here; taken out of the table.
///
/// # Errors
/// A value that is no path.
pub fn take(table: &mut Table, path: &Path) -> Result<Option<PathBuf>> {
    match table.remove(KEY) {
        None => Ok(None),
        Some(Value::String(base)) if !base.is_empty() => {
            Ok(Some(path.parent().unwrap_or(Path::new("")).join(base)))
        }
        Some(other) => Err(ExperimentError::Invalid {
            path: path.to_owned(),
            key: KEY.to_owned(),
            reason: format!(
                "must be the path of an experiment file, from this one's folder, not {other}"
            ),
        }),
    }
}

/// Refuses a file that extends another itself.
///
/// # Errors
/// Where it does.
pub fn is_complete(base: &Table, path: &Path) -> Result<()> {
    if base.contains_key(KEY) {
        Err(ExperimentError::Invalid {
            path: path.to_owned(),
            key: KEY.to_owned(),
            reason: "is one level: a file that another one extends says everything itself"
                .to_owned(),
        })
    } else {
        Ok(())
    }
}

/// An error of the file that `path` extends, where that file cannot be read at all.
pub fn unreadable(path: &Path, error: &ExperimentError) -> ExperimentError {
    ExperimentError::Invalid {
        path: path.to_owned(),
        key: KEY.to_owned(),
        reason: format!(
            "names a file that cannot be read (its path begins at this file's folder): {error}"
        ),
    }
}

/// Puts what one file says over what the other says.
pub fn merge(base: &mut Table, own: Table) {
    for (key, value) in own {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(there)), Value::Table(here)) if !replaces(there, &here) => {
                // A network has one layer or several: those of the file itself.
                for (given, other) in [("taps", "tap"), ("tap", "taps")] {
                    if here.contains_key(given) && there.contains_key("net") {
                        there.remove(other);
                    }
                }
                merge(there, here);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Whether a section replaces the other's whole: a network another one, and networks by name a single one.
fn replaces(there: &Table, here: &Table) -> bool {
    // A key of a network that holds a table, such as `taps`, is no name.
    let named = |(key, value): (&String, &Value)| value.is_table() && !KEYS.contains(&key.as_str());
    let by_name = !here.is_empty() && here.iter().all(named);
    here.contains_key("net") || (by_name && there.contains_key("net"))
}

/// The line that a key is set in, counted from 1; none where the text does not set it. `key` is dotted.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut section = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header
                .split(']')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned();
            if section == key {
                return Some(number + 1);
            }
        } else if let Some((name, _)) = line.split_once('=') {
            let name = name.trim();
            let whole = if section.is_empty() {
                name.to_owned()
            } else {
                format!("{section}.{name}")
            };
            // An inline table holds what is below it.
            if key == whole
                || key
                    .strip_prefix(&whole)
                    .is_some_and(|rest| rest.starts_with('.'))
            {
                return Some(number + 1);
            }
        }
    }
    None
}

/// The line of a file that a parser's message about the merged table is about; none where the file does not set the key.
pub fn line_of_error(text: &str, message: &str) -> Option<usize> {
    let quoted = |before: &str| message.split_once(before)?.1.split('`').next();
    let key = match (quoted("\nin `"), quoted("unknown field `")) {
        (Some(table), Some(field)) => format!("{table}.{field}"),
        (Some(key), None) | (None, Some(key)) => key.to_owned(),
        (None, None) => return None,
    };
    line_of(text, &key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn tables_are_merged_and_other_networks_replace_a_section() {
        let mut base = table(
            "name = 'a'\n[encoder]\nnet = 'alexnet'\ntap = 'pool2'\n[loss]\nfeat = 1.0\nadv = 2.0\n",
        );
        let own =
            table("name = 'b'\nloss = { adv = 0.0 }\n[encoder]\nnet = 'downsampled'\nfactor = 4\n");
        merge(&mut base, own);
        let wanted = table(
            "name = 'b'\n[encoder]\nnet = 'downsampled'\nfactor = 4\n[loss]\nfeat = 1.0\nadv = 0.0\n",
        );
        assert_eq!(base, wanted);
        let mut base = wanted;
        merge(&mut base, table("[encoder]\nfactor = 2"));
        assert_eq!(base["encoder"]["net"].as_str(), Some("downsampled"));
        let named = "[encoder.deep]\nnet = 'alexnet'\n[encoder.early]\nnet = 'vgg16'\n";
        merge(&mut base, table(named));
        assert_eq!(base["encoder"], table(named)["encoder"]);
        merge(&mut base, table("[encoder.deep]\ntap = 'pool5'"));
        assert_eq!(base["encoder"]["deep"]["tap"].as_str(), Some("pool5"));
        assert_eq!(base["encoder"]["early"]["net"].as_str(), Some("vgg16"));
        // One layer and several replace each other.
        merge(&mut base, table("[encoder.deep.taps]\npool2 = 1.0"));
        assert!(
            !base["encoder"]["deep"]
                .as_table()
                .unwrap()
                .contains_key("tap")
        );
        merge(&mut base, table("[encoder.deep]\ntap = 'pool5'"));
        assert!(
            !base["encoder"]["deep"]
                .as_table()
                .unwrap()
                .contains_key("taps")
        );
    }

    #[test]
    fn keys_are_found_in_sections_and_inline_tables() {
        let text = "# a comment\nname = 'a'\nloss = { feat = 0.0 }\n\n[train]\nsteps = 1\n";
        assert_eq!(line_of(text, "name"), Some(2));
        assert_eq!(line_of(text, "loss.feat"), Some(3));
        assert_eq!(line_of(text, "train.steps"), Some(6));
        assert_eq!(line_of(text, "train"), Some(5));
        assert_eq!(line_of(text, "train.seed"), None);
    }

    #[test]
    fn a_message_without_a_place_gets_one() {
        let text = "name = 'a'\nlos = 1\n\n[train]\nsteps = 'a'\nstepss = 1\n";
        for (message, line) in [
            (
                "invalid type: string \"a\", expected u64\nin `train.steps`\n",
                Some(5),
            ),
            (
                "unknown field `stepss`, expected `steps`\nin `train`\n",
                Some(6),
            ),
            ("unknown field `los`, expected `loss`\n", Some(2)),
            ("missing field `seed`\nin `train`\n", Some(4)),
            ("missing field `seed`\nin `gate`\n", None),
            ("something else", None),
        ] {
            assert_eq!(line_of_error(text, message), line, "{message}");
        }
    }

    #[test]
    fn what_cannot_be_extended_is_refused() {
        let here = Path::new("a/b.toml");
        let mut own = table("extends = '../c.toml'");
        assert_eq!(take(&mut own, here).unwrap(), Some("a/../c.toml".into()));
        assert!(own.is_empty());
        assert!(take(&mut table("extends = 3"), here).is_err());
        assert!(is_complete(&table("extends = 'd.toml'"), here).is_err());
    }
}
