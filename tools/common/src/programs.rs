//! The workspace's own programs, built together and run where cargo put them.
//!
//! `cargo run -p` for one after the other would compile many dependencies several times: each
//! selection of packages gives them other features. Built in one go they share everything, which
//! on a fresh machine with two cores saves minutes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::child::Child;
use crate::failure::refuse;
use crate::stages::on_terminal;
use crate::workspace::Workspace;

/// What a photo goes through, from file to table.
pub const ALL: [&str; 4] = [
    "deepsim-data",
    "deepsim-weights",
    "deepsim-train",
    "deepsim-eval",
];

/// Built programs.
#[derive(Debug)]
pub struct Programs {
    executables: BTreeMap<String, PathBuf>,
}

/// A line of cargo's JSON messages, as far as it is of interest.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

impl Programs {
    /// Builds the packages in one go; what is built already is only looked up.
    ///
    /// # Errors
    /// A failed build, which has shown its errors.
    pub fn build(ws: &Workspace, packages: &[&str]) -> Result<Self> {
        Self::built(ws, packages, &[])
    }

    /// The same as users build for speed.
    ///
    /// # Errors
    /// As for [`Programs::build`].
    pub fn for_speed(ws: &Workspace, packages: &[&str]) -> Result<Self> {
        Self::built(ws, packages, &["--release"])
    }

    /// The same with what needs a GPU and CUDA's headers.
    ///
    /// # Errors
    /// As for [`Programs::build`].
    pub fn for_gpu(ws: &Workspace, packages: &[&str]) -> Result<Self> {
        Self::built(ws, packages, &["--release", "--features", "cuda"])
    }

    fn built(ws: &Workspace, packages: &[&str], profile: &[&str]) -> Result<Self> {
        let mut cargo = Child::cargo("building the programs", ws.root())
            .args(["build", "--message-format", "json-render-diagnostics"])
            .args(profile)
            .args(packages.iter().flat_map(|package| ["--package", package]))
            .hint("The same command goes on from here.");
        if !on_terminal() {
            cargo = cargo.args(["--quiet"]);
        }
        let output = String::from_utf8(cargo.output()?).context("reading cargo's messages")?;
        Ok(Self {
            executables: executables(&output),
        })
    }

    /// Programs that lie in a folder.
    ///
    /// # Errors
    /// A refusal if one is missing.
    pub fn at(folder: &Path, names: &[&str]) -> Result<Self> {
        let mut executables = BTreeMap::new();
        for &name in names {
            let path = std::path::absolute(folder.join(name)).context("finding a program")?;
            if !path.is_file() {
                return Err(refuse(format!("there is no program {}", path.display())));
            }
            executables.insert(name.to_owned(), path);
        }
        Ok(Self { executables })
    }

    /// Where one of them lies.
    ///
    /// # Errors
    /// A program that was not among the packages.
    pub fn path(&self, package: &str) -> Result<PathBuf> {
        let found = self.executables.get(package).cloned();
        found.with_context(|| format!("cargo built no program {package}"))
    }

    /// One of them, ready for its arguments.
    ///
    /// # Errors
    /// A program that was not among the packages.
    pub fn get(&self, ws: &Workspace, what: &str, package: &str) -> Result<Child> {
        Ok(Child::new(what, self.path(package)?, ws.root()))
    }
}

fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_picked_from_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"deepsim_data"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"deepsim-data"},"executable":"/t/debug/deepsim-data"}
{"reason":"build-script-executed","package_id":"x"}
not json
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found["deepsim-data"],
            PathBuf::from("/t/debug/deepsim-data")
        );
    }
}
