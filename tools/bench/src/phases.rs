//! Where the time of an iteration goes: its phases, one after the other through the networks'
//! public functions, each cut off from the rest. Their sum is near the iteration's time, not
//! equal to it: cutting costs copies, and caches see another order.

use std::time::Instant;

use anyhow::Result;
use deepsim_experiment::config::RawPrecision;
use deepsim_nets::losses::{Label, cross_entropy, squared_distance};
use deepsim_nets::params::Params;
use deepsim_nets::{AutocastGuard, Dropout, Precision, init, pictures};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::training::Bench;

/// Passes over all phases; each phase counts with its fastest.
const PASSES: usize = 2;

/// Seconds of each phase, in the order of the iteration.
///
/// # Errors
/// What libtorch refuses.
pub fn measure(bench: &mut Bench) -> Result<Value> {
    let mut best: Vec<(&'static str, f64)> = Vec::new();
    for _ in 0..PASSES {
        let pass = init::seeded(1, || phases(bench))?;
        if best.is_empty() {
            best = pass;
        } else {
            for (kept, new) in best.iter_mut().zip(pass) {
                kept.1 = kept.1.min(new.1);
            }
        }
    }
    Ok(json!(best))
}

struct Clock {
    times: Vec<(&'static str, f64)>,
}

impl Clock {
    fn time<T>(&mut self, name: &'static str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let value = body()?;
        self.times.push((name, begun.elapsed().as_secs_f64()));
        Ok(value)
    }
}

fn phases(bench: &mut Bench) -> Result<Vec<(&'static str, f64)>> {
    let Bench {
        state,
        perception,
        x,
        plan,
        ..
    } = bench;
    let w = &plan.loss;
    let precision = match plan.precision {
        RawPrecision::Fp32 => Precision::Fp32,
        RawPrecision::Bf16 => Precision::Bf16,
    };
    let region = || AutocastGuard::new(x.device(), precision);
    let mut clock = Clock { times: Vec::new() };
    let x = &pictures::channels_last(x)?;

    let both = clock.time("features of the photographs", || {
        let _autocast = region()?;
        let _guard = tch::no_grad_guard();
        Ok(perception.both(x)?)
    })?;
    let fake = clock.time("G forward", || {
        let _autocast = region()?;
        Ok(state.generator.forward(&both.encoder)?)
    })?;
    let real_loss = |d: &deepsim_nets::Discriminator, pictures: &Tensor, label| -> Result<Tensor> {
        let logits = d.forward(pictures, None, Dropout::Active)?;
        Ok(cross_entropy(&logits, label, w.reduction)?)
    };
    let d_loss = clock.time("D forward, twice", || {
        let _autocast = region()?;
        let real = real_loss(&state.discriminator, x, Label::Real)?;
        let generated = real_loss(&state.discriminator, &fake.f_detach()?, Label::Fake)?;
        Ok(real.f_add(&generated)?.f_mul_scalar(w.adv)?)
    })?;
    let grads = clock.time("D backward", || {
        gradients(&d_loss, state.discriminator.params())
    })?;
    drop(d_loss);
    clock.time("D's Adam", || {
        Ok(state
            .adam_d
            .step(state.discriminator.params(), &grads, 1.0)?)
    })?;
    drop(grads);

    // The generated picture as a leaf: what D and the comparator send back ends here.
    let leaf = fake.f_detach()?.f_set_requires_grad(true)?;
    let adv = clock.time("D on the generated, forward", || {
        let _autocast = region()?;
        real_loss(&state.discriminator, &leaf, Label::Real)
    })?;
    let from_d = clock.time("D on the generated, backward", || {
        input_gradient(&adv.f_mul_scalar(w.adv)?, &leaf)
    })?;
    drop(adv);
    let feat = clock.time("comparator forward", || {
        let _autocast = region()?;
        let seen = perception.compare(&leaf)?;
        Ok(squared_distance(&seen, &both.comparator, w.reduction)?)
    })?;
    let from_c = clock.time("comparator backward", || {
        input_gradient(&feat.f_mul_scalar(w.feat)?, &leaf)
    })?;
    drop(feat);
    let grads = clock.time("image loss, G backward", || {
        let img = squared_distance(&fake, x, w.reduction)?.f_mul_scalar(w.img)?;
        let pushed = fake.f_mul(&from_d.f_add(&from_c)?)?.f_sum(Kind::Float)?;
        gradients(&img.f_add(&pushed)?, state.generator.params())
    })?;
    clock.time("G's Adam", || {
        Ok(state.adam_g.step(state.generator.params(), &grads, 1.0)?)
    })?;
    Ok(clock.times)
}

fn gradients(loss: &Tensor, params: &Params) -> Result<Vec<Tensor>> {
    let inputs: Vec<&Tensor> = params.trained().into_iter().map(|p| &p.tensor).collect();
    Ok(Tensor::f_run_backward(&[loss], &inputs, false, false)?)
}

fn input_gradient(loss: &Tensor, leaf: &Tensor) -> Result<Tensor> {
    let mut found = Tensor::f_run_backward(&[loss], &[leaf], false, false)?;
    Ok(match found.pop() {
        Some(gradient) => gradient,
        None => leaf.f_zeros_like()?,
    })
}
