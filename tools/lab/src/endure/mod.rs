//! Evidence that a training may be left alone: a long soak that must stay flat, and kill -9 at many
//! moments that must cost nothing.

mod figure;
mod kills;
mod look;
mod small;
mod soak;

pub use kills::{Args as KillArgs, EXAMPLES as KILL_EXAMPLES, run as kills};
pub use soak::{Args as SoakArgs, EXAMPLES as SOAK_EXAMPLES, run as soak};
