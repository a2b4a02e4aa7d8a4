//! Which runs stand in which figure.

use std::collections::BTreeMap;

use super::missing::Missing;
use crate::run::catalog::{Entry, Loss, best, inverts, net_name};

/// One row (or block of rows) of a figure.
#[derive(Clone, Debug)]
pub struct Panel {
    /// A line above it, where a new block begins.
    pub heading: Option<String>,
    /// What stands beside it.
    pub label: String,
    /// The run or record.
    pub entry: Entry,
}

impl Panel {
    fn new(label: &str, entry: &Entry) -> Panel {
        Panel {
            heading: None,
            label: label.to_owned(),
            entry: entry.clone(),
        }
    }
}

/// A figure before its images are made.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its panels, in order.
    pub panels: Vec<Panel>,
    /// What the paper's figure has and the runs have not.
    pub missing: Vec<Missing>,
}

/// The run that stands for each key, labelled by it, in order. Fewer than two are nothing to compare.
pub(super) fn compared(
    group: &[&Entry],
    key: impl Fn(&Entry) -> (bool, String),
    missing: Missing,
) -> Plan {
    let mut alike: BTreeMap<(bool, String), Vec<&Entry>> = BTreeMap::new();
    for &entry in group {
        alike.entry(key(entry)).or_default().push(entry);
    }
    let mut plan = Plan::default();
    for ((_, label), entries) in alike {
        plan.panels
            .extend(best(entries).map(|entry| Panel::new(&label, entry)));
    }
    if plan.panels.len() < 2 {
        plan.missing.push(missing);
    }
    plan
}

/// The run of each loss; of those with a feature loss, the ones whose comparator most of them use.
pub(super) fn losses(group: &[&Entry]) -> Plan {
    let mut plan = Plan::default();
    let comparator = |e: &Entry| format!("{:?}", e.experiment.config.comparator);
    let featured = |l: Loss| !matches!(l, Loss::Image | Loss::AdversarialImage | Loss::Adversarial);
    let mut counts: BTreeMap<String, std::collections::BTreeSet<Loss>> = BTreeMap::new();
    for entry in group {
        if let Some(loss) = entry.loss().filter(|l| featured(*l)) {
            counts.entry(comparator(entry)).or_default().insert(loss);
        }
    }
    // Where comparators are level: the encoder itself.
    let own = group
        .iter()
        .find(|e| {
            let config = &e.experiment.config;
            let own = config.comparator.only();
            own.is_some_and(|own| own.names_same_network(&config.encoder))
        })
        .map(|e| comparator(e));
    let most = counts
        .iter()
        .max_by_key(|(c, l)| (l.len(), own.as_ref() == Some(*c)))
        .map(|(c, _)| c);
    for loss in [
        Loss::Image,
        Loss::AdversarialImage,
        Loss::FeatureImage,
        Loss::Full,
        Loss::FeatureAdversarial,
    ] {
        let fits = |e: &&&Entry| {
            e.loss() == Some(loss) && (!featured(loss) || Some(&comparator(e)) == most)
        };
        match best(group.iter().filter(fits).copied()) {
            Some(entry) => plan.panels.push(Panel::new(loss.words(), entry)),
            None => plan.missing.push(Missing::Loss(loss)),
        }
    }
    plan
}

/// Inverted layers of a group, shallow ones first.
fn inverted(group: &[&Entry]) -> Vec<String> {
    let mut all: Vec<_> = group
        .iter()
        .map(|e| {
            let source = &e.experiment.encoder;
            let place = source.network().map(|n| {
                let table = n.net.table();
                (
                    n.net.to_string(),
                    table.iter().position(|(t, _)| *t == n.tap),
                )
            });
            (place, net_name(source))
        })
        .collect();
    all.sort();
    all.dedup();
    all.into_iter().map(|(_, name)| name).collect()
}

/// The full loss at every layer.
pub(super) fn layers(group: &[&Entry]) -> Plan {
    let mut plan = Plan::default();
    for layer in inverted(group) {
        let full =
            |e: &&&Entry| net_name(&e.experiment.encoder) == layer && e.loss() == Some(Loss::Full);
        let found = best(group.iter().filter(full).copied());
        plan.panels
            .extend(found.map(|entry| Panel::new(&layer, entry)));
    }
    if plan.panels.is_empty() {
        plan.missing.push(Missing::Loss(Loss::Full));
    }
    plan
}

/// The paper's method, the image loss alone, and Mahendran & Vedaldi at every layer.
pub(super) fn methods(group: &[&Entry]) -> Plan {
    let mut plan = Plan::default();
    for layer in inverted(group) {
        let mut heading = Some(layer.clone());
        let here: Vec<&Entry> = group
            .iter()
            .filter(|e| net_name(&e.experiment.encoder) == layer)
            .copied()
            .collect();
        let missing = |loss| Some(Missing::Loss(loss));
        for (label, method, missing) in [
            ("DeePSiM", "deepsim", missing(Loss::Full)),
            ("image loss only", "image-loss", missing(Loss::Image)),
            ("D&B", "db", None),
            (
                "Mahendran & Vedaldi",
                "mv",
                Some(Missing::MahendranVedaldi(layer.clone())),
            ),
        ] {
            // The paper's terms: other distances of pixels are other losses.
            let fits = |e: &&&Entry| {
                let paper_s = method == "mv" || inverts(&e.experiment);
                e.method() == method && paper_s && e.loss() != Some(Loss::FeatureAdversarial)
            };
            match best(here.iter().filter(fits).copied()) {
                Some(entry) => plan.panels.push(Panel {
                    heading: heading.take(),
                    ..Panel::new(label, entry)
                }),
                None => plan.missing.extend(missing),
            }
        }
    }
    if group.is_empty() {
        plan.missing.push(Missing::Loss(Loss::Full));
    }
    plan
}

/// The full loss with every comparator; that of the encoder's own network first.
pub(super) fn comparators(group: &[&Entry]) -> Plan {
    let full: Vec<&Entry> = group
        .iter()
        .filter(|e| e.loss() == Some(Loss::Full))
        .copied()
        .collect();
    let key = |e: &Entry| {
        let config = &e.experiment.config;
        let own = config.comparator.only();
        let own = own.is_some_and(|own| own.names_same_network(&config.encoder));
        (!own, e.experiment.compared_in(net_name))
    };
    let missing = Missing::Others {
        what: "no runs with different comparators",
        fits: |e| {
            inverts(e)
                && Loss::of(e) == Loss::Full
                && e.config.comparator.only() != Some(&e.config.encoder)
        },
        alike: true,
    };
    compared(&full, key, missing)
}
