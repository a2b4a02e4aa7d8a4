//! Losses of a discriminator's logits, and one backward pass that serves discriminator and
//! generator.

use tch::Tensor;

use crate::error::{NetError, Result};
use crate::loss::Reduction;
use crate::precision::at_least_fp32;

/// The label that the discriminator should give its input.
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
/// With two classes both losses see an image's logits through their difference z alone (p = σ(z) is
/// the probability of "real"): d(−ln(1−p))/dz = p in the discriminator's loss and d(−ln p)/dz =
/// −(1−p) in the generator's. A backward pass is linear in its starting gradient, and images do not
/// affect each other. Started from p at each image, one pass gives the gradient of the
/// discriminator's weights. At each image it gives the generator's gradient except for the factor
/// −(1−p)/p.
///
/// The pass starts from z, not from the two logits. At the likelier logit the gradient of a
/// log-softmax is p − 1 + (1 − p), where rounding loses a small p (below 6e-8 the result is 0
/// instead of −p).
#[derive(Debug)]
pub struct SharedPass {
    /// A scalar whose gradients with regard to the discriminator's weights are those of its loss
    /// on generated images. Its value means nothing.
    pub seeded: Tensor,
    /// −(1−p)/p for each image `[N]`.
    factors: Tensor,
}

impl SharedPass {
    /// The least probability from which the pass starts. With a smaller one, the images' gradients
    /// could underflow in fp32 (and in bf16, which has the same range) before their factor scales
    /// them up again. The bound makes the contribution of such an image to the gradient of the
    /// discriminator's weights too large, but only 1e-18 of that of an undecided image, far below
    /// Adam's ε.
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
        // 1 − p, computed as a probability: the subtraction would lose the digits of a value near
        // 0.
        let factors = known.f_neg()?.f_sigmoid()?.f_div(&p)?.f_neg()?;
        let each = z.f_mul(&p)?;
        let seeded = match reduction {
            Reduction::Caffe | Reduction::Mean => each.f_mean(kind)?,
            Reduction::Paper => each.f_sum(kind)?,
        };
        Ok(SharedPass { seeded, factors })
    }

    /// The gradient of the adversarial loss at the images `[N,…]`, fp32, from the gradient of
    /// [`SharedPass::seeded`] at the images. The gradient of a multiple of `seeded` gives the same
    /// multiple of the result.
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
