//! The image itself, made smaller: the generator learns super-resolution.

use std::fmt;

use deepsim_nets::{FeatureShape, NetError};
use tch::{Device, Tensor};

use super::kind::{FeatureSource, Features, Given, KindInfo};
use crate::config::check::Complaint;
use crate::consent::Allowed;
use crate::error::Result;

pub(super) const INFO: KindInfo = KindInfo {
    encoder: Ok(&["factor"]),
    comparator: Err("cannot be downsampled: that is no feature space of its own; take a network"),
};

/// Grey levels that become 1: a generator's layers begin with weights for values of about that size.
const GREY_LEVELS: f64 = 64.0;

/// Means of squares of so many pixels a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownsampledSource {
    /// Pixels a side.
    pub factor: u32,
}

pub(super) fn parse(given: &Given<'_>) -> std::result::Result<DownsampledSource, Complaint> {
    match given.section.factor {
        Some(factor) if factor >= 2 => Ok(DownsampledSource { factor }),
        Some(factor) => Err(given.bad("factor", format!("must be 2 or more, not {factor}"))),
        None => Err(given.missing("factor", "how many pixels a side become one")),
    }
}

impl fmt::Display for DownsampledSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "downsampled:{}", self.factor)
    }
}

impl FeatureSource for DownsampledSource {
    fn origin(&self) -> String {
        self.to_string()
    }

    fn feature_shape(&self, crop: i64) -> std::result::Result<FeatureShape, Complaint> {
        let factor = i64::from(self.factor);
        if crop % factor != 0 || crop == factor {
            let reason =
                format!("must divide data.crop ({crop}) into several pixels, not {factor}");
            return Err(("encoder.factor".to_owned(), reason));
        }
        Ok(FeatureShape::Map {
            channels: 3,
            size: crop / factor,
        })
    }

    fn open(&self, _: Option<Allowed>, _: Device) -> Result<Box<dyn Features>> {
        Ok(Box::new(*self))
    }
}

impl Features for DownsampledSource {
    fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        let side = [i64::from(self.factor); 2];
        let small = caffe
            .f_avg_pool2d(side, side, [0, 0], false, true, None::<i64>)
            .and_then(|x| x.f_mul_scalar(1.0 / GREY_LEVELS))
            .map_err(NetError::from)?;
        Ok(small)
    }
}
