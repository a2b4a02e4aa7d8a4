//! Spectral normalisation of a weight (Miyato et al. 2018), as PyTorch's `torch.nn.utils.spectral_norm` computes it.

use tch::Tensor;

use crate::error::Result;

/// Least length of a vector before it is divided by its length (PyTorch's).
const EPSILON: f64 = 1e-12;

/// The tensors of a layer whose weight is divided by its largest singular value.
#[derive(Debug)]
pub(crate) struct Spectral {
    pub bias: Tensor,
    /// The weight that learns, `[out,…]`, a matrix `[out,rest]` to what follows.
    pub weight: Tensor,
    /// Left singular vector `[out]`, as far as it is found.
    pub u: Tensor,
    /// Right singular vector `[rest]`.
    pub v: Tensor,
}

impl Spectral {
    /// In the order of [`super::op::Op::tensors`].
    pub(crate) fn tensors(&self) -> [&Tensor; 4] {
        [&self.bias, &self.weight, &self.u, &self.v]
    }

    /// W / σ with σ = uᵀWv. Gradients go to W by both ways; u and v are constants.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn normalised(&self) -> Result<Tensor> {
        // Copies, in effect: a later step of the iteration does not change what a pass back reads. Products of numbers and
        // not of matrices: autocast would round those to bf16.
        let outer = self.u.f_unsqueeze(1)?.f_mul(&self.v.f_unsqueeze(0)?)?;
        let outer = outer.f_view(self.weight.size().as_slice())?;
        let sigma = self.weight.f_mul(&outer)?.f_sum(self.weight.kind())?;
        Ok(self.weight.f_div(&sigma)?)
    }

    /// One step of the power iteration: v from u, then u from v.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn iterate(&self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let unit = |x: Tensor| -> Result<Tensor> {
            let length = x.f_norm()?.f_clamp_min(EPSILON)?;
            Ok(x.f_div(&length)?)
        };
        let matrix = self.weight.f_flatten(1, -1)?;
        let v = unit(matrix.f_transpose(0, 1)?.f_mv(&self.u)?)?;
        let u = unit(matrix.f_mv(&v)?)?;
        self.v.shallow_clone().f_copy_(&v)?;
        self.u.shallow_clone().f_copy_(&u)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::{normal, untrained};

    #[test]
    fn steps_find_the_largest_singular_value() {
        let draw = |name: &str, shape: &[i64]| untrained(name, shape, 1.0, 3).unwrap();
        let spectral = Spectral {
            bias: draw("a.bias", &[6]),
            weight: draw("a.weight_orig", &[6, 2, 3, 3]),
            u: draw("a.weight_u", &[6]),
            v: draw("a.weight_v", &[18]),
        };
        assert!((spectral.u.norm().double_value(&[]) - 1.0).abs() < 1e-6);
        let before = spectral.normalised().unwrap();
        for _ in 0..300 {
            spectral.iterate().unwrap();
        }
        let largest = |weight: &Tensor| {
            let (_, values, _) = weight.flatten(1, -1).svd(true, true);
            values.max().double_value(&[])
        };
        let found = largest(&spectral.normalised().unwrap());
        assert!((found - 1.0).abs() < 1e-4, "{found}");
        assert!((largest(&before) - 1.0).abs() > 1e-2);
        // A direction that does not change W / σ: W itself.
        let weight = spectral.weight.copy().set_requires_grad(true);
        let learning = Spectral {
            weight: weight.shallow_clone(),
            ..spectral
        };
        let pull = normal("pull", &[6, 2, 3, 3], 1.0, 1).unwrap();
        let y = (learning.normalised().unwrap() * pull).sum(tch::Kind::Float);
        let gradient = Tensor::run_backward(&[y], &[&weight], false, false).remove(0);
        let along = (&gradient * &weight)
            .sum(tch::Kind::Float)
            .double_value(&[]);
        let size = (gradient.norm() * weight.norm()).double_value(&[]);
        assert!(along.abs() < 1e-4 * size, "{along} of {size}");
    }
}
