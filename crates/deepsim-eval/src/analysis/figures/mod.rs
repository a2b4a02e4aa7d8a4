//! The figures of the paper's Section 4.1, from the runs that there are.

mod draw;
mod missing;
mod plan;

use clap::ValueEnum;

pub use draw::{Drawn, draw};
pub use missing::Missing;
pub use plan::{Panel, Plan, plan};

/// A figure of the paper that shows reconstructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// Parts of the loss left out.
    #[value(name = "1")]
    Losses,
    /// Reconstructions from several layers.
    #[value(name = "3")]
    Layers,
    /// Beside Dosovitskiy & Brox and Mahendran & Vedaldi.
    #[value(name = "4")]
    Methods,
    /// Encoding and reconstructing again and again.
    #[value(name = "5")]
    Reencoding,
    /// Other comparators.
    #[value(name = "6")]
    Comparators,
    /// Between two images.
    #[value(name = "7")]
    Interpolation,
    /// Samples of variational autoencoders.
    #[value(name = "8")]
    Samples,
}

impl Figure {
    /// Its number in the paper.
    pub fn number(self) -> u8 {
        match self {
            Figure::Losses => 1,
            Figure::Layers => 3,
            Figure::Methods => 4,
            Figure::Reencoding => 5,
            Figure::Comparators => 6,
            Figure::Interpolation => 7,
            Figure::Samples => 8,
        }
    }

    /// What it shows.
    pub fn title(self) -> &'static str {
        match self {
            Figure::Losses => "reconstructions with different components of the loss",
            Figure::Layers => "reconstructions from different layers",
            Figure::Methods => "comparison with other methods of inversion",
            Figure::Reencoding => "iteratively re-encoding and reconstructing",
            Figure::Comparators => "reconstructions with different comparators",
            Figure::Interpolation => "interpolation between images in feature space",
            Figure::Samples => "samples from variational autoencoders",
        }
    }
}
