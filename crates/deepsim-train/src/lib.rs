//! Experiment to trained run: the paper's training loop and what surrounds it.
//!
//! [`run::train`] is the loop, [`iteration::iterate`] one step of it; both read from top to
//! bottom.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

pub mod adversary;
pub mod arithmetic;
pub mod error;
pub mod gate;
pub mod iteration;
pub mod metrics_log;
mod preflight;
pub mod progress;
mod reporting;
mod reports;
pub mod run;
mod save;
pub mod signals;
pub mod state;
pub mod tensorboard;
pub mod vaegan;

pub use error::TrainError;
