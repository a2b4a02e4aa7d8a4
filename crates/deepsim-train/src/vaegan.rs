//! The iteration of VAE/GAN: Larsen et al., "Autoencoding beyond pixels using a learned similarity
//! metric" (2016), with the gradient routing and the batches of the authors' released code.
//!
//! 1. Codes z of the photographs; pictures x̃ decoded from them; x̃ and photographs side by side in the
//!    features of the discriminator (one batch, whose statistics normalise it).
//! 2. Pictures decoded from z, cut off from the encoder, and from draws of the prior (one batch); the
//!    discriminator over these and the photographs (one batch).
//! 3. Gradients, all of the same weights. Encoder: KL + reconstruction. Decoder: γ · reconstruction and
//!    (1 − γ) times the discriminator's loss upwards. Discriminator: its own loss, nothing of the
//!    reconstruction.
//! 4. The gate decides for this batch from its mean losses; what it lets through is updated. The encoder
//!    always is.
//!
//! Where nothing is reconstructed (`loss.feat` and `loss.img` 0) it is a GAN: step 1 falls away, γ is 0, the
//! encoder stays as it is, and all generated pictures are draws of the prior.

use deepsim_experiment::Perception;
use deepsim_experiment::config::{RawPrecision, RawVaeGan};
use deepsim_nets::losses::{pixel_distance, squared_distance};
use deepsim_nets::precision::{at_least_fp32, widened};
use deepsim_nets::{
    AutocastGuard, Discriminator, LearnedEncoder, Mode, NetError, Precision, Reduction, pictures,
};
use tch::{Kind, Tensor};

use crate::adversary::{gradients, pulse};
use crate::error::Result;
use crate::gate::Gate;
use crate::iteration::{Losses, Plan, check_finite, read, schedule};
use crate::state::State;

/// Added to probabilities before their logarithm (the authors' 1e-3): the discriminator's certainty ends there.
const DOUBT: f64 = 1e-3;

impl Gate {
    /// The gate of Larsen et al., for the batch that these mean losses are of: the discriminator learns unless
    /// one of them is more than the margin below the equilibrium, the decoder unless one is more than it above;
    /// where neither would, both do.
    pub fn equilibrium(rule: &RawVaeGan, d_real: f64, d_fake: f64) -> Gate {
        let (low, high) = (
            rule.equilibrium - rule.margin,
            rule.equilibrium + rule.margin,
        );
        let gate = Gate {
            train_d: !(d_real < low || d_fake < low),
            train_g: !(d_real > high || d_fake > high),
        };
        match gate.train_d || gate.train_g {
            true => gate,
            false => Gate::open(),
        }
    }
}

/// What came of step 1.
struct Reconstructed {
    codes: Tensor,
    kl: Option<Tensor>,
    feat: Option<Tensor>,
    img: Option<Tensor>,
}

/// What came of the discriminator's look at photographs and generated pictures.
struct Judged {
    /// Mean losses.
    real: Tensor,
    generated: Tensor,
    /// What the discriminator's weights go down.
    total: Tensor,
    /// Weight of one generated picture in it.
    share: f64,
}

/// What all three networks learn from one batch: losses, and gradients of the weights that train.
#[derive(Debug)]
pub struct Look {
    /// Unweighted losses; none where a term is not computed.
    pub feat: Option<Tensor>,
    /// Image loss.
    pub img: Option<Tensor>,
    /// Kullback-Leibler term.
    pub kl: Option<Tensor>,
    /// Mean of the discriminator's loss on photographs.
    pub d_real: Tensor,
    /// Mean of its loss on generated pictures.
    pub d_fake: Tensor,
    /// The encoder's gradient; none in a GAN.
    pub of_encoder: Option<Vec<Tensor>>,
    /// The decoder's.
    pub of_decoder: Vec<Tensor>,
    /// The discriminator's.
    pub of_discriminator: Vec<Tensor>,
}

/// Steps 1 to 3 of an iteration on pictures `x` in Caffe units. No weight changes; running statistics of
/// batch normalisation do. Randomness is libtorch's, in this order: the codes' noise (not in a GAN), the prior's
/// draws, dropout (where the discriminator has any).
///
/// # Errors
/// A perception without an encoder that learns, and what libtorch refuses.
pub fn look(
    state: &State,
    perception: &Perception,
    x: &Tensor,
    plan: &Plan,
    rule: RawVaeGan,
) -> Result<Look> {
    let w = &plan.loss;
    let x = &pictures::channels_last(x)?;
    let encoder = perception.learned().ok_or_else(|| {
        NetError::Spec("the iteration of Larsen et al. needs an encoder that learns".into())
    })?;
    let reconstructed = match w.feat > 0.0 || w.img > 0.0 {
        true => Some(reconstruct(state, perception, encoder, x, plan)?),
        false => None,
    };
    let decoded = decode(state, encoder, x, reconstructed.as_ref(), plan)?;
    let judged = judge(&state.discriminator, x, &decoded, plan, rule)?;

    // Where the same pass serves two networks, one pass back gives both their gradients.
    let generator = state.generator.params();
    let decoders = generator.trained().len();
    let (mut of_encoder, mut towards) = (None, None);
    if let Some(r) = &reconstructed {
        let terms = [(&r.kl, w.kl), (&r.feat, w.feat), (&r.img, w.img)];
        let mut loss = Tensor::f_zeros([], (Kind::Float, x.device()))?;
        for (term, weight) in terms {
            if let (Some(term), true) = (term, weight > 0.0) {
                loss = loss.f_add(&term.f_mul_scalar(weight)?)?;
            }
        }
        let mut grads = gradients(&loss, [generator, encoder.params()])?;
        of_encoder = Some(grads.split_off(decoders));
        towards = Some(grads);
    }
    let loss = judged.total.f_mul_scalar(w.adv)?;
    let mut of_discriminator = gradients(&loss, [state.discriminator.params(), generator])?;
    let upwards = of_discriminator.split_off(of_discriminator.len() - decoders);
    let gamma = match towards {
        Some(_) => rule.gamma,
        None => 0.0,
    };
    let (feat, img, kl) = match reconstructed {
        Some(r) => (r.feat, r.img, r.kl),
        None => (None, None, None),
    };
    Ok(Look {
        feat,
        img,
        kl,
        d_real: judged.real,
        d_fake: judged.generated,
        of_encoder,
        of_decoder: mixed(towards, upwards, gamma, judged.share)?,
        of_discriminator,
    })
}

/// One iteration.
pub(crate) fn step(
    state: &mut State,
    perception: &Perception,
    x: &Tensor,
    plan: &Plan,
    rule: RawVaeGan,
) -> Result<Losses> {
    let Look {
        feat,
        img,
        kl,
        d_real,
        d_fake,
        of_encoder,
        of_decoder,
        of_discriminator,
    } = look(state, perception, x, plan, rule)?;

    // One read of all numbers, on which the gate decides.
    let mut pulse_g = pulse(&of_decoder)?;
    if let (Some(of_encoder), Some(of_g)) = (&of_encoder, &pulse_g)
        && let Some(of_e) = pulse(of_encoder)?
    {
        pulse_g = Some(of_g.f_add(&of_e)?);
    }
    let pulse_d = pulse(&of_discriminator)?;
    // What the decoder goes down: the mean of ln(1 − p) of its pictures.
    let (adv, d_real, d_fake) = (Some(d_fake.f_neg()?), Some(d_real), Some(d_fake));
    let terms = [
        &feat, &adv, &img, &kl, &None, &d_real, &d_fake, &pulse_g, &pulse_d,
    ];
    let (losses, [of_g, of_d]) = read(&terms, x.device())?;
    check_finite(
        state.step + 1,
        [
            ("loss.feat", losses.feat, feat.is_some()),
            ("loss.img", losses.img, img.is_some()),
            ("loss.kl", losses.kl, kl.is_some()),
            ("loss.d_real", losses.d_real, true),
            ("loss.d_fake", losses.d_fake, true),
            ("the discriminator's gradient", of_d, pulse_d.is_some()),
            (
                "the decoder's or the encoder's gradient",
                of_g,
                pulse_g.is_some(),
            ),
        ],
    )?;
    state.gate = Gate::equilibrium(&rule, losses.d_real, losses.d_fake);
    let halved = state.rate();
    let rate = |updates: u64| halved * schedule(&plan.halve_at, updates);
    if let (Some(grads), Some(encoder)) = (of_encoder, &mut state.encoder) {
        let rate = rate(encoder.adam.count());
        encoder.adam.step(&encoder.params, &grads, rate)?;
    }
    if state.gate.train_g {
        let rate = rate(state.adam_g.count());
        let params = state.generator.params();
        state.adam_g.step(params, &of_decoder, rate)?;
    }
    if state.gate.train_d {
        let rate = rate(state.adam_d.count());
        let params = state.discriminator.params();
        state.adam_d.step(params, &of_discriminator, rate)?;
    }
    state.step += 1;
    Ok(losses)
}

fn region(x: &Tensor, plan: &Plan) -> Result<AutocastGuard> {
    let precision = match plan.precision {
        RawPrecision::Fp32 => Precision::Fp32,
        RawPrecision::Bf16 => Precision::Bf16,
    };
    Ok(AutocastGuard::new(x.device(), precision)?)
}

fn reconstruct(
    state: &State,
    perception: &Perception,
    encoder: &LearnedEncoder,
    x: &Tensor,
    plan: &Plan,
) -> Result<Reconstructed> {
    let _autocast = region(x, plan)?;
    let w = &plan.loss;
    let posterior = encoder.posterior_in(Mode::Training, x)?;
    let codes = posterior.draw()?;
    let made = state.generator.forward_in(Mode::Training, &codes, None)?;
    let feat = match (w.feat > 0.0, perception.judged_at()) {
        (false, _) => None,
        (true, Some(tap)) => {
            let both = Tensor::f_cat(&[&made, x], 0)?;
            let seen = state.discriminator.features(&both, tap, Mode::Aside)?;
            let half = x.size()[0];
            let (made, real) = (seen.f_narrow(0, 0, half)?, seen.f_narrow(0, half, half)?);
            Some(squared_distance(&made, &real, w.reduction)?)
        }
        (true, None) => {
            let wanted = {
                let _guard = tch::no_grad_guard();
                perception.compare(x)?
            };
            let got = perception.compare(&made)?;
            Some(squared_distance(&got, &wanted, w.reduction)?)
        }
    };
    let img = match w.img > 0.0 {
        true => Some(pixel_distance(plan.pixels, &made, x, w.reduction)?),
        false => None,
    };
    Ok(Reconstructed {
        kl: posterior.kl(w.reduction)?,
        codes: codes.f_detach()?,
        feat,
        img,
    })
}

/// The pictures that the discriminator is to call generated.
fn decode(
    state: &State,
    encoder: &LearnedEncoder,
    x: &Tensor,
    reconstructed: Option<&Reconstructed>,
    plan: &Plan,
) -> Result<Tensor> {
    let _autocast = region(x, plan)?;
    let shape = [x.size()[0], encoder.spec().size];
    let prior = Tensor::f_randn(shape, (Kind::Float, x.device()))?.f_to_kind(at_least_fp32(x))?;
    let (codes, mode) = match reconstructed {
        // The running statistics are those of codes of photographs.
        Some(r) => (Tensor::f_cat(&[&r.codes, &prior], 0)?, Mode::Aside),
        None => (prior, Mode::Training),
    };
    Ok(state.generator.forward_in(mode, &codes, None)?)
}

fn judge(
    discriminator: &Discriminator,
    x: &Tensor,
    decoded: &Tensor,
    plan: &Plan,
    rule: RawVaeGan,
) -> Result<Judged> {
    let _autocast = region(x, plan)?;
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
    let divisor = match plan.loss.reduction {
        Reduction::Caffe | Reduction::Mean => n as f64,
        Reduction::Paper => 1.0,
    };
    let total = real
        .f_sum(kind)?
        .f_mul_scalar(rule.real_weight / divisor)?
        .f_add(&generated.f_sum(kind)?.f_mul_scalar(share / divisor)?)?;
    Ok(Judged {
        real: real.f_mean(kind)?.f_detach()?,
        generated: generated.f_mean(kind)?.f_detach()?,
        total,
        share,
    })
}

/// The decoder's gradient: γ of the reconstruction's, and 1 − γ of the discriminator's upwards, in which a
/// generated picture weighs as much as one of the reconstruction.
fn mixed(
    reconstruction: Option<Vec<Tensor>>,
    upwards: Vec<Tensor>,
    gamma: f64,
    share: f64,
) -> Result<Vec<Tensor>> {
    let _guard = tch::no_grad_guard();
    let mut out = Vec::with_capacity(upwards.len());
    let mut known = reconstruction.into_iter().flatten();
    for against in upwards {
        let mut against = against.f_mul_scalar((gamma - 1.0) / share)?;
        out.push(match known.next() {
            Some(towards) => against.f_add_(&towards.f_mul_scalar(gamma)?)?,
            None => against,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: RawVaeGan = RawVaeGan {
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
