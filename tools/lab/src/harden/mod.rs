//! Searching for what ordinary tests don't meet: inputs that nobody wrote, memory that nobody owns,
//! dependencies that nobody looked at.

mod asan;
mod deny;
mod fuzz;
mod progress;

pub use asan::{EXAMPLES as ASAN_EXAMPLES, run as asan};
pub use deny::{Args as DenyArgs, run as deny};
pub use fuzz::{Args as FuzzArgs, EXAMPLES as FUZZ_EXAMPLES, run as fuzz};

use anyhow::{Context, Result};

use deepsim_tools::child::Child;
use deepsim_tools::workspace::Workspace;

/// The triple that this machine's rustc compiles for: naming it keeps RUSTFLAGS from build scripts and macros.
fn host(ws: &Workspace) -> Result<String> {
    let text = Child::new("rustc", "rustc", ws.root())
        .args(["-vV"])
        .output()?;
    String::from_utf8_lossy(&text)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc -vV names no host")
}
