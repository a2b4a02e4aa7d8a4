//! Hash-locked Python packages, installed into folders of their own: a few small ones by pip, all of PyTorch by uv.
//!
//! pip is all or nothing, and the whole set is 2.7 GB. uv keeps every package that has come, so that a second try
//! begins where the first one broke off; and it leaves alone what a folder has already.

use std::fs;
use std::path::{Path, PathBuf};

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

/// Settings of uv that would undo what set-up tells it.
const CONTRADICTING: [&str; 5] = [
    "UV_NO_CACHE",
    "UV_OFFLINE",
    "UV_TORCH_BACKEND",
    "UV_PYTHON",
    "UV_LINK_MODE",
];
/// Where systems keep the certificates that they trust.
const CERTIFICATES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// `python3 -m pip`, undisturbed by settings that contradict `--target`.
pub fn pip(what: impl Into<String>, folder: &Path) -> Child {
    Child::new(what, "python3", folder)
        .args(["-m", "pip"])
        .hint("What was fetched is kept; run the same command again (if it was not you: is the network there?)")
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore")
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

/// Packages that uv has fetched for an installation that is not complete yet; removed when it is.
pub fn cache(ws: &Workspace) -> PathBuf {
    ws.downloads().join("uv")
}

/// Adds to `folder` with uv what `lock` has and it lacks; a package of another version is replaced.
///
/// # Errors
/// A failed pip or uv, which has said why. What has come is kept in [`cache`] for the next try.
pub fn add(ws: &Workspace, lock: &Path, folder: &Path) -> Result<()> {
    let tool = ws.third_party().join("uv");
    if !follows(&ws.path(UV), &tool)? {
        note("uv, which fetches the rest: 18 MB");
        install(&ws.path(UV), &tool)?;
    }
    let script = "import sys; print(sys.executable)";
    let python = Child::new("asking python3 for its place", "python3", ws.root())
        .args(["-c", script])
        .output()?;
    // Without the system's, uv trusts those that it brings.
    let certificates = CERTIFICATES.iter().any(|file| Path::new(file).exists());
    // The program itself: `python3 -m uv` would take another one that lies beside python3.
    let uv = |what: &str| {
        Child::new(what, tool.join("bin/uv"), ws.root())
            .hint("uv has said why above. What was fetched is kept; run the same command again")
            .without_env(&CONTRADICTING)
            .args(["--no-config", "--cache-dir"])
            .args([cache(ws)])
            .args(certificates.then_some("--system-certs"))
    };
    if cache(ws).exists() {
        // It waits for a uv that a killed set-up has left running.
        note("going on with what was fetched, once no other uv uses it");
        uv("uv").args(["cache", "prune"]).succeeds();
    }
    let settings = pip("asking pip for its settings", ws.root())
        .args(["config", "list"])
        .output()?;
    let mut install = uv("fetching Python packages")
        .args(["pip", "install", "--link-mode", "hardlink", "--python"])
        .args([String::from_utf8_lossy(&python).trim()])
        .args(LOCKED)
        .args(["--target"])
        .args([folder])
        .args(["--requirement"])
        .args([lock]);
    // pip heeds them where it is told of no certificates.
    let bundle = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
        .iter()
        .filter_map(|key| std::env::var(key).ok())
        .find(|path| !path.is_empty());
    let mut settings = uvs_settings(&String::from_utf8_lossy(&settings), bundle);
    // A package that is cut off comes anew: few at a time, or a bad line never ends.
    settings.push(("UV_CONCURRENT_DOWNLOADS", "2".to_owned()));
    for (key, value) in settings {
        if std::env::var_os(key).is_none() {
            install = install.env(key, value);
        }
    }
    install.run()
}

/// What `pip config list` says, in uv's words: who has told pip of another index need not tell uv as well.
/// `bundle` are the certificates where the list names none.
fn uvs_settings(list: &str, bundle: Option<String>) -> Vec<(&'static str, String)> {
    // As pip: the environment counts before the command's section, and that before the global one; empty is unset.
    let value = |names: &[&str]| {
        let mut sections = [":env:", "install", "global"].iter();
        sections.find_map(|section| {
            list.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                let (at, key) = key.rsplit_once('.')?;
                let value = value.trim_matches(['\'', '"']);
                let applies = at == *section && names.contains(&key) && !value.is_empty();
                applies.then_some(value)
            })
        })
    };
    // pip prints line ends within a value as they are written in Python.
    let words = |value: &str| {
        let text = value.replace("\\n", " ");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut found = Vec::new();
    if let Some(index) = value(&["index-url"]).map(words) {
        // The main index first, as an extra one may have another build of a locked version. Where the main one is
        // pip's own, it has all that is locked.
        if let Some(extra) = value(&["extra-index-url"]).map(words) {
            found.push(("UV_INDEX", format!("{index} {extra}")));
            found.push(("UV_INDEX_STRATEGY", "unsafe-first-match".to_owned()));
        }
        found.push(("UV_DEFAULT_INDEX", index));
    }
    // Only folders: uv gives up at a place that it cannot read, where pip goes on.
    let links = value(&["find-links"]).map(words).unwrap_or_default();
    let there = |place: &&str| place.starts_with('/') && Path::new(place).is_dir();
    let folders: Vec<_> = links.split(' ').filter(there).collect();
    if !folders.is_empty() {
        found.push(("UV_FIND_LINKS", folders.join(",")));
    }
    for (pips, uvs) in [("trusted-host", "UV_INSECURE_HOST"), ("proxy", "ALL_PROXY")] {
        found.extend(value(&[pips]).map(|value| (uvs, words(value))));
    }
    if let Some(cert) = value(&["cert"]).map(str::to_owned).or(bundle) {
        let of_folder = Path::new(&cert).is_dir();
        let key = if of_folder {
            "SSL_CERT_DIR"
        } else {
            "SSL_CERT_FILE"
        };
        found.push((key, cert));
    }
    let seconds = value(&["timeout", "default-timeout"]).and_then(|s| s.parse::<f64>().ok());
    found.extend(seconds.map(|s| ("UV_HTTP_TIMEOUT", format!("{:.0}", s.ceil()))));
    found
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
        for file in ["full", "torch-lite", "bench", "build-tools", "nccl", "uv"] {
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
        let list = ":env:.cert='/etc/a=b.crt'\n:env:.default-timeout='7.5'\n\
            global.cert='/etc/other.crt'\nglobal.index-url='https://global.example/simple'\n\
            global.timeout='15'\nglobal.extra-index-url='\\nhttps://one.example\\nhttps://two.example'\n\
            global.trusted-host='one.example'\ninstall.index-url='https://mirror.example/simple'\n\
            :env:.proxy=''\ninstall.proxy='http://proxy.example:3128'\n";
        let expected = [
            (
                "UV_INDEX",
                "https://mirror.example/simple https://one.example https://two.example",
            ),
            ("UV_INDEX_STRATEGY", "unsafe-first-match"),
            ("UV_DEFAULT_INDEX", "https://mirror.example/simple"),
            ("UV_INSECURE_HOST", "one.example"),
            ("ALL_PROXY", "http://proxy.example:3128"),
            ("SSL_CERT_FILE", "/etc/a=b.crt"),
            ("UV_HTTP_TIMEOUT", "8"),
        ];
        assert_eq!(
            uvs_settings(list, Some("/etc/bundle.crt".to_owned())),
            expected.map(|(key, value)| (key, value.to_owned()))
        );
        // Extra indexes beside pip's own are left out.
        assert!(uvs_settings("global.extra-index-url='https://one.example'\n", None).is_empty());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let list = format!("global.find-links='/no/such/folder {path}'\n");
        assert_eq!(
            uvs_settings(&list, Some(path.clone())),
            [("UV_FIND_LINKS", path.clone()), ("SSL_CERT_DIR", path)]
        );
    }
}
