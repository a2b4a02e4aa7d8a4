//! The figures of the paper's Section 4.1, from the runs that there are: a row of [`FIGURES`] each, and the functions that
//! it names.

mod draw;
mod figure;
mod material;
mod missing;
mod plan;
mod samples;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::analysis::sample::has_prior;
use crate::run::catalog::{Entry, inverts};

pub use draw::{Drawn, draw};
pub use figure::Figure;
pub use missing::Missing;
pub use plan::{Panel, Plan};

/// All of them.
pub static FIGURES: [Figure; 7] = [
    Figure {
        number: "1",
        title: "reconstructions with different components of the loss",
        takes: inverts,
        alike: Entry::encoder_key,
        choose: plan::losses,
        rows: draw::reconstructed,
    },
    Figure {
        number: "3",
        title: "reconstructions from different layers",
        takes: inverts,
        alike: Entry::photos_key,
        choose: plan::layers,
        rows: draw::reconstructed,
    },
    Figure {
        number: "4",
        title: "comparison with other methods of inversion",
        takes: inverts,
        alike: Entry::photos_key,
        choose: plan::methods,
        rows: draw::reconstructed,
    },
    Figure {
        number: "5",
        title: "iteratively re-encoding and reconstructing",
        takes: inverts,
        alike: Entry::photos_key,
        choose: plan::layers,
        rows: draw::reencoded,
    },
    Figure {
        number: "6",
        title: "reconstructions with different comparators",
        takes: inverts,
        alike: Entry::encoder_key,
        choose: plan::comparators,
        rows: draw::reconstructed,
    },
    Figure {
        number: "7",
        title: "interpolation between images in feature space",
        takes: inverts,
        alike: Entry::photos_key,
        choose: plan::layers,
        rows: draw::interpolated,
    },
    Figure {
        number: "8",
        title: "samples from variational autoencoders",
        takes: has_prior,
        alike: Entry::photos_key,
        choose: samples::choose,
        rows: samples::rows,
    },
];

impl ValueEnum for Figure {
    fn value_variants<'a>() -> &'a [Figure] {
        &FIGURES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.number))
    }
}
