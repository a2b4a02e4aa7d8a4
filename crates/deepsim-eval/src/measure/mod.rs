//! Images and what they are measured by.

pub mod metrics;
pub mod photos;
pub mod sample;
pub mod scale;
