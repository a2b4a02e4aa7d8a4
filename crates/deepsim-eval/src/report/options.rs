//! What the page is asked to show, and what it calls a run.

use std::path::Path;

use deepsim_experiment::Consent;
use tch::Device;

use crate::measure::metrics::Metrics;
use crate::run::catalog::{Entry, Loss, net_name};

/// What to show.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Folder of runs, or one run.
    pub runs: &'a Path,
    /// Images with a slider.
    pub photos: usize,
    /// Held-out images that errors are means over, at most.
    pub images: usize,
    /// Whether the page shows images. It never shows those that may only be measured on.
    pub shown: bool,
    /// Which TorchScript modules may be run.
    pub consent: &'a Consent,
    /// Where to compute.
    pub device: Device,
    /// Further metrics for the table.
    pub metrics: Option<&'a Metrics>,
    /// The command line, for the page.
    pub command: String,
}

/// Words for a run: what it inverts, and its loss.
pub(super) fn label(entry: &Entry) -> String {
    let encoder = net_name(&entry.experiment.encoder);
    match entry.loss() {
        None => format!("{encoder}: Mahendran & Vedaldi"),
        Some(loss) => {
            let experiment = &entry.experiment;
            let comparators = experiment.compared_in(net_name);
            let other = loss != Loss::Image
                && experiment
                    .compared()
                    .any(|c| c.source != experiment.encoder);
            if other {
                format!("{encoder}: {}; comparator {comparators}", loss.words())
            } else {
                format!("{encoder}: {}", loss.words())
            }
        }
    }
}
