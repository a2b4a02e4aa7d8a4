//! Batch normalisation of networks that learn (Ioffe & Szegedy 2015), with the constants of VAE/GAN's authors.

use deepsim_aten::{has_others, leads, summed};
use tch::Tensor;

use super::mode::Mode;
use crate::error::{NetError, Result};
use crate::precision::widened;

/// Weight of a batch in the running statistics (the authors' momentum of 0.9, in libtorch's convention).
const NEWEST: f64 = 0.1;

/// The tensors of one batch normalisation, one value a channel.
#[derive(Debug)]
pub(crate) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub running_mean: Tensor,
    pub running_var: Tensor,
    /// Added to variances before their root is taken.
    pub epsilon: f64,
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
        if batch && has_others() {
            return self.over_parts(&widened(x)?, mode);
        }
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
            self.epsilon,
            true,
        )?)
    }

    /// As [`Norm::forward`] in training, with the statistics of the whole batch, of which others have parts.
    fn over_parts(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let size = x.size();
        let channels = size[1];
        let others: Vec<i64> = (0..x.dim() as i64).filter(|&dim| dim != 1).collect();
        let sum = |x: &Tensor| x.f_sum_dim_intlist(others.as_slice(), false, x.kind());
        let mut shape = vec![1; x.dim()];
        shape[1] = channels;
        let own = Tensor::f_full(
            [1],
            x.numel() as f64 / channels as f64,
            (x.kind(), x.device()),
        )?;
        let sums = summed(&Tensor::f_cat(&[sum(x)?, own], 0)?)?;
        let count = sums.f_double_value(&[channels])?;
        if count < 2.0 {
            return Err(NetError::InputShape {
                what: "batch normalisation in training".to_owned(),
                expected: "a batch of at least 2 images in all parts".to_owned(),
                got: size,
            });
        }
        let mean = sums.f_narrow(0, 0, channels)?.f_div_scalar(count)?;
        let centred = x.f_sub(&mean.f_view(shape.as_slice())?)?;
        let squares = summed(&sum(&centred.f_square()?)?)?;
        let variance = squares.f_div_scalar(count)?;
        if mode == Mode::Training && leads() {
            let _guard = tch::no_grad_guard();
            let follow = |running: &Tensor, newest: &Tensor| -> Result<()> {
                let newest = newest.f_to_kind(running.kind())?;
                let _ = running.shallow_clone().f_lerp_(&newest, NEWEST)?;
                Ok(())
            };
            follow(&self.running_mean, &mean)?;
            // Unbiased, as libtorch's.
            let unbiased = variance.f_mul_scalar(count / (count - 1.0))?;
            follow(&self.running_var, &unbiased)?;
        }
        let scale = variance
            .f_add_scalar(self.epsilon)?
            .f_rsqrt()?
            .f_mul(&self.weight)?;
        let scaled = centred.f_mul(&scale.f_view(shape.as_slice())?)?;
        Ok(scaled.f_add(&self.bias.f_view(shape.as_slice())?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use deepsim_aten::{AtenError, ProcessGroup, Rendezvous, in_turns, over_group};
    use tch::Kind;

    use super::*;
    use crate::layers::init::normal;

    fn norm() -> Norm {
        let tensor = |name: &str| normal(name, &[3], 1.0, 1).unwrap().to_kind(Kind::Double);
        Norm {
            weight: tensor("weight").set_requires_grad(true),
            bias: tensor("bias").set_requires_grad(true),
            running_mean: tensor("mean"),
            running_var: tensor("var").square(),
            epsilon: 1e-6,
        }
    }

    fn double(name: &str) -> Tensor {
        normal(name, &[5, 3, 4, 2], 1.0, 1)
            .unwrap()
            .to_kind(Kind::Double)
    }

    /// What comes out, and gradients of a loss with regard to the input, the weight and the bias.
    fn computed(norm: &Norm, from: i64, len: i64, mode: Mode) -> [Tensor; 4] {
        let of = |all: Tensor| all.narrow(0, from, len);
        let x = of(double("x")).copy().set_requires_grad(true);
        let y = norm.forward(&x, mode).unwrap();
        let loss =
            (&y * of(double("pull"))).sum(Kind::Double) + y.pow_tensor_scalar(3).sum(Kind::Double);
        let inputs = [&x, &norm.weight, &norm.bias];
        let mut found = Tensor::run_backward(&[loss], &inputs, false, false).into_iter();
        let mut next = || found.next().unwrap();
        [y.detach(), next(), next(), next()]
    }

    fn near(found: &Tensor, expected: &Tensor, what: &str) {
        let far = (found - expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
        assert!(far < 1e-12, "{what}: {far:.1e}");
    }

    /// Processes are threads here: each has a group of its own.
    #[test]
    fn statistics_over_processes_are_those_of_the_whole_batch_forward_and_back() {
        for mode in [Mode::Training, Mode::Aside] {
            let alone = norm();
            let whole = computed(&alone, 0, 5, mode);
            let port = {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                listener.local_addr().unwrap().port()
            };
            let parts = [(0, 2), (2, 3)];
            let threads = [0, 1].map(|rank: i64| {
                std::thread::spawn(move || {
                    let at = Rendezvous {
                        host: "127.0.0.1".into(),
                        port,
                        rank,
                        size: 2,
                        serves: rank == 0,
                        prefix: "norm".into(),
                    };
                    let group = Arc::new(ProcessGroup::join(&at, Duration::from_secs(60)).unwrap());
                    let (from, len) = parts[usize::try_from(rank).unwrap()];
                    let own = norm();
                    let found =
                        over_group(Some(Arc::clone(&group)), || computed(&own, from, len, mode));
                    group.barrier().unwrap();
                    (found, [own.running_mean, own.running_var])
                })
            });
            let [(first, running), (second, other)] = threads.map(|thread| thread.join().unwrap());
            near(
                &Tensor::cat(&[&first[0], &second[0]], 0),
                &whole[0],
                "values",
            );
            near(
                &Tensor::cat(&[&first[1], &second[1]], 0),
                &whole[1],
                "gradients of values",
            );
            near(&(&first[2] + &second[2]), &whole[2], "gradients of weights");
            near(&(&first[3] + &second[3]), &whole[3], "gradients of biases");
            for running in [running, other] {
                near(&running[0], &alone.running_mean, "the running mean");
                near(&running[1], &alone.running_var, "the running variance");
            }
        }
    }

    /// Three shards of a process, of different sizes.
    #[test]
    fn statistics_over_shards_are_those_of_the_whole_batch_forward_and_back() {
        for mode in [Mode::Training, Mode::Aside] {
            let (alone, own) = (norm(), norm());
            let whole = computed(&alone, 0, 5, mode);
            let parts = [(0, 2), (2, 1), (3, 2)];
            let found = in_turns(
                None,
                3,
                |shard| -> std::result::Result<[Tensor; 4], AtenError> {
                    let (from, len) = parts[shard];
                    Ok(computed(&own, from, len, mode))
                },
            );
            let found = found.unwrap();
            let cat = |at: usize| {
                let all: Vec<&Tensor> = found.iter().map(|part| &part[at]).collect();
                Tensor::cat(&all, 0)
            };
            let sum = |at: usize| {
                found
                    .iter()
                    .fold(&found[0][at] * 0.0, |sum, part| sum + &part[at])
            };
            near(&cat(0), &whole[0], "values");
            near(&cat(1), &whole[1], "gradients of values");
            near(&sum(2), &whole[2], "gradients of weights");
            near(&sum(3), &whole[3], "gradients of biases");
            near(&own.running_mean, &alone.running_mean, "the running mean");
            near(&own.running_var, &alone.running_var, "the running variance");
        }
    }
}
