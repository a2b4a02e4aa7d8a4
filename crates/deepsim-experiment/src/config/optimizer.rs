//! `[optimizer]`.

use deepsim_nets::{AdamOptions, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, above_zero, complain};

/// `[optimizer]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optimizers {
    /// The generator's.
    pub generator: AdamOptions,
    /// The discriminator's, where there is one (`loss.adv` above 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discriminator: Option<AdamOptions>,
    /// The encoder's, where it learns (`[latent]`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<AdamOptions>,
}

impl Optimizers {
    pub(super) fn check(&self) -> Checked {
        check_one("generator", &self.generator)?;
        for (network, options) in [
            ("discriminator", &self.discriminator),
            ("encoder", &self.encoder),
        ] {
            if let Some(options) = options {
                check_one(network, options)?;
            }
        }
        Ok(())
    }
}

fn check_one(network: &str, o: &AdamOptions) -> Checked {
    let key = |k: &str| format!("optimizer.{network}.{k}");
    for (k, v) in [("lr", o.lr), ("eps", o.eps)] {
        if !(v.is_finite() && v > 0.0) {
            return complain(&key(k), format!("must be above 0, not {v}"));
        }
    }
    for (k, v) in [("beta1", o.beta1), ("beta2", o.beta2)] {
        if !(0.0..1.0).contains(&v) {
            return complain(&key(k), format!("must be from 0 to below 1, not {v}"));
        }
    }
    if o.rule == Rule::RmsProp && o.beta1 != 0.0 {
        let reason = "must be 0 for rmsprop, which has no first moment; beta2 is its decay";
        return complain(&key("beta1"), reason);
    }
    if !(o.weight_decay.is_finite() && o.weight_decay >= 0.0) {
        return complain(&key("weight_decay"), "must be a number from 0 on");
    }
    match o.clip {
        Some(most) => above_zero(&[(&key("clip"), most)]),
        None => Ok(()),
    }
}
