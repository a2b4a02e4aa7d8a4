//! libtorch in `third_party/py/torch`: out of PyTorch's wheel, whole or only what Rust needs, or
//! a link to one that the user has.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::needs;
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{files, landing, python, requirements};

/// The libtorch release that the Rust binding is written for; any patch level of it serves.
pub const VERSION: &str = "2.13";

/// What the user asks for with `--torch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// PyTorch as Python uses it: CUDA libraries, and the packages that the tests need.
    Full,
    /// Only what the Rust programs need on a CPU.
    Lite,
    /// A libtorch or PyTorch folder on this machine.
    Folder(PathBuf),
}

impl From<OsString> for Choice {
    fn from(text: OsString) -> Self {
        match text.to_str() {
            Some("full") => Choice::Full,
            Some("lite") => Choice::Lite,
            _ => Choice::Folder(PathBuf::from(text)),
        }
    }
}

/// How the present libtorch came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// See [`Choice::Full`].
    Full,
    /// See [`Choice::Lite`].
    Lite,
    /// See [`Choice::Folder`].
    Linked,
}

/// What `third_party/py/.deepsim-setup.json` records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Installed {
    /// How it came here.
    pub mode: Mode,
    /// Version of libtorch, with its local part: `2.13.0+cu130`.
    pub torch: String,
    /// The Python it was installed with, `3.11`.
    pub python: Option<String>,
    /// SHA-256 of the lock file it was installed from; none where it was found or linked.
    pub requirements: Option<String>,
}

impl Installed {
    fn describe(&self) -> String {
        let mode = match self.mode {
            Mode::Full => "full",
            Mode::Lite => "lite (CPU, Rust only)",
            Mode::Linked => "linked",
        };
        format!("libtorch {}, {mode}", self.torch)
    }
}

/// The libtorch that is here and usable. One that was put here by hand is recognised and recorded.
///
/// # Errors
/// Only when the record cannot be written.
pub fn installed(ws: &Workspace) -> Result<Option<Installed>> {
    let py = ws.python();
    let Ok(torch) = version(&py.join("torch")) else {
        return Ok(None);
    };
    let record = fs::read(stamp(&py)).ok();
    if let Some(found) = record.and_then(|json| serde_json::from_slice::<Installed>(&json).ok())
        && found.torch == torch
    {
        return Ok(Some(found));
    }
    let mode = if py.join("torch").is_symlink() {
        Mode::Linked
    } else if python::can_import(&py, RECOGNISED) {
        Mode::Full
    } else if torch.contains("+cpu") || py.join("nvidia/cu13/lib").is_dir() {
        Mode::Lite
    } else {
        return Ok(None);
    };
    let found = Installed {
        mode,
        torch,
        python: python_version(),
        requirements: None,
    };
    record_install(&py, &found)?;
    Ok(Some(found))
}

/// Whether the present libtorch is what is asked for; without a wish, any is.
pub fn satisfies(ws: &Workspace, found: &Installed, choice: Option<&Choice>) -> Result<bool> {
    Ok(match choice {
        None => true,
        Some(Choice::Lite) => matches!(found.mode, Mode::Lite | Mode::Full),
        Some(Choice::Full) => {
            let follows = match &found.requirements {
                Some(digest) => *digest == landing::sha256(&lock(ws, Mode::Full))?,
                None => python::imports(&ws.python()),
            };
            found.mode == Mode::Full && follows && found.python == python_version()
        }
        Some(Choice::Folder(folder)) => {
            let here = ws.python().join("torch");
            found.mode == Mode::Linked && here.canonicalize().ok() == folder.canonicalize().ok()
        }
    })
}

/// What a missing wish means on this machine.
pub fn default_choice() -> Choice {
    if needs::has_nvidia_gpu() {
        note("an NVIDIA GPU is here: the full libtorch (--torch lite would leave CUDA out)");
        Choice::Full
    } else {
        Choice::Lite
    }
}

/// Installs or links libtorch and records it; what was there before is replaced in one step.
///
/// # Errors
/// A refusal for an unusable folder, Python or disk; a failed pip.
pub fn install(ws: &Workspace, choice: &Choice) -> Result<Installed> {
    let installed = match choice {
        Choice::Full => fetch(ws, Mode::Full),
        Choice::Lite => fetch(ws, Mode::Lite),
        Choice::Folder(folder) => link(ws, folder),
    }?;
    // It served until here; the rest is of earlier versions.
    landing::remove(&requirements::cache(ws))?;
    for stale in ["wheels", "bench-wheels"] {
        landing::remove(&ws.downloads().join(stale))?;
    }
    Ok(installed)
}

/// A line for people about the present libtorch.
pub fn describe(ws: &Workspace, found: &Installed) -> String {
    format!(
        "{} ({})",
        found.describe(),
        ws.show(&ws.python().join("torch"))
    )
}

fn fetch(ws: &Workspace, mode: Mode) -> Result<Installed> {
    let python = python_version();
    let (download, needs_mb) = match mode {
        Mode::Full => ("2.7 GB to fetch, 5.0 GB installed", 8_000_u64),
        _ => ("527 MB to fetch, 1.2 GB installed", 2_000),
    };
    if !python.as_deref().is_some_and(supported) {
        return Err(refuse(format!(
            "python3 is {}; libtorch {VERSION} comes for Python 3.10 to 3.14. Put one of them first \
             in PATH as python3, or give a libtorch folder of your own with --torch PATH",
            python.as_deref().unwrap_or("not usable")
        )));
    }
    fs::create_dir_all(ws.downloads()).context("creating third_party/downloads")?;
    let lock = lock(ws, mode);
    let place = ws.python();
    // The whole set is gigabytes: what is there stays, and only what it lacks of the lock file is fetched.
    let before = installed(ws)?.filter(|f| mode == Mode::Full && f.mode == mode);
    let before = before.filter(|f| f.python == python);
    let copy = match &before {
        Some(_) => copied(ws, &place)?,
        None => None,
    };
    let needed = needs_mb.saturating_sub(megabytes(&requirements::cache(ws)));
    let grown = match (before, copy) {
        (Some(before), Some(staging)) => {
            note("adding what is missing");
            let pin = before.torch.split('+').next().unwrap_or_default();
            let pinned = files::text(&lock)?.contains(&format!("torch=={pin} "));
            let space = if pinned { 1_000 } else { needed };
            landing::require_space(&ws.third_party(), space, "what is missing")?;
            requirements::add(ws, &lock, &staging)?;
            let works = python::imports(&staging);
            if !works {
                note("Python cannot import what is there: everything is installed anew");
            }
            works.then_some(staging)
        }
        _ => None,
    };
    let staging = match grown {
        Some(staging) => staging,
        None => {
            note(download);
            landing::require_space(&ws.third_party(), needed, "libtorch")?;
            let staging = landing::sibling(&place, "staging");
            requirements::add(ws, &lock, &staging)?;
            if mode == Mode::Full && !python::imports(&staging) {
                return Err(refuse(format!(
                    "PyTorch was installed but Python cannot import it; to see why, run\n  \
                     PYTHONPATH={} python3 -c 'import {}'",
                    staging.display(),
                    python::IMPORTS.replace(',', ", ")
                )));
            }
            staging
        }
    };
    let torch = version(&staging.join("torch"))?;
    let requirements = Some(landing::sha256(&lock)?);
    let installed = Installed {
        mode,
        torch,
        python,
        requirements,
    };
    record_install(&staging, &installed)?;
    landing::replace_folder(&staging, &place)?;
    Ok(installed)
}

/// A new folder beside `place` with what is in it, where one can be made. Hard links take no room, and changing one
/// leaves the other alone, as files are replaced and never written to.
fn copied(ws: &Workspace, place: &Path) -> Result<Option<PathBuf>> {
    // The folder itself, not a link to it.
    let Ok(old) = place.canonicalize() else {
        return Ok(None);
    };
    for how in ["-al", "-a"] {
        if how == "-a" {
            note("no hard links here: copying what is there");
            landing::require_space(&ws.third_party(), 6_000, "a copy of what is there")?;
        }
        let new = landing::sibling(place, "staging");
        let copy = Child::new("cp", "cp", Path::new("."));
        if copy.args([how]).args([&old, &new]).succeeds() {
            return Ok(Some(new));
        }
        landing::remove(&new)?;
    }
    Ok(None)
}

/// Size of what is below a folder; links are not followed.
fn megabytes(folder: &Path) -> u64 {
    fn bytes(path: &Path) -> u64 {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        });
        sizes.sum()
    }
    bytes(folder) >> 20
}

fn link(ws: &Workspace, folder: &Path) -> Result<Installed> {
    let torch = version(folder)?;
    let folder = folder
        .canonicalize()
        .with_context(|| format!("resolving {}", folder.display()))?;
    let staging = landing::sibling(&ws.python(), "staging");
    fs::create_dir_all(&staging).with_context(|| format!("creating {}", staging.display()))?;
    std::os::unix::fs::symlink(&folder, staging.join("torch")).context("linking libtorch")?;
    let installed = Installed {
        mode: Mode::Linked,
        torch,
        python: python_version(),
        requirements: None,
    };
    record_install(&staging, &installed)?;
    landing::replace_folder(&staging, &ws.python())?;
    Ok(installed)
}

/// The version of the libtorch in `folder`, which must be complete and of the right release.
fn version(folder: &Path) -> Result<String> {
    let advice = format!(
        "give the folder that holds lib/ and include/: an unpacked libtorch {VERSION}, or \
         site-packages/torch of a PyTorch {VERSION}"
    );
    for part in [
        "lib/libtorch_cpu.so",
        "include/torch/csrc/api/include/torch/torch.h",
    ] {
        if !folder.join(part).is_file() {
            let folder = folder.display();
            return Err(refuse(format!(
                "no libtorch in {folder} (it has no {part}): {advice}"
            )));
        }
    }
    let found = fs::read_to_string(folder.join("build-version"))
        .map(|text| text.trim().to_owned())
        .or_else(|_| fs::read_to_string(folder.join("version.py")).map(|t| python_string(&t)))
        .unwrap_or_default();
    let release: Vec<_> = found.split('.').take(2).collect();
    if release.join(".") != VERSION {
        let found = if found.is_empty() { "unknown" } else { &found };
        return Err(refuse(format!(
            "the libtorch in {} has version {found}, {VERSION} is needed: {advice}; \
             or let set-up fetch one: --torch lite",
            folder.display()
        )));
    }
    Ok(found)
}

/// `2.13.0+cu130` out of PyTorch's version.py; empty when it is not there.
fn python_string(text: &str) -> String {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = "));
    line.unwrap_or_default()
        .trim_matches(|c| c == '\'' || c == '"')
        .to_owned()
}

/// By these a full PyTorch that was put here by hand is recognised; what else the tests need can
/// be added to it.
const RECOGNISED: &str = "torch,safetensors,numpy,PIL,tensorboard";

fn python_version() -> Option<String> {
    let script = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = std::process::Command::new("python3")
        .args(["-c", script])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn supported(python: &str) -> bool {
    let minor = python
        .strip_prefix("3.")
        .and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| (10..=14).contains(&minor))
}

fn lock(ws: &Workspace, mode: Mode) -> PathBuf {
    ws.path(match mode {
        Mode::Full => "tools/python/full.txt",
        _ => "tools/python/torch-lite.txt",
    })
}

fn stamp(py: &Path) -> PathBuf {
    py.join(".deepsim-setup.json")
}

fn record_install(py: &Path, installed: &Installed) -> Result<()> {
    files::write_json(&stamp(py), installed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_tools::testing::libtorch;

    /// One that only its Python says the version of.
    fn wheel(version_py: &str) -> tempfile::TempDir {
        let tmp = tempfile::tempdir().unwrap();
        libtorch(tmp.path(), "");
        fs::remove_file(tmp.path().join("build-version")).unwrap();
        fs::write(tmp.path().join("version.py"), version_py).unwrap();
        tmp
    }

    #[test]
    fn the_version_is_read_and_checked() {
        let text = "__all__ = []\n__version__ = '2.13.1+cpu'\ndebug = False\n";
        assert_eq!(version(wheel(text).path()).unwrap(), "2.13.1+cpu");
        let old = wheel("__version__ = '2.1.3'\n");
        let message = version(old.path()).unwrap_err().to_string();
        assert!(
            message.contains("2.1.3") && message.contains("--torch lite"),
            "{message}"
        );
        let zip = wheel("");
        fs::write(zip.path().join("build-version"), "2.13.0+cpu\n").unwrap();
        assert_eq!(version(zip.path()).unwrap(), "2.13.0+cpu");
    }

    #[test]
    fn a_folder_without_libtorch_is_refused_with_advice() {
        let tmp = tempfile::tempdir().unwrap();
        let message = version(tmp.path()).unwrap_err().to_string();
        assert!(message.contains("lib/ and include/"), "{message}");
    }

    #[test]
    fn pythons_of_other_versions_are_not_supported() {
        assert!(["3.10", "3.11", "3.14"].into_iter().all(supported));
        assert!(!["3.9", "2.7", "3.15", "", "3.x"].into_iter().any(supported));
    }

    #[test]
    fn words_and_folders_are_told_apart() {
        let choice = |text: &str| Choice::from(OsString::from(text));
        assert_eq!(choice("full"), Choice::Full);
        assert_eq!(choice("lite"), Choice::Lite);
        assert_eq!(choice("./full"), Choice::Folder("./full".into()));
    }
}
