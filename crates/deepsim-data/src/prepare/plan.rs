//! What decides a prepared dataset.

use crate::manifest::{Part, SourceInfo, Store};
use crate::orientation::Orientation;
use crate::square::Resize;
use crate::window::SquareWindow;

/// Everything that decides the result, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub size: u32,
    pub resize: Resize,
    pub window: Option<SquareWindow>,
    pub orientation: Orientation,
    pub store: Store,
    pub holdout: Option<(f64, u64)>,
    pub source: SourceInfo,
    pub quarantine: usize,
}

impl Plan {
    /// The parts that will be written; `None` is a dataset without a split.
    pub fn parts(&self) -> Vec<Option<Part>> {
        match self.holdout {
            None => vec![None],
            Some(_) => vec![Some(Part::Train), Some(Part::Test)],
        }
    }
}
