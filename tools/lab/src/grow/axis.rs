//! What is varied, one thing at a time, and the base case that every axis starts from.

use serde::{Deserialize, Serialize};

use crate::bench::preparation::cores;
use crate::bench::work::Work;

/// The work of the base case: the paper's CONV5, whose encoder takes images of any size.
pub const WORK: Work = Work::Conv5B16;
/// Images of its step.
pub const BATCH: f64 = 16.0;
/// Side of its images.
pub const CROP: f64 = 227.0;
/// Width of its generator.
pub const WIDTH: f64 = 1.0;

/// A thing that is varied.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Images of a training step
    Batch,
    /// Side of the images of a training step
    Crop,
    /// Width of the generator in a training step
    Width,
    /// Threads of a training step
    Threads,
    /// Entries of a dataset that is opened; ours alone
    Entries,
    /// Images of an evaluation; ours alone
    Images,
}

impl Axis {
    /// Its name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Batch => "batch",
            Axis::Crop => "crop",
            Axis::Width => "width",
            Axis::Threads => "threads",
            Axis::Entries => "entries",
            Axis::Images => "images",
        }
    }

    /// What is measured along it.
    pub fn what(self) -> &'static str {
        match self {
            Axis::Batch | Axis::Crop | Axis::Width | Axis::Threads => "a training step",
            Axis::Entries => "opening a dataset",
            Axis::Images => "an evaluation",
        }
    }

    /// Its sizes, ascending.
    pub fn sizes(self) -> &'static [f64] {
        match self {
            Axis::Batch => &[1.0, 4.0, 16.0, 64.0, 128.0, 256.0],
            Axis::Crop => &[64.0, 96.0, 128.0, 192.0, 227.0, 256.0, 384.0, 512.0],
            Axis::Width => &[0.25, 0.5, 1.0, 2.0],
            Axis::Threads => &[1.0, 2.0],
            Axis::Entries => &[1281.0, 12_811.0, 128_116.0, 1_281_167.0],
            Axis::Images => &[100.0, 300.0, 1000.0, 3000.0],
        }
    }

    /// Whether it is about a training step, of which PyTorch's is measured too.
    pub fn trains(self) -> bool {
        self.base().is_some()
    }

    /// The size that the base case has on it.
    pub fn base(self) -> Option<f64> {
        match self {
            Axis::Batch => Some(BATCH),
            Axis::Crop => Some(CROP),
            Axis::Width => Some(WIDTH),
            Axis::Threads => Some(cores() as f64),
            Axis::Entries | Axis::Images => None,
        }
    }

    /// The power of the size by which time and memory may be expected to grow: it is asked for where too little is
    /// measured to tell.
    pub fn expected(self) -> Expected {
        let (seconds, mib) = match self {
            Axis::Batch | Axis::Entries => (1.0, 1.0),
            Axis::Crop | Axis::Width => (2.0, 2.0),
            Axis::Threads => (-1.0, 0.0),
            Axis::Images => (1.0, 0.0),
        };
        Expected { seconds, mib }
    }

    /// The arguments of deepsim-bench that make a work's inputs and its network this size.
    pub fn arguments(self, size: f64) -> Vec<String> {
        let text = match self {
            Axis::Batch => format!("--batch={size:.0}"),
            Axis::Crop => format!("--crop={size:.0}"),
            Axis::Width => format!("--width={size}"),
            Axis::Threads | Axis::Entries | Axis::Images => return Vec::new(),
        };
        vec![text]
    }
}

/// Powers of the size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// Of time.
    pub seconds: f64,
    /// Of memory.
    pub mib: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn axes_have_one_name_everywhere_and_ascending_sizes() {
        for &axis in Axis::value_variants() {
            assert_eq!(Axis::from_str(axis.name(), false), Ok(axis));
            assert_eq!(serde_json::to_value(axis).unwrap(), axis.name());
            assert!(axis.sizes().is_sorted());
            assert_eq!(axis.trains(), axis.what() == "a training step");
        }
    }

    #[test]
    fn the_base_case_lies_on_the_axes_of_sizes() {
        for axis in [Axis::Batch, Axis::Crop, Axis::Width] {
            let base = axis.base().unwrap();
            assert!(axis.sizes().contains(&base), "{axis:?}");
        }
        assert_eq!(Axis::Batch.arguments(4.0), ["--batch=4"]);
        assert_eq!(Axis::Crop.arguments(227.0), ["--crop=227"]);
        assert_eq!(Axis::Width.arguments(0.25), ["--width=0.25"]);
        assert!(Axis::Threads.arguments(1.0).is_empty());
    }
}
