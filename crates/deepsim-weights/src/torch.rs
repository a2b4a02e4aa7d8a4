//! PyTorch's `.pth` files, as far as they hold a state dict: tensors by name.
//!
//! Both forms of `torch.save` are read: the zip archive of PyTorch 1.6 and later, and the stream
//! of pickles and storages before that. The pickles go through [`crate::pickle`], so that nothing
//! in the file is ever called. Tensors may be views of a storage (with offset and strides) and may
//! share one; each becomes an array of its own.
//!
//! Memory stays within a small multiple of the file's size: a tensor's values are only gathered
//! once its storage is known to be in the file and to reach as far as the tensor does, and all
//! tensors together may not have more values than the file has bytes.

mod archive;
mod error;
mod legacy;
mod storage;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::pickle::{self, Node, Object, Pickle, Value};
use crate::tensor::NamedTensor;
pub use error::TorchError;
use storage::{Dtype, Storage, View};

type Result<T> = std::result::Result<T, TorchError>;

/// A state dict that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict {
    /// The floating-point tensors, in the order of the file.
    pub tensors: Vec<NamedTensor>,
    /// Names of the counters of batches that batch normalisation keeps, which are left out.
    pub counters: Vec<String>,
}

/// What a state dict's pickle may name. The classes of storages are added by [`Dtype`].
const GLOBALS: &[&str] = &[
    pickle::ORDERED_DICT,
    REBUILD[0],
    REBUILD[1],
    PARAMETER[0],
    PARAMETER[1],
    "torch.FloatStorage",
    "torch.DoubleStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
];
/// Tensors now, and before PyTorch 0.4.
const REBUILD: [&str; 2] = [
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor",
];
/// Parameters now, and before PyTorch 0.4.
const PARAMETER: [&str; 2] = [
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
];
/// Characters of a mark that an error shows.
const MARK_SHOWN: usize = 40;
/// What batch normalisation calls its counter of batches.
const COUNTER: &str = "num_batches_tracked";

/// Reads a `.pth` file.
///
/// Values of 16 and 64 bits become f32.
///
/// # Errors
/// One [`TorchError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8]) -> Result<StateDict> {
    let limit = bytes.len();
    if bytes.starts_with(b"PK") {
        let mut archive = archive::Archive::open(bytes)?;
        let pickle = read_pickle("data.pkl", archive.pickle()?)?;
        let views = views(&pickle)?;
        gather(&views, limit, |storage| archive.storage(storage))
    } else {
        let parts = legacy::Parts::split(bytes)?;
        let views = views(&parts.pickle)?;
        let storages = parts.storages(&views)?;
        gather(&views, limit, |storage| legacy::find(&storages, storage))
    }
}

fn read_pickle<'a>(part: &'static str, bytes: &'a [u8]) -> Result<Pickle<'a>> {
    Pickle::read(bytes, GLOBALS).map_err(|reason| TorchError::Pickle { part, reason })
}

/// The tensors that a pickle describes, by name.
fn views<'a>(pickle: &Pickle<'a>) -> Result<Vec<(&'a str, View<'a>)>> {
    let root = pickle.root();
    let Some(entries) = pickle.entries(root) else {
        let kind = pickle.kind(root);
        return Err(TorchError::NoStateDict { kind });
    };
    let mut seen = HashSet::new();
    let mut views = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let Value::Str(name) = key else {
            let kind = pickle.kind(key);
            return Err(TorchError::Key { kind });
        };
        if !seen.insert(name) {
            let tensor = name.to_owned();
            return Err(TorchError::Duplicate { tensor });
        }
        views.push((name, view(pickle, name, value)?));
    }
    if views.is_empty() {
        return Err(TorchError::Empty);
    }
    Ok(views)
}

fn view<'a>(pickle: &Pickle<'a>, name: &str, mut value: Value<'a>) -> Result<View<'a>> {
    let malformed = |part| TorchError::Malformed {
        tensor: name.to_owned(),
        part,
    };
    // A parameter is a tensor with a mark. A parameter of a parameter is refused.
    if let Some(parameter) = called(pickle, value, &PARAMETER) {
        value = *pickle.args(parameter).first().ok_or(malformed("tensor"))?;
        // Whether it takes gradients and its hooks. States of other lengths replace the tensor's values.
        let state = parameter.state.map(|state| pickle.tuple(state));
        let harmless = matches!(state, None | Some(Some([_, _, _])));
        if !harmless || !parameter.items.is_empty() {
            return Err(malformed("state"));
        }
    }
    let Some(tensor) = called(pickle, value, &REBUILD) else {
        return Err(TorchError::NoTensor {
            entry: name.to_owned(),
            kind: pickle.kind(value),
        });
    };
    // A state or items that are set on the tensor afterwards would change its values.
    if tensor.state.is_some() || !tensor.items.is_empty() {
        return Err(malformed("state"));
    }
    // Whether it takes gradients, hooks, and marks that change what its values mean.
    let (stored, offset, shape, strides, marks) = match pickle.args(tensor) {
        [stored, offset, shape, strides] | [stored, offset, shape, strides, _, _] => {
            (stored, offset, shape, strides, Value::None)
        }
        [stored, offset, shape, strides, _, _, marks] => (stored, offset, shape, strides, *marks),
        _ => return Err(malformed("description")),
    };
    let negative = negative(pickle, name, marks)?;
    let storage = storage(pickle, *stored).ok_or(malformed("storage"))?;
    let numbers = |value| {
        let parts = pickle.tuple(value)?;
        let number = |value: &Value<'_>| match value {
            Value::Int(n) => Some(*n),
            _ => None,
        };
        parts.iter().map(number).collect::<Option<Vec<i64>>>()
    };
    let Value::Int(offset) = *offset else {
        return Err(malformed("offset"));
    };
    let shape = numbers(*shape).ok_or(malformed("shape"))?;
    let strides = numbers(*strides).ok_or(malformed("strides"))?;
    Ok(View::new(name, storage, offset, &shape, &strides)?.negated(negative))
}

/// Whether a tensor's values are the negatives of the stored ones. PyTorch sets this mark on the imaginary part of a
/// conjugate.
fn negative<'a>(pickle: &Pickle<'a>, name: &str, marks: Value<'a>) -> Result<bool> {
    if marks == Value::None {
        return Ok(false);
    }
    let malformed = || TorchError::Malformed {
        tensor: name.to_owned(),
        part: "metadata",
    };
    let mut negative = false;
    for (key, value) in pickle.entries(marks).ok_or_else(malformed)? {
        match (key, value) {
            (Value::Str("neg"), Value::Bool(marked)) => negative = marked,
            (Value::Str("conj"), Value::Bool(false)) => {}
            (Value::Str(mark), _) => {
                return Err(TorchError::Mark {
                    tensor: name.to_owned(),
                    mark: mark.escape_debug().take(MARK_SHOWN).collect(),
                });
            }
            _ => return Err(malformed()),
        }
    }
    Ok(negative)
}

fn called<'p, 'a>(
    pickle: &'p Pickle<'a>,
    value: Value<'a>,
    names: &[&str],
) -> Option<&'p Object<'a>> {
    names.iter().find_map(|name| pickle.object(value, name))
}

/// `('storage', class, key, device, length)`, and before PyTorch 1.6 a sixth that is `None`.
fn storage<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<Storage<'a>> {
    let Node::Persistent(id) = pickle.node(value)? else {
        return None;
    };
    let id = pickle.tuple(*id)?;
    let (
        [
            Value::Str("storage"),
            Value::Global(class),
            Value::Str(key),
            _,
            Value::Int(length),
        ],
        rest,
    ) = id.split_first_chunk()?
    else {
        return None;
    };
    if !matches!(rest, [] | [Value::None]) {
        return None;
    }
    Some(Storage {
        dtype: Dtype::of_class(class)?,
        key,
        length: usize::try_from(*length).ok()?,
    })
}

/// Reads the values of all tensors; `find` gives the bytes of a storage.
fn gather<'a>(
    views: &[(&'a str, View<'a>)],
    limit: usize,
    mut find: impl FnMut(&Storage<'a>) -> Result<&'a [u8]>,
) -> Result<StateDict> {
    let mut found: HashMap<&str, (&Storage<'a>, &'a [u8])> = HashMap::new();
    let mut dict = StateDict {
        tensors: Vec::new(),
        counters: Vec::new(),
    };
    let mut values = 0usize;
    for (name, view) in views {
        let storage = &view.storage;
        if !storage.dtype.is_float() {
            if name.rsplit('.').next() == Some(COUNTER) {
                dict.counters.push((*name).to_owned());
                continue;
            }
            return Err(TorchError::Integers {
                tensor: (*name).to_owned(),
                dtype: storage.dtype,
            });
        }
        let bytes = match found.get(storage.key) {
            Some((other, _)) if *other != storage => {
                let key = storage.key.to_owned();
                return Err(TorchError::Conflict { key });
            }
            Some((_, bytes)) => bytes,
            None => {
                let bytes = find(storage)?;
                found.insert(storage.key, (storage, bytes));
                bytes
            }
        };
        values = values.saturating_add(view.count());
        if values > limit {
            return Err(TorchError::TooMany { limit });
        }
        dict.tensors.push(NamedTensor {
            name: (*name).to_owned(),
            shape: view.shape().to_vec(),
            data: view.gather(name, bytes)?,
        });
    }
    if dict.tensors.is_empty() {
        return Err(TorchError::Empty);
    }
    Ok(dict)
}
