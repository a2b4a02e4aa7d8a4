//! `[ema]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, complain};

fn is_off(on: &bool) -> bool {
    !*on
}

/// `[ema]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// What an average keeps of itself at each update of its network, from 0 to below 1: 0.999 averages over about a
    /// thousand updates.
    pub decay: f64,
    /// Whether it keeps less at first: after n updates (1 + n)/(10 + n), where that is less. If false (if left out), the
    /// weights that training begins with fade by `decay` alone.
    #[serde(default, skip_serializing_if = "is_off")]
    pub warmup: bool,
}

impl Ema {
    pub(super) fn check(&self) -> Checked {
        if (0.0..1.0).contains(&self.decay) {
            return Ok(());
        }
        let reason = format!("must be from 0 to below 1, not {}", self.decay);
        complain("ema.decay", reason)
    }
}
