//! Evidence that a training may be left alone: a long soak that must stay flat, and kill -9 at many
//! moments that must cost nothing.

mod figure;
mod kills;
mod look;
mod small;
mod soak;

use anyhow::Result;
use deepsim_tools::workspace::Workspace;

pub use kills::Args as KillArgs;
pub use soak::Args as SoakArgs;

pub const SOAK_EXAMPLES: &str = soak::EXAMPLES;
pub const KILL_EXAMPLES: &str = kills::EXAMPLES;

pub fn soak(ws: &Workspace, args: &SoakArgs) -> Result<()> {
    soak::run(ws, args)
}

pub fn kills(ws: &Workspace, args: &KillArgs) -> Result<()> {
    kills::run(ws, args)
}
