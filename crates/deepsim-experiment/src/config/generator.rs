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
    /// 2016, whose rows in Table 2 are "D&B"; or "larsen": the decoder of Larsen et al., for codes; or
    /// `{ vit = { channels = 768, blocks = 12, heads = 12, mlp = 3072 } }`: a vision transformer that makes one patch of the
    /// image of each position of the features, as in representation autoencoders.
    #[serde(default = "Trunk::deepsim", skip_serializing_if = "Trunk::is_deepsim")]
    pub trunk: Trunk,
    /// Random numbers that enter beside the features, drawn anew for each image: several images of the same
    /// features. 0 (if left out) is the paper's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub noise: i64,
    /// Noise that is added to the features in training, so that features that are not exactly a photo's are decoded too: N(0, σ²),
    /// σ drawn for each image and step between 0 and this. RAE's is 0.8, for features that are normalised to a deviation of 1;
    /// 0 (if left out) is none. The discriminator and evaluations see the features without it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub feature_noise: f64,
    /// Weights to begin with, instead of random ones: a safetensors file, as `deepsim-weights import` and checkpoints have
    /// them; or the directory of a run, or of one of its checkpoints: the averaged weights there, where it keeps some. Names
    /// and shapes must be this generator's. A run that goes on does not look at them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn is_nothing(deviation: &f64) -> bool {
    *deviation == 0.0
}
