//! cargo-deny: licences, sources, doubled and forbidden crates; known holes where their list can be fetched.

use std::path::PathBuf;

use anyhow::Result;

use deepsim_tools::child::Child;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::workspace::Workspace;

/// What deny.toml is written for.
const VERSION: &str = "0.20.2";

/// How the database of advisories is had.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail, too, where the database of advisories cannot be fetched
    #[arg(long)]
    advisories: bool,
}

/// Checks what deny.toml says, and the advisories if their database can be had.
///
/// # Errors
/// What cargo-deny refuses; a cargo-deny that cannot be installed.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let mut stages = Stages::new(3);
    stages.next("cargo-deny");
    let program = installed(ws)?;
    let deny = |what: &str| Child::new(what, &program, ws.root());
    stages.next("licences, bans, sources");
    deny("cargo deny")
        .args(["--log-level", "error", "check", "--hide-inclusion-graph"])
        .args(["licenses", "bans", "sources"])
        .run()?;
    stages.next("advisories");
    let fetched = deny("fetching the advisories").args(["fetch", "db"]);
    if args.advisories {
        fetched.run()?;
    } else if !fetched.succeeds() {
        note(
            "not checked: their database (github.com/rustsec/advisory-db) cannot be fetched from here",
        );
        return Ok(());
    }
    deny("cargo deny").args(["check", "advisories"]).run()?;
    note(format_args!("in order, {}", seconds(stages.elapsed())));
    Ok(())
}

/// Installed once, beside the other things that are fetched.
fn installed(ws: &Workspace) -> Result<PathBuf> {
    let root = ws.third_party().join("cargo");
    let program = root.join("bin/cargo-deny");
    let ours = |output: Vec<u8>| String::from_utf8_lossy(&output).contains(VERSION);
    if program.exists()
        && Child::new("cargo-deny", &program, ws.root())
            .args(["--version"])
            .output()
            .is_ok_and(ours)
    {
        return Ok(program);
    }
    note("installing (some minutes, once)");
    // Unoptimised: it is compiled once and runs for seconds.
    Child::cargo("installing cargo-deny", ws.root())
        .args(["install", "cargo-deny", "--version", VERSION])
        .args(["--locked", "--debug", "--quiet", "--force", "--root"])
        .args([&root])
        .args(["--target-dir"])
        .args([ws.path("target/cargo-deny")])
        .run()?;
    Ok(program)
}
