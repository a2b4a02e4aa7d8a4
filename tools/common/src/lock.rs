//! One set-up at a time.

use std::fs::{self, File};

use anyhow::{Context, Result};

use crate::stages::note;
use crate::workspace::Workspace;

/// Held while set-up runs: two at once would delete each other's unfinished work.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Takes it, after whoever holds it.
    ///
    /// # Errors
    /// A disk that cannot be written to.
    pub fn take(ws: &Workspace) -> Result<Self> {
        let path = ws.third_party().join(".setup.lock");
        fs::create_dir_all(ws.third_party()).context("creating third_party")?;
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        if file.try_lock().is_err() {
            note("another set-up is running here: waiting for it");
            file.lock()
                .with_context(|| format!("locking {}", path.display()))?;
        }
        Ok(Self(file))
    }
}
