//! A look at a process from outside.

use serde::Serialize;

/// One look at the process.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Look {
    /// Minutes since the beginning.
    pub minutes: f64,
    /// Step that it was last heard of.
    pub step: f64,
    /// Resident memory, MiB.
    pub resident_mib: f64,
    /// Open file handles.
    pub handles: f64,
    /// Threads.
    pub threads: f64,
    /// Processor time that it has used, seconds.
    pub cpu_s: f64,
    /// Milliseconds a step, over the minute before.
    pub step_ms: Option<f64>,
}
