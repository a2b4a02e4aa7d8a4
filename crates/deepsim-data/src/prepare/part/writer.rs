//! A part of a dataset in the making.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{FORMAT, Fate, Head, PART, RECORDS, Record, VERSION};
use crate::error::DataError;
use crate::manifest::{Part, Shard};
use crate::prepare::event::Outcome;
use crate::prepare::plan::Plan;
use crate::prepare::share::Share;
use crate::prepare::stage::{sync_directory, write_file};
use crate::prepare::work::{Image, Ready, Sink};
use crate::shards::ShardWriter;
use crate::source::Skipped;

/// Writes the images of a part, and what became of each.
pub(crate) struct PartWriter<'a> {
    directory: PathBuf,
    share: Share,
    plan: &'a Plan,
    shards: ShardWriter,
    records: Records,
    /// The path of the image with these pixels.
    kept: HashMap<blake3::Hash, String>,
    images: usize,
    val: usize,
    test: usize,
    duplicates: usize,
    corrupt: usize,
    oriented: usize,
}

impl<'a> PartWriter<'a> {
    pub fn create(share: Share, plan: &'a Plan, stage: &Path) -> Result<Self, DataError> {
        Ok(Self {
            directory: stage.into(),
            share,
            plan,
            shards: ShardWriter::new(stage),
            records: Records::create(stage.join(RECORDS))?,
            kept: HashMap::new(),
            images: 0,
            val: 0,
            test: 0,
            duplicates: 0,
            corrupt: 0,
            oriented: 0,
        })
    }

    fn record(&mut self, image: &Image<'_>, fate: Fate) -> Result<(), DataError> {
        self.records.push(&Record {
            path: image.path.to_owned(),
            size: image.size,
            side: image.side,
            label: image.label.clone(),
            fate,
        })
    }

    /// Ends the part and brings it to the disk.
    pub fn finish(self, skipped: &Skipped) -> Result<Outcome, DataError> {
        let mut head = Head {
            format: FORMAT.into(),
            version: VERSION,
            share: self.share,
            plan: self.plan.clone(),
            skipped: skipped.clone(),
            images: self.images,
            corrupt: self.corrupt,
            oriented: self.oriented,
            records: self.records.finish()?,
            shards: self.shards.finish()?,
            seal: String::new(),
        };
        let file = self.directory.join(PART);
        let failed = |error: serde_json::Error| DataError::unwritable(&file)(error.into());
        head.seal = head.digest().map_err(failed)?;
        let json = serde_json::to_vec_pretty(&head).map_err(failed)?;
        write_file(&self.directory, PART, &json)?;
        sync_directory(&self.directory)?;
        Ok(Outcome::Written {
            images: self.images,
            val: self.val,
            test: self.test,
            bytes: head.bytes(),
            duplicates: self.duplicates,
            quarantined: self.corrupt,
            oriented: self.oriented,
        })
    }
}

impl Sink for PartWriter<'_> {
    fn take(&mut self, image: &Image<'_>, ready: &Ready) -> Result<Option<String>, DataError> {
        self.oriented += usize::from(ready.oriented);
        let (pixels, oriented) = (ready.pixels, ready.oriented);
        if let Some(of) = self.kept.get(&pixels).cloned() {
            self.duplicates += 1;
            self.record(image, Fate::Repeated { pixels, oriented })?;
            return Ok(Some(of));
        }
        let (shard, offset) = self.shards.push(&ready.stored)?;
        self.kept.insert(pixels, image.path.to_owned());
        self.images += 1;
        self.val += usize::from(image.side == Some(Part::Val));
        self.test += usize::from(image.side == Some(Part::Test));
        let fate = Fate::Kept {
            pixels,
            oriented,
            shard,
            offset,
            bytes: ready.stored.len() as u64,
            blake3: ready.checksum,
        };
        self.record(image, fate)?;
        Ok(None)
    }

    fn leave_out(&mut self, image: &Image<'_>, reason: String) -> Result<(), DataError> {
        self.corrupt += 1;
        self.record(image, Fate::Corrupt { reason })
    }
}

/// The file of records in the making.
struct Records {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Records {
    fn create(path: PathBuf) -> Result<Self, DataError> {
        let file = File::create_new(&path).map_err(DataError::unwritable(&path))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    fn push(&mut self, record: &Record) -> Result<(), DataError> {
        let mut line = serde_json::to_vec(record)
            .map_err(|error| DataError::unwritable(&self.path)(error.into()))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(DataError::unwritable(&self.path))?;
        self.hasher.update(&line);
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn finish(self) -> Result<Shard, DataError> {
        let Self {
            path,
            file,
            hasher,
            bytes,
        } = self;
        let file = file
            .into_inner()
            .map_err(|error| DataError::unwritable(&path)(error.into_error()))?;
        file.sync_all().map_err(DataError::unwritable(&path))?;
        Ok(Shard {
            file: RECORDS.into(),
            bytes,
            blake3: hasher.finalize().to_hex().to_string(),
        })
    }
}
