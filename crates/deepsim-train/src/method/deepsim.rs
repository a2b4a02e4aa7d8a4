//! The paper's iteration (Dosovitskiy & Brox 2016, section 3).
//!
//! 1. Features of real images ([`Forward`]), and images that the generator makes of them.
//! 2. The discriminator learns to tell the two apart, Eq. 3: [`discriminator_gradients`], and its update.
//! 3. The generator goes down the sum of its terms, Eq. 1, and an encoder that learns goes along:
//!    [`generator_gradients`], and their updates. The terms are those of the updated discriminator (not with one pass).
//! 4. The gate decides from the losses which networks the next iteration updates.

mod features;
mod forward;
mod generated;
mod terms;

use deepsim_experiment::config::DiscriminatorPasses;
use deepsim_nets::FeatureBranch;
use deepsim_nets::loss::{TermKind, Terms};
use tch::Device;
use tracing::trace_span;

use crate::error::Result;
use crate::method::adversarial::{DiscriminatorStep, discriminator_of};
use crate::method::gradients::{Gradients, Player, backward};
use crate::method::losses::{Losses, Numbers};
use crate::method::micro_batch::MicroBatch;
use crate::method::plan::Plan;
use crate::method::sides::Sides;
use crate::method::sums::Sums;
use crate::ranks::Ranks;
use crate::state::State;

pub use forward::{Forward, Verdict, forward};

/// One iteration, on a batch's micro-batches.
pub(super) fn step(
    state: &mut State,
    plan: &Plan,
    batches: &[MicroBatch<'_>],
    device: Device,
    ranks: &Ranks,
) -> Result<Losses> {
    let numbers = compute(state, plan, batches, device, ranks)?;
    decide(state, plan, &numbers)
}

/// Steps 1 to 3: all that is computed of an iteration, with its updates. The host reads nothing of it and waits for
/// nothing, so that a GPU can record it; only [`decide`] reads.
///
/// What the discriminator saw of several micro-batches is made again for the generator, so that the graph of one alone is
/// in memory; but not with one pass, which goes back through what it saw.
pub(super) fn compute(
    state: &mut State,
    plan: &Plan,
    batches: &[MicroBatch<'_>],
    device: Device,
    ranks: &Ranks,
) -> Result<Numbers> {
    let together = ranks.together(plan);
    let keep = batches.len() == 1 || plan.passes == DiscriminatorPasses::One || together;
    let (mut parts, mut seen) = (ranks.parts(plan), Vec::new());
    ranks.each(
        plan,
        batches,
        |batch| {
            let forward = forward(state, batch)?;
            let (found, verdict) = discriminator_gradients(state, batch, &forward)?;
            Ok((found, (verdict, keep.then_some(forward))))
        },
        |(found, made)| {
            seen.push(made);
            parts.add(found)
        },
    )?;
    let mut sums = ranks.total(plan, parts)?;
    for gradients in &sums.gradients {
        state.update(gradients)?;
    }

    let mut parts = ranks.parts(plan);
    ranks.each(
        plan,
        batches.iter().zip(seen),
        |(batch, (verdict, made))| {
            let made = match made {
                Some(made) => made,
                None => forward(state, batch)?,
            };
            generator_gradients(state, batch, made, &verdict)
        },
        |found| parts.add(found),
    )?;
    let of_generator = ranks.total(plan, parts)?;
    for gradients in &of_generator.gradients {
        state.update(gradients)?;
    }

    sums.add_(of_generator)?;
    Numbers::collect(&sums, device)
}

/// Step 4: reads the numbers that [`compute`] has found, and lets the gate decide.
pub(super) fn decide(state: &mut State, plan: &Plan, numbers: &Numbers) -> Result<Losses> {
    let mut losses = numbers.read(state.step)?;
    if let Some(Sides { real, generated }) = losses.discriminator {
        let adv = losses.of(TermKind::Adversarial);
        losses.ratio = state.gate.update(&plan.gate, real, generated, adv);
    }
    state.step += 1;
    Ok(losses)
}

/// The discriminator's losses on a micro-batch, and its gradients where it trains. Nothing is found without an
/// adversarial term.
///
/// # Errors
/// A state without a discriminator, and what libtorch refuses.
pub fn discriminator_gradients(
    state: &State,
    batch: &MicroBatch<'_>,
    forward: &Forward,
) -> Result<(Sums, Verdict)> {
    let plan = batch.plan;
    let weight = plan.weights(state.step).weight(TermKind::Adversarial);
    if weight <= 0.0 {
        return Ok((Sums::default(), Verdict::default()));
    }
    let discriminator = discriminator_of(state)?;
    let shown = match discriminator.spec().features {
        FeatureBranch::Off => None,
        FeatureBranch::Features(_) => Some(forward.features.inverted.f_detach()?),
    };
    let step = DiscriminatorStep {
        discriminator,
        features: shown.as_ref(),
        reduction: plan.reduction,
        weight,
        precision: plan.precision,
        slice: batch.slice,
        masks: [&batch.draws.on_real, &batch.draws.on_generated],
    };
    let found = step.compute(&batch.x, &forward.generated.images, plan.passes, state.gate)?;
    let sides = Sides {
        real: found.real,
        generated: found.generated,
    };
    let gradients = found.gradients.into_iter().collect();
    let sums = Sums::new(&Terms::default(), Some(&sides), gradients)?;
    let adversarial = Some(found.adversarial);
    Ok((sums, Verdict { adversarial, shown }))
}

/// The generator's terms on a micro-batch, and where it trains its gradients and those of an encoder that learns: one
/// pass back through both.
///
/// # Errors
/// What libtorch refuses.
pub fn generator_gradients(
    state: &State,
    batch: &MicroBatch<'_>,
    forward: Forward,
    verdict: &Verdict,
) -> Result<Sums> {
    let followed = terms::followed(state, batch, forward, verdict)?;
    let mut gradients = Vec::new();
    if state.gate.train_g {
        let loss = followed.loss(batch.plan.weights(state.step), batch.x.device())?;
        let _phase = trace_span!("generator_backward").entered();
        let generator = state.generator.params();
        if let Some(encoder) = &state.encoder {
            let [of_generator, of_encoder] = backward(&loss, [generator, &encoder.params])?;
            gradients.push(Gradients::of(Player::Generator, of_generator));
            gradients.push(Gradients::of(Player::Encoder, of_encoder));
        } else {
            let [of_generator] = backward(&loss, [generator])?;
            gradients.push(Gradients::of(Player::Generator, of_generator));
        }
    }
    Sums::new(&followed.terms, None, gradients)
}
