//! The losses of the discriminator of Larsen et al.: how certain it is of images.

use deepsim_experiment::config;
use deepsim_nets::precision::widened;
use deepsim_nets::{Discriminator, Mode, Reduction};
use tch::Tensor;

use crate::error::Result;
use crate::method::micro_batch::MicroBatch;
use crate::method::sides::Sides;

/// Added to probabilities before their logarithm (the authors' 1e-3): the discriminator's certainty ends there.
const DOUBT: f64 = 1e-3;

/// The discriminator's losses on real and on generated images, as parts of those of the global batch.
pub(super) struct DiscriminatorLosses {
    /// Mean losses.
    pub(super) sides: Sides<Tensor>,
    /// What the discriminator's weights go down.
    pub(super) total: Tensor,
    /// Weight of one generated image in it.
    pub(super) share: f64,
}

/// The discriminator over a micro-batch's real images and the images `decoded` `[M,3,crop,crop]`, in one pass.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn discriminator_losses(
    discriminator: &Discriminator,
    decoded: &Tensor,
    batch: &MicroBatch<'_>,
    rule: config::VaeGan,
) -> Result<DiscriminatorLosses> {
    let (plan, x, slice) = (batch.plan, &batch.x, batch.slice);
    let _autocast = plan.region(x.device())?;
    let (n, m) = (slice.len, decoded.size()[0]);
    let all = Tensor::f_cat(&[x, decoded], 0)?;
    let masks = Some(&batch.draws.on_real[..]);
    let logits = discriminator.forward_with(&all, None, Mode::Training, masks)?;
    let logits = widened(&logits)?;
    let kind = logits.kind();
    let certainty = logits.f_select(1, 0)?.f_sub(&logits.f_select(1, 1)?)?;
    let real = cost(&certainty.f_narrow(0, 0, n)?)?;
    let generated = cost(&certainty.f_narrow(0, n, m)?.f_neg()?)?;
    let share = (1.0 - rule.real_weight) * n as f64 / m as f64;
    let divisor = match plan.reduction {
        Reduction::Caffe | Reduction::Mean => slice.global as f64,
        Reduction::Paper => 1.0,
    };
    let total = real
        .f_sum(kind)?
        .f_mul_scalar(rule.real_weight / divisor)?
        .f_add(&generated.f_sum(kind)?.f_mul_scalar(share / divisor)?)?;
    // These are means whatever the reduction.
    let mean = |costs: &Tensor| -> Result<Tensor> {
        slice.part(costs.f_mean(kind)?.f_detach()?, Reduction::Mean)
    };
    Ok(DiscriminatorLosses {
        sides: Sides {
            real: mean(&real)?,
            generated: mean(&generated)?,
        },
        total,
        share,
    })
}

/// −ln(p + doubt) of each image, p the probability of what is true, from p's logits.
fn cost(certainty: &Tensor) -> Result<Tensor> {
    Ok(certainty
        .f_sigmoid()?
        .f_add_scalar(DOUBT)?
        .f_log()?
        .f_neg()?)
}
