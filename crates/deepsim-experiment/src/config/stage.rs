//! `[[stage]]`: other weights of the loss from some step on.

use std::collections::BTreeMap;

use deepsim_nets::loss::{KINDS, Term, TermKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, at_least_zero, complain};
use super::loss::Loss;

/// `[[stage]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Steps after which it begins.
    pub from: u64,
    /// Weights that change, by the keys of `[loss]`; the others stay as they are before.
    pub loss: BTreeMap<String, StageWeight>,
}

/// The weight of a term, or of each named comparator's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a weight is a number, or a table of a number for each named comparator"
)]
pub enum StageWeight {
    /// Of the only one.
    One(f64),
    /// By name.
    Named(BTreeMap<String, f64>),
}

impl Stage {
    /// The weights that it changes. Keys that are no terms are left out: [`check`] complains of them.
    fn changes(&self) -> Vec<(Term, f64)> {
        let of = |(key, weight): (&String, &StageWeight)| -> Vec<(Term, f64)> {
            let Some(term) = Term::of_key(key) else {
                return Vec::new();
            };
            match weight {
                StageWeight::One(weight) => vec![(term, *weight)],
                StageWeight::Named(all) => {
                    let named =
                        |(name, weight): (&String, &f64)| (Term::named(term.kind(), name), *weight);
                    all.iter().map(named).collect()
                }
            }
        };
        self.loss.iter().flat_map(of).collect()
    }

    /// Checks its keys and values against the loss that holds before it.
    fn check(&self, before: &Loss) -> Checked {
        if self.loss.is_empty() {
            return complain("stage.loss", "changes no weight");
        }
        for (key, weight) in &self.loss {
            let at = format!("stage.loss.{key}");
            let mut known = KINDS.iter().filter(|info| info.weight.is_in_loss());
            let Some(kind) = known.find(|info| info.key == key) else {
                let keys = KINDS.iter().filter(|info| info.weight.is_in_loss());
                let keys: Vec<&str> = keys.map(|info| info.key).collect();
                let reason = format!("is no term of [loss]; there are {}", keys.join(", "));
                return complain(&at, reason);
            };
            check_weight(&at, kind.kind, weight, before)?;
        }
        for (term, weight) in self.changes() {
            at_least_zero(&[(&format!("stage.{}", term.log_key()), weight)])?;
        }
        Ok(())
    }
}

/// Checks the weight of a kind of terms against the loss that holds before.
fn check_weight(at: &str, kind: TermKind, weight: &StageWeight, before: &Loss) -> Checked {
    let has_names = before.of_kind(kind).any(|(term, _)| term.name().is_some());
    match weight {
        StageWeight::One(_) if has_names => {
            let reason = "must be a table with names, as that of [loss] is";
            complain(at, reason)
        }
        StageWeight::One(_) => Ok(()),
        StageWeight::Named(all) if all.is_empty() => complain(at, "names no comparator"),
        StageWeight::Named(all) => {
            let is_known = |name: &&String| {
                let term = Term::named(kind, name);
                before.weights().get(&term).is_some()
            };
            match all.keys().find(|name| !is_known(name)) {
                Some(name) => {
                    let reason =
                        "weighs what [loss] does not: give its weight there, 0 for none at first";
                    complain(&format!("{at}.{name}"), reason)
                }
                None => Ok(()),
            }
        }
    }
}

/// Checks stages in their order; `loss` is that of `[loss]`.
pub(super) fn check(stages: &[Stage], loss: &Loss) -> Checked {
    let (mut before, mut begun) = (loss.clone(), 0);
    for stage in stages {
        if stage.from == 0 {
            let reason = "must be above 0: until the first stage the weights are those of [loss]";
            return complain("stage.from", reason);
        }
        if stage.from <= begun {
            let reason = format!(
                "is {}, after a stage from step {begun} on: stages stand in the order of their steps, one for each",
                stage.from
            );
            return complain("stage.from", reason);
        }
        stage.check(&before)?;
        before = before.with_weights(stage.changes());
        begun = stage.from;
        if before.check().is_err() {
            let reason =
                format!("leaves no term from step {begun} on: feat, adv and img are all 0");
            return complain("stage.loss", reason);
        }
    }
    Ok(())
}

/// The loss of each stage and the steps after which it begins: first that of `[loss]`, then the others in their order.
pub(super) fn losses(stages: &[Stage], loss: &Loss) -> Vec<(u64, Loss)> {
    let mut all = vec![(0, loss.clone())];
    let mut before = loss.clone();
    for stage in stages {
        before = before.with_weights(stage.changes());
        all.push((stage.from, before.clone()));
    }
    all
}

/// The loss with the largest weight that each term ever has.
pub(super) fn heaviest(stages: &[Stage], loss: &Loss) -> Loss {
    let mut heaviest = loss.clone();
    for (_, loss) in losses(stages, loss) {
        let larger: Vec<(Term, f64)> = loss
            .weights()
            .iter()
            .filter(|(term, weight)| {
                heaviest
                    .weights()
                    .get(term)
                    .is_none_or(|most| *weight > most)
            })
            .map(|(term, weight)| (term.clone(), *weight))
            .collect();
        heaviest = heaviest.with_weights(larger);
    }
    heaviest
}
