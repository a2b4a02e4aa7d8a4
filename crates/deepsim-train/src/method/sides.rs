//! The discriminator's two losses.

/// Losses of the discriminator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sides<T> {
    /// On real images.
    pub real: T,
    /// On generated images.
    pub generated: T,
}
