//! The zip archive that `torch.save` has written since PyTorch 1.6.
//!
//! Everything lies below one folder: `data.pkl`, and each storage as `data/KEY`, all of them
//! stored as they are. Nothing is unpacked: entries are slices of the file, and their names go
//! nowhere but into a comparison.

use std::io::{self, Cursor};

use zip::{CompressionMethod, ZipArchive};

use super::storage::Storage;
use super::{Result, TorchError};

/// A model has one entry for each tensor.
const MAX_ENTRIES: usize = 1 << 16;

pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    folder: String,
    /// Bytes that the remaining entries may have in total, because entries do not overlap.
    left: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| TorchError::Zip {
            reason: e.to_string(),
        })?;
        if zip.len() > MAX_ENTRIES {
            return Err(TorchError::Zip {
                reason: format!("it has more than {MAX_ENTRIES} entries"),
            });
        }
        let mut folders = Vec::new();
        let mut script = false;
        for name in zip.file_names() {
            if name.ends_with("/constants.pkl") {
                script = true;
            }
            let folder = name
                .strip_suffix("/data.pkl")
                .filter(|folder| !folder.contains('/'));
            folders.extend(folder.map(str::to_owned));
        }
        if script {
            return Err(TorchError::TorchScript);
        }
        match <[String; 1]>::try_from(folders) {
            Ok([folder]) => {
                let mut archive = Self {
                    bytes,
                    zip,
                    folder,
                    left: bytes.len() as u64,
                };
                archive.check_byte_order()?;
                Ok(archive)
            }
            Err(folders) => Err(TorchError::NoPickle {
                count: folders.len(),
            }),
        }
    }

    /// The pickle that says which tensors there are.
    pub(super) fn pickle(&mut self) -> Result<&'a [u8]> {
        self.entry("data.pkl")
    }

    /// The bytes of a storage.
    pub(super) fn storage(&mut self, storage: &Storage<'_>) -> Result<&'a [u8]> {
        let bytes = self.entry(&format!("data/{}", storage.key))?;
        if Some(bytes.len()) != storage.bytes() {
            return Err(TorchError::StorageSize {
                key: storage.key.escape_debug().to_string(),
                values: storage.length,
                dtype: storage.dtype,
                actual: bytes.len(),
            });
        }
        Ok(bytes)
    }

    /// Written since PyTorch 2.1; before that every archive was in the machine's own order.
    fn check_byte_order(&mut self) -> Result<()> {
        let name = format!("{}/byteorder", self.folder);
        if self.zip.index_for_name(&name).is_none() || self.entry("byteorder")? == b"little" {
            return Ok(());
        }
        Err(TorchError::BigEndian)
    }

    fn entry(&mut self, name: &str) -> Result<&'a [u8]> {
        let name = format!("{}/{name}", self.folder);
        let broken = |reason: String| TorchError::Entry {
            name: name.escape_debug().to_string(),
            reason,
        };
        let mut entry = self.zip.by_name(&name).map_err(|e| broken(e.to_string()))?;
        let size = entry.size();
        if entry.compression() != CompressionMethod::Stored || entry.compressed_size() != size {
            return Err(broken(
                "it is compressed, which torch.save never does".to_owned(),
            ));
        }
        // A forged directory may declare that every entry is the whole file.
        let start = entry.data_start();
        let range = start.and_then(|start| {
            let start = usize::try_from(start).ok()?;
            Some(start..start.checked_add(usize::try_from(size).ok()?)?)
        });
        let bytes = range.and_then(|range| self.bytes.get(range));
        let bytes = bytes.ok_or_else(|| broken("it lies outside the file".to_owned()))?;
        // Ten thousand entries that are all the same large part of the file would be read for hours.
        self.left = self
            .left
            .checked_sub(size)
            .ok_or_else(|| broken("entries lie on top of each other".to_owned()))?;
        // Reading it through compares it with its checksum.
        let read = io::copy(&mut entry, &mut io::sink()).map_err(|e| broken(e.to_string()))?;
        if read != size {
            return Err(broken(format!("it has {read} bytes instead of {size}")));
        }
        Ok(bytes)
    }
}
