//! `[adversary]`.

use deepsim_nets::{AdversarialLoss, DiffAugment};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, above_zero, at_least_one, complain};

/// `[adversary]`: how generator and discriminator play. Left out, they play as in the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adversary {
    /// "cross-entropy" (the paper's; if left out), "hinge", "non-saturating" or "least-squares". With "cross-entropy" the
    /// discriminator's own loss weighs `loss.adv`, as in the paper's training, and `[gate]` acts; with the others it weighs 1, as
    /// published, and `[gate]` must be left out or open. "hinge" is half of the sum over real and generated images, as VQGAN's;
    /// "least-squares" half of both squares, as pix2pix's; "non-saturating" has no half. With several logits an image's loss is
    /// their mean; with two classes the logit is their difference.
    #[serde(default, skip_serializing_if = "AdversarialLoss::is_paper_s")]
    pub loss: AdversarialLoss,
    /// Iterations before the first in which the discriminator passes and learns; 0 if left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub discriminator_from: u64,
    /// Iterations before the first in which the generator follows it; at least `discriminator_from`; 0 if left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generator_from: u64,
    /// Weighs the adversarial term in each iteration as VQGAN does, beside `loss.adv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// Penalises the discriminator's gradient at real images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r1: Option<R1>,
    /// Holds the discriminator's logits near each other's averages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lecam: Option<LeCam>,
    /// Augments what the discriminator sees, real and generated, in both networks' steps (Zhao et al. 2020). What is drawn
    /// depends on the seed, the step and the image's place in the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<DiffAugment>,
}

fn is_zero(steps: &u64) -> bool {
    *steps == 0
}

fn ten_thousand() -> f64 {
    1e4
}

fn epsilon() -> f64 {
    1e-4
}

fn sixteen() -> u64 {
    16
}

fn slow() -> f64 {
    0.99
}

/// `adversary.adaptive`: the weight is the norm of the other terms' gradient of the generator's last weight by that of the
/// adversarial term's (Esser et al. 2021). Gradients are those of the whole batch, also with `train.accumulate`, shards and
/// several processes, which all find the same weight; it takes a second pass back through the generator.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// Largest weight; 10000 if left out.
    #[serde(default = "ten_thousand")]
    pub limit: f64,
    /// Added to the norm that divides; 0.0001 if left out.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
}

/// `adversary.r1`: weight / 2 times the squared gradient of an image's logits, their sum, with regard to the image in −1…1
/// (Mescheder et al. 2018). Added to the discriminator's loss every so many iterations, times so many, in the same update;
/// Adam keeps its rates. Computed in fp32 by libtorch alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct R1 {
    /// Weight (γ).
    pub weight: f64,
    /// Iterations from one to the next; 16 if left out.
    #[serde(default = "sixteen")]
    pub every: u64,
}

/// `adversary.lecam`: weight times the squares by which real images' logits are above the average of generated images', and
/// generated images' below that of real ones (Tseng et al. 2021). Averages are those of the iterations before, beginning with
/// the first batch's means. (The authors' code adds the batch at hand first; then parts of a batch could not be computed one
/// after the other.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeCam {
    /// Weight.
    pub weight: f64,
    /// What an average keeps of itself in each iteration; 0.99 if left out.
    #[serde(default = "slow")]
    pub decay: f64,
}

impl Adversary {
    /// Whether it is the paper's.
    #[must_use]
    pub fn is_paper_s(&self) -> bool {
        *self == Adversary::default()
    }

    pub(super) fn check(&self) -> Checked {
        if self.generator_from < self.discriminator_from {
            let reason = format!(
                "must be at least adversary.discriminator_from ({}): before, the discriminator has learnt nothing",
                self.discriminator_from
            );
            return complain("adversary.generator_from", reason);
        }
        if let Some(Adaptive { limit, epsilon }) = self.adaptive {
            above_zero(&[
                ("adversary.adaptive.limit", limit),
                ("adversary.adaptive.epsilon", epsilon),
            ])?;
        }
        if let Some(R1 { weight, every }) = self.r1 {
            above_zero(&[("adversary.r1.weight", weight)])?;
            at_least_one(&[("adversary.r1.every", every)])?;
        }
        if let Some(LeCam { weight, decay }) = self.lecam {
            above_zero(&[("adversary.lecam.weight", weight)])?;
            if !(0.0..1.0).contains(&decay) {
                let reason = format!("must be from 0 to below 1, not {decay}");
                return complain("adversary.lecam.decay", reason);
            }
        }
        if let Some(augment) = self.augment {
            for (key, share) in [
                ("adversary.augment.translation", augment.translation),
                ("adversary.augment.cutout", augment.cutout),
            ] {
                if !(0.0..=1.0).contains(&share) {
                    return complain(key, format!("must be from 0 to 1, not {share}"));
                }
            }
        }
        Ok(())
    }
}
