//! Numbers and tensors from trained runs. Prints nothing.

pub mod attributes;
pub mod compare;
pub mod decode;
pub mod figures;
pub mod forward;
pub mod icnn;
pub mod interpolate;
pub mod invert;
pub mod losses;
pub mod measure;
pub mod mv;
pub mod neighbors;
pub mod paper;
pub mod preimages;
mod recipe;
pub mod reencode;
pub mod runs;
pub mod sample;
pub mod table1;
pub mod table2;
