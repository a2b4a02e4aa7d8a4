//! Backward passes, and a number for each that tells whether all of it is finite.

use deepsim_nets::NetError;
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
    /// Whether they are of the adversarial term alone, whose weight is not known yet.
    pub adversarial: bool,
    /// One for each weight.
    pub tensors: Vec<Tensor>,
}

impl Gradients {
    /// What a backward pass has found of a network.
    pub fn of(player: Player, tensors: Vec<Tensor>) -> Gradients {
        Gradients {
            player,
            adversarial: false,
            tensors,
        }
    }

    /// The same, of the adversarial term alone.
    pub fn of_adversarial(player: Player, tensors: Vec<Tensor>) -> Gradients {
        Gradients {
            adversarial: true,
            ..Gradients::of(player, tensors)
        }
    }

    /// Whose they are, and whether of the adversarial term alone.
    pub(crate) fn whose(&self) -> (Player, bool) {
        (self.player, self.adversarial)
    }

    /// Adds the same network's gradients of another micro-batch, in place.
    ///
    /// # Errors
    /// Gradients of another network, of another number of weights, or of other shapes; nothing is changed then.
    pub fn add_(&mut self, other: &Gradients) -> Result<()> {
        let shapes = |of: &Gradients| of.tensors.iter().map(Tensor::size).collect::<Vec<_>>();
        let (own, others) = (shapes(self), shapes(other));
        if self.whose() != other.whose() || own != others {
            return Err(NetError::Spec(format!(
                "gradients cannot be added: of {} with shapes {own:?}, and of {} with shapes {others:?}",
                self.player.name(),
                other.player.name()
            ))
            .into());
        }
        let _guard = tch::no_grad_guard();
        for (sum, gradient) in self.tensors.iter_mut().zip(&other.tensors) {
            let _ = sum.f_add_(gradient)?;
        }
        Ok(())
    }

    /// A number that is finite where they are, on their device; none where there are none. It is the sum of the norms of
    /// the biases' gradients (of the first weight's, where there are no biases). What is not finite anywhere in a backward
    /// pass reaches the biases of all layers below, the first layer's in any case; that a norm squares tells a gradient
    /// which only Adam's square would make infinite. The weights' own would take a pass over hundreds of megabytes: what
    /// escapes here is found before it is saved ([`crate::state::State::is_finite`]).
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn norm(&self) -> Result<Option<Tensor>> {
        let _guard = tch::no_grad_guard();
        let biases = self.tensors.iter().filter(|g| g.dim() == 1);
        let mut chosen: Vec<&Tensor> = biases.collect();
        if chosen.is_empty() {
            chosen.extend(self.tensors.first());
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
}

/// Gradients of a loss with regard to the weights that train, network by network. Nothing
/// else is differentiated: no gradient is computed for another network's weights on the way.
///
/// # Errors
/// A loss without graph.
pub fn backward<const N: usize>(loss: &Tensor, networks: [&Params; N]) -> Result<[Vec<Tensor>; N]> {
    backward_with(loss, networks, false)
}

/// As [`backward`], after which another pass may go back through the same graph where it is kept.
///
/// # Errors
/// As [`backward`].
pub(crate) fn backward_with<const N: usize>(
    loss: &Tensor,
    networks: [&Params; N],
    keep_graph: bool,
) -> Result<[Vec<Tensor>; N]> {
    // libtorch does not check it, and would go back from nothing.
    if !loss.requires_grad() {
        let reason = "the loss depends on no weight that trains: nothing can go down it";
        return Err(NetError::Spec(reason.to_owned()).into());
    }
    let counts = networks.map(|params| trained(params).len());
    let weights: Vec<&Tensor> = networks.into_iter().flat_map(trained).collect();
    let all = Tensor::f_run_backward(&[loss], &weights, keep_graph, false)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn gradients(player: Player, tensors: &[Tensor]) -> Gradients {
        Gradients::of(player, tensors.iter().map(Tensor::copy).collect())
    }

    fn ones(shape: &[i64]) -> Tensor {
        Tensor::ones(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn one_number_that_is_not_finite_shows_in_the_norm() {
        let norm = |g: &[Tensor]| {
            let norm = gradients(Player::Generator, g).norm().unwrap();
            norm.map(|sum| sum.double_value(&[]))
        };
        let finite = [ones(&[4, 3, 5, 5]), ones(&[4]), ones(&[9])];
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

    #[test]
    fn a_loss_without_a_graph_is_an_error() {
        let error = backward(&ones(&[]), [&Params::default()]).unwrap_err();
        assert!(error.to_string().contains("no weight that trains"));
    }

    #[test]
    fn gradients_of_the_same_weights_are_added_in_place() {
        let mut sum = gradients(Player::Encoder, &[ones(&[2, 3]), ones(&[2])]);
        let places: Vec<_> = sum.tensors.iter().map(Tensor::data_ptr).collect();
        let more = gradients(Player::Encoder, &[ones(&[2, 3]) * 2.0, ones(&[2]) * 3.0]);
        sum.add_(&more).unwrap();
        assert_eq!(sum.tensors, [ones(&[2, 3]) * 3.0, ones(&[2]) * 4.0]);
        let after: Vec<_> = sum.tensors.iter().map(Tensor::data_ptr).collect();
        assert_eq!(after, places);
        assert_eq!(more.tensors, [ones(&[2, 3]) * 2.0, ones(&[2]) * 3.0]);
    }

    /// libtorch would repeat the values of a smaller tensor, and a pass over both would end with the shorter.
    #[test]
    fn gradients_of_other_weights_are_refused() {
        let own = [ones(&[2, 3]), ones(&[2])];
        for (player, other, words) in [
            (Player::Encoder, vec![ones(&[2, 3])], "[[2, 3]]"),
            (Player::Encoder, vec![ones(&[2, 3]), ones(&[1])], "[1]]"),
            (Player::Encoder, vec![ones(&[3]), ones(&[2])], "[[3], [2]]"),
            (
                Player::Generator,
                vec![ones(&[2, 3]), ones(&[2])],
                "the generator",
            ),
        ] {
            let mut sum = gradients(Player::Encoder, &own);
            let error = sum.add_(&gradients(player, &other)).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(words), "{words} is not in: {error}");
            assert_eq!(sum.tensors, own);
        }
        let mut sum = gradients(Player::Encoder, &own);
        let own = own.iter().map(Tensor::copy).collect();
        let adversarial = Gradients::of_adversarial(Player::Encoder, own);
        assert!(sum.add_(&adversarial).is_err());
    }
}
