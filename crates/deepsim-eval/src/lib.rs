//! Trained runs to tables, figures, reconstructions and tensors.
//!
//! Functions named `compute` give numbers and tensors and write nothing; `render` makes text of
//! them, [`sheet::Sheet`] pictures, and only [`output`] (with [`invert`], [`compare`] and
//! [`mv::write`]) touches the disk.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

pub mod apng;
pub mod ask;
pub mod attributes;
pub mod catalog;
pub mod compare;
pub mod decode;
pub mod door;
pub mod error;
pub mod figures;
pub mod format;
pub mod interpolate;
pub mod invert;
pub mod judges;
pub mod label;
pub mod loaded;
pub mod losses;
pub mod mv;
pub mod neighbors;
pub mod neighbors_table;
pub mod output;
pub mod paper;
pub mod photos;
pub mod preimages;
pub mod prior;
pub mod ready;
pub mod reencode;
pub mod report;
pub mod runs;
pub mod scale;
pub mod sheet;
pub mod table1;
pub mod table2;
pub mod table2_text;

pub use error::EvalError;
