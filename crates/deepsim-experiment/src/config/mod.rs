//! The experiment file: one section a file. Each checks itself; `agreement` checks what sections ask of each other.

pub(crate) mod agreement;
pub mod check;
mod comparators;
mod data;
mod discriminator;
mod diversity;
mod file;
mod gate;
mod generator;
mod loss;
mod network;
mod optimizer;
pub(crate) mod read;
pub mod schema;
mod train;
mod vaegan;

pub use comparators::{Comparator, Comparators};
pub use data::Data;
pub use discriminator::{Discriminator, DiscriminatorKind};
pub use diversity::Diversity;
pub use file::Config;
pub use gate::Gate;
pub use generator::Generator;
pub use loss::{Loss, Pixels};
pub(crate) use network::KEYS;
pub use network::{Network, Normalize, OutputTap, SourceKind, SourceTap, Units};
pub use optimizer::{Optimizers, Schedule};
pub use train::{DiscriminatorPasses, OnNotFinite, Precision, Reduce, Tf32, Train};
pub use vaegan::VaeGan;
