//! The discriminator's part of an iteration: its losses, its gradients, and what it tells the
//! generator, in the paper's order or in one pass over the generated images.

use deepsim_experiment::config;
use deepsim_nets::loss::terms::discriminator_loss;
use deepsim_nets::loss::{Label, SharedPass, cross_entropy};
use deepsim_nets::{AutocastGuard, Discriminator, Mode, NetError, Precision, Reduction};
use tch::{Kind, Tensor};
use tracing::trace_span;

use crate::error::Result;
use crate::method::gate::Gate;
use crate::method::gradients::{Gradients, Player, backward, trained, with_grad};
use crate::method::slice::Slice;
use crate::state::State;

/// The discriminator that trains along.
///
/// # Errors
/// A state without one.
pub(super) fn discriminator_of(state: &State) -> Result<&Discriminator> {
    let discriminator = state.discriminator.as_ref();
    Ok(discriminator
        .ok_or_else(|| NetError::Spec("this iteration needs a discriminator that learns".into()))?)
}

/// The discriminator of an iteration, and how its losses are computed.
#[derive(Debug)]
pub struct DiscriminatorStep<'a> {
    /// The network.
    pub discriminator: &'a Discriminator,
    /// Input of its feature branch, where it has one.
    pub features: Option<&'a Tensor>,
    /// How its losses over a batch become numbers.
    pub reduction: Reduction,
    /// Weight of the adversarial loss, and of its own.
    pub weight: f64,
    /// Arithmetic.
    pub precision: Precision,
    /// Which images of the global batch it is shown.
    pub slice: Slice,
    /// Masks of dropout for real and for generated images.
    pub masks: [&'a [Tensor]; 2],
}

/// What the discriminator's step computes of a micro-batch: parts of what it would of the global batch.
#[derive(Debug)]
pub struct DiscriminatorOutcome {
    /// Its loss on real images.
    pub real: Tensor,
    /// Its loss on generated images.
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
    /// The loss as a number only, and its weighted gradient at the generated images.
    Found {
        /// The loss.
        loss: Tensor,
        /// The gradient.
        gradient: Tensor,
    },
}

impl DiscriminatorStep<'_> {
    /// The discriminator learns to tell real images `x` from generated images. Its losses are
    /// computed while it pauses too: the gate needs them to let it go on.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn compute(
        &self,
        x: &Tensor,
        fake: &Tensor,
        passes: config::DiscriminatorPasses,
        gate: Gate,
    ) -> Result<DiscriminatorOutcome> {
        match passes {
            config::DiscriminatorPasses::Paper => self.paper_order(x, fake, gate),
            config::DiscriminatorPasses::One => self.one_pass(x, fake, gate),
        }
    }

    fn paper_order(&self, x: &Tensor, fake: &Tensor, gate: Gate) -> Result<DiscriminatorOutcome> {
        let [on_real, on_generated] = self.masks;
        let forward = trace_span!("discriminator_forward").entered();
        let [real, generated] = with_grad(gate.train_d, || {
            let _autocast = AutocastGuard::new(x.device(), self.precision)?;
            let of_images = self.logits(x, on_real)?;
            let of_generated = self.logits(&fake.f_detach()?, on_generated)?;
            let [real, generated] = discriminator_loss(&of_images, &of_generated, self.reduction)?;
            Ok([self.part(real)?, self.part(generated)?])
        })?;
        drop(forward);
        let gradients = if gate.train_d {
            Some(self.gradients(&real.f_add(&generated)?)?)
        } else {
            None
        };
        Ok(DiscriminatorOutcome {
            real,
            generated,
            gradients,
            adversarial: Adversarial::Later,
        })
    }

    fn one_pass(&self, x: &Tensor, fake: &Tensor, gate: Gate) -> Result<DiscriminatorOutcome> {
        // Where both learn, the images are a leaf at which the backward pass ends. Where one
        // pauses, the pass serves the other alone, from the other's own loss.
        let both = gate.train_d && gate.train_g;
        let shown = match (gate.train_d, gate.train_g) {
            (true, learns) => fake.f_detach()?.f_set_requires_grad(learns)?,
            (false, _) => fake.shallow_clone(),
        };
        let [on_real, on_generated] = self.masks;
        let region = || AutocastGuard::new(x.device(), self.precision);
        // The two halves of Eq. 3 apart: the generated images' logits serve Eq. 4 as well.
        let forward = trace_span!("discriminator_forward").entered();
        let real = with_grad(gate.train_d, || {
            let _autocast = region()?;
            self.cost(&self.logits(x, on_real)?, Label::Real)
        })?;
        let logits = with_grad(gate.train_d || gate.train_g, || {
            let _autocast = region()?;
            self.logits(&shown, on_generated)
        })?;
        let generated = with_grad(gate.train_d && !both, || self.cost(&logits, Label::Fake))?;
        let adv = with_grad(gate.train_g && !both, || self.cost(&logits, Label::Real))?;
        drop(forward);
        if !both {
            let gradients = if gate.train_d {
                Some(self.gradients(&real.f_add(&generated)?)?)
            } else {
                None
            };
            return Ok(DiscriminatorOutcome {
                real,
                generated,
                gradients,
                adversarial: Adversarial::Loss(adv),
            });
        }
        let _phase = trace_span!("discriminator_shared_backward").entered();
        let shared = SharedPass::new(&logits, self.reduction)?;
        let seeded = self.part(shared.seeded.shallow_clone())?;
        let loss = real.f_add(&seeded)?.f_mul_scalar(self.weight)?;
        let mut inputs = trained(self.discriminator.params());
        inputs.push(&shown);
        let mut gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
        let at_images = match gradients.pop() {
            Some(gradient) => shared.adversarial(&gradient)?,
            // libtorch gives as many as it was asked for.
            None => shown.f_zeros_like()?,
        };
        Ok(DiscriminatorOutcome {
            real,
            generated,
            gradients: Some(Gradients::of(Player::Discriminator, gradients)),
            adversarial: Adversarial::Found {
                loss: adv,
                gradient: at_images,
            },
        })
    }

    fn logits(&self, images: &Tensor, masks: &[Tensor]) -> Result<Tensor> {
        let d = self.discriminator;
        Ok(d.forward_with(images, self.features, Mode::Training, Some(masks))?)
    }

    fn cost(&self, logits: &Tensor, label: Label) -> Result<Tensor> {
        self.part(cross_entropy(logits, label, self.reduction)?)
    }

    fn part(&self, loss: Tensor) -> Result<Tensor> {
        self.slice.part(loss, self.reduction)
    }

    fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let _phase = trace_span!("discriminator_backward").entered();
        let loss = loss.f_mul_scalar(self.weight)?;
        let [tensors] = backward(&loss, [self.discriminator.params()])?;
        Ok(Gradients::of(Player::Discriminator, tensors))
    }
}

/// A term whose gradient at `images` is `gradient`; its value means nothing.
///
/// # Errors
/// Another shape than the images'.
pub fn with_gradient(images: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    Ok(images
        .f_to_kind(gradient.kind())?
        .f_mul(gradient)?
        .f_sum(Kind::Float)?)
}
