//! `[generator]`.

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
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}
