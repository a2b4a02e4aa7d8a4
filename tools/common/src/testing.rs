//! What the tests of the workspace's tools share.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::workspace::Workspace;

/// A workspace with nothing in it; its folder is removed when the first of both is dropped.
pub fn workspace() -> (tempfile::TempDir, Workspace) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("tools/xtask")).unwrap();
    let ws = Workspace::find(Some(folder.path())).unwrap();
    (folder, ws)
}

/// A libtorch as far as set-up looks at it.
pub fn libtorch(folder: &Path, version: &str) {
    for file in [
        "lib/libtorch_cpu.so",
        "include/torch/csrc/api/include/torch/torch.h",
    ] {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::write(folder.join("build-version"), version).unwrap();
}

/// A program that a shell reads. Another process writes it: were it open for writing here while another test starts a
/// process, that one would hold it open as well, and it could not be started.
pub fn stand_in(folder: &Path, name: &str, script: &str) {
    let text = tempfile::NamedTempFile::new().unwrap();
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    let mut install = Command::new("install");
    install.args(["-m", "755"]).arg(text.path());
    assert!(install.arg(folder.join(name)).status().unwrap().success());
}

/// Holds the help of a program and of its commands to 80 columns; examples are not wrapped anew on a wider terminal.
pub fn help_fits(program: &str, commands: &[&str]) {
    let help = |command: &str, columns: &str| {
        let mut asked = Command::new(program);
        asked.args([command, "--help"]).env("COLUMNS", columns);
        let output = asked.output().unwrap();
        assert!(output.status.success(), "{command}");
        String::from_utf8(output.stdout).unwrap()
    };
    let examples = |text: &str| {
        let start = text.lines().position(|line| line.starts_with("Example"));
        start.map(|start| text.lines().skip(start).collect::<Vec<_>>().join("\n"))
    };
    for &command in commands.iter().chain(&["--help"]) {
        let narrow = help(command, "80");
        let example = format!("cargo xtask {command}");
        assert!(
            command.starts_with('-') || narrow.contains(&example),
            "{command}"
        );
        for line in narrow.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
        let wide = help(command, "100");
        assert_eq!(examples(&narrow), examples(&wide), "{command}");
    }
}
