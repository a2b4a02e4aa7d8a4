//! Weights that generator and discriminator begin with, where the experiment names some: `generator.weights` and
//! `discriminator.weights`.

use std::path::Path;

use deepsim_data::terminal::path as shown;
use deepsim_nets::params::{NamedTensors, read_safetensors};

use crate::checkpoint::{Checkpoint, ModelWeights};
use crate::contents::CHECKPOINTS;
use crate::error::{ExperimentError, Result};
use crate::experiment::Experiment;
use crate::hash::hash_file;

/// Weights to begin with.
#[derive(Debug)]
pub struct Initial {
    /// The key that names them.
    pub key: &'static str,
    /// They, by name.
    pub values: NamedTensors,
    /// Where they are from, for messages.
    pub origin: String,
    /// blake3 of their file.
    pub hash: String,
}

impl Experiment {
    /// The weights that the generator begins with, where the experiment names some. Whether they are this generator's is
    /// told where they are put into it.
    ///
    /// # Errors
    /// A path at which there is neither a safetensors file nor a run or checkpoint; damaged files; a generator with another
    /// trunk.
    pub fn initial_generator(&self) -> Result<Option<Initial>> {
        let Some(path) = &self.config.generator.weights else {
            return Ok(None);
        };
        let source = self.weights_at("generator.weights", path)?;
        if let Found::Checkpoint(checkpoint) = &source {
            let (theirs, ours) = (checkpoint.manifest.generator.trunk, self.generator.trunk);
            // Their shapes may be the same.
            if theirs != ours {
                let reason = format!(
                    "is {}, whose generator has the trunk {theirs:?}, and this one {ours:?}",
                    shown(path)
                );
                return Err(self.refused("generator.weights", reason));
            }
        }
        source.read("generator.weights", "generator").map(Some)
    }

    /// The same for the discriminator.
    ///
    /// # Errors
    /// As [`Experiment::initial_generator`], and a checkpoint without a discriminator.
    pub fn initial_discriminator(&self) -> Result<Option<Initial>> {
        let discriminator = self.config.discriminator.as_ref();
        let Some(path) = discriminator.and_then(|d| d.weights.as_ref()) else {
            return Ok(None);
        };
        let source = self.weights_at("discriminator.weights", path)?;
        if let Found::Checkpoint(checkpoint) = &source
            && checkpoint.manifest.discriminator.is_none()
        {
            return Err(ExperimentError::NoDiscriminator {
                path: checkpoint.path.clone(),
            });
        }
        let read = source.read("discriminator.weights", "discriminator");
        read.map(Some)
    }

    fn refused(&self, key: &str, reason: String) -> ExperimentError {
        ExperimentError::Invalid {
            path: self.path.clone(),
            key: key.to_owned(),
            reason,
        }
    }

    fn weights_at<'a>(&self, key: &str, path: &'a Path) -> Result<Found<'a>> {
        if path.join("manifest.json").is_file() {
            return Ok(Found::Checkpoint(Box::new(Checkpoint::open(path)?)));
        }
        if path.is_dir() {
            let newest = Checkpoint::newest(&path.join(CHECKPOINTS))?;
            let newest = newest.ok_or_else(|| ExperimentError::NoCheckpoint {
                path: path.to_owned(),
            })?;
            return Ok(Found::Checkpoint(Box::new(newest)));
        }
        if path.exists() {
            return Ok(Found::File(path));
        }
        let reason = format!(
            "is {}, and nothing is there: name a safetensors file, or the directory of a run or checkpoint",
            shown(path)
        );
        Err(self.refused(key, reason))
    }
}

/// What is at a path that an experiment names.
enum Found<'a> {
    File(&'a Path),
    Checkpoint(Box<Checkpoint>),
}

impl Found<'_> {
    fn read(&self, key: &'static str, network: &'static str) -> Result<Initial> {
        match self {
            Found::File(path) => Ok(Initial {
                key,
                values: read_safetensors(path)?,
                origin: shown(path),
                hash: hash_file(path)?,
            }),
            Found::Checkpoint(checkpoint) => {
                let stem = checkpoint.stem(network, ModelWeights::Averaged);
                let file = format!("{stem}.safetensors");
                let entry = checkpoint.manifest.files.get(&file);
                Ok(Initial {
                    key,
                    values: checkpoint.tensors(stem)?,
                    origin: shown(checkpoint.path.join(&file)),
                    hash: entry.map_or_else(String::new, |entry| entry.blake3.clone()),
                })
            }
        }
    }
}
