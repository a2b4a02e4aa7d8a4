//! What phases of micro-batches find, and how it adds up.

use deepsim_nets::loss::{Term, Terms};
use tch::Tensor;

use crate::error::Result;
use crate::method::gradients::Gradients;
use crate::method::sides::Sides;

/// Gradients, terms and losses of a phase of one micro-batch, or of several phases and micro-batches. They are parts of
/// those of the global batch: see [`Slice`](crate::method::slice::Slice).
#[derive(Debug, Default)]
pub struct Sums {
    /// Unweighted terms: numbers alone, without their graphs.
    pub terms: Terms<Tensor>,
    /// The discriminator's losses; none where it was not asked. Numbers alone.
    pub discriminator: Option<Sides<Tensor>>,
    /// Mean scores of real and of generated images, where averages of them are kept. Numbers alone.
    pub scores: Option<Sides<Tensor>>,
    /// Gradients of networks, each network once (and once those of the adversarial term alone, where its weight is yet to
    /// be found), in the order in which they were computed.
    pub gradients: Vec<Gradients>,
}

impl Sums {
    /// What one phase has found. The graphs of terms and losses are let go.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn new(
        terms: &Terms<Tensor>,
        discriminator: Option<&Sides<Tensor>>,
        gradients: Vec<Gradients>,
    ) -> Result<Sums> {
        let number = |(term, value): (&Term, &Tensor)| -> Result<(Term, Tensor)> {
            Ok((term.clone(), value.f_detach()?))
        };
        let sides = |Sides { real, generated }: &Sides<Tensor>| -> Result<Sides<Tensor>> {
            Ok(Sides {
                real: real.f_detach()?,
                generated: generated.f_detach()?,
            })
        };
        Ok(Sums {
            terms: terms.iter().map(number).collect::<Result<_>>()?,
            discriminator: discriminator.map(sides).transpose()?,
            scores: None,
            gradients,
        })
    }

    /// Terms and losses.
    pub(crate) fn numbers(&self) -> Vec<&Tensor> {
        let terms = self.terms.iter().map(|(_, value)| value);
        let sides = self.discriminator.iter().chain(&self.scores);
        let sides = sides.flat_map(|sides| [&sides.real, &sides.generated]);
        terms.chain(sides).collect()
    }

    /// Puts another tensor in each one's place, in the order of [`Sums::numbers`].
    pub(crate) fn replace_numbers<E>(
        &mut self,
        mut by: impl FnMut(&Tensor) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<(), E> {
        let terms: Vec<_> = self.terms.iter().map(|(term, _)| term.clone()).collect();
        for term in terms {
            if let Some(value) = self.terms.get(&term) {
                let other = by(value)?;
                self.terms.set(term, other);
            }
        }
        let sides = self.discriminator.iter_mut().chain(&mut self.scores);
        for Sides { real, generated } in sides {
            *real = by(real)?;
            *generated = by(generated)?;
        }
        Ok(())
    }

    /// Every tensor: gradients, terms and losses.
    pub(crate) fn all(&self) -> Vec<&Tensor> {
        let gradients = self.gradients.iter().flat_map(|g| &g.tensors);
        gradients.chain(self.numbers()).collect()
    }

    /// Puts another tensor in each one's place, in the order of [`Sums::all`].
    pub(crate) fn replace(&mut self, mut by: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<()> {
        for gradients in &mut self.gradients {
            for tensor in &mut gradients.tensors {
                *tensor = by(tensor)?;
            }
        }
        self.replace_numbers(by)
    }

    /// Adds what another phase or another micro-batch has found. What only one of the two has stays as it is.
    ///
    /// # Errors
    /// Gradients of a network of another shape.
    pub fn add_(&mut self, other: Sums) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (term, value) in other.terms.iter() {
            let sum = match self.terms.get(term) {
                Some(known) => known.f_add(value)?,
                None => value.shallow_clone(),
            };
            self.terms.set(term.clone(), sum);
        }
        let added = |known: Option<Sides<Tensor>>, new: Option<Sides<Tensor>>| -> Result<_> {
            Ok(match (known, new) {
                (Some(known), Some(new)) => Some(Sides {
                    real: known.real.f_add(&new.real)?,
                    generated: known.generated.f_add(&new.generated)?,
                }),
                (known, new) => known.or(new),
            })
        };
        self.discriminator = added(self.discriminator.take(), other.discriminator)?;
        self.scores = added(self.scores.take(), other.scores)?;
        for new in other.gradients {
            let mut known = self.gradients.iter_mut();
            if let Some(known) = known.find(|known| known.whose() == new.whose()) {
                known.add_(&new)?;
            } else {
                self.gradients.push(new);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::gradients::Player;
    use deepsim_nets::loss::TermKind;

    fn sums(kind: TermKind, player: Player, value: f32) -> Sums {
        let tensor = || Tensor::from_slice(&[value, 2.0 * value]);
        let mut terms = Terms::default();
        terms.set(kind, Tensor::from_slice(&[value]).squeeze());
        let gradients = vec![Gradients::of(player, vec![tensor()])];
        Sums::new(&terms, None, gradients).unwrap()
    }

    #[test]
    fn what_both_have_is_added_and_the_rest_is_kept() {
        let mut all = sums(TermKind::Image, Player::Generator, 1.0);
        all.add_(sums(TermKind::Image, Player::Generator, 4.0))
            .unwrap();
        all.add_(sums(TermKind::Kl, Player::Encoder, 3.0)).unwrap();
        let terms: Vec<f64> = all.terms.iter().map(|(_, v)| v.double_value(&[])).collect();
        assert_eq!(terms, [5.0, 3.0]);
        let players: Vec<Player> = all.gradients.iter().map(|g| g.player).collect();
        assert_eq!(players, [Player::Generator, Player::Encoder]);
        let values = Vec::<f32>::try_from(&all.gradients[0].tensors[0]).unwrap();
        assert_eq!(values, [5.0, 10.0]);
        // The norm is that of the sum.
        let norm = all.gradients[0].norm().unwrap().unwrap();
        assert!((norm.double_value(&[]) - 125f64.sqrt()).abs() < 1e-5);
        assert!(all.discriminator.is_none());
    }
}
