//! What is written down and said of a training's steps.

use std::borrow::Cow;

use deepsim_experiment::{Experiment, HeldOut};
use deepsim_nets::loss::{KINDS, TermKind, Terms};
use serde_json::Value;

use crate::method::{Losses, Plan, Sides};
use crate::observe::watch::{CollapseDetector, Player, Watch};
use crate::state::State;

/// `overlap`: how many of the images are training images, where it is known.
pub(crate) fn eval_entries(e: &HeldOut, overlap: Option<usize>) -> Vec<(Cow<'static, str>, Value)> {
    let mut entries = vec![
        ("eval.image_error", Value::from(e.image_error)),
        ("eval.feature_error", Value::from(e.feature_error)),
        ("eval.gradient_energy", Value::from(e.gradient_energy)),
        ("eval.n", Value::from(e.n)),
        ("eval.n_pairs_from", Value::from(e.norm.pairs_from)),
    ];
    entries.extend(overlap.map(|n| ("eval.held_out_overlap", Value::from(n))));
    let all = entries.into_iter();
    all.map(|(key, value)| (Cow::Borrowed(key), value))
        .collect()
}

pub(crate) fn eval_line(step: u64, e: &HeldOut) -> String {
    format!(
        "step {step}: held-out error: image {:.1} %, feature {}; gradient energy {:.2} of real",
        e.image_error,
        e.feature_error
            .map_or("not measurable".to_owned(), |v| format!("{v:.1} %")),
        e.gradient_energy
    )
}

/// A line of the log: terms, then the discriminator's losses, the gate, counters.
pub(crate) fn log_entries(
    losses: &Losses,
    state: &State,
    experiment: &Experiment,
    images_per_s: f64,
    watch: &Watch,
    quarantined: usize,
) -> Vec<(Cow<'static, str>, Value)> {
    let mut terms: Terms<f64> = KINDS
        .iter()
        .filter(|info| info.in_every_line)
        .map(|info| (info.kind.into(), f64::NAN))
        .collect();
    for (term, value) in losses.terms.iter() {
        terms.set(term.clone(), *value);
    }
    let sides = losses.discriminator.unwrap_or(Sides {
        real: f64::NAN,
        generated: f64::NAN,
    });
    let terms = terms.iter();
    let terms = terms.map(|(term, value)| (Cow::Owned(term.log_key()), Value::from(*value)));
    let rest = [
        ("loss.discr", Value::from(losses.discriminator())),
        ("loss.discr_real", Value::from(sides.real)),
        ("loss.discr_fake", Value::from(sides.generated)),
        ("gate.ratio", Value::from(losses.ratio)),
        ("gate.train_d", Value::from(state.gate.train_d)),
        ("gate.train_g", Value::from(state.gate.train_g)),
        ("discr.dead", Value::from(watch.collapse.is_dead())),
        ("gate.stuck", Value::from(watch.balance.paused().is_some())),
        ("updates.g", Value::from(state.adam_g.count())),
        ("updates.d", Value::from(state.discriminator_updates())),
        (
            "lr",
            Value::from(experiment.config.optimizer.generator.lr * state.rate()),
        ),
        ("images_per_s", Value::from(images_per_s)),
        ("data.quarantined", Value::from(quarantined)),
    ];
    let options = experiment.config.optimizer.discriminator;
    let options = options.filter(|_| state.discriminator.is_some());
    let of_discriminator =
        options.map(|options| ("lr.d", Value::from(options.lr * state.discriminator_rate())));
    terms
        .chain(
            rest.into_iter()
                .chain(of_discriminator)
                .map(|(key, value)| (Cow::Borrowed(key), value)),
        )
        .collect()
}

/// Warns of networks that have stopped learning, after an iteration: the state is that of the next step.
pub(crate) fn warn_of_idle_networks(
    watch: &mut Watch,
    state: &State,
    plan: &Plan,
    losses: &Losses,
) {
    let step = state.step;
    if !plan.discriminator_plays(step.saturating_sub(1)) {
        return;
    }
    if plan.dies_at_chance() {
        let collapse = &mut watch.collapse;
        collapse.observe(losses.discriminator(), losses.of(TermKind::Adversarial));
        if collapse.should_tell() {
            tracing::warn!(step, "{}", dead_discriminator(step));
        }
    }
    let balance = &mut watch.balance;
    balance.observe(state.adam_g.count(), state.discriminator_updates());
    if let Some(player) = balance.should_tell() {
        let words = stuck_gate(step, player, plan.vaegan.is_some());
        tracing::warn!(step, "{words}");
    }
}

fn dead_discriminator(step: u64) -> String {
    format!(
        "step {step}: the discriminator is dead: for {} steps its loss has been 2 ln 2 and the \
         adversarial loss ln 2, so that no gradient is left in them. Lower optimizer.discriminator.lr \
         (the sample experiments use 1e-4) and start over",
        CollapseDetector::PATIENCE
    )
}

fn stuck_gate(step: u64, paused: Player, vaegan: bool) -> String {
    let (paused, other) = match paused {
        Player::Generator => ("generator", "discriminator"),
        Player::Discriminator => ("discriminator", "generator"),
    };
    let remedy = if vaegan {
        "A larger vaegan.margin lets both train"
    } else {
        "Thresholds of [gate] further apart, or a lower loss.adv, let both train"
    };
    format!(
        "step {step}: the gate is stuck: it has paused the {paused} in nearly all of the last iterations, and only \
         the {other} learns. {remedy}; see gate.ratio and loss.discr in metrics.jsonl"
    )
}

pub(crate) fn gate_name(state: &State) -> &'static str {
    match (state.gate.train_g, state.gate.train_d) {
        (true, true) => "G+D",
        (true, false) => "G",
        _ => "D",
    }
}
