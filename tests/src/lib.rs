//! Helpers of the cross-crate tests, which use the programs as a user does: as processes that
//! see files, arguments and signals.
//!
//! * [`process`]: the programs of this workspace, run and judged.
//! * [`ranks`]: several of them that work together.
//! * [`lab`]: a temporary directory with images and an experiment that trains in a second.
//! * [`faces`]: experiments of VAE/GAN in it.
//! * [`photos`]: the images.
//! * [`browser`]: one to work pages in.
//! * [`files`]: what a run leaves behind, read back without the crates under test.

// Every function here belongs to a test: what fails, fails that test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod browser;
pub mod faces;
pub mod files;
pub mod lab;
pub mod photos;
pub mod process;
pub mod ranks;
