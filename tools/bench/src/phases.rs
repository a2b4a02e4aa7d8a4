//! Where the time of an iteration goes: its phases, one after the other through the networks'
//! public functions, each cut off from the rest. Their sum is near the iteration's time, not
//! equal to it: cutting costs copies, and caches see another order.

use std::time::Instant;

use anyhow::{Context, Result};
use deepsim_experiment::config::RawPasses;
use deepsim_nets::loss::{Label, SharedPass, TermKind, cross_entropy, squared_distance};
use deepsim_nets::params::Params;
use deepsim_nets::{Mode, init, pictures};
use deepsim_train::method::Plan;
use deepsim_train::state::State;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::serve::wait;
use crate::state::Bench;

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
    device: Device,
    times: Vec<(&'static str, f64)>,
}

impl Clock {
    fn time<T>(&mut self, name: &'static str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let value = body()?;
        wait(self.device);
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
    let (w, reduction) = (&plan.weights, plan.reduction);
    let region = || plan.region(x.device());
    let mut clock = Clock {
        device: x.device(),
        times: Vec::new(),
    };
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
    // The generated picture as a leaf: what D and the comparator send back ends here.
    let leaf = fake.f_detach()?.f_set_requires_grad(true)?;
    let from_d = match plan.passes {
        RawPasses::Paper => twice(&mut clock, state, plan, x, &leaf)?,
        RawPasses::One => once(&mut clock, state, plan, x, &leaf)?,
    };
    let feat = clock.time("comparator forward", || {
        let _autocast = region()?;
        let seen = perception.compare(&leaf)?;
        Ok(squared_distance(&seen, &both.comparator, reduction)?)
    })?;
    let from_c = clock.time("comparator backward", || {
        input_gradient(&feat.f_mul_scalar(w.weight(TermKind::Feature))?, &leaf)
    })?;
    drop(feat);
    let grads = clock.time("image loss, G backward", || {
        let img = squared_distance(&fake, x, reduction)?.f_mul_scalar(w.weight(TermKind::Image))?;
        let pushed = fake.f_mul(&from_d.f_add(&from_c)?)?.f_sum(Kind::Float)?;
        gradients(&img.f_add(&pushed)?, state.generator.params())
    })?;
    clock.time("G's Adam", || {
        Ok(state.adam_g.step(state.generator.params(), &grads, 1.0)?)
    })?;
    Ok(clock.times)
}

/// D's step and its gradient at the generated pictures, in the paper's order.
fn twice(
    clock: &mut Clock,
    state: &mut State,
    plan: &Plan,
    x: &Tensor,
    leaf: &Tensor,
) -> Result<Tensor> {
    let d_loss = clock.time("D forward, twice", || {
        let _autocast = plan.region(x.device())?;
        let real = cross_entropy(&judge(state, x)?, Label::Real, plan.reduction)?;
        let logits = judge(state, &leaf.f_detach()?)?;
        let generated = cross_entropy(&logits, Label::Fake, plan.reduction)?;
        Ok(real
            .f_add(&generated)?
            .f_mul_scalar(plan.weights.weight(TermKind::Adversarial))?)
    })?;
    let grads = clock.time("D backward", || {
        gradients(&d_loss, state.discriminator.params())
    })?;
    drop(d_loss);
    clock.time("D's Adam", || update(state, &grads))?;
    drop(grads);
    let adv = clock.time("D on the generated, forward", || {
        let _autocast = plan.region(x.device())?;
        Ok(cross_entropy(
            &judge(state, leaf)?,
            Label::Real,
            plan.reduction,
        )?)
    })?;
    clock.time("D on the generated, backward", || {
        input_gradient(
            &adv.f_mul_scalar(plan.weights.weight(TermKind::Adversarial))?,
            leaf,
        )
    })
}

/// The same with one pass.
fn once(
    clock: &mut Clock,
    state: &mut State,
    plan: &Plan,
    x: &Tensor,
    leaf: &Tensor,
) -> Result<Tensor> {
    let (d_loss, shared) = clock.time("D forward, twice", || {
        let _autocast = plan.region(x.device())?;
        let real = cross_entropy(&judge(state, x)?, Label::Real, plan.reduction)?;
        let shared = SharedPass::new(&judge(state, leaf)?, plan.reduction)?;
        Ok((
            real.f_add(&shared.seeded)?
                .f_mul_scalar(plan.weights.weight(TermKind::Adversarial))?,
            shared,
        ))
    })?;
    let (grads, from_d) = clock.time("D backward, to the generated", || {
        let mut inputs = trained(state.discriminator.params());
        inputs.push(leaf);
        let mut found = Tensor::f_run_backward(&[&d_loss], &inputs, false, false)?;
        let at_pictures = found.pop().context("no gradient of the pictures")?;
        Ok((found, shared.adversarial(&at_pictures)?))
    })?;
    drop(d_loss);
    clock.time("D's Adam", || update(state, &grads))?;
    Ok(from_d)
}

fn judge(state: &State, pictures: &Tensor) -> Result<Tensor> {
    let d = &state.discriminator;
    Ok(d.forward(pictures, None, Mode::Training)?)
}

fn update(state: &mut State, grads: &[Tensor]) -> Result<()> {
    let params = state.discriminator.params();
    Ok(state.adam_d.step(params, grads, 1.0)?)
}

fn trained(params: &Params) -> Vec<&Tensor> {
    params.trained().into_iter().map(|p| &p.tensor).collect()
}

fn gradients(loss: &Tensor, params: &Params) -> Result<Vec<Tensor>> {
    Ok(Tensor::f_run_backward(
        &[loss],
        &trained(params),
        false,
        false,
    )?)
}

fn input_gradient(loss: &Tensor, leaf: &Tensor) -> Result<Tensor> {
    let mut found = Tensor::f_run_backward(&[loss], &[leaf], false, false)?;
    Ok(match found.pop() {
        Some(gradient) => gradient,
        None => leaf.f_zeros_like()?,
    })
}
