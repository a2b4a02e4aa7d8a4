//! Features that were recorded elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};

use deepsim_nets::FeatureShape;
use tch::Device;

use super::kind::{FeatureSource, Features, Given, KindInfo, not_loadable, shape};
use crate::config::Normalize;
use crate::config::check::Complaint;
use crate::consent::Allowed;
use crate::error::Result;
use crate::features_file;

pub(super) const INFO: KindInfo = KindInfo {
    encoder: Ok(&["features", "shape", "normalize"]),
    comparator: Err(
        "cannot be recorded: images that the generator makes must be compared, and nothing was \
         recorded of those; take a network",
    ),
};

/// Recorded features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedSource {
    /// The file, or the folder of `.mat` files.
    pub file: PathBuf,
    /// Shape of one image's features.
    pub shape: FeatureShape,
    /// What is done to them.
    pub normalize: Normalize,
}

pub(super) fn parse(given: &Given<'_>) -> std::result::Result<RecordedSource, Complaint> {
    let section = given.section;
    let file = section.features.clone();
    let file = file
        .filter(|f| !f.as_os_str().is_empty())
        .ok_or_else(|| given.missing("features", "the file or folder of recorded features"))?;
    Ok(RecordedSource {
        file,
        shape: shape(section).map_err(|reason| given.bad("shape", reason))?,
        normalize: section.normalize.unwrap_or(Normalize::None),
    })
}

impl fmt::Display for RecordedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stem = self.file.file_stem().unwrap_or_default();
        write!(f, "recorded:{}", stem.to_string_lossy())
    }
}

impl FeatureSource for RecordedSource {
    fn file(&self) -> Option<(&'static str, &Path)> {
        Some(("features", &self.file))
    }

    fn feature_shape(&self, _: i64) -> std::result::Result<FeatureShape, Complaint> {
        Ok(self.shape)
    }

    fn hash(&self) -> Result<String> {
        features_file::hash(&self.file)
    }

    fn open(&self, _: Option<Allowed>, _: Device) -> Result<Box<dyn Features>> {
        Err(not_loadable(&self.file))
    }
}
