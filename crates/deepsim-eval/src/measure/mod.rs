//! Images and what they are measured by.

pub mod metrics;
pub mod photos;
pub mod scale;
