//! The discriminator's part of an iteration: its losses, its gradients, and what it tells the
//! generator, in the paper's order or in one pass over the generated images.

use deepsim_experiment::config;
use deepsim_nets::loss::penalties::{lecam, mean_score, r1};
use deepsim_nets::loss::terms::discriminator_loss;
use deepsim_nets::loss::{Label, SharedPass, TermKind, Terms, cross_entropy, scores};
use deepsim_nets::{
    AugmentDraws, AutocastGuard, Discriminator, Mode, NetError, Precision, Reduction,
    without_winograd,
};
use tch::{Kind, Tensor};
use tracing::trace_span;

use crate::error::Result;
use crate::method::gate::Gate;
use crate::method::gradients::{Gradients, Player, backward, trained, with_grad};
use crate::method::sides::Sides;
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
    /// How it plays.
    pub rules: config::Adversary,
    /// Weight of its own loss; with one pass of the adversarial loss, too.
    pub weight: f64,
    /// Whether R1 is due, where there is one.
    pub r1_due: bool,
    /// Averages of scores in earlier iterations, for LeCAM.
    pub averages: Option<Sides<f64>>,
    /// Arithmetic.
    pub precision: Precision,
    /// Which images of the global batch it is shown.
    pub slice: Slice,
    /// Masks of dropout for real and for generated images.
    pub masks: [&'a [Tensor]; 2],
    /// How both are augmented.
    pub augmented: [&'a AugmentDraws; 2],
}

/// Places of real and of generated images in what a step has for both.
const REAL: usize = 0;
const GENERATED: usize = 1;

/// What the discriminator's step computes of a micro-batch: parts of what it would of the global batch.
#[derive(Debug)]
pub struct DiscriminatorOutcome {
    /// Its loss on real images.
    pub real: Tensor,
    /// Its loss on generated images.
    pub generated: Tensor,
    /// What its loss has besides.
    pub penalties: Terms<Tensor>,
    /// Mean scores of both, where averages of them are kept and it trains.
    pub scores: Option<Sides<Tensor>>,
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
        let forward = trace_span!("discriminator_forward").entered();
        let ([real, generated], mut penalties, scores) = with_grad(gate.train_d, || {
            let _autocast = AutocastGuard::new(x.device(), self.precision)?;
            let of_images = self.logits(x, REAL)?;
            let of_generated = self.logits(&fake.f_detach()?, GENERATED)?;
            let (game, reduction) = (self.rules.loss, self.reduction);
            let [real, generated] = discriminator_loss(game, &of_images, &of_generated, reduction)?;
            let (penalties, scores) = self.lecam([&of_images, &of_generated], gate)?;
            Ok(([self.part(real)?, self.part(generated)?], penalties, scores))
        })?;
        drop(forward);
        let gradients = if gate.train_d {
            let mut loss = real.f_add(&generated)?;
            if let (Some(rule), Some(term)) = (self.rules.lecam, penalties.of(TermKind::LeCam)) {
                loss = loss.f_add(&term.f_mul_scalar(rule.weight)?)?;
            }
            if let (Some(rule), true) = (self.rules.r1, self.r1_due) {
                let term = self.r1(x)?;
                let weight = rule.weight * rule.every as f64;
                loss = loss.f_add(&term.f_mul_scalar(weight)?)?;
                penalties.set(TermKind::R1, term);
            }
            Some(self.gradients(&loss)?)
        } else {
            None
        };
        Ok(DiscriminatorOutcome {
            real,
            generated,
            penalties,
            scores,
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
        let region = || AutocastGuard::new(x.device(), self.precision);
        // The two halves of Eq. 3 apart: the generated images' logits serve Eq. 4 as well.
        let forward = trace_span!("discriminator_forward").entered();
        let real = with_grad(gate.train_d, || {
            let _autocast = region()?;
            self.cost(&self.logits(x, REAL)?, Label::Real)
        })?;
        let logits = with_grad(gate.train_d || gate.train_g, || {
            let _autocast = region()?;
            self.logits(&shown, GENERATED)
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
                penalties: Terms::default(),
                scores: None,
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
            penalties: Terms::default(),
            scores: None,
            gradients: Some(Gradients::of(Player::Discriminator, gradients)),
            adversarial: Adversarial::Found {
                loss: adv,
                gradient: at_images,
            },
        })
    }

    /// Of real or of generated images.
    fn logits(&self, images: &Tensor, which: usize) -> Result<Tensor> {
        let (d, masks) = (self.discriminator, self.masks[which]);
        let images = shown(&self.rules, images, self.augmented[which])?;
        Ok(d.forward_with(&images, self.features, Mode::Training, Some(masks))?)
    }

    /// LeCAM's term, where there are averages already, and what they go on with.
    fn lecam(
        &self,
        logits: [&Tensor; 2],
        gate: Gate,
    ) -> Result<(Terms<Tensor>, Option<Sides<Tensor>>)> {
        let mut penalties = Terms::default();
        if self.rules.lecam.is_none() || !gate.train_d {
            return Ok((penalties, None));
        }
        if let Some(Sides { real, generated }) = self.averages {
            let term = lecam(logits, [real, generated], self.reduction)?;
            penalties.set(TermKind::LeCam, self.part(term)?);
        }
        let mean = |logits: &Tensor| self.slice.part(mean_score(logits)?, Reduction::Mean);
        let scores = Sides {
            real: mean(logits[REAL])?,
            generated: mean(logits[GENERATED])?,
        };
        Ok((penalties, Some(scores)))
    }

    /// R1 of real images, by a pass of its own with the same draws. It is differentiated twice, so that all of it is
    /// libtorch's, in fp32.
    fn r1(&self, x: &Tensor) -> Result<Tensor> {
        let _exact = AutocastGuard::new(x.device(), Precision::Fp32)?;
        let images = x.f_detach()?.f_set_requires_grad(true)?;
        let gradient = without_winograd(|| -> Result<Tensor> {
            let scores = scores(&self.logits(&images, REAL)?)?;
            let sum = scores.f_sum(scores.kind())?;
            let mut gradients = Tensor::f_run_backward(&[sum], &[&images], true, true)?;
            // libtorch gives as many as it was asked for.
            gradients
                .pop()
                .map_or_else(|| Ok(images.f_zeros_like()?), Ok)
        })?;
        self.part(r1(&gradient, self.reduction)?)
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

/// Images as the discriminator is shown them.
///
/// # Errors
/// Draws of other images.
pub(super) fn shown(
    rules: &config::Adversary,
    images: &Tensor,
    draws: &AugmentDraws,
) -> Result<Tensor> {
    match rules.augment {
        Some(augment) => Ok(augment.apply(images, draws)?),
        None => Ok(images.shallow_clone()),
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
