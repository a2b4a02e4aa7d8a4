//! What a discriminator's logits cost, and one backward pass that serves both players.

use tch::Tensor;

use crate::error::{NetError, Result};
use crate::loss::Reduction;
use crate::precision::at_least_fp32;

/// What a discriminator is asked to call its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Class 0.
    Real,
    /// Class 1.
    Fake,
}

/// Cross entropy of the discriminator's logits `[N,2]` (index 0 = real) towards one label;
/// computed from logits in fp32, so that a confident discriminator gives no infinities.
///
/// # Errors
/// Logits of another shape.
pub fn cross_entropy(logits: &Tensor, label: Label, reduction: Reduction) -> Result<Tensor> {
    check_logits(logits)?;
    let index = match label {
        Label::Real => 0,
        Label::Fake => 1,
    };
    let log_p = logits.f_log_softmax(1, at_least_fp32(logits))?;
    let own = log_p.f_select(1, index)?.f_neg()?;
    Ok(match reduction {
        Reduction::Caffe | Reduction::Mean => own.f_mean(at_least_fp32(&own))?,
        Reduction::Paper => own.f_sum(at_least_fp32(&own))?,
    })
}

/// One backward pass of the discriminator over generated images that serves both its own loss
/// and the generator's.
///
/// With two classes both losses see an image's logits through their difference z alone
/// (p = σ(z) is the probability of "real"): d(−ln(1−p))/dz = p in the discriminator's loss and
/// d(−ln p)/dz = −(1−p) in the generator's. A backward pass is linear in what it starts from, and
/// no image sees another: started from p at each image, it gives the discriminator's weights
/// their gradient, and each image the generator's gradient but for the factor −(1−p)/p.
///
/// It starts from z, not from the two logits: the gradient of a log-softmax at the likelier of
/// them is p − 1 + (1 − p), in which a small p drowns (below 6e-8 it is 0, where −p is meant).
#[derive(Debug)]
pub struct SharedPass {
    /// A scalar whose gradients with regard to the discriminator's weights are those of its loss
    /// on generated images. Its value means nothing.
    pub seeded: Tensor,
    /// −(1−p)/p for each image `[N]`.
    factors: Tensor,
}

impl SharedPass {
    /// The pass starts from this probability at least. From a smaller one the images' gradients
    /// might fall below the smallest number of fp32 (and bf16, whose range is the same) before
    /// their factor lifts them again. It exaggerates what such an image has to say to the
    /// discriminator's weights, to 1e-18 of what an undecided one has: far below Adam's ε.
    const RARE: f64 = 1.0 / (1u64 << 60) as f64;

    /// From the logits `[N,2]` of generated images, with their graph.
    ///
    /// # Errors
    /// Logits of another shape.
    pub fn new(logits: &Tensor, reduction: Reduction) -> Result<SharedPass> {
        check_logits(logits)?;
        let kind = at_least_fp32(logits);
        let logits = logits.f_to_kind(kind)?;
        let z = logits.f_select(1, 0)?.f_sub(&logits.f_select(1, 1)?)?;
        let known = z.f_detach()?;
        let p = known.f_sigmoid()?.f_clamp_min(Self::RARE)?;
        // 1 − p as a probability of its own: subtracted from 1 it would lose its digits near 0.
        let factors = known.f_neg()?.f_sigmoid()?.f_div(&p)?.f_neg()?;
        let each = z.f_mul(&p)?;
        let seeded = match reduction {
            Reduction::Caffe | Reduction::Mean => each.f_mean(kind)?,
            Reduction::Paper => each.f_sum(kind)?,
        };
        Ok(SharedPass { seeded, factors })
    }

    /// The gradient of the adversarial loss at the images `[N,…]`, from the gradient of
    /// [`SharedPass::seeded`] (or of a multiple: then of the same multiple) there; fp32.
    ///
    /// # Errors
    /// A gradient of another number of images.
    pub fn adversarial(&self, gradient: &Tensor) -> Result<Tensor> {
        let mut shape = vec![1; gradient.dim()];
        if let Some(first) = shape.first_mut() {
            *first = -1;
        }
        let factors = self.factors.f_view(shape.as_slice())?;
        Ok(gradient.f_to_kind(factors.kind())?.f_mul(&factors)?)
    }
}

fn check_logits(logits: &Tensor) -> Result<()> {
    if logits.dim() != 2 || logits.size()[1] != 2 {
        return Err(NetError::InputShape {
            what: "the adversarial loss".to_owned(),
            expected: "logits [N,2]".to_owned(),
            got: logits.size(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn an_undecided_discriminator_costs_ln_2() {
        let logits = Tensor::zeros([5, 2], (Kind::Float, Device::Cpu));
        for label in [Label::Real, Label::Fake] {
            let l = cross_entropy(&logits, label, Reduction::Caffe)
                .unwrap()
                .double_value(&[]);
            assert!((l - std::f64::consts::LN_2).abs() < 1e-6);
        }
    }

    #[test]
    fn certainty_keeps_loss_and_gradient_finite() {
        let logits = Tensor::from_slice(&[300f32, -300.0])
            .view([1, 2])
            .set_requires_grad(true);
        let l = cross_entropy(&logits, Label::Fake, Reduction::Caffe).unwrap();
        assert_eq!(l.double_value(&[]), 600.0);
        l.backward();
        assert!(bool::try_from(logits.grad().isfinite().all()).unwrap());
    }

    #[test]
    fn logits_of_another_shape_are_refused() {
        let three = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        assert!(cross_entropy(&three, Label::Real, Reduction::Caffe).is_err());
    }
}
