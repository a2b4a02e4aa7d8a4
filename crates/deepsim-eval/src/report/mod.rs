//! One self-contained HTML page of everything that trained runs show.
//!
//! [`collect::collect`] computes and gives [`data::Report`], plain values without tensors;
//! [`page::render`] makes the page of them and computes nothing. Images are JPEGs inside the
//! page, which needs no network and no other file.

mod again;
mod closer;
pub mod collect;
mod curves;
pub mod data;
mod embedded;
mod gate;
mod history;
mod names;
mod options;
pub mod page;
mod parts;
mod players;
mod sections;
mod tables;

pub use again::command;
pub use collect::{Progress, collect};
pub use options::Options;
pub use page::render;
