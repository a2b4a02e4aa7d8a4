//! Headers that a build with `--features nccl` needs and the full libtorch lacks: those of CUDA's compiler and C++ library.
//! NCCL itself, its header and CUDA's runtime come with the full libtorch.

use std::path::PathBuf;

use anyhow::Result;

use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{landing, requirements};

/// Pins the two packages.
const LOCK: &str = "tools/python/nccl.txt";

/// Where crates/deepsim-aten/build.rs looks for them.
fn folder(ws: &Workspace) -> PathBuf {
    ws.third_party().join("cuda-headers")
}

/// Whether there is something to fetch.
///
/// # Errors
/// An unreadable lock file.
pub fn pending(ws: &Workspace) -> Result<bool> {
    Ok(!requirements::follows(&ws.path(LOCK), &folder(ws))?)
}

/// Fetches them unless they are here, and gives their folder.
///
/// # Errors
/// A full disk, a failed pip.
pub fn ensure(ws: &Workspace) -> Result<PathBuf> {
    if pending(ws)? {
        note("CUDA's headers, 4 MB to fetch");
        landing::require_space(&ws.third_party(), 100, "CUDA's headers")?;
        requirements::install(&ws.path(LOCK), &folder(ws))?;
    }
    Ok(folder(ws))
}
