//! `[generator]`.

use std::path::PathBuf;

use deepsim_nets::Trunk;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[generator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Multiplies the channels of the hidden layers; 1 is the paper's.
    pub width: f64,
    /// "deepsim", or `{ db = { kernel = 5, slope = 0.2 } }`: the generator of Dosovitskiy & Brox, CVPR
    /// 2016, whose rows in Table 2 are "D&B"; or "larsen": the decoder of Larsen et al., for codes.
    #[serde(default = "Trunk::deepsim", skip_serializing_if = "Trunk::is_deepsim")]
    pub trunk: Trunk,
    /// Random numbers that enter beside the features, drawn anew for each image: several images of the same
    /// features. 0 (if left out) is the paper's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub noise: i64,
    /// Weights to begin with, instead of random ones: a safetensors file, as `deepsim-weights import` and checkpoints have
    /// them; or the directory of a run, or of one of its checkpoints: the averaged weights there, where it keeps some. Names
    /// and shapes must be this generator's. A run that goes on does not look at them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}
