//! What libjpeg-turbo is built with: cmake, make, and on x86 nasm. The machine's own are used
//! where it has them; the rest lands in third_party/build-tools without root and changes nothing
//! elsewhere: cmake from its wheel, the others from Debian's packages. `tools/build/cmake`, which
//! cargo is told to use, finds both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt;
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::machine::on_path;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{landing, requirements};

/// Pins cmake's wheel.
const LOCK: &str = "tools/python/build-tools.txt";

/// A program that the build needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Configures the build.
    Cmake,
    /// Runs it.
    Make,
    /// Assembles the code for x86's vector instructions.
    Nasm,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Cmake => "cmake",
            Self::Make => "make",
            Self::Nasm => "nasm",
        }
    }

    /// Where set-up puts it, below `third_party/build-tools`.
    fn place(self) -> &'static str {
        match self {
            Self::Cmake => "cmake/data/bin/cmake",
            Self::Make => "usr/bin/make",
            Self::Nasm => "usr/bin/nasm",
        }
    }

    /// Whether it is a Debian package; otherwise it is Python's.
    pub fn is_debians(self) -> bool {
        self != Self::Cmake
    }
}

/// What is needed on this kind of processor.
fn needed() -> Vec<Tool> {
    let mut tools = vec![Tool::Cmake, Tool::Make];
    if ["x86_64", "x86"].contains(&std::env::consts::ARCH) {
        tools.push(Tool::Nasm);
    }
    tools
}

fn folder(ws: &Workspace) -> PathBuf {
    ws.third_party().join("build-tools")
}

/// Where a program is: on the machine, or where set-up put it.
fn find(ws: &Workspace, tool: Tool) -> Option<PathBuf> {
    let ours = folder(ws).join(tool.place());
    on_path(tool.name()).or_else(|| Some(ours).filter(|path| path.is_file()))
}

/// What is neither on the machine nor in third_party.
pub fn missing(ws: &Workspace) -> Vec<Tool> {
    let mut tools = needed();
    tools.retain(|tool| find(ws, *tool).is_none());
    tools
}

/// Fetches what is missing, and says where everything is.
///
/// # Errors
/// A failed fetch, or a package without the program.
pub fn ensure(ws: &Workspace) -> Result<()> {
    if !missing(ws).is_empty() {
        fetch(ws)?;
    }
    for tool in needed() {
        let path = find(ws, tool).with_context(|| format!("{} did not land", tool.name()))?;
        note(format_args!("ready: {}", ws.show(&path)));
    }
    Ok(())
}

/// Everything that the machine lacks, what was there before included: the folder is replaced whole.
fn fetch(ws: &Workspace) -> Result<()> {
    let mut tools = needed();
    tools.retain(|tool| on_path(tool.name()).is_none());
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    note(format_args!(
        "fetching {} (at most 32 MB), to build libjpeg-turbo with",
        names.join(", ")
    ));
    landing::require_space(&ws.third_party(), 200, "cmake, make and nasm")?;
    let place = folder(ws);
    let tree = landing::sibling(&place, "staging");
    fs::create_dir_all(&tree).with_context(|| format!("creating {}", tree.display()))?;
    for tool in &tools {
        if tool.is_debians() {
            debian(ws, tool.name(), &tree)?
        } else {
            requirements::install_into(&ws.path(LOCK), &tree)?
        }
        if !tree.join(tool.place()).is_file() {
            landing::remove(&tree)?;
            return Err(refuse(format!(
                "the package {0} holds no {1}: install {0}, then run the same command again",
                tool.name(),
                tool.place()
            )));
        }
    }
    landing::replace_folder(&tree, &place)
}

fn debian(ws: &Workspace, package: &str, tree: &Path) -> Result<()> {
    fs::create_dir_all(ws.downloads()).context("creating third_party/downloads")?;
    let deb = apt::download(package, &ws.downloads())?;
    Child::new("dpkg-deb", "dpkg-deb", ws.root())
        .args([Path::new("-x"), &deb, tree])
        .run_quietly()?;
    landing::remove(&deb)
}
