//! Losses of a discriminator's logits, and one backward pass that serves discriminator and
//! generator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::{NetError, Result};
use crate::kinks;
use crate::loss::Reduction;
use crate::precision::{at_least_fp32, widened};

/// What discriminator and generator play for. r and f are scores ([`scores`]) of real and of generated images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AdversarialLoss {
    /// The paper's, Eq. 3 and 4: −ln p(real) and −ln p(fake); the generator −ln p(real).
    #[default]
    CrossEntropy,
    /// ½ (max(0, 1 − r) + max(0, 1 + f)); the generator −f. As in VQGAN's training (Esser et al. 2021), with its ½.
    Hinge,
    /// ln(1 + exp(−r)) + ln(1 + exp(f)); the generator ln(1 + exp(−f)) (Goodfellow et al. 2014, without ½). The same
    /// functions as [`AdversarialLoss::CrossEntropy`], without the gate that stands on its ratio.
    NonSaturating,
    /// ½ ((r − 1)² + f²); the generator (f − 1)². As in pix2pix's training of LSGAN (Mao et al. 2017).
    LeastSquares,
}

impl AdversarialLoss {
    /// Whether this is the paper's.
    #[must_use]
    pub fn is_paper_s(&self) -> bool {
        *self == AdversarialLoss::CrossEntropy
    }

    /// Its name in experiment files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AdversarialLoss::CrossEntropy => "cross-entropy",
            AdversarialLoss::Hinge => "hinge",
            AdversarialLoss::NonSaturating => "non-saturating",
            AdversarialLoss::LeastSquares => "least-squares",
        }
    }

    /// The discriminator's loss of images that it should call `label`, of its logits ([`scores`] says of which shapes): the
    /// mean over an image's scores and over the batch, with [`Reduction::Paper`] summed over the batch; fp32 at least.
    ///
    /// # Errors
    /// Logits of another shape.
    pub fn discriminating(
        self,
        logits: &Tensor,
        label: Label,
        reduction: Reduction,
    ) -> Result<Tensor> {
        if self == AdversarialLoss::CrossEntropy && has_classes(logits) {
            return cross_entropy(logits, label, reduction);
        }
        let z = scores(logits)?;
        let each = match (self, label) {
            (AdversarialLoss::CrossEntropy | AdversarialLoss::NonSaturating, Label::Real) => {
                z.f_log_sigmoid()?.f_neg()?
            }
            (AdversarialLoss::CrossEntropy | AdversarialLoss::NonSaturating, Label::Fake) => {
                z.f_neg()?.f_log_sigmoid()?.f_neg()?
            }
            (AdversarialLoss::Hinge, Label::Real) => {
                kinks::relu(&z.f_neg()?.f_add_scalar(1.0)?)?.f_mul_scalar(0.5)?
            }
            (AdversarialLoss::Hinge, Label::Fake) => {
                kinks::relu(&z.f_add_scalar(1.0)?)?.f_mul_scalar(0.5)?
            }
            (AdversarialLoss::LeastSquares, Label::Real) => {
                z.f_sub_scalar(1.0)?.f_square()?.f_mul_scalar(0.5)?
            }
            (AdversarialLoss::LeastSquares, Label::Fake) => z.f_square()?.f_mul_scalar(0.5)?,
        };
        reduced(&each, reduction)
    }

    /// The generator's loss of the logits of its images, reduced as [`AdversarialLoss::discriminating`].
    ///
    /// # Errors
    /// Logits of another shape.
    pub fn generating(self, logits: &Tensor, reduction: Reduction) -> Result<Tensor> {
        if self == AdversarialLoss::CrossEntropy && has_classes(logits) {
            return cross_entropy(logits, Label::Real, reduction);
        }
        let z = scores(logits)?;
        let each = match self {
            AdversarialLoss::CrossEntropy | AdversarialLoss::NonSaturating => {
                z.f_log_sigmoid()?.f_neg()?
            }
            AdversarialLoss::Hinge => z.f_neg()?,
            AdversarialLoss::LeastSquares => z.f_sub_scalar(1.0)?.f_square()?,
        };
        reduced(&each, reduction)
    }
}

fn has_classes(logits: &Tensor) -> bool {
    matches!(logits.size().as_slice(), [_, 2])
}

/// How real a discriminator finds images, in fp32 at least, from its logits: of two classes `[N,2]` (index 0 = real) the
/// difference, `[N,1]`, which is the log-odds of "real"; of maps with one value a place, `[N,1,…]`, all of them, `[N,places]`.
///
/// # Errors
/// Logits of another shape.
pub fn scores(logits: &Tensor) -> Result<Tensor> {
    let wide = widened(logits)?;
    match logits.size().as_slice() {
        [_, 2] => Ok(wide
            .f_select(1, 0)?
            .f_sub(&wide.f_select(1, 1)?)?
            .f_unsqueeze(1)?),
        [_, 1, _, ..] => Ok(wide.f_flatten(1, -1)?),
        other => Err(NetError::InputShape {
            what: "the adversarial loss".to_owned(),
            expected: "logits [N,2], or maps of them [N,1,…]".to_owned(),
            got: other.to_vec(),
        }),
    }
}

/// The mean of `[N,places]`, or the sum over N of each one's mean.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn reduced(each: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let kind = at_least_fp32(each);
    Ok(match reduction {
        Reduction::Caffe | Reduction::Mean => each.f_mean(kind)?,
        Reduction::Paper => each
            .f_mean_dim([1i64].as_slice(), false, kind)?
            .f_sum(kind)?,
    })
}

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
        for shape in [&[4, 3][..], &[4], &[4, 1], &[4, 3, 2, 2]] {
            let odd = Tensor::ones(shape, (Kind::Float, Device::Cpu));
            assert!(scores(&odd).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn losses_are_those_of_their_formulas() {
        // Two images with two places each.
        let map = |v: [f32; 4]| Tensor::from_slice(&v).view([2, 1, 1, 2]);
        let z = map([0.5, -2.0, 3.0, 0.0]);
        let values = |game: AdversarialLoss, reduction| {
            let label = |label| game.discriminating(&z, label, reduction).unwrap();
            [
                label(Label::Real),
                label(Label::Fake),
                game.generating(&z, reduction).unwrap(),
            ]
            .map(|t| t.double_value(&[]))
        };
        let near = |found: [f64; 3], expected: [f64; 3]| {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}");
            }
        };
        let hinge = [(0.5 + 3.0 + 0.0 + 1.0) / 8.0, (1.5 + 0.0 + 4.0 + 1.0) / 8.0];
        let hinge = [hinge[0], hinge[1], -1.5 / 4.0];
        near(values(AdversarialLoss::Hinge, Reduction::Caffe), hinge);
        // Summed over the batch, and still the mean over an image's places.
        let summed = hinge.map(|v| 2.0 * v);
        near(values(AdversarialLoss::Hinge, Reduction::Paper), summed);
        let squares = (0.25 + 9.0 + 4.0 + 1.0) / 4.0;
        let zeros = (0.25 + 4.0 + 9.0) / 4.0;
        let squares = [squares / 2.0, zeros / 2.0, squares];
        near(
            values(AdversarialLoss::LeastSquares, Reduction::Mean),
            squares,
        );
        let plus = |v: f64| v.exp().ln_1p();
        let sum = |of: &dyn Fn(f64) -> f64| [0.5, -2.0, 3.0, 0.0].map(of).iter().sum::<f64>() / 4.0;
        let (real, fake) = (sum(&|v| plus(-v)), sum(&plus));
        for game in [
            AdversarialLoss::NonSaturating,
            AdversarialLoss::CrossEntropy,
        ] {
            near(values(game, Reduction::Caffe), [real, fake, real]);
        }
    }

    #[test]
    fn two_classes_have_their_log_odds_for_a_score() {
        let logits = Tensor::from_slice(&[1.0f32, -0.5, 0.25, 2.0]).view([2, 2]);
        let found = scores(&logits).unwrap();
        assert_eq!(found.size(), [2, 1]);
        let odds = Vec::<f32>::try_from(found.flatten(0, -1)).unwrap();
        assert_eq!(odds, [1.5, -1.75]);
        for label in [Label::Real, Label::Fake] {
            let value = |game: AdversarialLoss| {
                let loss = game.discriminating(&logits, label, Reduction::Caffe);
                loss.unwrap().double_value(&[])
            };
            let apart =
                value(AdversarialLoss::CrossEntropy) - value(AdversarialLoss::NonSaturating);
            assert!(apart.abs() < 1e-6, "{label:?}");
        }
    }
}
