//! What is written down and said of a training's steps.

use deepsim_experiment::Experiment;
use deepsim_experiment::evaluate::HeldOut;
use serde_json::Value;

use crate::gate::{Player, Vital, Watch};
use crate::iteration::{Losses, Plan, schedule};
use crate::state::State;

/// `overlap`: how many of the images are training images, where it is known.
pub(crate) fn eval_entries(e: &HeldOut, overlap: Option<usize>) -> Vec<(&'static str, Value)> {
    let mut entries = vec![
        ("eval.image_error", Value::from(e.image_error)),
        ("eval.feature_error", Value::from(e.feature_error)),
        ("eval.gradient_energy", Value::from(e.gradient_energy)),
        ("eval.n", Value::from(e.n)),
        ("eval.n_pairs_from", Value::from(e.norm.pairs_from)),
    ];
    entries.extend(overlap.map(|n| ("eval.held_out_overlap", Value::from(n))));
    entries
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

pub(crate) fn log_entries(
    l: &Losses,
    state: &State,
    plan: &Plan,
    experiment: &Experiment,
    images_per_s: f64,
    watch: &Watch,
    quarantined: usize,
) -> Vec<(&'static str, Value)> {
    let kl = (!l.kl.is_nan()).then(|| ("loss.kl", Value::from(l.kl)));
    let diversity = (!l.div.is_nan()).then(|| ("loss.diversity", Value::from(l.div)));
    let lr = experiment.raw.optimizer.generator.lr
        * state.rate()
        * schedule(&plan.halve_at, state.adam_g.count());
    [
        ("loss.feat", Value::from(l.feat)),
        ("loss.adv", Value::from(l.adv)),
        ("loss.img", Value::from(l.img)),
    ]
    .into_iter()
    .chain(kl)
    .chain(diversity)
    .chain([
        ("loss.discr", Value::from(l.discriminator())),
        ("loss.discr_real", Value::from(l.d_real)),
        ("loss.discr_fake", Value::from(l.d_fake)),
        ("gate.ratio", Value::from(l.ratio)),
        ("gate.train_d", Value::from(state.gate.train_d)),
        ("gate.train_g", Value::from(state.gate.train_g)),
        ("discr.dead", Value::from(watch.vital.is_dead())),
        ("gate.stuck", Value::from(watch.balance.paused().is_some())),
        ("updates.g", Value::from(state.adam_g.count())),
        ("updates.d", Value::from(state.adam_d.count())),
        ("lr", Value::from(lr)),
        ("images_per_s", Value::from(images_per_s)),
        ("data.quarantined", Value::from(quarantined)),
    ])
    .collect()
}

pub(crate) fn dead_discriminator(step: u64) -> String {
    format!(
        "warning: step {step}: the discriminator is dead: for {} steps its loss has been 2 ln 2 and the \
         adversarial loss ln 2, so that no gradient is left in them. Lower optimizer.discriminator.lr \
         (the sample experiments use 1e-4) and start over",
        Vital::PATIENCE
    )
}

pub(crate) fn stuck_gate(step: u64, paused: Player, vaegan: bool) -> String {
    let (paused, other) = match paused {
        Player::Generator => ("generator", "discriminator"),
        Player::Discriminator => ("discriminator", "generator"),
    };
    let remedy = match vaegan {
        true => "A larger vaegan.margin lets both train",
        false => "Thresholds of [gate] further apart, or a lower loss.adv, let both train",
    };
    format!(
        "warning: step {step}: the gate is stuck: it has paused the {paused} in nearly all of the last iterations, and only \
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
