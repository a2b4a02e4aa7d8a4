//! One training iteration, in the paper's order or with one pass of the discriminator.

use deepsim_experiment::config::{
    RawDiversity, RawGate, RawLoss, RawPasses, RawPrecision, RawVaeGan,
};
use deepsim_experiment::{Experiment, Perception};
use deepsim_nets::init::seeded;
use deepsim_nets::losses::{Label, PixelDistance, diversity, pixel_distance, squared_distance};
use deepsim_nets::{AutocastGuard, FeatureBranch, Mode, Precision, pictures};
use tch::{Kind, Tensor};

use crate::adversary::{Adversarial, Judge, gradients, pulse, with_gradient};
use crate::error::{Result, TrainError};
use crate::state::State;
use crate::vaegan;

/// What an iteration needs besides the state, the networks and the pictures.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Weights and reduction of the loss terms.
    pub loss: RawLoss,
    /// How the image loss compares pixels.
    pub pixels: PixelDistance,
    /// Updates after which a network's learning rate halves.
    pub halve_at: Vec<u64>,
    /// Thresholds of the gate.
    pub gate: RawGate,
    /// Arithmetic.
    pub precision: RawPrecision,
    /// Passes of the discriminator over generated pictures.
    pub passes: RawPasses,
    /// The iteration of Larsen et al. instead of the paper's.
    pub vaegan: Option<RawVaeGan>,
    /// Reward for pictures of the same features that differ.
    pub diversity: Option<RawDiversity>,
}

impl Plan {
    /// What an experiment says of it.
    pub fn of(experiment: &Experiment) -> Plan {
        let raw = &experiment.raw;
        Plan {
            loss: raw.loss.clone(),
            pixels: raw.pixels.distance,
            halve_at: raw.schedule.halve_at.clone(),
            gate: raw.gate,
            precision: raw.train.precision,
            passes: raw.train.discriminator_passes,
            vaegan: raw.vaegan,
            diversity: raw.diversity,
        }
    }
}

/// Unweighted losses of one iteration, and what the gate made of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// Feature loss.
    pub feat: f64,
    /// Adversarial loss of the generator.
    pub adv: f64,
    /// Image loss.
    pub img: f64,
    /// Kullback-Leibler term of Gaussian codes; NaN without.
    pub kl: f64,
    /// Minus the diversity of pictures of the same features; NaN without.
    pub div: f64,
    /// Discriminator's loss on photographs.
    pub d_real: f64,
    /// Discriminator's loss on generated pictures.
    pub d_fake: f64,
    /// (d_real + d_fake) / adv.
    pub ratio: f64,
}

impl Losses {
    /// The generator's weighted loss, with the encoder's where that learns, without diversity.
    pub fn total(&self, weights: &RawLoss) -> f64 {
        let kl = match weights.kl > 0.0 {
            true => weights.kl * self.kl,
            false => 0.0,
        };
        weights.feat * self.feat + weights.adv * self.adv + weights.img * self.img + kl
    }

    /// The discriminator's loss: on photographs plus on generated pictures.
    pub fn discriminator(&self) -> f64 {
        self.d_real + self.d_fake
    }
}

/// Learning-rate factor of a network after so many updates of its own.
pub fn schedule(halve_at: &[u64], updates: u64) -> f64 {
    let halvings = halve_at.iter().filter(|&&at| updates >= at).count();
    0.5f64.powi(i32::try_from(halvings).unwrap_or(i32::MAX))
}

/// Does one iteration on pictures `x` `[N,3,crop,crop]` in Caffe units and advances the state.
///
/// `seed` determines the codes' noise, the generator's and the dropout masks, drawn in this order: codes (where they
/// are Gaussian), noise (where the generator takes some), the second noise (for diversity), D on photographs, D on generated pictures, updated D on generated pictures (not with one
/// pass).
///
/// An encoder that learns is updated with the generator, by the gradient of the same loss and of the
/// Kullback-Leibler term, and pauses with it. Its term is computed whenever codes are Gaussian, and shown;
/// weight 0 leaves it out of the gradient.
///
/// With one pass the adversarial loss is that of D before its update, as the discriminator's own
/// losses are: the gate compares numbers of one D, where in the paper's order D's losses are one
/// update older.
///
/// `recorded` are the features of the pictures where no network of the experiment encodes them.
/// Where the discriminator is the comparator, both pictures are compared in its features as they are
/// after its update of this iteration (or as they stand, while it pauses), without dropout; that
/// loss tells the discriminator nothing.
///
/// With [`Plan::diversity`] a second picture is made of the same features with other noise. Only the term of
/// diversity sees it; the draws are alike, so that what holds for the first holds for the second.
///
/// A loss term of weight 0 is not computed (NaN in the result); without an adversarial term
/// there is no discriminator step and the gate stays open.
///
/// With [`Plan::vaegan`] the iteration is that of Larsen et al.: [`crate::vaegan`].
///
/// # Errors
/// [`TrainError::NotFinite`] if a loss or a gradient is NaN or infinite (the state must not be used then),
/// and what libtorch refuses.
pub fn iterate(
    state: &mut State,
    perception: &Perception,
    x: &Tensor,
    recorded: Option<&Tensor>,
    plan: &Plan,
    seed: i64,
) -> Result<Losses> {
    seeded(seed, || match plan.vaegan {
        Some(vaegan) => vaegan::step(state, perception, x, plan, vaegan),
        None => step(state, perception, x, recorded, plan),
    })
}

fn step(
    state: &mut State,
    perception: &Perception,
    x: &Tensor,
    recorded: Option<&Tensor>,
    plan: &Plan,
) -> Result<Losses> {
    let precision = match plan.precision {
        RawPrecision::Fp32 => Precision::Fp32,
        RawPrecision::Bf16 => Precision::Bf16,
    };
    // Autocast keeps the bf16 copies of weights until its region ends: a region for each phase, or
    // a discriminator updated in 2 would judge with its old weights in 3.
    let region = || AutocastGuard::new(x.device(), precision);
    let w = &plan.loss;
    let adversarial = w.adv > 0.0;
    let x = &pictures::channels_last(x)?;

    // 1. Features of the photographs; pictures made from them.
    let posterior = with_grad(state.gate.train_g, || {
        let _autocast = region()?;
        Ok(perception
            .learned()
            .map(|e| e.posterior_in(Mode::Training, x))
            .transpose()?)
    })?;
    let (inverted, wanted) = if let Some(posterior) = &posterior {
        let codes = with_grad(state.gate.train_g, || Ok(posterior.draw()?))?;
        let now = w.feat > 0.0 && perception.judged_at().is_none();
        let wanted = with_grad(false, || {
            let _autocast = region()?;
            Ok(now.then(|| perception.compare(x)).transpose()?)
        })?;
        (codes, wanted)
    } else {
        let _autocast = region()?;
        let _guard = tch::no_grad_guard();
        // The discriminator is asked when it has been updated.
        let now = w.feat > 0.0 && perception.judged_at().is_none();
        match (recorded, now) {
            (Some(features), true) => (features.shallow_clone(), Some(perception.compare(x)?)),
            (Some(features), false) => (features.shallow_clone(), None),
            (None, true) => {
                let both = perception.both(x)?;
                (both.encoder, Some(both.comparator))
            }
            (None, false) => (perception.encode(x)?, None),
        }
    };
    let pictures = inverted.size()[0];
    let noise = state.generator.draw_noise(pictures, x.device())?;
    let other = match (&noise, plan.diversity) {
        (Some(noise), Some(rule)) => state
            .generator
            .draw_noise(pictures, x.device())?
            .map(|other| (noise, other, rule)),
        _ => None,
    };
    let (fake, div) = with_grad(state.gate.train_g, || {
        let _autocast = region()?;
        let make = |features: &Tensor, noise: Option<&Tensor>| {
            state.generator.forward_in(Mode::Training, features, noise)
        };
        let Some((noise, other, rule)) = &other else {
            return Ok((make(&inverted, noise.as_ref())?, None));
        };
        let twice = Tensor::f_cat(&[&inverted, &inverted], 0)?;
        let made = make(&twice, Some(&Tensor::f_cat(&[*noise, other], 0)?))?;
        let (first, second) = (
            made.f_narrow(0, 0, pictures)?,
            made.f_narrow(0, pictures, pictures)?,
        );
        let div = diversity([&first, &second], [*noise, other], rule.limit, w.reduction)?;
        Ok((first, Some(div)))
    })?;
    let seen = match state.discriminator.spec().features {
        FeatureBranch::Off => None,
        FeatureBranch::Features(_) => Some(inverted.f_detach()?),
    };

    // 2. The discriminator learns to tell them apart.
    let judge = Judge {
        discriminator: &state.discriminator,
        features: seen.as_ref(),
        reduction: w.reduction,
        weight: w.adv,
        precision,
    };
    let judged = match adversarial {
        true => Some(judge.judge(x, &fake, plan.passes, state.gate)?),
        false => None,
    };
    let (mut of_g, mut of_d) = (None, None);
    if let Some(grads) = judged.as_ref().and_then(|j| j.gradients.as_ref()) {
        of_d = pulse(grads)?;
        let rate = state.rate() * schedule(&plan.halve_at, state.adam_d.count());
        state
            .adam_d
            .step(state.discriminator.params(), grads, rate)?;
    }

    // 3. The updated discriminator judges the generated pictures, unless what it said before its
    //    update is to do; 4. the generator learns.
    let mut pushed = None;
    let (feat, adv, img, kl) = with_grad(state.gate.train_g, || {
        let _autocast = region()?;
        let adv = match judged.as_ref().map(|j| &j.adversarial) {
            None => None,
            Some(Adversarial::Later) => Some(judge.loss(&fake, Label::Real)?),
            Some(Adversarial::Loss(loss)) => Some(loss.shallow_clone()),
            Some(Adversarial::Found { loss, gradient }) => {
                pushed = Some(with_gradient(&fake, gradient)?);
                Some(loss.shallow_clone())
            }
        };
        let feat = match (&wanted, perception.judged_at()) {
            (Some(wanted), _) => Some(squared_distance(
                &perception.compare(&fake)?,
                wanted,
                w.reduction,
            )?),
            (None, Some(tap)) if w.feat > 0.0 => {
                let d = &state.discriminator;
                let wanted = with_grad(false, || Ok(d.features(x, tap, Mode::Evaluation)?))?;
                Some(squared_distance(
                    &d.features(&fake, tap, Mode::Evaluation)?,
                    &wanted,
                    w.reduction,
                )?)
            }
            (None, _) => None,
        };
        let img = if w.img > 0.0 {
            Some(pixel_distance(plan.pixels, &fake, x, w.reduction)?)
        } else {
            None
        };
        let kl = match &posterior {
            Some(posterior) => posterior.kl(w.reduction)?,
            None => None,
        };
        Ok((feat, adv, img, kl))
    })?;
    if state.gate.train_g {
        let mut loss = Tensor::f_zeros([], (Kind::Float, x.device()))?;
        let of_div = plan.diversity.map_or(0.0, |rule| rule.weight);
        for (term, weight) in [
            (&feat, w.feat),
            (&adv, w.adv),
            (&img, w.img),
            (&kl, w.kl),
            (&div, of_div),
        ] {
            if let (Some(term), true) = (term, weight > 0.0) {
                loss = loss.f_add(&term.f_mul_scalar(weight)?)?;
            }
        }
        if let Some(pushed) = pushed {
            loss = loss.f_add(&pushed)?;
        }
        let rate = state.rate() * schedule(&plan.halve_at, state.adam_g.count());
        let generator = state.generator.params();
        // One pass back through both.
        let mut grads = gradients(
            &loss,
            std::iter::once(generator).chain(state.encoder.as_ref().map(|e| &e.params)),
        )?;
        of_g = pulse(&grads)?;
        let of_encoder = grads.split_off(generator.trained().len());
        state.adam_g.step(generator, &grads, rate)?;
        if let Some(encoder) = &mut state.encoder {
            encoder.adam.step(&encoder.params, &of_encoder, rate)?;
        }
    }

    // One read of all scalars; the gate decides for the next iteration.
    let (d_real, d_fake) = judged.map(|j| (j.real, j.generated)).unzip();
    let terms = [&feat, &adv, &img, &kl, &div, &d_real, &d_fake, &of_g, &of_d];
    let (mut losses, [pulse_g, pulse_d]) = read(&terms, x.device())?;
    check_finite(
        state.step + 1,
        [
            ("loss.feat", losses.feat, feat.is_some()),
            ("loss.adv", losses.adv, adv.is_some()),
            ("loss.img", losses.img, img.is_some()),
            ("loss.kl", losses.kl, kl.is_some()),
            ("loss.diversity", losses.div, div.is_some()),
            ("loss.d_real", losses.d_real, adversarial),
            ("loss.d_fake", losses.d_fake, adversarial),
            ("the discriminator's gradient", pulse_d, of_d.is_some()),
            ("the generator's gradient", pulse_g, of_g.is_some()),
        ],
    )?;
    if adversarial {
        losses.ratio = state
            .gate
            .update(&plan.gate, losses.d_real, losses.d_fake, losses.adv);
    }
    state.step += 1;
    Ok(losses)
}

/// Refuses the first number that is not finite among those that were computed: (name, value, computed).
pub(crate) fn check_finite(
    step: u64,
    named: impl IntoIterator<Item = (&'static str, f64, bool)>,
) -> Result<()> {
    for (term, value, computed) in named {
        if computed && !value.is_finite() {
            return Err(TrainError::NotFinite {
                step,
                term,
                value,
                newest: None,
            });
        }
    }
    Ok(())
}

/// Runs `body` with gradients recorded or not.
pub(crate) fn with_grad<T>(on: bool, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let _guard = (!on).then(tch::no_grad_guard);
    body()
}

/// The losses, and the pulses of both networks' gradients, generator first.
pub(crate) fn read(
    terms: &[&Option<Tensor>; 9],
    device: tch::Device,
) -> Result<(Losses, [f64; 2])> {
    let nan = Tensor::f_full([], f64::NAN, (Kind::Float, device))?;
    let present: Vec<&Tensor> = terms.iter().map(|t| t.as_ref().unwrap_or(&nan)).collect();
    let _guard = tch::no_grad_guard();
    let all = Tensor::f_stack(&present, 0)?
        .f_to_kind(Kind::Double)?
        .f_to_device(tch::Device::Cpu)?;
    let mut v = [0f64; 9];
    all.f_copy_data(&mut v, 9)?;
    let [feat, adv, img, kl, div, d_real, d_fake, of_g, of_d] = v;
    let losses = Losses {
        feat,
        adv,
        img,
        kl,
        div,
        d_real,
        d_fake,
        ratio: f64::NAN,
    };
    Ok((losses, [of_g, of_d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_halve_at_a_network_s_own_updates() {
        let at = [300, 500, 700];
        assert_eq!(schedule(&at, 299), 1.0);
        assert_eq!(schedule(&at, 300), 0.5);
        assert_eq!(schedule(&at, 699), 0.25);
        assert_eq!(schedule(&at, 10_000), 0.125);
    }
}
