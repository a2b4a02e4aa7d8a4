//! `[vaegan]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, at_least_zero, complain};

/// `[vaegan]`: all three networks learn from one look at a batch. The encoder follows the KL, feature and image
/// losses; the decoder `gamma` times the feature and image losses, and 1 − `gamma` times the discriminator's loss,
/// upwards; the discriminator its own alone. With `loss.feat` and `loss.img` 0 it is a GAN: nothing is encoded.
/// Thresholds of `[gate]` do not act.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaeGan {
    /// Weight of the reconstruction against the discriminator in the decoder's gradient, from 0 to 1.
    pub gamma: f64,
    /// Weight of real images in the discriminator's loss; generated images have the rest, from 0 to 1.
    pub real_weight: f64,
    /// Target value of the discriminator's two losses.
    pub equilibrium: f64,
    /// The discriminator pauses while one of its losses is further below the equilibrium than this, the decoder while
    /// one is further above it. Where both would pause, both learn. Decided for each batch by itself.
    pub margin: f64,
}

impl VaeGan {
    pub(super) fn check(&self) -> Checked {
        if !(0.0..=1.0).contains(&self.gamma) {
            let reason = format!("must be from 0 to 1, not {}", self.gamma);
            return complain("vaegan.gamma", reason);
        }
        if !(self.real_weight > 0.0 && self.real_weight < 1.0) {
            let reason = format!("must be above 0 and below 1, not {}", self.real_weight);
            return complain("vaegan.real_weight", reason);
        }
        at_least_zero(&[
            ("vaegan.equilibrium", self.equilibrium),
            ("vaegan.margin", self.margin),
        ])
    }
}
