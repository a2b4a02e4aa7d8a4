//! Images and what they are measured by.

pub mod judges;
pub mod photos;
pub mod scale;
