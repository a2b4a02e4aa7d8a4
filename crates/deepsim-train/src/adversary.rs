//! The discriminator's part of an iteration: its losses, its gradients, and what it tells the
//! generator, in the paper's order or in one pass over the generated pictures.

use deepsim_experiment::config::RawPasses;
use deepsim_nets::losses::{Label, SharedPass, cross_entropy};
use deepsim_nets::params::Params;
use deepsim_nets::{AutocastGuard, Discriminator, Mode, Precision, Reduction};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::gate::Gate;
use crate::iteration::with_grad;

/// A discriminator and how it is asked.
#[derive(Debug)]
pub struct Judge<'a> {
    /// It.
    pub discriminator: &'a Discriminator,
    /// What its feature branch sees, where it has one.
    pub features: Option<&'a Tensor>,
    /// How its losses over a batch become numbers.
    pub reduction: Reduction,
    /// Weight of the adversarial loss, and of its own.
    pub weight: f64,
    /// Arithmetic.
    pub precision: Precision,
}

/// What came of the discriminator's step.
#[derive(Debug)]
pub struct Judged {
    /// Its loss on photographs.
    pub real: Tensor,
    /// Its loss on generated pictures.
    pub generated: Tensor,
    /// Weighted gradients of its trained weights; none while it pauses.
    pub gradients: Option<Vec<Tensor>>,
    /// What the generator will follow.
    pub adversarial: Adversarial,
}

/// The adversarial part of the generator's loss.
#[derive(Debug)]
pub enum Adversarial {
    /// The updated discriminator is yet to be asked.
    Later,
    /// The loss, with its graph where the generator learns.
    Loss(Tensor),
    /// The loss as a number only, and its weighted gradient at the generated pictures.
    Found {
        /// The loss.
        loss: Tensor,
        /// The gradient.
        gradient: Tensor,
    },
}

impl Judge<'_> {
    /// The discriminator learns to tell photographs `x` from generated pictures. Its losses are
    /// computed while it pauses too: the gate needs them to let it go on.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn judge(
        &self,
        x: &Tensor,
        fake: &Tensor,
        passes: RawPasses,
        gate: Gate,
    ) -> Result<Judged> {
        match passes {
            RawPasses::Paper => self.before_its_update(x, fake, gate),
            RawPasses::One => self.once_for_both(x, fake, gate),
        }
    }

    /// The loss of pictures towards a label.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn loss(&self, pictures: &Tensor, label: Label) -> Result<Tensor> {
        self.cost(&self.logits(pictures)?, label)
    }

    fn before_its_update(&self, x: &Tensor, fake: &Tensor, gate: Gate) -> Result<Judged> {
        let (real, generated) = with_grad(gate.train_d, || {
            let _autocast = AutocastGuard::new(x.device(), self.precision)?;
            Ok((
                self.loss(x, Label::Real)?,
                self.loss(&fake.f_detach()?, Label::Fake)?,
            ))
        })?;
        let gradients = match gate.train_d {
            true => Some(self.gradients(&real.f_add(&generated)?)?),
            false => None,
        };
        Ok(Judged {
            real,
            generated,
            gradients,
            adversarial: Adversarial::Later,
        })
    }

    fn once_for_both(&self, x: &Tensor, fake: &Tensor, gate: Gate) -> Result<Judged> {
        // Where both learn, the pictures are a leaf at which the backward pass ends. Where one
        // pauses, the pass serves the other alone, from the other's own loss.
        let both = gate.train_d && gate.train_g;
        let shown = match (gate.train_d, gate.train_g) {
            (true, learns) => fake.f_detach()?.f_set_requires_grad(learns)?,
            (false, _) => fake.shallow_clone(),
        };
        let region = || AutocastGuard::new(x.device(), self.precision);
        let real = with_grad(gate.train_d, || {
            let _autocast = region()?;
            self.loss(x, Label::Real)
        })?;
        let logits = with_grad(gate.train_d || gate.train_g, || {
            let _autocast = region()?;
            self.logits(&shown)
        })?;
        let generated = with_grad(gate.train_d && !both, || self.cost(&logits, Label::Fake))?;
        let adv = with_grad(gate.train_g && !both, || self.cost(&logits, Label::Real))?;
        if !both {
            let gradients = match gate.train_d {
                true => Some(self.gradients(&real.f_add(&generated)?)?),
                false => None,
            };
            return Ok(Judged {
                real,
                generated,
                gradients,
                adversarial: Adversarial::Loss(adv),
            });
        }
        let shared = SharedPass::new(&logits, self.reduction)?;
        let loss = real.f_add(&shared.seeded)?.f_mul_scalar(self.weight)?;
        let mut inputs = trained(self.discriminator.params());
        inputs.push(&shown);
        let mut gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
        let at_pictures = match gradients.pop() {
            Some(gradient) => shared.adversarial(&gradient)?,
            // libtorch gives as many as it was asked for.
            None => shown.f_zeros_like()?,
        };
        Ok(Judged {
            real,
            generated,
            gradients: Some(gradients),
            adversarial: Adversarial::Found {
                loss: adv,
                gradient: at_pictures,
            },
        })
    }

    fn logits(&self, pictures: &Tensor) -> Result<Tensor> {
        let d = self.discriminator;
        Ok(d.forward(pictures, self.features, Mode::Training)?)
    }

    fn cost(&self, logits: &Tensor, label: Label) -> Result<Tensor> {
        Ok(cross_entropy(logits, label, self.reduction)?)
    }

    fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>> {
        gradients(
            &loss.f_mul_scalar(self.weight)?,
            [self.discriminator.params()],
        )
    }
}

/// A term whose gradient at `pictures` is `gradient`; its value means nothing.
///
/// # Errors
/// Another shape than the pictures'.
pub fn with_gradient(pictures: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    Ok(pictures
        .f_to_kind(gradient.kind())?
        .f_mul(gradient)?
        .f_sum(Kind::Float)?)
}

/// Gradients of a loss with regard to the weights that train, network by network in their order. Nothing
/// else is differentiated: no gradient is computed for another network's weights on the way.
///
/// # Errors
/// A loss without graph.
pub fn gradients<'a>(
    loss: &Tensor,
    networks: impl IntoIterator<Item = &'a Params>,
) -> Result<Vec<Tensor>> {
    let weights: Vec<&Tensor> = networks.into_iter().flat_map(trained).collect();
    Ok(Tensor::f_run_backward(&[loss], &weights, false, false)?)
}

/// A number that is finite where a network's gradients are: the sum of the norms of its biases' (of its first weight's,
/// where it has none). What is not finite anywhere in a backward pass reaches the biases of all layers below, the
/// first layer's in any case; that a norm squares tells a gradient which only Adam's square would make infinite. The
/// weights' own would take a pass over hundreds of megabytes: what
/// escapes here is found before it is saved ([`crate::state::State::is_finite`]).
///
/// # Errors
/// What libtorch refuses.
pub fn pulse(gradients: &[Tensor]) -> Result<Option<Tensor>> {
    let _guard = tch::no_grad_guard();
    let biases = gradients.iter().filter(|g| g.dim() == 1);
    let mut seen: Vec<&Tensor> = biases.collect();
    if seen.is_empty() {
        seen.extend(gradients.first());
    }
    let norms = seen
        .into_iter()
        .map(|g| g.f_norm()?.f_to_kind(Kind::Float))
        .collect::<std::result::Result<Vec<Tensor>, _>>()?;
    Ok(match norms.is_empty() {
        true => None,
        false => Some(Tensor::f_stack(&norms, 0)?.f_sum(Kind::Float)?),
    })
}

fn trained(params: &Params) -> Vec<&Tensor> {
    params.trained().into_iter().map(|p| &p.tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn one_number_that_is_not_finite_stops_the_pulse() {
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        let beat = |g: &[Tensor]| pulse(g).unwrap().map(|sum| sum.double_value(&[]));
        let (weight, bias, last) = (ones(&[4, 3, 5, 5]), ones(&[4]), ones(&[9]));
        let finite = [weight, bias, last];
        assert_eq!(beat(&finite), Some(2.0 + 3.0));
        assert_eq!(beat(&finite[..1]), Some(300f32.sqrt().into()));
        assert_eq!(beat(&[]), None);
        for at in [1, 2] {
            for spoilt in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e25] {
                let grads: Vec<Tensor> = finite.iter().map(Tensor::copy).collect();
                let _ = grads[at].get(1).fill_(spoilt);
                assert!(!beat(&grads).unwrap().is_finite(), "{at}: {spoilt}");
            }
        }
    }
}
