//! The discriminator as comparator: the one that trains along, or a frozen one of an earlier run.

use std::fmt;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_nets::discriminator::DiscriminatorTap;
use deepsim_nets::{Discriminator, DiscriminatorSpec, Mode, NetError};
use tch::{Device, Tensor};

use super::kind::{FeatureSource, Features, Given, KindInfo};
use crate::checkpoint::Checkpoint;
use crate::config::SourceTap;
use crate::config::check::{Checked, Complaint, complain};
use crate::consent::Allowed;
use crate::error::{ExperimentError, Result};

pub(super) const INFO: KindInfo = KindInfo {
    encoder: Err(
        "cannot be the discriminator: it changes with every step, and the features to invert would \
         change with it; make it the comparator",
    ),
    comparator: Ok(&["tap", "weights", "distance"]),
};

/// The discriminator as it is after its update of the same iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscriminatorSource {
    /// The layer.
    pub tap: DiscriminatorTap,
}

/// The discriminator of a run's newest checkpoint, frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenDiscriminatorSource {
    /// The run's directory.
    pub run: PathBuf,
    /// The layer.
    pub tap: DiscriminatorTap,
}

/// The layer, and the run of a frozen one.
pub(super) fn parse(
    given: &Given<'_>,
) -> std::result::Result<(DiscriminatorTap, Option<PathBuf>), Complaint> {
    let tap = match &given.section.tap {
        Some(SourceTap::Discriminator(tap)) => *tap,
        Some(other) => {
            return Err(given.bad("tap", format!("`{other}` is no layer of the discriminator")));
        }
        None => return Err(given.missing("tap", "a layer, Dconv1 to Dconv5 or Dpool5")),
    };
    match &given.section.weights {
        None => Ok((tap, None)),
        Some(run) if run.is_empty() || run.starts_with("random:") => Err(given.bad(
            "weights",
            "must be the directory of an earlier run, whose discriminator compares; left out: \
             the one that trains along",
        )),
        Some(run) => Ok((tap, Some(run.into()))),
    }
}

impl fmt::Display for DiscriminatorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "discriminator:{}", self.tap)
    }
}

impl FeatureSource for DiscriminatorSource {
    fn origin(&self) -> String {
        "trained along".to_owned()
    }

    fn check_comparator(
        &self,
        table: &str,
        _: i64,
        discriminator: Option<&DiscriminatorSpec>,
    ) -> Checked {
        let Some(discriminator) = discriminator else {
            let reason = "is the discriminator, which never learns where loss.adv is 0; \
                          raise loss.adv or take another comparator";
            return complain(&format!("{table}.net"), reason);
        };
        discriminator
            .has(self.tap)
            .map_err(|e| (format!("{table}.tap"), e.to_string()))
    }

    fn open(&self, _: Option<Allowed>, _: Device) -> Result<Box<dyn Features>> {
        Err(ExperimentError::NoComparator)
    }
}

impl FrozenDiscriminatorSource {
    /// The checkpoint whose discriminator compares: this one, or the newest of a run.
    fn checkpoint(&self) -> Result<Checkpoint> {
        if self.run.join("manifest.json").is_file() {
            return Checkpoint::open(&self.run);
        }
        Checkpoint::newest(&self.run.join("checkpoints"))?.ok_or_else(|| {
            ExperimentError::NoCheckpoint {
                path: self.run.clone(),
            }
        })
    }
}

fn hash_of(checkpoint: &Checkpoint) -> String {
    let file = checkpoint.manifest.files.get("discriminator.safetensors");
    file.map_or_else(String::new, |f| f.blake3.clone())
}

impl fmt::Display for FrozenDiscriminatorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.run.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "discriminator:{} of {run}", self.tap)
    }
}

impl FeatureSource for FrozenDiscriminatorSource {
    fn file(&self) -> Option<(&'static str, &Path)> {
        Some(("weights", &self.run))
    }

    fn help(&self, _: &Path) -> String {
        format!(
            "  train the run whose discriminator is to compare: its directory is {}",
            shown(&self.run)
        )
    }

    fn hash(&self) -> Result<String> {
        Ok(hash_of(&self.checkpoint()?))
    }

    fn open(&self, _: Option<Allowed>, device: Device) -> Result<Box<dyn Features>> {
        let checkpoint = self.checkpoint()?;
        let mut discriminator = checkpoint.discriminator(device)?;
        // The run says which layers its discriminator has.
        discriminator.spec().has(self.tap)?;
        discriminator.freeze()?;
        Ok(Box::new(Frozen {
            discriminator,
            tap: self.tap,
            hash: hash_of(&checkpoint),
        }))
    }
}

/// A discriminator that learns no more.
#[derive(Debug)]
struct Frozen {
    discriminator: Discriminator,
    tap: DiscriminatorTap,
    hash: String,
}

impl Features for Frozen {
    fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        let found = self
            .discriminator
            .features(caffe, self.tap, Mode::Evaluation);
        Ok(found?)
    }

    /// Not that of its file: the run may have gone on since it was read.
    fn own_hash(&self) -> Option<&str> {
        Some(&self.hash)
    }

    fn widen(&self) -> std::result::Result<(), NetError> {
        self.discriminator.params().widen()
    }
}
