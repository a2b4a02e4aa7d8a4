//! Hash-locked Python packages, installed into folders of their own: a few small ones by pip, all of PyTorch by uv.
//!
//! pip is all or nothing, and the whole set is 2.7 GB. uv keeps every package that has come, so that a second try
//! begins where the first one broke off; and it leaves alone what a folder has already.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::child::Child;
use crate::landing;
use crate::stages::{note, on_terminal};
use crate::workspace::Workspace;

/// Pins uv.
const UV: &str = "tools/python/uv.txt";
/// In a folder of packages: the digest of the lock file that it was installed from.
const STAMP: &str = ".deepsim-lock";
/// Nothing that the lock file does not name, and nothing that runs a package's setup.py.
const LOCKED: [&str; 4] = ["--no-deps", "--require-hashes", "--only-binary", ":all:"];

/// `python3 -m pip`, undisturbed by settings that contradict `--target`.
pub fn pip(what: impl Into<String>, folder: &Path) -> Child {
    module("pip", what, folder)
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore")
}

fn module(name: &str, what: impl Into<String>, folder: &Path) -> Child {
    Child::new(what, "python3", folder)
        .args(["-m", name])
        .hint("What was fetched is kept; run the same command again (if it was not you: is the network there?)")
}

/// pip's own progress bar on a terminal, silence in a log.
pub fn verbosity() -> &'static [&'static str] {
    if on_terminal() { &[] } else { &["--quiet"] }
}

/// Whether the folder `target` was installed by [`install`] from `lock` as it is now.
///
/// # Errors
/// An unreadable `lock`.
pub fn follows(lock: &Path, target: &Path) -> Result<bool> {
    let found = fs::read_to_string(target.join(STAMP)).unwrap_or_default();
    Ok(found.trim() == landing::sha256(lock)?)
}

/// Installs `lock` with pip; what the folder `target` held before is replaced.
///
/// # Errors
/// A failed pip, which has said why; a full disk.
pub fn install(lock: &Path, target: &Path) -> Result<()> {
    let staging = landing::sibling(target, "staging");
    install_into(lock, &staging)?;
    let stamp = format!("{}\n", landing::sha256(lock)?);
    landing::write(&staging.join(STAMP), stamp.as_bytes())?;
    landing::replace_folder(&staging, target)
}

/// Installs `lock` with pip into the new folder `folder`.
///
/// # Errors
/// As [`install`].
pub fn install_into(lock: &Path, folder: &Path) -> Result<()> {
    // pip unpacks into the temporary folder first: beside the target that is a rename, elsewhere
    // it may be a small RAM disk.
    let temporary = landing::sibling(folder, "pip");
    for new in [folder, &temporary] {
        fs::create_dir_all(new).with_context(|| format!("creating {}", new.display()))?;
    }
    let installed = pip("fetching Python packages", folder)
        .args(["install", "--no-compile", "--no-warn-script-location"])
        .args(LOCKED)
        .args(["--no-cache-dir", "--target"])
        .args([folder])
        .args(["--requirement"])
        .args([lock])
        .args(verbosity())
        .env("TMPDIR", &temporary)
        .run();
    landing::remove(&temporary)?;
    installed
}

/// Adds to `folder` with uv what `lock` has and it lacks; a package of another version is replaced.
///
/// # Errors
/// A failed pip or uv, which has said why. What has come is kept for the next try.
pub fn add(ws: &Workspace, lock: &Path, folder: &Path) -> Result<()> {
    let (tool, cache) = (ws.third_party().join("uv"), ws.downloads().join("uv"));
    if !follows(&ws.path(UV), &tool)? {
        note("uv, which fetches the rest: 18 MB");
        install(&ws.path(UV), &tool)?;
    }
    let uv = |what: &str| {
        let uv = module("uv", what, ws.root()).env("PYTHONPATH", &tool);
        uv.args(["--system-certs", "--cache-dir"]).args([&cache])
    };
    // What a killed try had not finished.
    uv("uv").args(["cache", "prune"]).succeeds();
    let settings = pip("asking pip for its settings", ws.root())
        .args(["config", "list"])
        .output()?;
    let mut install = uv("fetching Python packages")
        .args(["pip", "install"])
        .args(LOCKED)
        .args(["--target"])
        .args([folder])
        .args(["--requirement"])
        .args([lock]);
    for (key, value) in uvs_settings(&String::from_utf8_lossy(&settings)) {
        if std::env::var_os(key).is_none() {
            install = install.env(key, value);
        }
    }
    install.run()?;
    landing::remove(&cache)
}

/// What `pip config list` says, in uv's words: who has told pip of another index need not tell uv as well.
fn uvs_settings(list: &str) -> Vec<(&'static str, &str)> {
    let value = |name: &str| {
        // Those of the environment are listed first, and they win.
        list.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            let (_, key) = key.rsplit_once('.')?;
            (key == name).then_some(value.trim_matches('\''))
        })
    };
    [
        ("index-url", "UV_DEFAULT_INDEX"),
        ("cert", "SSL_CERT_FILE"),
        ("default-timeout", "UV_HTTP_TIMEOUT"),
        ("timeout", "UV_HTTP_TIMEOUT"),
    ]
    .into_iter()
    .filter_map(|(pips, uvs)| Some((uvs, value(pips)?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of a lock file, continuation lines joined.
    fn entries(file: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
        let text = fs::read_to_string(path.join(file)).unwrap();
        let joined = text.replace("\\\n", " ");
        let entries = joined
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        entries.map(str::to_owned).collect()
    }

    #[test]
    fn the_committed_locks_pin_every_package_and_agree_on_torch() {
        for file in ["full", "torch-lite", "bench", "build-tools", "uv"] {
            for entry in entries(&format!("{file}.txt")) {
                let (name, rest) = entry.split_once("==").unwrap();
                assert!(!name.contains(char::is_whitespace), "{entry}");
                assert!(rest.contains(" --hash=sha256:"), "{entry}");
            }
        }
        let torch = |file: &str| {
            let mut all = entries(file).into_iter();
            all.find(|entry| entry.starts_with("torch==")).unwrap()
        };
        assert_eq!(torch("full.txt"), torch("torch-lite.txt"));
    }

    #[test]
    fn pips_index_certificates_and_patience_are_uvs_too() {
        let list = ":env:.cert='/etc/a=b.crt'\n:env:.default-timeout='180'\n\
            global.cert='/etc/other.crt'\nglobal.index-url='https://mirror.example/simple'\n";
        let expected = [
            ("UV_DEFAULT_INDEX", "https://mirror.example/simple"),
            ("SSL_CERT_FILE", "/etc/a=b.crt"),
            ("UV_HTTP_TIMEOUT", "180"),
        ];
        assert_eq!(uvs_settings(list), expected);
        assert!(uvs_settings("").is_empty());
    }
}
