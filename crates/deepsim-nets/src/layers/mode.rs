//! Training or evaluation, for the operations that differ.

/// The mode of a network that computes differently in training and in evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout is active. Batch normalisation uses the statistics of the batch and updates the running
    /// ones. Masks come from libtorch's generator, which the caller seeds.
    Training,
    /// As in training, but the running statistics stay as they are: for a second pass over a batch.
    Aside,
    /// No dropout; batch normalisation uses the running statistics. A pure function.
    Evaluation,
}
