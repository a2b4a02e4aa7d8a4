//! One training iteration: that of the paper ([`deepsim`]), or of VAE/GAN ([`vaegan`]).
//!
//! On a GPU the paper's is recorded and replayed ([`captured`]).
//!
//! Each phase of either is a function of one [`MicroBatch`] that changes no weight and returns [`Sums`].

pub mod adversarial;
pub mod captured;
mod comparison;
pub mod deepsim;
pub mod draws;
pub mod gate;
pub mod gradients;
pub mod losses;
pub mod micro_batch;
mod parts;
pub mod plan;
pub mod sides;
pub mod slice;
pub mod sums;
pub mod vaegan;

use deepsim_experiment::Perception;
use deepsim_nets::init::derive_seed;
use tch::Tensor;

pub use captured::Captured;
pub use draws::Draws;
pub use losses::Losses;
pub use micro_batch::MicroBatch;
pub use parts::Parts;
pub use plan::Plan;
pub use sides::Sides;
pub use slice::Slice;
pub use sums::Sums;

use crate::error::Result;
use crate::ranks::Ranks;
use crate::state::State;

/// Seed of the draws of the iteration after `step` in a training of seed `seed`.
pub fn iteration_seed(seed: u64, step: u64) -> i64 {
    derive_seed(seed, "dropout", step)
}

/// Does one iteration on images `x` `[N,3,crop,crop]` in Caffe units and advances the state. With
/// [`Plan::micro_batches`] above 1 each phase takes the micro-batches one after the other, and a network is updated by
/// the sum of their gradients: the whole batch's, but for rounding. With [`Plan::shards`] those are the micro-batches, and
/// everything is added in their order.
///
/// Its phases are spans of `tracing` at level TRACE, one after the other: `features`, `generate`,
/// `discriminator_forward`, `discriminator_backward` (with one pass `discriminator_shared_backward`),
/// `discriminator_update`, `adversarial_term` (not with one pass), `feature_term`, `image_term`, `generator_backward`,
/// `generator_update`, `encoder_update` and `losses`. The benchmark times them. VAE/GAN has the updates and `losses`
/// alone; an iteration that is replayed ([`captured`]) has none.
///
/// `seed` ([`iteration_seed`]) determines everything random: [`Draws`].
///
/// An encoder that learns is updated with the generator, by the gradient of the same loss and of the
/// Kullback-Leibler term, and pauses with it. Its term is computed whenever codes are Gaussian, and shown;
/// weight 0 leaves it out of the gradient.
///
/// With one pass the adversarial loss is that of D before its update, as the discriminator's own
/// losses are: the gate compares numbers of one D, where in the paper's order D's losses are one
/// update older.
///
/// `recorded` are the features of the images where no network of the experiment encodes them.
/// Where the discriminator is a comparator, both images are compared in its features as they are
/// after its update of this iteration (or as they stand, while it pauses), without dropout; that
/// loss tells the discriminator nothing.
///
/// With [`Plan::diversity`] a second image is made of the same features with other noise. Only the term of
/// diversity sees it; the draws are alike, so that what holds for the first holds for the second.
///
/// A term of weight 0 is not computed; without an adversarial term
/// there is no discriminator step and the gate stays open.
///
/// [`Plan::adversary`] says which adversarial loss is played, since when, and with what besides. With another loss than the
/// paper's the gate stays open. Each of its parts is the whole batch's, whatever its micro-batches, shards and processes:
/// the power iterations of spectral normalisation make one step before the passes, LeCAM's averages are those of earlier
/// iterations, and with an adaptive weight the gradients of the adversarial term are added up apart from the others.
///
/// With [`Plan::vaegan`] the iteration is that of VAE/GAN: [`vaegan`].
///
/// # Errors
/// [`NotFinite`](crate::TrainError::NotFinite) if a loss or a gradient is NaN or infinite (the state must not be used
/// then), a network that the terms need and the state lacks, and what libtorch refuses.
pub fn iterate(
    state: &mut State,
    perception: &Perception,
    x: &Tensor,
    recorded: Option<&Tensor>,
    plan: &Plan,
    seed: i64,
) -> Result<Losses> {
    let images = x.size().first().copied().unwrap_or_default();
    let whole = Images {
        x,
        recorded,
        slice: Slice::whole(images),
    };
    iterate_among(&Ranks::alone(), state, perception, &whole, plan, seed)
}

/// Images that this process has of an iteration's.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// The images `[len,3,crop,crop]` in Caffe units.
    pub x: &'a Tensor,
    /// Their features, where no network of the experiment encodes them.
    pub recorded: Option<&'a Tensor>,
    /// Their place in the global batch.
    pub slice: Slice,
}

/// As [`iterate`], among processes that each have their part of the images: gradients and losses are sums over all of
/// them, so that all processes make the same step.
///
/// # Errors
/// As [`iterate`], and a process that does not answer.
pub fn iterate_among(
    ranks: &Ranks,
    state: &mut State,
    perception: &Perception,
    images: &Images<'_>,
    plan: &Plan,
    seed: i64,
) -> Result<Losses> {
    let Images { x, recorded, slice } = *images;
    let draws = Draws::new(state, plan, slice.global, x.device(), seed)?;
    let batch = |part: Slice| {
        let of = |all: &Tensor| part.of(all.shallow_clone());
        let recorded = recorded.map(of).transpose()?;
        MicroBatch::new(
            perception,
            plan,
            &draws,
            &of(x)?,
            recorded,
            slice.within(part),
        )
    };
    let parts = match plan.shards {
        Some(shards) => slice.shards(shards),
        None => Slice::split(slice.len, plan.micro_batches),
    };
    let batches = parts.into_iter().map(batch).collect::<Result<Vec<_>>>()?;
    match plan.vaegan {
        Some(rule) => vaegan::step(state, plan, &batches, rule, x.device(), ranks),
        None => deepsim::step(state, plan, &batches, x.device(), ranks),
    }
}
