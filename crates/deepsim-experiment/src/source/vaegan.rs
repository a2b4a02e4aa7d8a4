//! The encoder of VAE/GAN (Larsen et al. 2016), which begins at random and learns.

use std::fmt;

use deepsim_nets::FeatureShape;
use tch::Device;

use super::kind::{FeatureSource, Features, Given, KindInfo};
use crate::config::check::Complaint;
use crate::consent::Allowed;
use crate::error::{ExperimentError, Result};

pub(super) const INFO: KindInfo = KindInfo {
    encoder: Ok(&["width"]),
    comparator: Err(
        "cannot be larsen: that is an encoder that learns; compare in their discriminator (net = \
         \"discriminator\") or take a network",
    ),
};

/// The encoder at a width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VaeGanSource {
    /// Multiplies its hidden channels; 1 is theirs.
    pub width: f64,
}

pub(super) fn parse(given: &Given<'_>) -> VaeGanSource {
    VaeGanSource {
        width: given.section.width.unwrap_or(1.0),
    }
}

impl fmt::Display for VaeGanSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("larsen")
    }
}

impl FeatureSource for VaeGanSource {
    fn origin(&self) -> String {
        format!("larsen:{}", self.width)
    }

    fn feature_shape(&self, _: i64) -> std::result::Result<FeatureShape, Complaint> {
        Ok(FeatureShape::Vector(1))
    }

    fn open(&self, _: Option<Allowed>, _: Device) -> Result<Box<dyn Features>> {
        Err(ExperimentError::Learns)
    }
}
