//! Trained runs to tables, reconstructions and tensors.

pub mod compare;
pub mod decode;
pub mod door;
pub mod error;
pub mod format;
pub mod invert;
pub mod loaded;
pub mod paper;
pub mod ready;
pub mod table1;
pub mod table2;

pub use error::EvalError;
