//! `[schedule]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, complain};

/// How the learning rates fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Not at all.
    #[default]
    None,
    /// Along half a cosine.
    Cosine,
}

impl Decay {
    fn is_none(&self) -> bool {
        *self == Decay::None
    }
}

fn is_zero(updates: &u64) -> bool {
    *updates == 0
}

fn is_nothing(share: &f64) -> bool {
    *share == 0.0
}

/// `[schedule]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Updates of a network after which its learning rate halves.
    pub halve_at: Vec<u64>,
    /// Updates of a network until it has its whole learning rate: its first takes 1/`warmup` of it, the next one
    /// 2/`warmup`, and so on. A network that begins to learn later, or pauses, is warmed up by its own updates. 0 (if left
    /// out): none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warmup: u64,
    /// How the learning rates fall after that: "none" (if left out), or "cosine": along half a cosine from step `warmup`
    /// to step `until`, to `min` of what they were. It goes by steps, so that it ends at the same time for all networks,
    /// whatever pauses them.
    #[serde(default, skip_serializing_if = "Decay::is_none")]
    pub decay: Decay,
    /// "cosine": the step at which it ends; later ones keep the rate that it ends with. A run keeps it, also where
    /// `train.steps` grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// "cosine": the share of a learning rate that is left at its end, from 0 (if left out) to 1.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub min: f64,
}

impl Schedule {
    pub(super) fn check(&self) -> Checked {
        if !self.halve_at.is_sorted() {
            return complain("schedule.halve_at", "must be in ascending order");
        }
        if !(0.0..=1.0).contains(&self.min) {
            let reason = format!("must be from 0 to 1, not {}", self.min);
            return complain("schedule.min", reason);
        }
        match (self.decay, self.until) {
            (Decay::None, None) if self.min == 0.0 => Ok(()),
            (Decay::None, until) => {
                let key = until.map_or("schedule.min", |_| "schedule.until");
                let reason = "means nothing without schedule.decay = \"cosine\"; remove it";
                complain(key, reason)
            }
            (Decay::Cosine, None) => {
                let reason = "is missing: the step at which the cosine ends, such as train.steps";
                complain("schedule.until", reason)
            }
            (Decay::Cosine, Some(until)) if until <= self.warmup => {
                let reason = format!(
                    "must be above schedule.warmup ({}), where the cosine begins",
                    self.warmup
                );
                complain("schedule.until", reason)
            }
            (Decay::Cosine, Some(_)) => Ok(()),
        }
    }
}
