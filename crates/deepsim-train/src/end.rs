//! How a training ends that no error ends.

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done(u64),
    /// A signal asked to stop; a checkpoint of this step was written. Exit code.
    Stopped(u64, u8),
}
