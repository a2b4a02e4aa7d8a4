//! Hash-locked Python requirements: fetched wheel by wheel, installed into a fresh folder.
//!
//! pip downloads are all or nothing, and the whole set is 2.7 GB. So each large package is its
//! own download that is kept, and a second try begins where the first one broke off. The install
//! then works offline on the kept wheels and checks every hash again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::child::Child;
use crate::failure::refuse;
use crate::landing;
use crate::stages::{megabytes, note, on_terminal};

/// One pinned package of a lock file, its hashes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Package name.
    pub name: String,
    /// The pinned version.
    pub version: String,
    /// The whole entry as pip reads it, continuation lines joined.
    pub text: String,
}

impl Requirement {
    /// Name, version and the condition on machine and Python under which it is needed, without hashes.
    pub fn condition(&self) -> &str {
        let end = self.text.find(" --hash=").unwrap_or(self.text.len());
        &self.text[..end]
    }
}

/// The entries of the lock file at `path`.
///
/// # Errors
/// As [`parse`], or an unreadable file.
pub fn entries(path: &Path) -> Result<Vec<Requirement>> {
    parse(&read(path)?)
}

/// The entries of a lock file.
///
/// # Errors
/// A [`crate::failure::Refusal`] for an entry without exact version or without hash: such a file
/// would let an unknown package in.
pub fn parse(lock: &str) -> Result<Vec<Requirement>> {
    let joined = lock.replace("\\\n", " ");
    let entries = joined
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    entries
        .map(|line| {
            let text = line.split_whitespace().collect::<Vec<_>>().join(" ");
            let bad = || {
                refuse(format!(
                    "requirement without exact version and sha256: {text}"
                ))
            };
            let (name, rest) = text.split_once("==").ok_or_else(bad)?;
            if !rest.contains("--hash=sha256:") || name.contains(|c: char| c.is_whitespace()) {
                return Err(bad());
            }
            let version = rest.split([' ', ';']).next().unwrap_or_default().to_owned();
            Ok(Requirement {
                name: name.to_owned(),
                version,
                text: text.clone(),
            })
        })
        .collect()
}

/// Requirements that are fetched together: each large package alone, all small ones in one go.
fn groups(requirements: &[Requirement]) -> Vec<Vec<&Requirement>> {
    let large = |r: &&Requirement| {
        ["torch", "triton"].contains(&r.name.as_str()) || r.name.starts_with("nvidia-")
    };
    let (large, small): (Vec<_>, Vec<_>) = requirements.iter().partition(large);
    let mut groups: Vec<Vec<_>> = large.into_iter().map(|r| vec![r]).collect();
    if !small.is_empty() {
        groups.push(small);
    }
    groups
}

/// `python3 -m pip`, undisturbed by settings that contradict `--target`.
pub fn pip(what: impl Into<String>, folder: &Path) -> Child {
    Child::new(what, "python3", folder)
        .args(["-m", "pip"])
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .hint("What was fetched is kept; run the same command again (if it was not you: is the network there?)")
}

/// pip's own progress bar on a terminal, silence in a log.
pub fn verbosity() -> &'static [&'static str] {
    if on_terminal() { &[] } else { &["--quiet"] }
}

/// Fetches every wheel of `lock` into `wheels`; finished ones are not fetched again.
pub fn fetch(lock: &Path, wheels: &Path) -> Result<()> {
    let requirements = entries(lock)?;
    fs::create_dir_all(wheels).with_context(|| format!("creating {}", wheels.display()))?;
    let groups = groups(&requirements);
    for (i, group) in groups.iter().enumerate() {
        let text: String = group.iter().map(|r| format!("{}\n", r.text)).collect();
        let done = wheels.join(format!("{}.fetched", landing::sha256_of(text.as_bytes())));
        let title = match group.as_slice() {
            [one] => format!("{} {}", one.name, one.version),
            many => format!("{} small packages", many.len()),
        };
        let place = format!("{:>2}/{}", i + 1, groups.len());
        if done.exists() {
            note(format_args!("{place}  {title}: fetched before"));
            continue;
        }
        let before = size_of(wheels);
        let list = wheels.join("requirements.txt");
        landing::write(&list, text.as_bytes())?;
        pip(format!("fetching {title}"), wheels)
            .args([
                "download",
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
            ])
            .args(["--no-cache-dir", "--dest", ".", "--requirement"])
            .args([&list])
            .args(verbosity())
            .run()?;
        landing::write(&done, b"")?;
        let got = megabytes(size_of(wheels).saturating_sub(before));
        note(format_args!("{place}  {title}: {got}"));
    }
    Ok(())
}

/// Installs `lock` from `wheels` into the new folder `target`, offline.
pub fn install(lock: &Path, wheels: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    // pip unpacks into the temporary folder first: beside the target that is a rename, elsewhere
    // it may be a small RAM disk.
    let temporary = landing::sibling(target, "staging");
    fs::create_dir_all(&temporary).with_context(|| format!("creating {}", temporary.display()))?;
    let installed = pip("installing the fetched packages", wheels)
        .args([
            "install",
            "--no-index",
            "--find-links",
            ".",
            "--no-deps",
            "--require-hashes",
        ])
        .args([
            "--only-binary",
            ":all:",
            "--no-compile",
            "--no-warn-script-location",
        ])
        .args(["--no-cache-dir", "--target"])
        .args([target])
        .args(["--requirement"])
        .args([lock])
        .args(verbosity())
        .env("TMPDIR", &temporary)
        .run();
    landing::remove(&temporary)?;
    installed
}

/// SHA-256 of a lock file, to see whether an install follows it.
pub fn digest(lock: &Path) -> Result<String> {
    Ok(landing::sha256_of(read(lock)?.as_bytes()))
}

fn read(lock: &Path) -> Result<String> {
    fs::read_to_string(lock).with_context(|| format!("reading {}", lock.display()))
}

fn size_of(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|f| f.metadata().ok())
        .map(|m| m.len())
        .sum()
}

/// Where the wheels of an unfinished install wait.
pub fn wheels(downloads: &Path) -> PathBuf {
    downloads.join("wheels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_locks_parse_and_agree_on_torch() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
        let torch = |file: &str| {
            let all = parse(&read(&root.join(file)).unwrap()).unwrap();
            all.into_iter().find(|r| r.name == "torch").unwrap()
        };
        assert_eq!(torch("full.txt"), torch("torch-lite.txt"));
    }

    #[test]
    fn markers_and_continuations_are_understood() {
        let lock = "# note\nnumpy==2.2.6 ; python_full_version < '3.11' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n\ntorch==2.13.0 --hash=sha256:cc\n";
        let all = parse(lock).unwrap();
        assert_eq!(
            (all[0].name.as_str(), all[0].version.as_str()),
            ("numpy", "2.2.6")
        );
        assert_eq!(
            (all[1].name.as_str(), all[1].version.as_str()),
            ("torch", "2.13.0")
        );
        assert!(all[0].text.ends_with("--hash=sha256:aa --hash=sha256:bb"));
        assert_eq!(
            all[0].condition(),
            "numpy==2.2.6 ; python_full_version < '3.11'"
        );
        let sizes: Vec<_> = groups(&all).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 1]);
    }

    #[test]
    fn unlocked_requirements_are_refused() {
        for lock in [
            "torch",
            "torch>=2",
            "torch==2.13.0",
            "-r other.txt",
            "a b==1 --hash=sha256:x",
        ] {
            assert!(parse(lock).is_err(), "{lock}");
        }
    }
}
