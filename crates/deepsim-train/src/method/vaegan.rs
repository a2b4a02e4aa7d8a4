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

use deepsim_experiment::Perception;
use deepsim_experiment::config;
use deepsim_nets::loss::terms::{feature_loss, image_terms, kl_loss};
use deepsim_nets::loss::{TermKind, Terms};
use deepsim_nets::precision::{at_least_fp32, widened};
use deepsim_nets::{Discriminator, LearnedEncoder, Mode, NetError, Reduction, images};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::method::gate::Gate;
use crate::method::gradients::{Gradients, Player, backward};
use crate::method::losses::{Losses, Sides, read};
use crate::method::plan::Plan;
use crate::state::State;

/// Added to probabilities before their logarithm (the authors' 1e-3): the discriminator's certainty ends there.
const DOUBT: f64 = 1e-3;

impl Gate {
    /// The gate of Larsen et al., for the batch that these mean losses are of: the discriminator learns unless
    /// one of them is more than the margin below the equilibrium, the decoder unless one is more than it above;
    /// where neither would, both do.
    pub fn equilibrium(rule: &config::VaeGan, d_real: f64, d_fake: f64) -> Gate {
        let (low, high) = (
            rule.equilibrium - rule.margin,
            rule.equilibrium + rule.margin,
        );
        let gate = Gate {
            train_d: !(d_real < low || d_fake < low),
            train_g: !(d_real > high || d_fake > high),
        };
        if gate.train_d || gate.train_g {
            gate
        } else {
            Gate::open()
        }
    }
}

/// What came of step 1.
struct Reconstructed {
    codes: Tensor,
    terms: Terms<Tensor>,
}

/// The discriminator's losses on real and on generated images.
struct DiscriminatorLosses {
    /// Mean losses.
    sides: Sides<Tensor>,
    /// What the discriminator's weights go down.
    total: Tensor,
    /// Weight of one generated image in it.
    share: f64,
}

/// What all three networks learn from one batch.
#[derive(Debug)]
pub struct Learned {
    /// Unweighted terms.
    pub terms: Terms<Tensor>,
    /// The discriminator's mean losses.
    pub discriminator: Sides<Tensor>,
    /// Gradients of encoder (not in a GAN), decoder and discriminator.
    pub gradients: Vec<Gradients>,
}

/// Steps 1 to 3 of an iteration on images `x` in Caffe units. No weight changes; running statistics of
/// batch normalisation do. Randomness is libtorch's, in this order: the codes' noise (not in a GAN), the prior's
/// draws, dropout (where the discriminator has any).
///
/// # Errors
/// A state without an encoder that learns, and what libtorch refuses.
pub fn compute_gradients(
    state: &State,
    perception: &Perception,
    x: &Tensor,
    plan: &Plan,
    rule: config::VaeGan,
) -> Result<Learned> {
    let w = plan.weights(state.step);
    let x = &images::channels_last(x)?;
    let encoder = state.learned().ok_or_else(|| {
        NetError::Spec("the iteration of VAE/GAN needs an encoder that learns".into())
    })?;
    let compares = [TermKind::Feature, TermKind::Image]
        .iter()
        .any(|kind| w.weight(*kind) > 0.0);
    let reconstructed = if compares {
        Some(reconstruct(state, perception, encoder, x, plan)?)
    } else {
        None
    };
    let decoded = decode(state, encoder, x, reconstructed.as_ref(), plan)?;
    let d_losses = discriminator_losses(&state.discriminator, x, &decoded, plan, rule)?;

    // Where the same pass serves two networks, one pass back gives both their gradients.
    let decoder = state.generator.params();
    let mut gradients = Vec::new();
    let (mut of_reconstruction, mut terms) = (None, Terms::default());
    if let Some(reconstructed) = reconstructed {
        let loss = reconstructed.terms.weighted_sum(w, x.device())?;
        let [of_decoder, of_encoder] = backward(&loss, [decoder, encoder.params()])?;
        gradients.push(Gradients::new(Player::Encoder, of_encoder)?);
        of_reconstruction = Some(of_decoder);
        terms = reconstructed.terms;
    }
    let loss = d_losses
        .total
        .f_mul_scalar(w.weight(TermKind::Adversarial))?;
    let discriminator = state.discriminator.params();
    let [of_discriminator, adversarial] = backward(&loss, [discriminator, decoder])?;
    let gamma = match of_reconstruction {
        Some(_) => rule.gamma,
        None => 0.0,
    };
    let of_decoder = mixed(of_reconstruction, adversarial, gamma, d_losses.share)?;
    gradients.push(Gradients::new(Player::Generator, of_decoder)?);
    gradients.push(Gradients::new(Player::Discriminator, of_discriminator)?);
    // What the decoder goes down: the mean of ln(1 − p) of its images.
    terms.set(TermKind::Adversarial, d_losses.sides.generated.f_neg()?);
    Ok(Learned {
        terms,
        discriminator: d_losses.sides,
        gradients,
    })
}

/// One iteration.
pub(super) fn step(
    state: &mut State,
    perception: &Perception,
    x: &Tensor,
    plan: &Plan,
    rule: config::VaeGan,
) -> Result<Losses> {
    let learned = compute_gradients(state, perception, x, plan, rule)?;
    // One read of all numbers, on which the gate decides.
    let all: Vec<&Gradients> = learned.gradients.iter().collect();
    let sides = Some(&learned.discriminator);
    let losses = read(state.step, &learned.terms, sides, &all, x.device())?;
    if let Some(Sides { real, generated }) = losses.discriminator {
        state.gate = Gate::equilibrium(&rule, real, generated);
    }
    for gradients in &learned.gradients {
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

fn reconstruct(
    state: &State,
    perception: &Perception,
    encoder: &LearnedEncoder,
    x: &Tensor,
    plan: &Plan,
) -> Result<Reconstructed> {
    let _autocast = plan.region(x.device())?;
    let (w, reduction) = (plan.weights(state.step), plan.reduction);
    let posterior = encoder.posterior_in(Mode::Training, x)?;
    let codes = posterior.draw()?;
    let made = state.generator.forward_in(Mode::Training, &codes, None)?;
    let mut terms = Terms::default();
    match (
        w.weight(TermKind::Feature) > 0.0,
        perception.discriminator_tap(),
    ) {
        (false, _) => {}
        (true, Some(tap)) => {
            let both = Tensor::f_cat(&[&made, x], 0)?;
            let features = state.discriminator.features(&both, tap, Mode::Aside)?;
            let half = x.size()[0];
            let (made, real) = (
                features.f_narrow(0, 0, half)?,
                features.f_narrow(0, half, half)?,
            );
            terms.set(TermKind::Feature, feature_loss(&made, &real, reduction)?);
        }
        (true, None) => {
            let target = {
                let _guard = tch::no_grad_guard();
                perception.compare(x)?
            };
            let found = perception.compare(&made)?;
            terms.set(TermKind::Feature, feature_loss(&found, &target, reduction)?);
        }
    }
    image_terms(&mut terms, w, plan.pixels, &made, x, reduction)?;
    terms.set_some(TermKind::Kl, kl_loss(&posterior, reduction)?);
    Ok(Reconstructed {
        codes: codes.f_detach()?,
        terms,
    })
}

/// The images that the discriminator is to call generated.
fn decode(
    state: &State,
    encoder: &LearnedEncoder,
    x: &Tensor,
    reconstructed: Option<&Reconstructed>,
    plan: &Plan,
) -> Result<Tensor> {
    let _autocast = plan.region(x.device())?;
    let shape = [x.size()[0], encoder.spec().size];
    let prior = Tensor::f_randn(shape, (Kind::Float, x.device()))?.f_to_kind(at_least_fp32(x))?;
    let (codes, mode) = match reconstructed {
        // The running statistics are those of codes of real images.
        Some(r) => (Tensor::f_cat(&[&r.codes, &prior], 0)?, Mode::Aside),
        None => (prior, Mode::Training),
    };
    Ok(state.generator.forward_in(mode, &codes, None)?)
}

fn discriminator_losses(
    discriminator: &Discriminator,
    x: &Tensor,
    decoded: &Tensor,
    plan: &Plan,
    rule: config::VaeGan,
) -> Result<DiscriminatorLosses> {
    let _autocast = plan.region(x.device())?;
    let (n, m) = (x.size()[0], decoded.size()[0]);
    let all = Tensor::f_cat(&[x, decoded], 0)?;
    let logits = widened(&discriminator.forward(&all, None, Mode::Training)?)?;
    let kind = logits.kind();
    let certainty = logits.f_select(1, 0)?.f_sub(&logits.f_select(1, 1)?)?;
    // −ln(p + doubt), p the probability of what is true.
    let cost = |certainty: Tensor| -> Result<Tensor> {
        Ok(certainty
            .f_sigmoid()?
            .f_add_scalar(DOUBT)?
            .f_log()?
            .f_neg()?)
    };
    let real = cost(certainty.f_narrow(0, 0, n)?)?;
    let generated = cost(certainty.f_narrow(0, n, m)?.f_neg()?)?;
    let share = (1.0 - rule.real_weight) * n as f64 / m as f64;
    let divisor = match plan.reduction {
        Reduction::Caffe | Reduction::Mean => n as f64,
        Reduction::Paper => 1.0,
    };
    let total = real
        .f_sum(kind)?
        .f_mul_scalar(rule.real_weight / divisor)?
        .f_add(&generated.f_sum(kind)?.f_mul_scalar(share / divisor)?)?;
    Ok(DiscriminatorLosses {
        sides: Sides {
            real: real.f_mean(kind)?.f_detach()?,
            generated: generated.f_mean(kind)?.f_detach()?,
        },
        total,
        share,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: config::VaeGan = config::VaeGan {
        gamma: 1e-6,
        real_weight: 0.5,
        equilibrium: 0.68,
        margin: 0.35,
    };

    #[test]
    fn the_gate_decides_for_each_batch_by_itself() {
        for (real, generated, train_d, train_g) in [
            (0.68, 0.68, true, true),
            (0.331, 1.029, true, true), // just inside the margins
            (0.32, 0.68, false, true),
            (0.68, 0.1, false, true),
            (0.68, 1.04, true, false),
            (2.0, 0.5, true, false),
            (0.1, 2.0, true, true), // both would pause
        ] {
            let gate = Gate::equilibrium(&RULE, real, generated);
            assert_eq!(
                (gate.train_d, gate.train_g),
                (train_d, train_g),
                "{real} {generated}"
            );
        }
    }
}
