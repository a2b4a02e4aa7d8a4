//! Reading a part from its first image to its last, verified.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{Fate, Head, RECORDS, Record};
use crate::error::DataError;
use crate::manifest::{Part, Sample};
use crate::prepare::fault::PartFault;
use crate::shards::Shards;

/// Longest line of the records that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The records of a part, one after the other. Of its images one is in memory at a time.
pub(crate) struct Reader<'a> {
    root: &'a Path,
    head: &'a Head,
    shards: Shards,
    lines: BufReader<File>,
    hasher: blake3::Hasher,
    /// Records read so far.
    number: usize,
}

impl<'a> Reader<'a> {
    pub fn open(root: &'a Path, head: &'a Head) -> Result<Self, DataError> {
        let file = root.join(RECORDS);
        let lines = deepsim_files::open(&file).map_err(|source| DataError::Unreadable {
            path: file.clone(),
            source,
        })?;
        Ok(Self {
            root,
            head,
            shards: Shards::open(root, &head.shards)?,
            lines: BufReader::new(lines),
            hasher: blake3::Hasher::new(),
            number: 0,
        })
    }

    /// The next record; `None` behind the last, if all are there as they were written.
    pub fn record(&mut self) -> Result<Option<Record>, DataError> {
        let mut line = Vec::new();
        Read::by_ref(&mut self.lines)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .map_err(|source| DataError::Unreadable {
                path: self.root.join(RECORDS),
                source,
            })?;
        if line.is_empty() {
            return self.check_end().map(|()| None);
        }
        self.hasher.update(&line);
        self.number += 1;
        let record: Record = serde_json::from_slice(&line)
            .map_err(|error| self.damaged(format!("line {}: {error}", self.number)))?;
        match self.contradiction(&record) {
            None => Ok(Some(record)),
            Some(reason) => Err(self.damaged(format!("line {}: {reason}", self.number))),
        }
    }

    /// The bytes of a kept image.
    pub fn image(&self, record: &Record) -> Result<Vec<u8>, DataError> {
        let Fate::Kept {
            shard,
            offset,
            bytes,
            blake3,
            ..
        } = record.fate
        else {
            return Ok(Vec::new());
        };
        self.shards.read(&Sample {
            path: record.path.clone(),
            shard,
            offset,
            bytes,
            blake3,
            label: None,
        })
    }

    /// An error of the records.
    pub fn damaged(&self, reason: String) -> DataError {
        let path = self.root.join(RECORDS);
        PartFault::Damaged { path, reason }.into()
    }

    fn check_end(&self) -> Result<(), DataError> {
        if self.hasher.finalize().to_hex().as_str() != self.head.records.blake3 {
            return Err(self.damaged("its bytes do not match their checksum".into()));
        }
        let (found, images) = (self.number, self.head.len());
        if found != images {
            let reason = format!("it has {found} images where the part has {images}");
            return Err(self.damaged(reason));
        }
        Ok(())
    }

    /// What must not reach the reader of a shard or a manifest.
    fn contradiction(&self, record: &Record) -> Option<String> {
        let plan = &self.head.plan;
        if record.path.is_empty() {
            return Some("it has no path".into());
        }
        let validates = plan.split.is_some_and(|split| split.validation.is_some());
        if record.side.is_some() != plan.split.is_some()
            || (record.side == Some(Part::Val) && !validates)
        {
            return Some("its side does not fit the split".into());
        }
        let Fate::Kept {
            shard,
            offset,
            bytes,
            ..
        } = record.fate
        else {
            return None;
        };
        let Some(file) = self.head.shards.get(shard) else {
            return Some(format!("it is in shard {shard}, which is not listed"));
        };
        if offset.checked_add(bytes).is_none_or(|end| end > file.bytes) {
            return Some(format!("it reaches behind the end of {}", file.file));
        }
        (!plan.store.takes(plan.size, bytes))
            .then(|| format!("it has {bytes} bytes, impossible for {}", plan.store.name()))
    }
}
