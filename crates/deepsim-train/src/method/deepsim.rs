//! The paper's iteration: features, generate, the discriminator's update, terms, the generator's update, gate.

use deepsim_experiment::Perception;
use deepsim_nets::loss::terms::{adversarial_loss, feature_loss, image_terms, kl_loss};
use deepsim_nets::loss::{TermKind, Terms, diversity};
use deepsim_nets::{FeatureBranch, Mode, Posterior, images};
use tch::Tensor;
use tracing::trace_span;

use crate::error::Result;
use crate::method::adversarial::{
    Adversarial, DiscriminatorOutcome, DiscriminatorStep, with_gradient,
};
use crate::method::gradients::{Gradients, Player, backward, with_grad};
use crate::method::losses::{Losses, Sides, read};
use crate::method::plan::Plan;
use crate::state::State;

/// Features of the real images.
struct Features {
    /// Their codes' distribution, of an encoder that learns.
    posterior: Option<Posterior>,
    /// What is inverted.
    inverted: Tensor,
    /// Their features in the comparator; none where there is no feature term, or where they are computed later.
    target: Option<Tensor>,
}

/// Images made of features.
struct Generated {
    images: Tensor,
    /// The term of diversity, where a second draw was made.
    diversity: Option<Tensor>,
}

pub(super) fn step(
    state: &mut State,
    perception: &Perception,
    x: &Tensor,
    recorded: Option<&Tensor>,
    plan: &Plan,
) -> Result<Losses> {
    let weights = plan.weights(state.step).clone();
    let x = &images::channels_last(x)?;
    let features = encode(state, perception, x, recorded, plan, &weights)?;
    let generated = generate(state, &features.inverted, plan)?;

    // The discriminator learns to tell them apart.
    let shown = match state.discriminator.spec().features {
        FeatureBranch::Off => None,
        FeatureBranch::Features(_) => Some(features.inverted.f_detach()?),
    };
    let discriminator_step = DiscriminatorStep {
        discriminator: &state.discriminator,
        features: shown.as_ref(),
        reduction: plan.reduction,
        weight: weights.weight(TermKind::Adversarial),
        precision: plan.precision,
    };
    let mut outcome = if discriminator_step.weight > 0.0 {
        Some(discriminator_step.compute(x, &generated.images, plan.passes, state.gate)?)
    } else {
        None
    };
    let of_discriminator = outcome
        .as_mut()
        .and_then(|outcome| outcome.gradients.take());
    if let Some(gradients) = &of_discriminator {
        state.update(gradients)?;
    }

    // What the generator follows, and its update.
    let (terms, pushed) = terms(
        state,
        perception,
        x,
        &features,
        generated,
        outcome.as_ref(),
        shown.as_ref(),
        plan,
        &weights,
    )?;
    let mut of_generator = Vec::new();
    if state.gate.train_g {
        let mut loss = terms.weighted_sum(&weights, x.device())?;
        if let Some(pushed) = pushed {
            loss = loss.f_add(&pushed)?;
        }
        of_generator = gradients(state, &loss)?;
        for gradients in &of_generator {
            state.update(gradients)?;
        }
    }

    let sides = outcome.map(|outcome| Sides {
        real: outcome.real,
        generated: outcome.generated,
    });
    let all: Vec<&Gradients> = of_discriminator.iter().chain(&of_generator).collect();
    let mut losses = read(state.step, &terms, sides.as_ref(), &all, x.device())?;
    if let Some(Sides { real, generated }) = losses.discriminator {
        let adv = losses.of(TermKind::Adversarial);
        losses.ratio = state.gate.update(&plan.gate, real, generated, adv);
    }
    state.step += 1;
    Ok(losses)
}

fn encode(
    state: &State,
    perception: &Perception,
    x: &Tensor,
    recorded: Option<&Tensor>,
    plan: &Plan,
    weights: &Terms<f64>,
) -> Result<Features> {
    let _phase = trace_span!("features").entered();
    // The discriminator, where it is the comparator, is asked when it has been updated.
    let now = weights.weight(TermKind::Feature) > 0.0 && perception.discriminator_tap().is_none();
    if let Some(encoder) = state.learned() {
        let (posterior, inverted) = with_grad(state.gate.train_g, || {
            let posterior = {
                let _autocast = plan.region(x.device())?;
                encoder.posterior_in(Mode::Training, x)?
            };
            let codes = posterior.draw()?;
            Ok((posterior, codes))
        })?;
        let target = with_grad(false, || {
            let _autocast = plan.region(x.device())?;
            Ok(now.then(|| perception.compare(x)).transpose()?)
        })?;
        return Ok(Features {
            posterior: Some(posterior),
            inverted,
            target,
        });
    }
    let _autocast = plan.region(x.device())?;
    let _guard = tch::no_grad_guard();
    let (inverted, target) = match (recorded, now) {
        (Some(features), true) => (features.shallow_clone(), Some(perception.compare(x)?)),
        (Some(features), false) => (features.shallow_clone(), None),
        (None, true) => {
            let both = perception.both(x)?;
            (both.encoder, Some(both.comparator))
        }
        (None, false) => (perception.encode(x)?, None),
    };
    Ok(Features {
        posterior: None,
        inverted,
        target,
    })
}

fn generate(state: &State, inverted: &Tensor, plan: &Plan) -> Result<Generated> {
    let _phase = trace_span!("generate").entered();
    let (n, device) = (inverted.size()[0], inverted.device());
    let noise = state.generator.draw_noise(n, device)?;
    let other = match (&noise, plan.diversity) {
        (Some(noise), Some(rule)) => state
            .generator
            .draw_noise(n, device)?
            .map(|other| (noise, other, rule)),
        _ => None,
    };
    with_grad(state.gate.train_g, || {
        let _autocast = plan.region(device)?;
        let make = |features: &Tensor, noise: Option<&Tensor>| {
            state.generator.forward_in(Mode::Training, features, noise)
        };
        let Some((noise, other, rule)) = &other else {
            return Ok(Generated {
                images: make(inverted, noise.as_ref())?,
                diversity: None,
            });
        };
        let twice = Tensor::f_cat(&[inverted, inverted], 0)?;
        let made = make(&twice, Some(&Tensor::f_cat(&[*noise, other], 0)?))?;
        let (first, second) = (made.f_narrow(0, 0, n)?, made.f_narrow(0, n, n)?);
        let apart = diversity(
            [&first, &second],
            [*noise, other],
            rule.limit,
            plan.reduction,
        )?;
        Ok(Generated {
            images: first,
            diversity: Some(apart),
        })
    })
}

/// The terms, and what the discriminator's own pass has found of the adversarial one, whose value says nothing.
///
/// They are computed in this order, adversarial, feature, image, Kullback-Leibler: autograd adds the gradients of terms in
/// the order in which they were computed, and another order would give other last digits.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one thing that the terms are of"
)]
fn terms(
    state: &State,
    perception: &Perception,
    x: &Tensor,
    features: &Features,
    generated: Generated,
    outcome: Option<&DiscriminatorOutcome>,
    shown: Option<&Tensor>,
    plan: &Plan,
    weights: &Terms<f64>,
) -> Result<(Terms<Tensor>, Option<Tensor>)> {
    let (fake, reduction) = (&generated.images, plan.reduction);
    let (mut terms, mut pushed) = (Terms::default(), None);
    with_grad(state.gate.train_g, || {
        let _autocast = plan.region(x.device())?;
        let d = &state.discriminator;
        match outcome.map(|outcome| &outcome.adversarial) {
            None => {}
            Some(Adversarial::Later) => {
                let _phase = trace_span!("adversarial_term").entered();
                let logits = d.forward(fake, shown, Mode::Training)?;
                terms.set(TermKind::Adversarial, adversarial_loss(&logits, reduction)?);
            }
            Some(Adversarial::Loss(loss)) => terms.set(TermKind::Adversarial, loss.shallow_clone()),
            Some(Adversarial::Found { loss, gradient }) => {
                pushed = Some(with_gradient(fake, gradient)?);
                terms.set(TermKind::Adversarial, loss.shallow_clone());
            }
        }
        let phase = trace_span!("feature_term").entered();
        match (&features.target, perception.discriminator_tap()) {
            (Some(target), _) => {
                let found = perception.compare(fake)?;
                terms.set(TermKind::Feature, feature_loss(&found, target, reduction)?);
            }
            (None, Some(tap)) if weights.weight(TermKind::Feature) > 0.0 => {
                let target = with_grad(false, || Ok(d.features(x, tap, Mode::Evaluation)?))?;
                let found = d.features(fake, tap, Mode::Evaluation)?;
                terms.set(TermKind::Feature, feature_loss(&found, &target, reduction)?);
            }
            (None, _) => {}
        }
        drop(phase);
        let phase = trace_span!("image_term").entered();
        image_terms(&mut terms, weights, plan.pixels, fake, x, reduction)?;
        drop(phase);
        if let Some(posterior) = &features.posterior {
            terms.set_some(TermKind::Kl, kl_loss(posterior, reduction)?);
        }
        Ok(())
    })?;
    terms.set_some(TermKind::Diversity, generated.diversity);
    Ok((terms, pushed))
}

/// One pass back through the generator, and through an encoder that learns.
fn gradients(state: &State, loss: &Tensor) -> Result<Vec<Gradients>> {
    let _phase = trace_span!("generator_backward").entered();
    let generator = state.generator.params();
    let Some(encoder) = &state.encoder else {
        let [tensors] = backward(loss, [generator])?;
        return Ok(vec![Gradients::new(Player::Generator, tensors)?]);
    };
    let [of_generator, of_encoder] = backward(loss, [generator, &encoder.params])?;
    Ok(vec![
        Gradients::new(Player::Generator, of_generator)?,
        Gradients::new(Player::Encoder, of_encoder)?,
    ])
}
