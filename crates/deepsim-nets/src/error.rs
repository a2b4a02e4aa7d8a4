//! What can be wrong with networks and their weights.

use std::path::{Path, PathBuf};

use deepsim_terminal::path as shown;
use deepsim_weights::digests::DigestError;

/// A broken invariant of a network, its input, or its weights.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
    /// The shim refused an operation.
    #[error(transparent)]
    Aten(#[from] deepsim_aten::AtenError),
    /// A tap that the network does not have.
    #[error("{net} has no tap `{tap}`; it has {}", .known.join(", "))]
    NoSuchTap {
        /// The network.
        net: String,
        /// What was asked for.
        tap: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// An image too small for a layer.
    #[error(
        "images of {height}x{width} are too small for {what}: nothing is left at layer `{layer}`; \
         use a larger crop or an earlier tap"
    )]
    TooSmall {
        /// The network, for people.
        what: String,
        /// Image height in pixels.
        height: i64,
        /// Image width in pixels.
        width: i64,
        /// The layer where nothing is left.
        layer: String,
    },
    /// An image that does not consist of whole patches.
    #[error(
        "{net} takes images whose height and width are multiples of {patch}, not {height}x{width}; \
         {below} and {} are", below + patch
    )]
    Patches {
        /// The network.
        net: String,
        /// Side of a patch.
        patch: i64,
        /// Image height in pixels.
        height: i64,
        /// Image width in pixels.
        width: i64,
        /// A size that would do.
        below: i64,
    },
    /// A fully connected layer got a map of another size than it was made for.
    #[error(
        "{net}'s `{layer}` takes a 6x6 map but images of {height}x{width} give {got_h}x{got_w}; \
         use crop 227 or a tap up to pool5"
    )]
    FcSize {
        /// The network.
        net: String,
        /// The layer.
        layer: &'static str,
        /// Image height in pixels.
        height: i64,
        /// Image width in pixels.
        width: i64,
        /// Map height.
        got_h: i64,
        /// Map width.
        got_w: i64,
    },
    /// A tensor of the wrong shape at a network's input.
    #[error("{what} takes {expected}, got a tensor of shape {got:?}")]
    InputShape {
        /// The network or loss.
        what: String,
        /// What it takes.
        expected: String,
        /// What it got.
        got: Vec<i64>,
    },
    /// A specification that no network can be built from.
    #[error("{0}")]
    Spec(String),
    /// Errors are relative to the distance between samples, and there is none.
    #[error("the held-out samples are all the same: there is no distance to normalise by")]
    AllAlike,
    /// A weights file that is missing or unreadable.
    #[error("weights file {}: {source}{}", shown(path), from_where(path, source))]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A weights file that is not what was imported.
    #[error(transparent)]
    ChangedWeights(#[from] DigestError),
    /// A file that is not safetensors, or is damaged.
    #[error(
        "weights file {} is not a whole safetensors file: {reason}",
        shown(path)
    )]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// Weights that are not those of the network; every mismatch is listed.
    #[error("{origin} does not hold the weights of {what}:\n  {}", mismatches.join("\n  "))]
    Mismatch {
        /// File or source of the weights.
        origin: String,
        /// The network.
        what: String,
        /// One line for each missing, unknown or misshapen tensor.
        mismatches: Vec<String>,
    },
}

impl From<tch::TchError> for NetError {
    fn from(e: tch::TchError) -> NetError {
        // libtorch appends its C++ backtrace; the first line is the message.
        let text = e.to_string();
        NetError::Torch(text.lines().next().unwrap_or("unknown error").to_owned())
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, NetError>;

/// The folder in which a missing file was searched for.
fn from_where(path: &Path, source: &std::io::Error) -> String {
    match std::env::current_dir() {
        Ok(cwd) if path.is_relative() && source.kind() == std::io::ErrorKind::NotFound => format!(
            " (relative to {}; the paths of this project's experiments begin at its root)",
            shown(&cwd)
        ),
        _ => String::new(),
    }
}
