//! The iteration of VAE/GAN: Larsen et al., "Autoencoding beyond pixels using a learned similarity
//! metric" (2016), with the gradient routing and the batches of the authors' released code.
//!
//! 1. Codes z of the real images x; images x̃ decoded from them; x̃ and x side by side in the
//!    features of the discriminator (one batch, whose statistics normalise it).
//! 2. Images decoded from z, cut off from the encoder, and from draws of the prior (one batch); the
//!    discriminator over these and the real images (one batch).
//! 3. Gradients, all of the same weights. Encoder: KL + reconstruction. Decoder: γ · reconstruction and
//!    (1 − γ) times the discriminator's loss adversarial. Discriminator: its own loss, nothing of the
//!    reconstruction.
//! 4. The gate decides for this batch from its mean losses; what it lets through is updated. The encoder
//!    always is.
//!
//! Where nothing is reconstructed (`loss.feat` and `loss.img` 0) it is a GAN: step 1 falls away, γ is 0, the
//! encoder stays as it is, and all generated images are draws of the prior.

mod certainty;
mod decoder;
mod equilibrium;

use deepsim_experiment::config;
use deepsim_nets::NetError;
use deepsim_nets::loss::{TermKind, Terms};
use tch::{Device, Tensor};

use crate::error::Result;
use crate::method::adversarial::discriminator_of;
use crate::method::gate::Gate;
use crate::method::gradients::{Gradients, Player, backward};
use crate::method::losses::{Losses, Numbers};
use crate::method::micro_batch::MicroBatch;
use crate::method::plan::Plan;
use crate::method::sides::Sides;
use crate::method::sums::Sums;
use crate::ranks::Ranks;
use crate::state::State;
use certainty::discriminator_losses;
use decoder::{decode, reconstruct};

/// Steps 1 to 3 of an iteration on a micro-batch: the terms, the discriminator's mean losses, and the gradients of
/// encoder (not in a GAN), decoder and discriminator. No weight changes; running statistics of batch normalisation do.
///
/// # Errors
/// A state without an encoder that learns or without a discriminator, and what libtorch refuses.
pub fn compute_gradients(
    state: &State,
    batch: &MicroBatch<'_>,
    rule: config::VaeGan,
) -> Result<Sums> {
    let w = batch.plan.weights(state.step);
    let encoder = state.learned().ok_or_else(|| {
        NetError::Spec("the iteration of VAE/GAN needs an encoder that learns".into())
    })?;
    let discriminator = discriminator_of(state)?;
    let reconstructed = if batch.plan.reconstructs(state.step) {
        Some(reconstruct(state, encoder, discriminator, batch)?)
    } else {
        None
    };
    let decoded = decode(state, reconstructed.as_ref(), batch)?;
    let d_losses = discriminator_losses(discriminator, &decoded, batch, rule)?;

    // Where the same pass serves two networks, one pass back gives both their gradients.
    let decoder = state.generator.params();
    let mut gradients = Vec::new();
    let (mut of_reconstruction, mut terms) = (None, Terms::default());
    if let Some(reconstructed) = reconstructed {
        let loss = reconstructed.terms.weighted_sum(w, batch.x.device())?;
        let [of_decoder, of_encoder] = backward(&loss, [decoder, encoder.params()])?;
        gradients.push(Gradients::of(Player::Encoder, of_encoder));
        of_reconstruction = Some(of_decoder);
        terms = reconstructed.terms;
    }
    let loss = d_losses
        .total
        .f_mul_scalar(w.weight(TermKind::Adversarial))?;
    let [of_discriminator, adversarial] = backward(&loss, [discriminator.params(), decoder])?;
    let gamma = match of_reconstruction {
        Some(_) => rule.gamma,
        None => 0.0,
    };
    let of_decoder = mixed(of_reconstruction, adversarial, gamma, d_losses.share)?;
    gradients.push(Gradients::of(Player::Generator, of_decoder));
    gradients.push(Gradients::of(Player::Discriminator, of_discriminator));
    // What the decoder goes down: the mean of ln(1 − p) of its images.
    terms.set(TermKind::Adversarial, d_losses.sides.generated.f_neg()?);
    Sums::new(&terms, Some(&d_losses.sides), gradients)
}

/// One iteration, on a batch's micro-batches.
pub(super) fn step(
    state: &mut State,
    plan: &Plan,
    batches: &[MicroBatch<'_>],
    rule: config::VaeGan,
    device: Device,
    ranks: &Ranks,
) -> Result<Losses> {
    let mut parts = ranks.parts(plan);
    ranks.each(
        plan,
        batches,
        |batch| compute_gradients(state, batch, rule),
        |found| parts.add(found),
    )?;
    let sums = ranks.total(plan, parts)?;
    // One read of all numbers, on which the gate decides.
    let (losses, _) = Numbers::collect(&sums, device)?.read(state.step)?;
    if let Some(Sides { real, generated }) = losses.discriminator {
        state.gate = Gate::equilibrium(&rule, real, generated);
    }
    for gradients in &sums.gradients {
        let trains = match gradients.player {
            Player::Encoder => true,
            Player::Generator => state.gate.train_g,
            Player::Discriminator => state.gate.train_d,
        };
        if trains {
            state.update(gradients)?;
        }
    }
    state.step += 1;
    Ok(losses)
}

/// The decoder's gradient: γ of the reconstruction's, and 1 − γ of the discriminator's adversarial, in which a
/// generated image weighs as much as one of the reconstruction.
fn mixed(
    reconstruction: Option<Vec<Tensor>>,
    adversarial: Vec<Tensor>,
    gamma: f64,
    share: f64,
) -> Result<Vec<Tensor>> {
    let _guard = tch::no_grad_guard();
    let mut out = Vec::with_capacity(adversarial.len());
    let mut known = reconstruction.into_iter().flatten();
    for gradient in adversarial {
        let mut gradient = gradient.f_mul_scalar((gamma - 1.0) / share)?;
        out.push(match known.next() {
            Some(known) => gradient.f_add_(&known.f_mul_scalar(gamma)?)?,
            None => gradient,
        });
    }
    Ok(out)
}
