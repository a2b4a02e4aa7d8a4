//! A figure, and which runs stand in it.

use std::collections::BTreeMap;

use deepsim_experiment::Experiment;

use super::material::Material;
use super::plan::Plan;
use crate::error::Result;
use crate::run::catalog::{Entry, Origin, layer_name};
use crate::show::sheet::Sheet;

/// Adds the rows to the sheet, tells of each panel, and gives the names of the held-out images that are on it.
pub(super) type Rows = fn(&mut Sheet, &Material<'_>, &mut dyn FnMut(u64)) -> Result<Vec<String>>;

/// A figure of the paper that shows reconstructions.
#[derive(Clone, Copy)]
pub struct Figure {
    /// Its number in the paper.
    pub number: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// Which runs may stand in it.
    pub(super) takes: fn(&Experiment) -> bool,
    /// What is equal of all that stand in it.
    pub(super) alike: fn(&Entry) -> String,
    /// Chooses among runs that are alike.
    pub(super) choose: fn(&[&Entry]) -> Plan,
    pub(super) rows: Rows,
}

impl Figure {
    /// Chooses runs. `encoder` (`NET:TAP`) narrows the choice to runs that invert this layer.
    /// Images of one figure are of the same original images and crops; where runs differ in them, those
    /// that fill most of the figure are taken.
    pub fn plan(&self, entries: &[Entry], encoder: Option<&str>) -> Plan {
        let fits = |e: &&Entry| {
            let source = &e.experiment.encoder;
            let named = |wanted: &str| wanted == source.to_string() || wanted == layer_name(source);
            (self.takes)(&e.experiment) && encoder.is_none_or(named)
        };
        let mut groups: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
        for entry in entries.iter().filter(fits) {
            let alike = groups.entry((self.alike)(entry)).or_default();
            alike.push(entry);
        }
        // Most panels; of equals the longest trained.
        let worth = |p: &Plan| {
            let steps = p.panels.iter().map(|p| match p.entry.origin {
                Origin::Generator(step) => step,
                Origin::MahendranVedaldi => 0,
            });
            (p.panels.len(), steps.max().unwrap_or(0))
        };
        let plans = groups.values().map(|group| (self.choose)(group));
        let most = plans.max_by_key(worth);
        most.unwrap_or_else(|| (self.choose)(&[]))
    }
}
