//! The discriminator's part of an iteration: its losses, its gradients, and what it tells the
//! generator, in the paper's order or in one pass over the generated pictures.

use deepsim_experiment::config::RawPasses;
use deepsim_nets::loss::{Label, SharedPass, cross_entropy};
use deepsim_nets::{AutocastGuard, Discriminator, Mode, Precision, Reduction};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::method::gate::Gate;
use crate::method::gradients::{Gradients, Player, backward, trained, with_grad};

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
    pub gradients: Option<Gradients>,
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
            gradients: Some(Gradients::new(Player::Discriminator, gradients)?),
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

    fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let loss = loss.f_mul_scalar(self.weight)?;
        let [tensors] = backward(&loss, [self.discriminator.params()])?;
        Gradients::new(Player::Discriminator, tensors)
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
