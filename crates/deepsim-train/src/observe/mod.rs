//! What a run writes down and says of its steps.

pub mod metrics_log;
pub mod progress;
pub(crate) mod report;
pub mod tensorboard;
pub mod watch;
