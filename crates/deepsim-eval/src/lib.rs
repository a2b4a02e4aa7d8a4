//! Trained runs to tables, figures, reconstructions and tensors.
//!
//! Functions named `compute` give numbers and tensors and write nothing; `render` makes text of
//! them, [`show::sheet::Sheet`] images, and only [`show::output`] (with [`analysis::invert`], [`analysis::compare`] and
//! [`analysis::mv::write`]) touches the disk.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

pub mod analysis;
pub mod ask;
pub mod error;
pub mod measure;
pub mod report;
pub mod run;
pub mod search;
pub mod show;

pub use error::EvalError;
