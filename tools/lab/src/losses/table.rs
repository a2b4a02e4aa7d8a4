//! The objectives and tasks of `objectives.toml`.

use anyhow::{Context, Result};
use deepsim_tools::failure::refuse;
use serde::{Deserialize, Serialize};

const FILE: &str = include_str!("objectives.toml");

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    common: Vec<String>,
    hinge: Vec<String>,
    task: Vec<Task>,
    objective: Vec<Row>,
}

/// What is trained for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// As it is asked for.
    pub name: String,
    /// The experiment that objectives change, relative to the workspace.
    pub experiment: String,
    /// For people.
    pub shows: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    shows: String,
    set: Vec<String>,
    /// It has one of its own, and so no second form.
    #[serde(default)]
    adversary: bool,
}

/// What a run is trained for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Objective {
    /// Part of the run's name.
    pub name: String,
    /// For people.
    pub shows: String,
    /// What it changes in the task's experiment, in order.
    pub set: Vec<String>,
}

impl Table {
    /// Reads the file, which comes with the program.
    ///
    /// # Errors
    /// A mistake in it.
    pub fn read() -> Result<Table> {
        toml::from_str(FILE).context("in tools/lab/src/losses/objectives.toml")
    }

    /// A task by its name.
    ///
    /// # Errors
    /// A refusal that names those that there are.
    pub fn task(&self, name: &str) -> Result<&Task> {
        self.task.iter().find(|t| t.name == name).ok_or_else(|| {
            let there = self
                .task
                .iter()
                .map(|t| format!("{} ({})", t.name, t.shows));
            refuse(format!(
                "{name}: no such task; there are {}",
                there.collect::<Vec<_>>().join(", ")
            ))
        })
    }

    /// All objectives that can be trained: each without and with the hinge adversary.
    pub fn objectives(&self) -> Vec<Objective> {
        let rows = self.objective.iter();
        rows.flat_map(|row| {
            let plain = self.objective(row, "", "", &[]);
            let hinge = self.objective(row, "-hinge", ", hinge PatchGAN", &self.hinge);
            std::iter::once(plain).chain((!row.adversary).then_some(hinge))
        })
        .collect()
    }

    fn objective(&self, row: &Row, name: &str, shows: &str, adversary: &[String]) -> Objective {
        let all = row.set.iter().chain(adversary).chain(&self.common);
        Objective {
            name: format!("{}{name}", row.name),
            shows: format!("{}{shows}", row.shows),
            set: all.cloned().collect(),
        }
    }

    /// The objectives of these names, in the table's order; all where none are named.
    ///
    /// # Errors
    /// A refusal for a name that there is not.
    pub fn chosen(&self, names: &[String]) -> Result<Vec<Objective>> {
        let mut all = self.objectives();
        if let Some(unknown) = names.iter().find(|n| all.iter().all(|o| o.name != **n)) {
            let there: Vec<&str> = all.iter().map(|o| o.name.as_str()).collect();
            return Err(refuse(format!(
                "--only {unknown}: no such objective; there are {}",
                there.join(", ")
            )));
        }
        all.retain(|o| names.is_empty() || names.contains(&o.name));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_objective_has_its_own_name_and_settings() {
        let all = Table::read().unwrap().objectives();
        let names: BTreeSet<&str> = all.iter().map(|o| o.name.as_str()).collect();
        let sets: BTreeSet<&[String]> = all.iter().map(|o| o.set.as_slice()).collect();
        assert_eq!((names.len(), sets.len()), (all.len(), all.len()));
        assert!(names.contains("lpips-hinge") && names.contains("dists"));
        assert!(names.contains("deepsim") && !names.contains("deepsim-hinge"));
        assert!(all.len() >= 12, "{names:?}");
    }

    #[test]
    fn an_adversary_s_settings_stand_over_the_objective_s() {
        let table = Table::read().unwrap();
        let named = |name: &str| table.chosen(&[name.to_owned()]).unwrap().remove(0);
        let weights = |objective: &Objective| {
            let all = objective.set.iter();
            all.filter(|set| set.starts_with("loss.adv="))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(weights(&named("l1")), ["loss.adv=0.0"]);
        let both = weights(&named("l1-hinge"));
        assert_eq!(both.len(), 2);
        assert_ne!(both[1], "loss.adv=0.0");
    }

    #[test]
    fn unknown_names_are_refused_and_known_ones_listed() {
        let table = Table::read().unwrap();
        let error = table.chosen(&["l3".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("--only l3") && error.contains("ms-ssim-hinge"),
            "{error}"
        );
        assert_eq!(table.chosen(&[]).unwrap(), table.objectives());
        let error = table.task("invertion").unwrap_err().to_string();
        assert!(error.contains("super-resolution"), "{error}");
        assert!(table.task("inversion").is_ok());
    }
}
