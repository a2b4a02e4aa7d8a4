//! Figure 8: samples of variational autoencoders.

use deepsim_nets::loss::TermKind;

use super::material::Material;
use super::missing::Missing;
use super::plan::{Plan, compared};
use crate::analysis::sample::{compared_in, draw, has_prior};
use crate::error::Result;
use crate::run::catalog::Entry;
use crate::show::sheet::{Sheet, images};

/// Rows for each run.
const ROWS: usize = 2;
/// Seed of the codes, the default of the command that draws more of them.
const SEED: u64 = 1;

/// One run for each comparator; the one that compares pixels first.
pub(super) fn choose(group: &[&Entry]) -> Plan {
    let key = |e: &Entry| {
        let loss = e.experiment.config.heaviest_loss();
        let features = loss.weight(TermKind::Feature) > 0.0;
        (features, compared_in(&e.experiment))
    };
    let missing = Missing::Others {
        what: "too few variational autoencoders to compare",
        fits: has_prior,
        alike: false,
    };
    compared(group, key, missing)
}

/// Samples of each run; no held-out image is shown.
pub(super) fn rows(
    sheet: &mut Sheet,
    of: &Material<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<String>> {
    for panel in &of.plan.panels {
        let made = draw(&of.open(panel)?, ROWS * of.count, SEED)?;
        let per_row = i64::try_from(of.count).unwrap_or(i64::MAX);
        for (row, part) in made.f_split(per_row, 0)?.iter().enumerate() {
            let label = if row == 0 { panel.label.as_str() } else { "" };
            sheet.row(label, images(part)?);
        }
        progress(1);
    }
    Ok(Vec::new())
}
