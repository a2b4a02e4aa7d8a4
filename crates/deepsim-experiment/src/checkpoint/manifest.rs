//! `manifest.json`: what a checkpoint holds and what it was made with.

use std::collections::BTreeMap;

use deepsim_data::Framing;
use deepsim_nets::{DiscriminatorSpec, GeneratorSpec};
use serde::{Deserialize, Serialize};

use crate::fixed::Fixed;

/// Version of the checkpoint format. Format 1 had no digest of the manifest itself, format 2 no values of the
/// experiment; both stay readable. Fields that later builds add need no other number: they are part of the digest, and
/// are passed over here.
pub const FORMAT: u32 = 3;

/// Size and hash of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Bytes.
    pub bytes: u64,
    /// blake3, hex.
    pub blake3: String,
}

/// `manifest.json`: what a checkpoint holds and what it was made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Iterations done.
    pub step: u64,
    /// Seconds of training so far, over all resumptions.
    pub seconds: f64,
    /// The generator's architecture.
    pub generator: GeneratorSpec,
    /// The discriminator's architecture, where one trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discriminator: Option<DiscriminatorSpec>,
    /// blake3 of the encoder's weights.
    pub encoder_weights: String,
    /// blake3 of the comparator's weights; empty where there is none, or where they have names.
    pub comparator_weights: String,
    /// blake3 of the weights of comparators with names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub comparators: BTreeMap<String, String>,
    /// Digest of the training images.
    pub train_data: String,
    /// Digest of the held-out images.
    pub test_data: String,
    /// blake3 of the weights that networks began with, or that a discriminator's heads stand on, by the key that named them
    /// (`generator.weights`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub initial: BTreeMap<String, String>,
    /// How the held-out images were made square, so that others can be treated alike without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Framing>,
    /// Held-out images that are training images too; none where it could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_overlap: Option<usize>,
    /// Versions that made it.
    pub versions: BTreeMap<String, String>,
    /// The values of the experiment that a resume may not change. Formats 1 and 2 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Fixed>,
    /// The files beside this one.
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
    /// blake3 of this manifest without this line: what is said of the files must be as whole as they.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Manifest {
    /// The sections of the experiment that features come from, each with the blake3 of what it was trained with.
    pub fn sources(&self) -> impl Iterator<Item = (String, &str)> {
        by_section(
            &self.encoder_weights,
            &self.comparator_weights,
            &self.comparators,
        )
    }

    /// The bytes of `manifest.json`, with the digest.
    ///
    /// # Errors
    /// None of ours.
    pub fn sealed(&self) -> std::result::Result<Vec<u8>, serde_json::Error> {
        let bare = Manifest {
            digest: None,
            ..self.clone()
        };
        let digest = blake3::hash(&serde_json::to_vec_pretty(&bare)?);
        serde_json::to_vec_pretty(&Manifest {
            digest: Some(digest.to_hex().to_string()),
            ..bare
        })
    }

    /// From the bytes of `manifest.json`.
    ///
    /// # Errors
    /// What is wrong with them, in words: damage, or a format that this build does not know.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let values = manifest.experiment.as_ref();
        match manifest.format {
            2 | FORMAT if !is_sealed(bytes) || values.is_some_and(|v| !v.is_whole()) => {
                Err("damaged: it is not what its digest says".to_owned())
            }
            1 if manifest.digest.is_some() => Err("damaged: format 1 has no digest".to_owned()),
            1 | 2 | FORMAT => Ok(manifest),
            other => Err(format!("format {other} is not known to this build")),
        }
    }
}

/// The sections that features come from, each with its hash: `encoder`, `comparator` where it has one, and
/// `comparator.NAME` of those with names.
pub(crate) fn by_section<'a>(
    encoder: &'a str,
    comparator: &'a str,
    named: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (String, &'a str)> {
    let single = [("encoder", encoder), ("comparator", comparator)].into_iter();
    let single = single.filter(|(_, hash)| !hash.is_empty());
    let named = named.iter();
    single
        .map(|(table, hash)| (table.to_owned(), hash))
        .chain(named.map(|(name, hash)| (format!("comparator.{name}"), hash.as_str())))
}

/// Whether the bytes of a manifest are those that its digest, the last line, is of: every byte counts, also of fields
/// that this build does not know.
fn is_sealed(bytes: &[u8]) -> bool {
    const BEFORE: &[u8] = b",\n  \"digest\": \"";
    const HEX: usize = 64;
    const AFTER: &[u8] = b"\"\n}";
    let Some((before, rest)) = bytes
        .len()
        .checked_sub(BEFORE.len() + HEX + AFTER.len())
        .and_then(|at| bytes.split_at_checked(at))
    else {
        return false;
    };
    let Some(hex) = rest
        .strip_prefix(BEFORE)
        .and_then(|rest| rest.strip_suffix(AFTER))
    else {
        return false;
    };
    let bare = blake3::Hasher::new()
        .update(before)
        .update(b"\n}")
        .finalize();
    bare.to_hex().as_bytes() == hex
}
