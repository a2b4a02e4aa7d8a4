//! The terms of the DeePSiM loss (paper, Eq. 1–5), what else pixels can be compared by, and the
//! discriminator's loss.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::kinks::magnitude;
use crate::precision::{at_least_fp32, widened};
use crate::{pictures, structural};

/// How a sum of squares over a batch becomes a number. Weights of the loss terms are only
/// comparable under the same reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// 1/(2N) Σ‖a−b‖²: half the squared distance, averaged over the N pictures of the batch,
    /// as Caffe's EuclideanLoss. The authors' training used this. Cross entropy: batch mean.
    Caffe,
    /// Σ‖a−b‖² over the batch, as the paper prints it. Cross entropy: batch sum.
    Paper,
    /// Mean over all elements of the batch. Cross entropy: batch mean.
    Mean,
}

/// Squared distance of two tensors `[N,…]` of equal shape, reduced as `reduction` says; fp32.
/// The feature loss (features of the comparator) and the image loss (pictures in 0–255 units).
///
/// # Errors
/// Tensors of different shapes: nothing is broadcast silently.
pub fn squared_distance(a: &Tensor, b: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let size = a.size();
    if size != b.size() || size.is_empty() {
        return Err(NetError::InputShape {
            what: "the squared distance".to_owned(),
            expected: format!("two tensors of one shape; the first has {size:?}"),
            got: b.size(),
        });
    }
    let in_one_pass = [a, b]
        .iter()
        .all(|t| t.device() == Device::Cpu && matches!(t.kind(), Kind::Float | Kind::BFloat16));
    let sum = if in_one_pass {
        deepsim_aten::squared_distance(a, b)?
    } else {
        let (a, b) = (widened(a)?, widened(b)?);
        a.f_mse_loss(&b, tch::Reduction::Sum)?
    };
    let divisor = match reduction {
        Reduction::Caffe => 2.0 * size[0] as f64,
        Reduction::Paper => 1.0,
        Reduction::Mean => size.iter().product::<i64>() as f64,
    };
    Ok(sum.f_mul_scalar(1.0 / divisor)?)
}

/// How different two pictures are that were made from the same features and two draws of noise: mean absolute
/// difference of pictures `a`, `b` `[N,…]` by that of their noises, at most `limit` (in the pictures' units), for each
/// pair; the term is minus its mean over the batch (sum for [`Reduction::Paper`]). After Yang et al.,
/// "Diversity-sensitive conditional generative adversarial networks" (ICLR 2019), Eq. 2.
///
/// # Errors
/// Pictures or noises of different shapes.
pub fn diversity(
    [a, b]: [&Tensor; 2],
    [noise_a, noise_b]: [&Tensor; 2],
    limit: f64,
    reduction: Reduction,
) -> Result<Tensor> {
    let kind = at_least_fp32(a);
    let between = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        if a.size() != b.size() || a.dim() < 2 {
            return Err(NetError::InputShape {
                what: "the diversity of two batches".to_owned(),
                expected: format!("two tensors of one shape; the first has {:?}", a.size()),
                got: b.size(),
            });
        }
        let apart = magnitude(&a.f_to_kind(kind)?.f_sub(&b.f_to_kind(kind)?)?)?;
        Ok(apart.f_flatten(1, -1)?.f_mean_dim(1i64, false, kind)?)
    };
    let apart = between(noise_a, noise_b)?.f_clamp_min(SAME_NOISE)?;
    let each = between(a, b)?.f_div(&apart)?.f_clamp_max(limit)?.f_neg()?;
    Ok(match reduction {
        Reduction::Paper => each.f_sum(at_least_fp32(&each))?,
        Reduction::Caffe | Reduction::Mean => each.f_mean(at_least_fp32(&each))?,
    })
}

/// Mean absolute difference below which two draws of noise count as one.
const SAME_NOISE: f64 = 1e-6;

/// How pixels are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PixelDistance {
    /// Squared differences (the paper's image loss).
    #[default]
    Squared,
    /// Absolute differences.
    Absolute,
    /// 1 − SSIM.
    Ssim,
    /// 1 − MS-SSIM (Snell, Ridgeway et al.).
    MsSsim,
}

/// The image loss: pictures `a` and `b` `[N,3,H,W]` in Caffe units, compared in 0–255 units; fp32.
///
/// Squared: [`squared_distance`]. Absolute: Σ|a−b|, [`Reduction::Caffe`] per picture. The similarities:
/// 1 − similarity, averaged over pictures, or summed with [`Reduction::Paper`].
///
/// # Errors
/// Pictures of different shapes, or below 11 pixels where similarities are asked for.
pub fn pixel_distance(
    distance: PixelDistance,
    a: &Tensor,
    b: &Tensor,
    reduction: Reduction,
) -> Result<Tensor> {
    let similarity = match distance {
        PixelDistance::Squared => return squared_distance(a, b, reduction),
        PixelDistance::Absolute => return absolute_distance(a, b, reduction),
        PixelDistance::Ssim => {
            structural::ssim(&pictures::caffe_to_rgb(a)?, &pictures::caffe_to_rgb(b)?)?
        }
        PixelDistance::MsSsim => {
            let (a, b) = (pictures::caffe_to_rgb(a)?, pictures::caffe_to_rgb(b)?);
            structural::ms_ssim(&a, &b)?.similarity
        }
    };
    let each = similarity.f_neg()?.f_add_scalar(1.0)?;
    Ok(match reduction {
        Reduction::Caffe | Reduction::Mean => each.f_mean(at_least_fp32(&each))?,
        Reduction::Paper => each.f_sum(at_least_fp32(&each))?,
    })
}

fn absolute_distance(a: &Tensor, b: &Tensor, reduction: Reduction) -> Result<Tensor> {
    crate::metrics::check_same_pictures("the absolute distance", a, b)?;
    let each = magnitude(&widened(a)?.f_sub(&widened(b)?)?)?;
    Ok(match reduction {
        Reduction::Caffe => each
            .f_sum(at_least_fp32(&each))?
            .f_div_scalar(a.size()[0] as f64)?,
        Reduction::Paper => each.f_sum(at_least_fp32(&each))?,
        Reduction::Mean => each.f_mean(at_least_fp32(&each))?,
    })
}

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

/// One backward pass of the discriminator over generated pictures that serves both its own loss
/// and the generator's.
///
/// With two classes both losses see a picture's logits through their difference z alone
/// (p = σ(z) is the probability of "real"): d(−ln(1−p))/dz = p in the discriminator's loss and
/// d(−ln p)/dz = −(1−p) in the generator's. A backward pass is linear in what it starts from, and
/// no picture sees another: started from p at each picture, it gives the discriminator's weights
/// their gradient, and each picture the generator's gradient but for the factor −(1−p)/p.
///
/// It starts from z, not from the two logits: the gradient of a log-softmax at the likelier of
/// them is p − 1 + (1 − p), in which a small p drowns (below 6e-8 it is 0, where −p is meant).
#[derive(Debug)]
pub struct SharedPass {
    /// A scalar whose gradients with regard to the discriminator's weights are those of its loss
    /// on generated pictures. Its value means nothing.
    pub seeded: Tensor,
    /// −(1−p)/p for each picture `[N]`.
    factors: Tensor,
}

impl SharedPass {
    /// The pass starts from this probability at least. From a smaller one the pictures' gradients
    /// might fall below the smallest number of fp32 (and bf16, whose range is the same) before
    /// their factor lifts them again. It exaggerates what such a picture has to say to the
    /// discriminator's weights, to 1e-18 of what an undecided one has: far below Adam's ε.
    const RARE: f64 = 1.0 / (1u64 << 60) as f64;

    /// From the logits `[N,2]` of generated pictures, with their graph.
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

    /// The gradient of the adversarial loss at the pictures `[N,…]`, from the gradient of
    /// [`SharedPass::seeded`] (or of a multiple: then of the same multiple) there; fp32.
    ///
    /// # Errors
    /// A gradient of another number of pictures.
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
    use super::*;

    #[test]
    fn reductions_differ_by_their_stated_factors() {
        let a = Tensor::ones([4, 3, 2, 2], (Kind::Float, Device::Cpu));
        let b = &a * 3.0; // squared difference 4 at each of 48 elements
        let value = |r| squared_distance(&a, &b, r).unwrap().double_value(&[]);
        assert_eq!(value(Reduction::Paper), 192.0);
        assert_eq!(value(Reduction::Caffe), 24.0);
        assert_eq!(value(Reduction::Mean), 4.0);
    }

    #[test]
    fn diversity_is_relative_to_the_noise_and_ends_at_its_limit() {
        let options = (Kind::Float, Device::Cpu);
        let flat = |values: [f64; 2], shape: [i64; 3]| {
            let all = values.map(|v| Tensor::full(shape, v, options));
            Tensor::stack(&all, 0)
        };
        // First pair: 6 grey levels by 2; second: 30 by 1.
        let (a, b) = (flat([1.0, 7.0], [3, 2, 2]), flat([7.0, -23.0], [3, 2, 2]));
        let (za, zb) = (flat([0.0, 0.0], [5, 1, 1]), flat([2.0, -1.0], [5, 1, 1]));
        let value = |limit, reduction| {
            let term = diversity([&a, &b], [&za, &zb], limit, reduction).unwrap();
            term.double_value(&[])
        };
        assert_eq!(value(100.0, Reduction::Caffe), -16.5);
        assert_eq!(value(10.0, Reduction::Mean), -6.5);
        assert_eq!(value(1.0, Reduction::Paper), -2.0);
        // The same noise twice: a number, whatever the pictures.
        let same = diversity([&a, &a], [&za, &za], 9.0, Reduction::Mean).unwrap();
        assert_eq!(same.double_value(&[]), 0.0);
        assert!(diversity([&a, &za], [&za, &zb], 1.0, Reduction::Mean).is_err());
    }

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
    fn shapes_are_never_broadcast() {
        let a = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        let b = Tensor::ones([1, 3], (Kind::Float, Device::Cpu));
        assert!(squared_distance(&a, &b, Reduction::Caffe).is_err());
        assert!(cross_entropy(&a, Label::Real, Reduction::Caffe).is_err());
    }
}
