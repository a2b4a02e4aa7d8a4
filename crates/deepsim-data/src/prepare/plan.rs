//! What decides a prepared dataset.

use serde::{Deserialize, Serialize};

use crate::manifest::{Part, SourceInfo, Store};
use crate::orientation::Orientation;
use crate::square::Resize;
use crate::window::SquareWindow;

/// Which images are held out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Split {
    /// Share of the images that goes to `test`.
    pub fraction: f64,
    /// Share of the images that goes to `val`; `None`: there is no such side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Seed of the choice.
    pub seed: u64,
}

/// Everything that decides the result, resolved. Parts of a dataset hold it: another field is another version of
/// their format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub size: u32,
    pub resize: Resize,
    pub window: Option<SquareWindow>,
    pub orientation: Orientation,
    pub store: Store,
    pub split: Option<Split>,
    pub source: SourceInfo,
    pub quarantine: usize,
}

impl Plan {
    /// The sides that will be written; `None` is a dataset without a split.
    pub fn sides(&self) -> Vec<Option<Part>> {
        match self.split {
            None => vec![None],
            Some(split) => Part::ALL
                .into_iter()
                .filter(|part| *part != Part::Val || split.validation.is_some())
                .map(Some)
                .collect(),
        }
    }

    /// The first option that differs between two plans, as it is typed for either. The quarantine changes no byte of a
    /// dataset and is not compared.
    pub fn differing(&self, other: &Self) -> Option<(String, String)> {
        self.options()
            .into_iter()
            .zip(other.options())
            .find(|(own, others)| own != others)
    }

    fn options(&self) -> [String; 8] {
        let given = |option: &str, value: Option<String>| match value {
            Some(value) => format!("{option} {value}"),
            None => format!("no {option}"),
        };
        let split = self.split;
        [
            format!("--size {}", self.size),
            format!("--resize {}", self.resize.name()),
            given("--window", self.window.map(|window| window.to_string())),
            format!("--orientation {}", self.orientation.name()),
            format!("--store {}", self.store.name()),
            // the shortest text of a number that is read back as it was: equal texts are equal numbers
            given("--holdout", split.map(|split| split.fraction.to_string())),
            given(
                "--validation",
                split
                    .and_then(|split| split.validation)
                    .map(|share| share.to_string()),
            ),
            given("--seed", split.map(|split| split.seed.to_string())),
        ]
    }
}
