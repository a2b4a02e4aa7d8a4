//! Experiment to trained run: the paper's training loop and what surrounds it.
//!
//! [`train::train`] is the loop, [`method::iterate`] one step of it; both read from top to
//! bottom.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

mod at_work;
mod averages;
mod batches;
mod end;
pub mod error;
mod follow;
pub mod method;
pub mod observe;
mod placing;
pub mod precision;
mod preflight;
pub mod ranks;
mod reducer;
mod reports;
mod request;
mod save;
pub mod schedule;
pub mod signals;
pub mod state;
pub mod train;

pub use error::TrainError;
pub use request::Request;
