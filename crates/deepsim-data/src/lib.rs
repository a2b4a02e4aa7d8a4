//! Images to batches.
//!
//! The way of an image through this crate:
//!
//! ```text
//! folder | .tar | tar of tars ──list──► strict decode ──► square (256 px) ──► shards + manifest   (prepare)
//! the same in parts, by several processes ──► shards + records ──► shards + manifest   (prepare_part, merge)
//! prepared dataset | plain folder ──► crop, mirror, scale ──► u8 [N,3,H,W] RGB, in step order    (Loader)
//! ```
//!
//! * [`Dataset`] is a set of images of one stored size: a directory written by [`prepare()`]
//!   (format: [`manifest`]) or a plain folder whose files are decoded when they are needed.
//! * [`Loader`] and [`training_batch`] give random crops as a pure function of
//!   (seed, epoch, position): see [`sampling`]. [`eval_batch`] gives centre crops.
//! * [`decode_rgb8`] decodes strictly: see [`decode`]. [`square()`] makes a photo square:
//!   see [`square`](mod@square). [`SquareWindow`] is cut out before: see [`window`].
//! * [`Attributes`] says of a dataset's images, by their names, who smiles: see [`attributes`].
//!
//! The crate knows nothing of libtorch; its pixels are RGB, 0–255, `u8`.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

pub mod attributes;
mod batch;
mod dataset;
pub mod decode;
mod error;
mod fault;
mod folder;
mod framing;
mod labelled;
pub mod limits;
pub mod manifest;
pub mod names;
pub mod orientation;
pub mod overlap;
pub mod prepare;
mod shards;
mod source;
pub mod square;
pub mod terminal;
pub mod window;

pub use attributes::Attributes;
pub use batch::loader::{BadImages, Loader};
pub use batch::sampling::{self, spread};
pub use batch::{Augment, Batch, BatchSpec, Mirror, Place, eval_batch, eval_image, training_batch};
pub use dataset::{Dataset, DatasetKind};
pub use decode::decode_rgb8;
pub use error::{DataError, with_causes};
pub use fault::ImageFault;
pub use framing::Framing;
pub use labelled::{ONLY_MEASURED, only_measured};
pub use manifest::{Manifest, Part, Store};
pub use orientation::{Orientation, decode_upright};
pub use overlap::{Overlap, shared_images};
pub use prepare::verify::{self, Broken, verify};
pub use prepare::{
    Event, Flow, Merge, Outcome, PartFault, Prepare, Share, merge, prepare, prepare_part,
};
pub use source::{Layout, Skipped};
pub use square::{Resize, square};
pub use window::SquareWindow;
