//! What can be wrong with an import.

use std::path::PathBuf;

use deepsim_terminal::path as shown;

use crate::kinds::FileError;

/// Why a file was not imported. The output is untouched in every case.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is missing or unreadable.
    #[error("cannot read {}: {source}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any of its kind.
    #[error(
        "{} is larger than {} MiB, which no file of this kind is; check that KIND and FILE match",
        shown(path),
        limit >> 20
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not a usable file of its kind.
    #[error("{}: {reason}", shown(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: FileError,
    },
    /// A tensor's name that cannot be a key of a safetensors file.
    #[error(
        "{}: a tensor is called `{name}`, which no weight is: the file is damaged",
        shown(path)
    )]
    Name {
        /// The file.
        path: PathBuf,
        /// The beginning of the name.
        name: String,
    },
    /// A different file is already at the output.
    #[error(
        "{} exists and holds something else; give another OUT, or --force to replace it",
        shown(path)
    )]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// Input and output are the same file.
    #[error("{} is the file to be imported; give another OUT", shown(path))]
    OntoItself {
        /// The output.
        path: PathBuf,
    },
    /// The tensors do not go into a safetensors file.
    #[error("cannot write {} as safetensors: {reason}", shown(path))]
    Serialize {
        /// The output.
        path: PathBuf,
        /// What the writer said.
        reason: safetensors::SafeTensorError,
    },
    /// The output could not be written.
    #[error("cannot write {}: {source}", shown(path))]
    Write {
        /// The output.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
