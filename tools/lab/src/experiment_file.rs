//! Keys of an experiment file, with those of the file that it extends.

use std::path::Path;

use anyhow::{Context, Result};
use deepsim_tools::files;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Values out of an experiment file, a run's or a committed one: its own over those of the file that it extends.
///
/// # Errors
/// A file that cannot be read or lacks them.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    keys(file)?
        .try_into()
        .with_context(|| format!("in {}", file.display()))
}

fn keys(file: &Path) -> Result<Table> {
    let own: Table = files::toml(file)?;
    let Some(base) = own.get("extends").and_then(Value::as_str) else {
        return Ok(own);
    };
    let mut all = files::toml(&file.parent().unwrap_or(Path::new("")).join(base))?;
    put_over(&mut all, own);
    Ok(all)
}

/// As the trainer does: key by key, but a section that names another network replaces the other's whole.
fn put_over(base: &mut Table, own: Table) {
    for (key, value) in own {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(there)), Value::Table(here)) if !here.contains_key("net") => {
                put_over(there, here);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_own_keys_stand_over_those_that_it_extends() {
        let tmp = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(tmp.path().join(name), text).unwrap();
        std::fs::create_dir(tmp.path().join("below")).unwrap();
        put(
            "base.toml",
            "name = 'base'\n[encoder]\nnet = 'a'\ntap = 'b'\n[train]\nsteps = 1\nseed = 2\n",
        );
        put(
            "below/own.toml",
            "extends = '../base.toml'\nname = 'own'\n[encoder]\nnet = 'c'\n[train]\nseed = 3\n",
        );
        let all: Table = read(&tmp.path().join("below/own.toml")).unwrap();
        assert_eq!(all["name"].as_str(), Some("own"));
        assert_eq!(all["encoder"].as_table().unwrap().len(), 1);
        assert_eq!(all["train"]["steps"].as_integer(), Some(1));
        assert_eq!(all["train"]["seed"].as_integer(), Some(3));
        put("alone.toml", "extends = 'nowhere.toml'\n");
        let error = read::<Table>(&tmp.path().join("alone.toml")).unwrap_err();
        assert!(format!("{error:#}").contains("nowhere.toml"), "{error:#}");
    }
}
