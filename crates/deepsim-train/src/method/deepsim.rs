//! The paper's iteration (Dosovitskiy & Brox 2016, section 3).
//!
//! 1. Features of real images ([`Forward`]), and images that the generator makes of them.
//! 2. The discriminator learns to tell the two apart, Eq. 3: [`discriminator_gradients`], and its update.
//! 3. The generator goes down the sum of its terms, Eq. 1, and an encoder that learns goes along:
//!    [`generator_gradients`], and their updates. The terms are those of the updated discriminator (not with one pass).
//! 4. The gate decides from the losses which networks the next iteration updates.

mod adaptive;
mod features;
mod forward;
mod generated;
mod terms;

use deepsim_experiment::config::DiscriminatorPasses;
use deepsim_nets::FeatureBranch;
use deepsim_nets::loss::TermKind;
use tch::{Device, Tensor};
use tracing::trace_span;

use crate::error::Result;
use crate::method::adversarial::{DiscriminatorStep, discriminator_of};
use crate::method::gate::Gate;
use crate::method::gradients::{Gradients, Player, backward_with};
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
    begin(state, plan);
    let numbers = compute(state, plan, batches, device, ranks)?;
    decide(state, plan, &numbers)
}

/// Step 0: what a stage of the loss says of the gate. It decides with the gate which iteration is computed.
pub(super) fn begin(state: &mut State, plan: &Plan) {
    if plan.weights(state.step).weight(TermKind::Adversarial) <= 0.0 {
        // A stage without a discriminator's part: nothing would let a network go on that paused before.
        state.gate = Gate::open();
    }
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
    let plays = plan.discriminator_plays(state.step);
    if state.gate.train_d
        && plays
        && let Some(discriminator) = &state.discriminator
    {
        // Once, however many micro-batches pass.
        discriminator.iterate_spectral()?;
    }
    let keep = batches.len() == 1 || plan.passes == DiscriminatorPasses::One || together;
    let (mut parts, mut seen) = (ranks.parts(plan), Vec::new());
    ranks.each(
        plan,
        batches,
        |batch| {
            if !keep && !plays {
                // Nobody looks at what would be made, and the generator's pass makes it.
                return Ok((Sums::default(), (Verdict::default(), None)));
            }
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
    let mut of_generator = ranks.total(plan, parts)?;
    if let Some(rule) = plan.adversary.adaptive {
        let weight = plan.weights(state.step).weight(TermKind::Adversarial);
        of_generator = adaptive::weighed(state, of_generator, rule, weight)?;
    }
    for gradients in &of_generator.gradients {
        state.update(gradients)?;
    }

    sums.add_(of_generator)?;
    Numbers::collect(&sums, device)
}

/// Step 4: reads the numbers that [`compute`] has found, follows the scores where averages of them are kept, and lets the
/// gate decide.
pub(super) fn decide(state: &mut State, plan: &Plan, numbers: &Numbers) -> Result<Losses> {
    let (mut losses, scores) = numbers.read(state.step)?;
    if let (Some(rule), Some(scores)) = (plan.adversary.lecam, scores) {
        state.follow_scores(scores, rule.decay);
    }
    let gates = plan.adversary.loss.is_paper_s() && plan.generator_follows(state.step);
    if let (Some(Sides { real, generated }), true) = (losses.discriminator, gates) {
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
    if !plan.discriminator_plays(state.step) {
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
        rules: plan.adversary,
        weight: plan.discriminator_weight(state.step),
        r1_due: plan
            .adversary
            .r1
            .is_some_and(|rule| state.step.is_multiple_of(rule.every)),
        averages: state.scores,
        precision: plan.precision,
        slice: batch.slice,
        masks: [&batch.draws.on_real, &batch.draws.on_generated],
        augmented: [&batch.draws.augmented[0], &batch.draws.augmented[1]],
    };
    let found = step.compute(&batch.x, &forward.generated.images, plan.passes, state.gate)?;
    let sides = Sides {
        real: found.real,
        generated: found.generated,
    };
    let gradients = found.gradients.into_iter().collect();
    let mut sums = Sums::new(&found.penalties, Some(&sides), gradients)?;
    sums.scores = found.scores;
    let follows = plan.generator_follows(state.step);
    let adversarial = follows.then_some(found.adversarial);
    Ok((sums, Verdict { adversarial, shown }))
}

/// Makes gradients of a network's.
type Marked = fn(Player, Vec<Tensor>) -> Gradients;

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
        let (weights, device) = (batch.plan.weights(state.step), batch.x.device());
        let apart = match batch.plan.adversary.adaptive {
            Some(_) => followed.apart(weights, device)?,
            None => None,
        };
        // Each with how its gradients are marked, and whether another pass goes back through the same graph.
        let losses = match apart {
            Some([others, adversarial]) => vec![
                (others, Gradients::of as Marked, true),
                (adversarial, Gradients::of_adversarial as Marked, false),
            ],
            None => vec![(
                followed.loss(weights, device)?,
                Gradients::of as Marked,
                false,
            )],
        };
        let _phase = trace_span!("generator_backward").entered();
        let generator = state.generator.params();
        for (loss, marked, again) in losses {
            if let Some(encoder) = &state.encoder {
                let networks = [generator, &encoder.params];
                let [of_generator, of_encoder] = backward_with(&loss, networks, again)?;
                gradients.push(marked(Player::Generator, of_generator));
                gradients.push(marked(Player::Encoder, of_encoder));
            } else {
                let [of_generator] = backward_with(&loss, [generator], again)?;
                gradients.push(marked(Player::Generator, of_generator));
            }
        }
    }
    Sums::new(&followed.terms, None, gradients)
}
