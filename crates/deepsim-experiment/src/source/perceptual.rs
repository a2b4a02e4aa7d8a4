//! Metrics that were learnt of people's judgements, as comparators: LPIPS and DISTS.

use std::fmt;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_nets::metrics::{Dists, Lpips};
use deepsim_nets::params::read_safetensors;
use deepsim_nets::{DiscriminatorSpec, NetError};
use tch::{Device, Tensor};

use super::kind::{FeatureSource, Features, Given, KindInfo};
use super::network::{self, NetSource};
use super::taps::in_a_row;
use crate::config::check::{Checked, Complaint};
use crate::config::{Perceptual, SourceKind};
use crate::consent::Allowed;
use crate::error::Result;
use crate::hash::hash_file;

pub(super) const INFO: KindInfo = KindInfo {
    encoder: Err("cannot be a metric, which has no features to invert; make it a comparator"),
    comparator: Ok(&["weights", "heads"]),
};

/// A metric, with its network and what was learnt for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerceptualSource {
    /// Which.
    pub metric: Perceptual,
    /// The network that it stands on, at the deepest layer that it looks at.
    pub trunk: NetSource,
    /// The file of what was learnt for it.
    pub heads: PathBuf,
}

pub(super) fn parse(
    given: &Given<'_>,
    metric: Perceptual,
) -> std::result::Result<PerceptualSource, Complaint> {
    let (net, tap) = metric.network();
    let trunk = network::at(given, net, tap)?;
    let heads = given.section.heads.clone();
    let heads = heads.filter(|path| !path.as_os_str().is_empty());
    let heads =
        heads.ok_or_else(|| given.missing("heads", "the file of what was learnt for it"))?;
    Ok(PerceptualSource {
        metric,
        trunk,
        heads,
    })
}

impl fmt::Display for PerceptualSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SourceKind::Perceptual(self.metric).fmt(f)
    }
}

impl FeatureSource for PerceptualSource {
    fn file(&self) -> Option<(&'static str, &Path)> {
        self.trunk.file()
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let trunk = self.trunk.file().into_iter();
        trunk.chain([("heads", self.heads.as_path())]).collect()
    }

    fn help(&self, _: &Path) -> String {
        "  `cargo xtask setup --only judges` fetches the networks of LPIPS and DISTS, and what was learnt for them"
            .to_owned()
    }

    fn origin(&self) -> String {
        format!("{} and {}", self.trunk.origin(), self.heads.display())
    }

    fn learned(&self) -> bool {
        self.trunk.learned()
    }

    fn check_comparator(
        &self,
        table: &str,
        crop: i64,
        discriminator: Option<&DiscriminatorSpec>,
    ) -> Checked {
        self.trunk.check_comparator(table, crop, discriminator)
    }

    /// Of the digests of both files.
    fn hash(&self) -> Result<String> {
        let both = format!("{} {}", self.trunk.hash()?, hash_file(&self.heads)?);
        Ok(blake3::hash(both.as_bytes()).to_hex().to_string())
    }

    fn open(&self, _: Option<Allowed>, device: Device) -> Result<Box<dyn Features>> {
        let trunk = self.trunk.load(device)?;
        let values = read_safetensors(&self.heads)?;
        let origin = shown(&self.heads);
        let metric: Box<dyn Features> = match self.metric {
            Perceptual::LpipsAlexNet | Perceptual::LpipsVgg16 => {
                Box::new(ByLpips(Lpips::new(trunk, &values, &origin, device)?))
            }
            Perceptual::Dists => Box::new(ByDists(Dists::new(trunk, &values, &origin, device)?)),
        };
        Ok(metric)
    }
}

#[derive(Debug)]
struct ByLpips(Lpips);

#[derive(Debug)]
struct ByDists(Dists);

impl Features for ByLpips {
    /// All that is compared in a row, as vectors.
    fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        in_a_row(&self.compared(caffe)?)
    }

    fn compared(&self, caffe: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.0.features(caffe)?)
    }

    fn own_distance(&self, found: &[Tensor], target: &[Tensor]) -> Result<Option<Tensor>> {
        Ok(Some(self.0.between(found, target)?))
    }

    fn widen(&self) -> std::result::Result<(), NetError> {
        self.0.widen()
    }
}

impl Features for ByDists {
    /// All that is compared in a row, as vectors.
    fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        in_a_row(&self.compared(caffe)?)
    }

    fn compared(&self, caffe: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.0.features(caffe)?)
    }

    fn own_distance(&self, found: &[Tensor], target: &[Tensor]) -> Result<Option<Tensor>> {
        Ok(Some(self.0.between(found, target)?))
    }

    fn widen(&self) -> std::result::Result<(), NetError> {
        self.0.widen()
    }
}
