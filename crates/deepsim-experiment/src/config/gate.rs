//! `[gate]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, complain};

/// `[gate]`: thresholds on r = (L_D real + L_D fake) / L_adv, unweighted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The discriminator pauses below this.
    pub d_off_below: f64,
    /// A paused discriminator continues above this.
    pub d_on_above: f64,
    /// The generator pauses above this.
    pub g_off_above: f64,
    /// A paused generator continues below this.
    pub g_on_below: f64,
}

impl Gate {
    /// Nothing ever pauses.
    pub const OPEN: Gate = Gate {
        d_off_below: 0.0,
        d_on_above: 0.0,
        g_off_above: f64::INFINITY,
        g_on_below: f64::INFINITY,
    };

    pub(super) fn check(&self) -> Checked {
        let all = [
            self.d_off_below,
            self.d_on_above,
            self.g_off_above,
            self.g_on_below,
        ];
        if all.iter().any(|t| t.is_nan())
            || self.d_off_below > self.d_on_above
            || self.g_on_below > self.g_off_above
        {
            let reason = "needs d_off_below <= d_on_above and g_on_below <= g_off_above";
            return complain("gate", reason);
        }
        Ok(())
    }
}
