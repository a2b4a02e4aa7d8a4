//! Batch normalisation of networks that learn (Ioffe & Szegedy 2015), with the constants of VAE/GAN's authors.

use tch::Tensor;

use super::mode::Mode;
use crate::error::{NetError, Result};
use crate::precision::widened;

/// Added to variances before their root is taken (the authors' 1e-6).
const EPSILON: f64 = 1e-6;
/// Weight of a batch in the running statistics (the authors' momentum of 0.9, in libtorch's convention).
const NEWEST: f64 = 0.1;

/// The tensors of one batch normalisation, one value a channel.
#[derive(Debug)]
pub(crate) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub running_mean: Tensor,
    pub running_var: Tensor,
}

impl Norm {
    /// In the order of [`super::op::Op::tensors`].
    pub(crate) fn tensors(&self) -> [&Tensor; 4] {
        [
            &self.weight,
            &self.bias,
            &self.running_mean,
            &self.running_var,
        ]
    }

    /// `x` `[N,C,H,W]` or `[N,C]`, normalised over all but its channels, in fp32 at least.
    ///
    /// # Errors
    /// A single image where its batch's statistics are asked for.
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let batch = mode != Mode::Evaluation;
        if batch && x.size().first().is_none_or(|&n| n < 2) {
            return Err(NetError::InputShape {
                what: "batch normalisation in training".to_owned(),
                expected: "a batch of at least 2 images".to_owned(),
                got: x.size(),
            });
        }
        let (mean, variance) = match mode {
            Mode::Aside => (None, None),
            Mode::Training | Mode::Evaluation => {
                (Some(&self.running_mean), Some(&self.running_var))
            }
        };
        // In bf16 libtorch's normalisation is slower on a CPU, and its results coarser.
        Ok(widened(x)?.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            mean,
            variance,
            batch,
            NEWEST,
            EPSILON,
            true,
        )?)
    }
}
