//! A query and a reference that may be its neighbour.

/// A reference that may be a neighbour; distances are squared and in units of the space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// It cannot be nearer than this.
    pub(super) least: f64,
    /// The distance of the codes: no bound, but close.
    pub(super) likely: f32,
    /// Row of the block of references.
    pub(super) row: u32,
}
