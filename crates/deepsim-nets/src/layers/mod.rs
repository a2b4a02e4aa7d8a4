//! What networks are made of: operations and their tables' language, and how each is computed.

pub mod batch_norm;
pub mod blocks;
pub(crate) mod convolution;
pub mod decoder;
mod decoder_init;
pub(crate) mod folded;
pub(crate) mod geometry;
pub mod init;
pub(crate) mod layer;
pub(crate) mod linear;
pub mod lrn;
pub mod mode;
pub(crate) mod norm;
pub mod op;
pub(crate) mod pools;
pub mod shape;
pub(crate) mod spectral;
pub mod tap;
mod thin;
pub(crate) mod trained;
pub(crate) mod transformer;
pub mod vit;
