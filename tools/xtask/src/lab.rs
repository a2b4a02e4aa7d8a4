//! Commands of the lab: a program of its own, so that set-up needn't build what draws curves and searches for faults.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use deepsim_tools::workspace::Workspace;

/// What a command of the lab is asked; the lab reads it.
#[derive(Debug, clap::Args)]
pub struct Lab {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

impl Lab {
    /// Becomes the lab: exit codes and signals are its own.
    ///
    /// # Errors
    /// When cargo cannot be started.
    pub fn run(&self, ws: &Workspace, command: &str) -> Result<()> {
        let error = start(ws).arg(command).args(&self.arguments).exec();
        Err(error).context("starting the lab by cargo")
    }
}

/// The lab, ready for its command.
pub fn start(ws: &Workspace) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut lab = Command::new(cargo);
    lab.current_dir(ws.root());
    lab.args(["run", "--quiet", "--package", "deepsim-lab", "--", "--root"]);
    lab.arg(ws.root());
    lab
}
