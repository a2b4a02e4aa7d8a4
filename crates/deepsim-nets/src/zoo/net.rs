//! The registry's entry of a feature network, and the units of its images.

use tch::Tensor;

use crate::error::Result;
use crate::images;
use crate::layers::op::{FcMap, Row};

/// Units of the images that a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// BGR 0–255 minus Caffe's mean.
    Caffe,
    /// BGR 0–255 minus VideoNet's mean.
    VideoNet,
    /// RGB 0–1 minus ImageNet's mean, divided by its deviation.
    ImageNet,
    /// RGB 0–255 as (x − 127)/128.
    EfficientNet,
}

impl Units {
    /// Converts images `[N,3,H,W]` from Caffe units to these units.
    ///
    /// # Errors
    /// A tensor that is not `[N,3,H,W]`.
    pub fn of_caffe(self, caffe: &Tensor) -> Result<Tensor> {
        match self {
            Units::Caffe => Ok(caffe.shallow_clone()),
            Units::VideoNet => images::caffe_to_videonet(caffe),
            Units::ImageNet => images::caffe_to_torchvision(caffe),
            Units::EfficientNet => images::caffe_to_efficientnet(caffe),
        }
    }
}

/// The registry's entry of a feature network.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// In experiment files.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// The whole architecture.
    pub table: &'static [Row],
    /// What the first fully connected layer makes of the map below it.
    pub fc_map: FcMap,
    /// Units of its images.
    pub units: Units,
    /// The family of the network. Networks of one family have similar features, so a metric that uses one
    /// is not independent of a training that used another.
    pub family: &'static str,
    /// Where its weights are from.
    pub obtain: &'static str,
    /// The kind of import of `deepsim-weights`, and the file to import; none where set-up does it.
    pub import: Option<(&'static str, &'static str)>,
}
