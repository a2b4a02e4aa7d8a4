//! Which runs there are, and how one is opened.

pub mod catalog;
pub mod loaded;
pub mod ready;
pub mod runs;
