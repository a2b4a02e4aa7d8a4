//! Weights of other programs in the form that DeepSim reads, and digests that tell whether a file is still what was written.
//!
//! Knows no network and no libtorch: plain bytes in, a safetensors file out. Whether the tensors fit a network is decided when
//! the network is loaded.
//!
//! | feature | what it adds |
//! |---|---|
//! | none | [`digests`] |
//! | `import` | readers of caffemodels, PyTorch's state dicts, flax's pickles, `.npy` and `.mat` |
//! | `cli` (default) | the program `deepsim-weights`, and `import` with it |

pub mod digests;

#[cfg(feature = "import")]
mod arrays;
#[cfg(feature = "import")]
mod error;
#[cfg(feature = "import")]
mod import;
#[cfg(feature = "import")]
pub mod kinds;
#[cfg(feature = "import")]
pub mod mat;
#[cfg(feature = "import")]
pub mod npy;
#[cfg(feature = "import")]
pub mod numpy;
#[cfg(feature = "import")]
mod output;
#[cfg(feature = "import")]
pub mod pickle;
#[cfg(feature = "import")]
mod tensor;
#[cfg(all(test, feature = "import"))]
mod tests;
#[cfg(feature = "import")]
pub mod torch;

#[cfg(feature = "import")]
pub use arrays::ArraysError;
#[cfg(feature = "import")]
pub use error::ImportError;
#[cfg(feature = "import")]
pub use import::{Imported, import_file, import_lpips_heads, read_mat, read_npy};
#[cfg(feature = "import")]
pub use kinds::{FileError, ImportKind};
#[cfg(feature = "import")]
pub use mat::MatError;
#[cfg(feature = "import")]
pub use npy::NpyError;
#[cfg(feature = "import")]
pub use output::{Existing, Outcome};
#[cfg(feature = "import")]
pub use tensor::NamedTensor;
