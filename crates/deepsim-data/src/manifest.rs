//! The prepared dataset on disk, format `deepsim-dataset`, version 1.
//!
//! ```text
//! OUT/manifest.json        UTF-8 JSON, the fields of Manifest; one sample a line
//! OUT/shard-00000.bin …    the samples' bytes one after the other, no header, no padding
//! OUT/skipped.json         what else the source held and was not taken; only if there was anything
//! ```
//!
//! A sample is an image of `size`×`size` pixels: with store `raw` its 3·size·size bytes (rows
//! of RGB pixels), with store `jpeg` a JPEG of quality 95 without chroma subsampling. Samples
//! are sorted by source path. blake3 digests are lower-case hex. `path` is relative to the
//! source and separated by `/`; `label`, where there is one, is the ILSVRC synset. Images
//! whose stored pixels are identical are stored once (`duplicates` says which);
//! `quarantined` lists corrupt photos that were left out. `window`, where there is one, was cut
//! out of every photo before it was scaled ([`crate::window`]). `orientation` is there where images
//! were turned by their EXIF orientation ([`crate::orientation`]), and `turned` says how many. A dataset split with `--holdout`
//! is two such directories, OUT/train and OUT/test, each with its `holdout` entry; with `--validation` there is also OUT/val.
//!
//! A manifest holds no time, no machine and no absolute path: the same source and settings
//! give the same bytes, and the blake3 of the manifest's bytes identifies the dataset.
//!
//! Reading is strict: unknown fields, shard names other than `shard-NNNNN.bin`, samples that
//! reach outside their shard and wrong counts are errors.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::orientation::Orientation;
use crate::source::Layout;
use crate::square::{MAX_SIZE, Resize};
use crate::window::SquareWindow;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The file that says what else the source held ([`Skipped`](crate::Skipped)). It is no part of what identifies the
/// dataset.
pub const SKIPPED: &str = "skipped.json";
/// The value of `format`.
pub const FORMAT: &str = "deepsim-dataset";
/// The value of `version`.
pub const VERSION: u32 = 1;

/// How samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// JPEG, quality 95, no chroma subsampling: small, slightly lossy.
    Jpeg,
    /// The pixels themselves: 3·size² bytes, fastest to read.
    Raw,
}

impl Store {
    /// The name on the command line and in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Raw => "raw",
        }
    }

    /// Can an image of this side take so many bytes?
    pub(crate) fn takes(self, size: u32, bytes: u64) -> bool {
        let raw = 3 * u64::from(size) * u64::from(size);
        match self {
            Self::Raw => bytes == raw,
            // a JPEG much larger than its pixels is none
            Self::Jpeg => (1..=2 * raw + 65_536).contains(&bytes),
        }
    }
}

/// One side of a split dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The images to train on.
    Train,
    /// The images by which settings are chosen.
    Val,
    /// The held-out images.
    Test,
}

impl Part {
    /// Every side that a split can have; [`Part::Val`] only with a share of its own.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The directory's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// What a dataset was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceInfo {
    /// Last component of the source's path.
    pub name: String,
    /// What the source was recognised as.
    pub layout: Layout,
    /// Images in the source (all parts of a split together).
    pub images: usize,
    /// blake3 over the source's sorted (path, size in bytes) pairs.
    pub listing: String,
}

/// The split that a part belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// Share of the images that went to `test`.
    pub fraction: f64,
    /// Share of the images that went to `val`, where there is one: names alone decided then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Seed of the choice.
    pub seed: u64,
    /// Which part this is.
    pub part: Part,
}

/// One shard file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// File name, `shard-NNNNN.bin`.
    pub file: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the file.
    pub blake3: String,
}

/// One stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Source path.
    pub path: String,
    /// Index into `shards`.
    pub shard: usize,
    /// First byte in the shard.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the bytes.
    #[serde(with = "hex")]
    pub blake3: blake3::Hash,
    /// ILSVRC synset, where the source's layout has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A photo left out because it is corrupt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    /// Source path.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A photo left out because its stored pixels equal another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicate {
    /// Source path.
    pub path: String,
    /// Source path of the one that is stored (for a split: perhaps in the other part).
    pub of: String,
}

/// The whole manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Side of the stored images, in pixels.
    pub size: u32,
    /// How photos became square.
    pub resize: Resize,
    /// The window that was cut out of every photo before, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<SquareWindow>,
    /// [`Orientation::Apply`] if images were turned by their EXIF orientation. A manifest without it says that none
    /// was: there was none to turn, or the orientation was ignored, as all versions did that did not write this.
    #[serde(default, skip_serializing_if = "Orientation::is_ignore")]
    pub orientation: Orientation,
    /// How many images of the source were turned (all parts of a split together).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turned: usize,
    /// How samples are stored.
    pub store: Store,
    /// What the dataset was made from.
    pub source: SourceInfo,
    /// The split, if this is a part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
    /// Number of samples.
    pub count: usize,
    /// Corrupt photos left out.
    pub quarantined: Vec<Quarantined>,
    /// Duplicates left out.
    pub duplicates: Vec<Duplicate>,
    /// The shard files.
    pub shards: Vec<Shard>,
    /// The stored images.
    pub samples: Vec<Sample>,
}

impl Manifest {
    /// Reads and checks a manifest's bytes; `path` is for messages.
    ///
    /// # Errors
    /// [`DataError::ManifestSyntax`], [`DataError::ManifestVersion`],
    /// [`DataError::ManifestContent`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, DataError> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u64,
        }
        let syntax = |reason: String| DataError::ManifestSyntax {
            path: path.into(),
            reason,
        };
        // the head first: another version's fields would otherwise be called unknown
        let head: Head =
            serde_json::from_slice(bytes).map_err(|error| syntax(error.to_string()))?;
        if head.format != FORMAT {
            return Err(syntax(format!("its format is {:?}", head.format)));
        }
        if head.version != u64::from(VERSION) {
            let path = path.into();
            return Err(DataError::ManifestVersion {
                path,
                found: head.version,
                supported: VERSION,
            });
        }
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| syntax(error.to_string()))?;
        let wrong = manifest.contradiction();
        match wrong {
            None => Ok(manifest),
            Some(reason) => Err(DataError::ManifestContent {
                path: path.into(),
                reason,
            }),
        }
    }

    fn contradiction(&self) -> Option<String> {
        if !(1..=MAX_SIZE).contains(&self.size) {
            return Some(format!("size {} is outside 1..={MAX_SIZE}", self.size));
        }
        if let Some(window) = self.window.filter(|window| window.check().is_err()) {
            return Some(format!("no image has the window {window}"));
        }
        if self.count != self.samples.len() {
            return Some(format!(
                "count {} but {} samples",
                self.count,
                self.samples.len()
            ));
        }
        if self.samples.is_empty() {
            return Some("it has no samples".into());
        }
        // Features and attributes belong to names.
        let mut names = HashSet::with_capacity(self.samples.len());
        for (index, sample) in self.samples.iter().enumerate() {
            if sample.path.is_empty() {
                return Some(format!("sample {index} has no path"));
            }
            if !names.insert(sample.path.as_str()) {
                return Some(format!("two samples are called {:?}", sample.path));
            }
        }
        for (index, shard) in self.shards.iter().enumerate() {
            if shard.file != shard_name(index) {
                return Some(format!(
                    "shard {index} is called {:?} instead of {:?}",
                    shard.file,
                    shard_name(index)
                ));
            }
            if blake3::Hash::from_hex(&shard.blake3).is_err() {
                return Some(format!("shard {index} has no blake3 digest"));
            }
        }
        self.samples.iter().enumerate().find_map(|(index, sample)| {
            let Some(shard) = self.shards.get(sample.shard) else {
                return Some(format!(
                    "sample {index} is in shard {}, which is not listed",
                    sample.shard
                ));
            };
            if sample
                .offset
                .checked_add(sample.bytes)
                .is_none_or(|end| end > shard.bytes)
            {
                return Some(format!(
                    "sample {index} reaches behind the end of {}",
                    shard.file
                ));
            }
            (!self.store.takes(self.size, sample.bytes)).then(|| {
                format!(
                    "sample {index} has {} bytes, impossible for {}",
                    sample.bytes,
                    self.store.name()
                )
            })
        })
    }

    /// The manifest's file content: one field, and one sample, a line.
    ///
    /// # Errors
    /// [`DataError::ManifestSyntax`] if a field cannot be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, DataError> {
        fn json<T: Serialize>(value: &T) -> Result<String, DataError> {
            serde_json::to_string(value).map_err(|error| DataError::ManifestSyntax {
                path: MANIFEST.into(),
                reason: error.to_string(),
            })
        }
        fn list<T: Serialize>(items: &[T]) -> Result<String, DataError> {
            let lines: Vec<String> = items.iter().map(json).collect::<Result<_, _>>()?;
            Ok(if lines.is_empty() {
                "[]".into()
            } else {
                format!("[\n{}\n]", lines.join(",\n"))
            })
        }
        let mut fields = vec![
            ("format", json(&self.format)?),
            ("version", json(&self.version)?),
            ("size", json(&self.size)?),
            ("resize", json(&self.resize)?),
        ];
        if let Some(window) = &self.window {
            fields.push(("window", json(window)?));
        }
        if self.orientation != Orientation::Ignore {
            fields.push(("orientation", json(&self.orientation)?));
            fields.push(("turned", json(&self.turned)?));
        }
        fields.extend([
            ("store", json(&self.store)?),
            ("source", json(&self.source)?),
        ]);
        if let Some(holdout) = &self.holdout {
            fields.push(("holdout", json(holdout)?));
        }
        fields.extend([
            ("count", json(&self.count)?),
            ("quarantined", list(&self.quarantined)?),
            ("duplicates", list(&self.duplicates)?),
            ("shards", list(&self.shards)?),
            ("samples", list(&self.samples)?),
        ]);
        let lines: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\": {value}"))
            .collect();
        Ok(format!("{{\n{}\n}}\n", lines.join(",\n")).into_bytes())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The name of a shard: plain, so that no manifest can point out of its directory.
#[must_use]
pub fn shard_name(index: usize) -> String {
    format!("shard-{index:05}.bin")
}

pub(crate) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(hash: &blake3::Hash, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hash.to_hex())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<blake3::Hash, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        blake3::Hash::from_hex(text.as_bytes()).map_err(D::Error::custom)
    }
}
