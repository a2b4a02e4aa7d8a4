//! Evidence that a training may be left alone: a long soak that must stay flat, and kill -9 at many
//! moments that must cost nothing, of one process and of several that train together.

mod figure;
mod kills;
mod look;
mod rank_kills;
mod small;
mod soak;

pub use kills::{Args as KillArgs, EXAMPLES as KILL_EXAMPLES, run as kills};
pub use rank_kills::{Args as RankKillArgs, EXAMPLES as RANK_KILL_EXAMPLES, run as rank_kills};
pub use soak::{Args as SoakArgs, EXAMPLES as SOAK_EXAMPLES, run as soak};
