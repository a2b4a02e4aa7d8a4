//! The numbers of an iteration: one read of the device, and a look whether all are finite.

use deepsim_nets::NetError;
use deepsim_nets::loss::{Term, TermKind, Terms};
use tch::{Device, Kind, Tensor};
use tracing::trace_span;

use crate::error::{Result, TrainError};
use crate::method::gradients::Player;
use crate::method::sides::Sides;
use crate::method::sums::Sums;

/// Unweighted losses of one iteration, and what the gate made of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// The terms that were computed.
    pub terms: Terms<f64>,
    /// The discriminator's losses; none without an adversarial term.
    pub discriminator: Option<Sides<f64>>,
    /// The discriminator's loss over the adversarial one; NaN where the gate did not look.
    pub ratio: f64,
}

impl Losses {
    /// A kind's term without a name; NaN where it was not computed.
    pub fn of(&self, kind: TermKind) -> f64 {
        self.terms.of(kind).copied().unwrap_or(f64::NAN)
    }

    /// The discriminator's loss: on real images plus on generated images; NaN without one.
    pub fn discriminator(&self) -> f64 {
        self.discriminator
            .map_or(f64::NAN, |sides| sides.real + sides.generated)
    }
}

/// All numbers of an iteration, still on its device: the sums of its micro-batches, in one vector. The host learns what they
/// are by [`Numbers::read`] alone.
#[derive(Debug)]
pub(crate) struct Numbers {
    terms: Vec<Term>,
    /// Whether the discriminator's two losses follow the terms.
    sides: bool,
    /// Whether the mean scores of real and of generated images follow.
    scores: bool,
    /// Networks that were updated: the sizes of their gradients come last.
    players: Vec<Player>,
    /// `[n]` in fp64.
    values: Tensor,
}

impl Numbers {
    /// Collects them on `device`.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn collect(sums: &Sums, device: Device) -> Result<Numbers> {
        let _phase = trace_span!("losses").entered();
        let _guard = tch::no_grad_guard();
        let Sums {
            terms,
            discriminator,
            scores,
            gradients,
        } = sums;
        let (mut players, mut norms) = (Vec::new(), Vec::new());
        for of_network in gradients {
            if let Some(norm) = of_network.norm()? {
                players.push(of_network.player);
                norms.push(norm);
            }
        }
        // fp32 and fp64 side by side become fp64.
        let nothing = Tensor::f_zeros([], (Kind::Float, device))?;
        let all = sums.numbers().into_iter().chain(&norms).chain([&nothing]);
        let all: Vec<&Tensor> = all.collect();
        Ok(Numbers {
            terms: terms.iter().map(|(term, _)| term.clone()).collect(),
            sides: discriminator.is_some(),
            scores: scores.is_some(),
            players,
            values: Tensor::f_stack(&all, 0)?.f_to_kind(Kind::Double)?,
        })
    }

    /// Place for the numbers of other iterations of the same kind.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn like(&self) -> Result<Numbers> {
        Ok(Numbers {
            terms: self.terms.clone(),
            sides: self.sides,
            scores: self.scores,
            players: self.players.clone(),
            values: self.values.f_zeros_like()?,
        })
    }

    /// Takes the numbers of another iteration of the same kind, on the device.
    ///
    /// # Errors
    /// Another kind of iteration.
    pub(crate) fn take(&self, other: &Numbers) -> Result<()> {
        let kind = |of: &Numbers| (of.terms.clone(), of.sides, of.scores, of.players.clone());
        if kind(self) != kind(other) {
            let words = "iterations of different kinds have different numbers";
            return Err(NetError::Spec(words.to_owned()).into());
        }
        let _guard = tch::no_grad_guard();
        Ok(self.values.shallow_clone().f_copy_(&other.values)?)
    }

    /// Reads them, those of the iteration after `step`: losses, and mean scores where there are some. It is the one read of
    /// the device.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] that names the first of them that is not finite: terms, the discriminator's losses,
    /// mean scores, gradients.
    pub(crate) fn read(&self, step: u64) -> Result<(Losses, Option<Sides<f64>>)> {
        let values = self.values.f_to_device(Device::Cpu)?;
        let values = Vec::<f64>::try_from(&values)?;
        let spoilt = self
            .names()
            .zip(&values)
            .find(|(_, value)| !value.is_finite());
        if let Some((name, &value)) = spoilt {
            return Err(TrainError::NotFinite {
                step: step + 1,
                term: name,
                value,
                newest: None,
            });
        }
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or(f64::NAN);
        let terms = self.terms.iter().map(|term| (term.clone(), next()));
        let terms = terms.collect();
        let mut sides = || Sides {
            real: next(),
            generated: next(),
        };
        let losses = Losses {
            terms,
            discriminator: self.sides.then(&mut sides),
            ratio: f64::NAN,
        };
        Ok((losses, self.scores.then(sides)))
    }

    /// What each of them is called in messages, in their order.
    fn names(&self) -> impl Iterator<Item = String> {
        let terms = self.terms.iter().map(Term::log_key);
        let sides = ["loss.discr_real", "loss.discr_fake"];
        let scores = [
            "the mean score of real images",
            "the mean score of generated images",
        ];
        let sides = sides.into_iter().take(2 * usize::from(self.sides));
        let scores = scores.into_iter().take(2 * usize::from(self.scores));
        let sides = sides.chain(scores).map(str::to_owned);
        let players = self.players.iter();
        let norms = players.map(|player| format!("{}'s gradient", player.name()));
        terms.chain(sides).chain(norms)
    }
}
