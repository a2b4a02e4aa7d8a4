//! What the workspace's own tools share: running programs, writing files whole, naming what went wrong.
//!
//! Depends on no torch crate: it must build before libtorch is there.

pub mod args;
pub mod child;
pub mod failure;
pub mod files;
pub mod held_out;
pub mod landing;
pub mod lock;
pub mod machine;
pub mod programs;
pub mod python;
pub mod requirements;
pub mod stages;
pub mod testing;
pub mod training;
pub mod workspace;
