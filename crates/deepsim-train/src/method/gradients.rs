//! Backward passes, and a number for each that tells whether all of it is finite.

use deepsim_nets::params::Params;
use tch::{Kind, Tensor};

use crate::error::Result;

/// A network that trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Player {
    /// The generator.
    Generator,
    /// The discriminator.
    Discriminator,
    /// An encoder that learns.
    Encoder,
}

impl Player {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Player::Generator => "the generator",
            Player::Discriminator => "the discriminator",
            Player::Encoder => "the encoder",
        }
    }
}

/// Gradients of one network's weights that train, in their order.
#[derive(Debug)]
pub struct Gradients {
    /// Whose.
    pub player: Player,
    /// One for each weight.
    pub tensors: Vec<Tensor>,
    /// A number that is finite where they are, on their device; none where there are none.
    pub norm: Option<Tensor>,
}

impl Gradients {
    /// With their norm.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn new(player: Player, tensors: Vec<Tensor>) -> Result<Gradients> {
        Ok(Gradients {
            player,
            norm: gradient_norm(&tensors)?,
            tensors,
        })
    }

    /// Adds the same network's gradients of another micro-batch.
    ///
    /// # Errors
    /// Gradients of other shapes.
    pub fn add_(&mut self, other: &Gradients) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (sum, gradient) in self.tensors.iter_mut().zip(&other.tensors) {
            *sum = sum.f_add(gradient)?;
        }
        self.norm = gradient_norm(&self.tensors)?;
        Ok(())
    }
}

/// Gradients of a loss with regard to the weights that train, network by network. Nothing
/// else is differentiated: no gradient is computed for another network's weights on the way.
///
/// # Errors
/// A loss without graph.
pub fn backward<const N: usize>(loss: &Tensor, networks: [&Params; N]) -> Result<[Vec<Tensor>; N]> {
    let counts = networks.map(|params| trained(params).len());
    let weights: Vec<&Tensor> = networks.into_iter().flat_map(trained).collect();
    let all = Tensor::f_run_backward(&[loss], &weights, false, false)?;
    let mut all = all.into_iter();
    Ok(counts.map(|n| all.by_ref().take(n).collect()))
}

/// The weights of a network that train.
pub(crate) fn trained(params: &Params) -> Vec<&Tensor> {
    params.trained().into_iter().map(|p| &p.tensor).collect()
}

/// Runs `body` with gradients recorded or not.
pub(crate) fn with_grad<T>(on: bool, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let _guard = (!on).then(tch::no_grad_guard);
    body()
}

/// A number that is finite where a network's gradients are: the sum of the norms of its biases' (of its first weight's,
/// where it has none). What is not finite anywhere in a backward pass reaches the biases of all layers below, the
/// first layer's in any case; that a norm squares tells a gradient which only Adam's square would make infinite. The
/// weights' own would take a pass over hundreds of megabytes: what
/// escapes here is found before it is saved ([`crate::state::State::is_finite`]).
fn gradient_norm(gradients: &[Tensor]) -> Result<Option<Tensor>> {
    let _guard = tch::no_grad_guard();
    let biases = gradients.iter().filter(|g| g.dim() == 1);
    let mut chosen: Vec<&Tensor> = biases.collect();
    if chosen.is_empty() {
        chosen.extend(gradients.first());
    }
    let norms = chosen
        .into_iter()
        .map(|g| g.f_norm()?.f_to_kind(Kind::Float))
        .collect::<std::result::Result<Vec<Tensor>, _>>()?;
    Ok(if norms.is_empty() {
        None
    } else {
        Some(Tensor::f_stack(&norms, 0)?.f_sum(Kind::Float)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn one_number_that_is_not_finite_shows_in_the_norm() {
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        let norm = |g: &[Tensor]| gradient_norm(g).unwrap().map(|sum| sum.double_value(&[]));
        let (weight, bias, last) = (ones(&[4, 3, 5, 5]), ones(&[4]), ones(&[9]));
        let finite = [weight, bias, last];
        assert_eq!(norm(&finite), Some(2.0 + 3.0));
        assert_eq!(norm(&finite[..1]), Some(300f32.sqrt().into()));
        assert_eq!(norm(&[]), None);
        for at in [1, 2] {
            for spoilt in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e25] {
                let grads: Vec<Tensor> = finite.iter().map(Tensor::copy).collect();
                let _ = grads[at].get(1).fill_(spoilt);
                assert!(!norm(&grads).unwrap().is_finite(), "{at}: {spoilt}");
            }
        }
    }
}
