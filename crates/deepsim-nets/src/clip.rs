//! Gradients shortened where they are too long.

use tch::Tensor;

use crate::error::Result;
use crate::params::Param;

/// Added to the norm before it divides, as PyTorch does.
const EPSILON: f64 = 1e-6;

/// Shortens gradients in place so that the norm of all of them together is at most `most`, as PyTorch's `clip_grad_norm_`
/// does: the factor is `most / (norm + 1e-6)`, and 1 at most.
///
/// Nothing is read by the host: norm and factor stay on the device. Where the norm is no finite number, all gradients
/// become NaN. (PyTorch makes zeros of those beside an infinite one, which no check would find later.)
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn clip_norm_(weights: &[&Param], gradients: &[Tensor], most: f64) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let both = weights.iter().zip(gradients);
    let norms = both
        .map(|(weight, gradient)| Ok(in_order_of(&weight.tensor, gradient)?.f_norm()?))
        .collect::<Result<Vec<Tensor>>>()?;
    if norms.is_empty() {
        return Ok(());
    }
    let total = Tensor::f_stack(&norms, 0)?.f_norm()?;
    let factor = total
        .f_add_scalar(EPSILON)?
        .f_reciprocal()?
        .f_mul_scalar(most)?
        .f_clamp_max(1.0)?;
    let factor = factor.f_add(&total.f_mul_scalar(0.0)?)?;
    for gradient in gradients {
        let _ = gradient.shallow_clone().f_mul_(&factor)?;
    }
    Ok(())
}

/// A gradient in its weight's memory order. A norm adds up along memory: in another order the same gradient would have
/// other last digits, and a training in shards must not depend on who has added it up.
fn in_order_of(weight: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    if weight.size() != gradient.size() || weight.stride() == gradient.stride() {
        return Ok(gradient.shallow_clone());
    }
    let mut ordered = weight.f_empty_like()?;
    ordered.f_copy_(gradient)?;
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn weight(shape: &[i64]) -> Param {
        Param {
            name: "w".to_owned(),
            tensor: Tensor::zeros(shape, (Kind::Float, Device::Cpu)),
            trains: true,
            decays: true,
        }
    }

    fn clipped(gradients: &[Tensor], most: f64) -> Vec<Tensor> {
        let weights: Vec<Param> = gradients.iter().map(|g| weight(&g.size())).collect();
        let weights: Vec<&Param> = weights.iter().collect();
        let gradients: Vec<Tensor> = gradients.iter().map(Tensor::copy).collect();
        clip_norm_(&weights, &gradients, most).unwrap();
        gradients
    }

    #[test]
    fn long_gradients_are_shortened_together_and_short_ones_stay_as_they_are() {
        let gradients = [
            Tensor::from_slice(&[3f32, 0.0]),
            Tensor::from_slice(&[0f32, -4.0]),
        ];
        let halved = clipped(&gradients, 2.5);
        for (half, whole) in halved.iter().zip(&gradients) {
            let apart = (half * 2.0 - whole).abs().max().double_value(&[]);
            assert!(apart < 1e-5, "{half}");
        }
        assert_eq!(clipped(&gradients, 5.1), gradients);
        assert!(clipped(&[], 1.0).is_empty());
    }

    /// What a check of the biases' gradients would not see otherwise.
    #[test]
    fn a_norm_that_is_not_finite_leaves_no_number() {
        for spoilt in [f32::INFINITY, f32::NAN, 1e30] {
            let gradients = [Tensor::from_slice(&[1f32]), Tensor::from_slice(&[spoilt])];
            for gradient in clipped(&gradients, 1.0) {
                assert!(gradient.double_value(&[0]).is_nan(), "{spoilt}");
            }
        }
    }

    #[test]
    fn the_order_in_memory_changes_no_digit() {
        let plain = Tensor::arange(60, (Kind::Float, Device::Cpu)).view([5, 12]) * 0.37;
        let turned = plain.transpose(0, 1).contiguous().transpose(0, 1);
        assert_ne!(plain.stride(), turned.stride());
        assert_eq!(clipped(&[plain], 1.0), clipped_as_it_lies(&turned));
    }

    /// Of a gradient whose order in memory is not its weight's.
    fn clipped_as_it_lies(gradient: &Tensor) -> Vec<Tensor> {
        let own = weight(&gradient.size());
        clip_norm_(&[&own], &[gradient.shallow_clone()], 1.0).unwrap();
        vec![gradient.contiguous()]
    }
}
