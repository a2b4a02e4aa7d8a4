//! The stream that `torch.save` wrote before PyTorch 1.6: five pickles (a magic number, the
//! version, the machine, the state dict, the storages' keys), then each storage as its length
//! and its values.

use std::collections::HashMap;

use super::storage::{Storage, View};
use super::{Result, TorchError, read_pickle};
use crate::pickle::{Node, Pickle, Value};

/// 0x1950a86a20f9469cfc6c, in the order of the file.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// A stream taken apart.
pub(super) struct Parts<'a> {
    /// The state dict.
    pub(super) pickle: Pickle<'a>,
    keys: Vec<&'a str>,
    /// What follows the pickles.
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn split(bytes: &'a [u8]) -> Result<Self> {
        let mut rest = bytes;
        let mut next = |part| {
            let pickle = read_pickle(part, rest)?;
            rest = rest.get(pickle.length()..).unwrap_or_default();
            Ok(pickle)
        };
        // Whatever is no pickle at all, or another program's, is told apart here.
        let magic = next("magic number").map_err(|_| TorchError::NoPth)?;
        if magic.root() != Value::Long(&MAGIC) {
            return Err(TorchError::NoPth);
        }
        let version = next("version")?;
        if version.root() != Value::Int(VERSION) {
            return Err(TorchError::Version);
        }
        let machine = next("machine")?;
        let facts = machine.entries(machine.root()).unwrap_or_default();
        if !facts.contains(&(Value::Str("little_endian"), Value::Bool(true))) {
            return Err(TorchError::BigEndian);
        }
        let pickle = next("state dict")?;
        let list = next("storage keys")?;
        let keys = match list.node(list.root()) {
            Some(Node::List(keys)) => keys
                .iter()
                .map(|key| match key {
                    Value::Str(key) => Some(*key),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        let keys = keys.ok_or(TorchError::Keys)?;
        Ok(Self { pickle, keys, rest })
    }

    /// Finds each storage's bytes; their sizes are known from the tensors alone.
    pub(super) fn storages(
        &self,
        views: &[(&'a str, View<'a>)],
    ) -> Result<HashMap<&'a str, &'a [u8]>> {
        let declared: HashMap<&str, &Storage<'_>> = views
            .iter()
            .map(|(_, view)| (view.storage.key, &view.storage))
            .collect();
        let mut rest = self.rest;
        let mut found = HashMap::new();
        for key in &self.keys {
            let shown = || key.escape_debug().to_string();
            let storage = declared
                .get(key)
                .ok_or_else(|| TorchError::Undeclared { key: shown() })?;
            let cut = || TorchError::Cut {
                key: shown(),
                left: rest.len(),
            };
            let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
            if u64::from_le_bytes(*length) != storage.length as u64 {
                return Err(TorchError::StorageLength {
                    key: shown(),
                    stored: u64::from_le_bytes(*length),
                    declared: storage.length,
                });
            }
            let size = storage.bytes().ok_or_else(cut)?;
            let (bytes, after) = after.split_at_checked(size).ok_or_else(cut)?;
            if found.insert(*key, bytes).is_some() {
                return Err(TorchError::Conflict { key: shown() });
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(TorchError::Trailing { count: rest.len() });
        }
        Ok(found)
    }
}

/// The bytes of a storage among those that were found.
pub(super) fn find<'a>(
    storages: &HashMap<&'a str, &'a [u8]>,
    storage: &Storage<'a>,
) -> Result<&'a [u8]> {
    storages
        .get(storage.key)
        .copied()
        .ok_or_else(|| TorchError::NoStorage {
            key: storage.key.escape_debug().to_string(),
        })
}
