//! What can be wrong with a `.pth` file.

use super::storage::Dtype;
use crate::pickle::PickleError;

/// What to do in Python with a file that holds more than a state dict.
const SAVE: &str = "in Python, save the state dict alone: torch.save(model.state_dict(), FILE)";

/// Why a file was not taken for a state dict.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// Neither form of `torch.save`.
    #[error(
        "not a .pth file of torch.save (neither its zip archive nor the older stream); it may be \
         cut short, or another kind of file"
    )]
    NoPth,
    /// A zip archive that is damaged.
    #[error("not a whole zip archive: {reason}")]
    Zip {
        /// What the reader said.
        reason: String,
    },
    /// A zip archive of something else.
    #[error(
        "the zip archive holds {count} state dicts (FOLDER/data.pkl) instead of one: was it \
         written by torch.save?"
    )]
    NoPickle {
        /// How many it has.
        count: usize,
    },
    /// A program and not a state dict.
    #[error("this is a TorchScript module, which is used as it is and not imported; {SAVE}")]
    TorchScript,
    /// An entry of the archive that is missing or damaged.
    #[error("entry `{name}` of the zip archive: {reason}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A pickle that is damaged, or one that holds more than tensors.
    #[error("its {part}: {reason}; if the file holds a whole model, {SAVE}")]
    Pickle {
        /// Which pickle of the file.
        part: &'static str,
        /// What is wrong with it.
        reason: PickleError,
    },
    /// Another version of the older stream.
    #[error("the file is of another version of torch.save; load and save it with PyTorch")]
    Version,
    /// Written by a machine of the other byte order.
    #[error("the file is of a big-endian machine; load and save it with PyTorch on this one")]
    BigEndian,
    /// The list of storages is none.
    #[error("its storage keys are no list of texts: the file is damaged")]
    Keys,
    /// Something else than a dictionary was saved.
    #[error("holds {kind} instead of a state dict; {SAVE}")]
    NoStateDict {
        /// What it is.
        kind: &'static str,
    },
    /// A dictionary by something else than names.
    #[error("the state dict has a key that is {kind} and no name")]
    Key {
        /// What it is.
        kind: &'static str,
    },
    /// A dictionary without tensors.
    #[error("the state dict has no weights in it")]
    Empty,
    /// Two tensors of one name.
    #[error("two tensors are called `{tensor}`")]
    Duplicate {
        /// The name.
        tensor: String,
    },
    /// An entry that is no tensor.
    #[error(
        "`{entry}` is {kind}, not a tensor; a training checkpoint holds its state dict under one of \
         its keys: in Python, save that alone: torch.save(torch.load(FILE)['{entry}'], OUT)"
    )]
    NoTensor {
        /// Its key.
        entry: String,
        /// What it is.
        kind: &'static str,
    },
    /// A tensor whose description is not as PyTorch writes it.
    #[error("`{tensor}` is a tensor without a usable {part}")]
    Malformed {
        /// The tensor.
        tensor: String,
        /// The part.
        part: &'static str,
    },
    /// A tensor whose values mean something else than those that are stored.
    #[error(
        "`{tensor}` carries the mark `{mark}`, which is not known here; in Python, save \
         {{name: t.clone().resolve_conj().resolve_neg() for name, t in state_dict.items()}}"
    )]
    Mark {
        /// The tensor.
        tensor: String,
        /// The mark.
        mark: String,
    },
    /// A value of more bits than ours have.
    #[error("`{tensor}` holds {value:e} at position {index}, which is too large for f32")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Index into its values.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Whole numbers, which are no weights.
    #[error("`{tensor}` is of {dtype}; only floating-point tensors are imported")]
    Integers {
        /// The tensor.
        tensor: String,
        /// Its format.
        dtype: Dtype,
    },
    /// A dimension of 0.
    #[error("`{tensor}` is empty: its shape is {shape:?}")]
    EmptyTensor {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// Dimensions below 0, negative strides, or numbers beyond counting.
    #[error("`{tensor}` has the impossible shape {shape:?} with strides {strides:?} at {offset}")]
    Impossible {
        /// The tensor.
        tensor: String,
        /// Its shape as the file gives it.
        shape: Vec<i64>,
        /// Its strides as the file gives them.
        strides: Vec<i64>,
        /// Its offset as the file gives it.
        offset: i64,
    },
    /// A tensor that reaches beyond its storage.
    #[error("`{tensor}` reaches to value {last} of a storage of {length}")]
    Outside {
        /// The tensor.
        tensor: String,
        /// Index of its last value.
        last: usize,
        /// Values in the storage.
        length: usize,
    },
    /// Tensors that share storages far more than any network does.
    #[error("its tensors have more than {limit} values, and the file not as many bytes")]
    TooMany {
        /// The file's size.
        limit: usize,
    },
    /// One storage described in two ways.
    #[error("storage `{key}` is described in two ways")]
    Conflict {
        /// Its key.
        key: String,
    },
    /// A storage of another size than its tensors say.
    #[error("storage `{key}` of {values} values of {dtype} is an entry of {actual} bytes")]
    StorageSize {
        /// Its key.
        key: String,
        /// How many values it should have.
        values: usize,
        /// Their format.
        dtype: Dtype,
        /// Its size in the file.
        actual: usize,
    },
    /// The same in the older stream.
    #[error("storage `{key}` has {stored} values but its tensors say {declared}")]
    StorageLength {
        /// Its key.
        key: String,
        /// How many it says it has.
        stored: u64,
        /// How many its tensors say.
        declared: usize,
    },
    /// The older stream ends too early.
    #[error("the file ends inside storage `{key}`: {left} bytes are left for it")]
    Cut {
        /// Its key.
        key: String,
        /// Bytes left.
        left: usize,
    },
    /// A storage that no tensor has.
    #[error("storage `{key}` belongs to no tensor, so that its size is unknown")]
    Undeclared {
        /// Its key.
        key: String,
    },
    /// A storage that is not in the file.
    #[error("storage `{key}` is not in the file")]
    NoStorage {
        /// Its key.
        key: String,
    },
    /// Bytes after the last storage.
    #[error("{count} bytes follow the last storage: the file is damaged")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// NaN or infinity among the weights.
    #[error(
        "`{tensor}` holds {value} at position {index} in single precision: the file is damaged, training failed, or a double is too large"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Index into its values.
        index: usize,
        /// The value.
        value: f32,
    },
}
