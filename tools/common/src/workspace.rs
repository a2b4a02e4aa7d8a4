//! Where things stand in the workspace: every path that xtask reads or writes is named here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::failure::refuse;

/// The workspace's root folder; all other paths derive from it.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this xtask belongs to, or `root` where one is given.
    ///
    /// # Errors
    /// A [`crate::failure::Refusal`] when the folder holds no workspace.
    pub fn find(root: Option<&Path>) -> Result<Self> {
        let root = match root {
            Some(root) => root.to_path_buf(),
            // Set by `cargo run` at run time; the value from compile time would be wrong in a
            // workspace that was moved after it was built.
            None => std::env::var_os("CARGO_MANIFEST_DIR")
                .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
                .join("../.."),
        };
        if !root.join("tools/xtask").is_dir() {
            return Err(refuse(format!(
                "{} is not the DeepSim workspace (it has no tools/xtask): run `cargo xtask` inside it",
                root.display()
            )));
        }
        let root = root
            .canonicalize()
            .with_context(|| format!("resolving {}", root.display()))?;
        Ok(Self { root })
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `relative` as an absolute path.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// `path` as people should read it: relative to the root where it lies inside.
    pub fn show<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Everything that set-up fetches or installs.
    pub fn third_party(&self) -> PathBuf {
        self.path("third_party")
    }

    /// The Python packages, libtorch among them; on PYTHONPATH in the tests.
    pub fn python(&self) -> PathBuf {
        self.path("third_party/py")
    }

    /// Finished downloads.
    pub fn downloads(&self) -> PathBuf {
        self.path("third_party/downloads")
    }

    /// The sample photos.
    pub fn photos(&self) -> PathBuf {
        self.path("data/photos")
    }

    /// The images of faces, and what is prepared of them.
    pub fn faces(&self) -> PathBuf {
        self.path("data/faces")
    }

    /// Names the folder of own photos, where the user gave one.
    pub fn photos_choice(&self) -> PathBuf {
        self.path("data/photos.source")
    }
}
