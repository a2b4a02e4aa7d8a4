//! One training of the comparison.

use serde::Serialize;

use super::curves::Curves;
use crate::samples::Record;

/// Arithmetic of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    Fp32,
    /// bfloat16.
    Bf16,
}

impl Precision {
    /// Its name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// What is kept of one training.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Its arithmetic.
    pub precision: Precision,
    /// Its seed.
    pub seed: u64,
    /// The commits it was trained at, one for each time it was started.
    pub trained_at: Vec<String>,
    /// As of any run on the sample photos.
    #[serde(flatten)]
    pub record: Record,
    /// Along the way.
    pub curves: Curves,
}
