//! How far a row's few bits are from it.

/// Half the spacing of f32 numbers relative to them: what one rounding may cost.
pub(super) const ROUNDING: f64 = 1.0 / (1u32 << 24) as f64;

/// One row's numbers, in units of its space.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// s: what codes are multiplied by.
    pub(super) scale: f64,
    /// Length of the centred row.
    pub(super) length: f64,
    /// Length of s·q.
    pub(super) coded: f64,
    /// At least the length of e = x − s·q.
    pub(super) error: f64,
}
