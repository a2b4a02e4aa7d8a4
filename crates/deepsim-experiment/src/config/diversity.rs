//! `[diversity]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, above_zero};

/// `[diversity]`
///
/// The term of Yang et al. (ICLR 2019), for a generator that takes noise: of each training image a second one
/// is made with other noise, and their mean absolute difference, in grey levels by unit of noise, is to be large.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diversity {
    /// Weight of the term in the generator's loss.
    pub weight: f64,
    /// Differences beyond this count no further; grey levels (0-255) by unit of noise.
    pub limit: f64,
}

impl Diversity {
    pub(super) fn check(&self) -> Checked {
        above_zero(&[
            ("diversity.weight", self.weight),
            ("diversity.limit", self.limit),
        ])
    }
}
