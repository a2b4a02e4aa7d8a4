//! A part of a dataset on disk, format `deepsim-dataset-part`, version 1.
//!
//! ```text
//! OUT/part.json            UTF-8 JSON, the fields of Head
//! OUT/records.jsonl        a line for each of the part's images in the source's order, the fields of Record
//! OUT/shard-00000.bin …    the kept images' bytes one after the other, as in a dataset, of both sides of a split
//! ```
//!
//! A part is what one process of several prepares: a stretch of the source's sorted images ([`Share`]). It says of each
//! image what became of it, with the digest of its pixels, so that [`merge`](fn@crate::merge) finds duplicates across
//! parts and cuts shards as one process does.
//!
//! Every byte is under a checksum: the images' in the records, the records' in the head, the head's in itself (`seal`:
//! blake3 of its compact JSON with an empty seal).

pub(super) mod reader;
pub(super) mod set;
pub(super) mod writer;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fault::PartFault;
use super::plan::Plan;
use super::share::Share;
use crate::error::DataError;
use crate::manifest::{MANIFEST, Part, Shard, hex, shard_name};
use crate::orientation::Orientation;
use crate::shards::Shards;
use crate::source::{Skipped, metadata};
use crate::square::check_size;
use crate::window::SquareWindow;

/// The head's file name.
pub(crate) const PART: &str = "part.json";
/// The file name of the records.
pub(crate) const RECORDS: &str = "records.jsonl";
/// The value of `format`.
const FORMAT: &str = "deepsim-dataset-part";
/// The value of `version`.
const VERSION: u32 = 1;
/// Largest `part.json` that is read, in bytes. It grows with the shards and with what was skipped.
const MAX_HEAD: u64 = 16 << 20;

/// What a part is, and how it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Which part it is.
    pub share: Share,
    /// What was to be prepared: the whole dataset.
    pub plan: Plan,
    /// What else the source held, as a dataset has it beside its manifest.
    pub skipped: Skipped,
    /// Images kept.
    pub images: usize,
    /// Corrupt photos left out.
    pub corrupt: usize,
    /// Photos that carry an EXIF orientation other than upright.
    pub oriented: usize,
    /// The file of the records.
    pub records: Shard,
    /// The files of the images.
    pub shards: Vec<Shard>,
    /// Digest of all this.
    pub seal: String,
}

/// What became of one image of the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Source path.
    pub path: String,
    /// Length of its file.
    pub size: u64,
    /// Its side of a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Part>,
    /// ILSVRC synset, where the source's layout has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub fate: Fate,
}

/// Whether an image is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Fate {
    /// It is in the part's shards.
    Kept {
        /// Digest of the pixels before they were stored.
        #[serde(with = "hex")]
        pixels: blake3::Hash,
        /// Does its file carry an EXIF orientation other than upright?
        oriented: bool,
        /// Index into the head's shards.
        shard: usize,
        /// First byte in the shard.
        offset: u64,
        /// Length in bytes.
        bytes: u64,
        /// Digest of the bytes.
        #[serde(with = "hex")]
        blake3: blake3::Hash,
    },
    /// An earlier image of the part has the same pixels.
    Repeated {
        #[serde(with = "hex")]
        pixels: blake3::Hash,
        oriented: bool,
    },
    /// It is corrupt.
    Corrupt { reason: String },
}

/// What tells a part from other JSON, in every version of the format.
#[derive(Deserialize)]
struct Mark {
    format: String,
    version: u64,
    share: Share,
}

/// Which part of a dataset a directory holds, if it holds one.
pub(crate) fn recognise(root: &Path) -> Option<Share> {
    let mark: Mark = serde_json::from_slice(&content(&root.join(PART)).ok()?).ok()?;
    (mark.format == FORMAT).then_some(mark.share)
}

/// The bytes of a `part.json`.
fn content(file: &Path) -> std::io::Result<Vec<u8>> {
    if std::fs::metadata(file)?.len() > MAX_HEAD {
        return Err(std::io::Error::other("it is too large"));
    }
    deepsim_files::read(file)
}

impl Head {
    /// Reads and checks the head of the part in a directory.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::Unreadable`], [`PartFault::NotAPart`], [`PartFault::Version`],
    /// [`PartFault::Damaged`].
    pub fn read(root: &Path) -> Result<Self, DataError> {
        let not_a_part = |found: String| PartFault::NotAPart {
            path: root.into(),
            found,
        };
        if !metadata(root)?.is_dir() {
            return Err(not_a_part("a file".into()).into());
        }
        let file = root.join(PART);
        if !file.exists() {
            let manifests = [
                root.join(MANIFEST),
                root.join(Part::Train.name()).join(MANIFEST),
            ];
            let found = if manifests.iter().any(|manifest| manifest.exists()) {
                "a whole dataset".into()
            } else {
                format!("it has no {PART}")
            };
            return Err(not_a_part(found).into());
        }
        let json = content(&file).map_err(|source| DataError::Unreadable {
            path: file.clone(),
            source,
        })?;
        // the mark first: another version's fields would otherwise be called unknown
        let mark: Mark = serde_json::from_slice(&json)
            .map_err(|error| not_a_part(format!("its {PART} is none: {error}")))?;
        if mark.format != FORMAT {
            let found = format!("the format of its {PART} is {:?}", mark.format);
            return Err(not_a_part(found).into());
        }
        if mark.version != u64::from(VERSION) {
            return Err(PartFault::Version {
                path: root.into(),
                found: mark.version,
                supported: VERSION,
            }
            .into());
        }
        let damaged = |reason: String| PartFault::Damaged {
            path: file.clone(),
            reason,
        };
        let head: Self =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        // before the seal, which only tells of accidents
        if let Some(reason) = head.contradiction() {
            return Err(damaged(reason).into());
        }
        let digest = head.digest().map_err(|error| damaged(error.to_string()))?;
        if digest != head.seal {
            return Err(damaged("its content does not match its seal".into()).into());
        }
        Ok(head)
    }

    /// What the seal has to be.
    fn digest(&self) -> serde_json::Result<String> {
        let bare = Self {
            seal: String::new(),
            ..self.clone()
        };
        let json = serde_json::to_vec(&bare)?;
        Ok(blake3::hash(&json).to_hex().to_string())
    }

    /// What would lead a reader out of the directory, or to a manifest that no reader takes.
    fn contradiction(&self) -> Option<String> {
        let plan = &self.plan;
        if let Err(error) = check_size(plan.size) {
            return Some(error.to_string());
        }
        if let Some(Err(error)) = plan.window.map(SquareWindow::check) {
            return Some(error.to_string());
        }
        if self.records.file != RECORDS {
            return Some(format!(
                "the file of the records is called {:?}",
                self.records.file
            ));
        }
        let mut shards = self.shards.iter().enumerate();
        shards
            .find(|(index, shard)| shard.file != shard_name(*index))
            .map(|(index, shard)| format!("shard {index} is called {:?}", shard.file))
    }

    /// Compares the lengths of the part's files.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] for a file that is not there, [`DataError::ShardLength`].
    pub fn check_files(&self, root: &Path) -> Result<(), DataError> {
        Shards::open(root, std::slice::from_ref(&self.records))?;
        Shards::open(root, &self.shards)?;
        Ok(())
    }

    /// Images of the source that are its.
    pub fn len(&self) -> usize {
        self.share.range(self.plan.source.images).len()
    }

    /// How many of its images were turned.
    pub fn turned(&self) -> usize {
        match self.plan.orientation {
            Orientation::Apply => self.oriented,
            Orientation::Ignore => 0,
        }
    }

    /// Bytes of its images.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }
}
