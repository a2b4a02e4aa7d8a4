//! Sizes of the batches that a training passes through its networks.

use deepsim_data::Dataset;
use deepsim_experiment::{Experiment, measure};

use crate::method::Slice;
use crate::reports::SHEET;

/// Sizes of all batches that will go through the networks: of training, of evaluations and of sample sheets.
pub(crate) fn batches(experiment: &Experiment, test: &Dataset, share: Slice) -> Vec<i64> {
    let train = &experiment.config.train;
    let mut sizes = measure::batch_sizes(test.len().min(train.eval_images));
    sizes.extend(trained_at_once(experiment, share));
    sizes.push(test.len().min(SHEET) as i64);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Sizes of the micro-batches of a share.
pub(crate) fn trained_at_once(experiment: &Experiment, share: Slice) -> Vec<i64> {
    let settings = &experiment.config.train;
    let parts = match settings.shards() {
        // They pass side by side.
        Some(_) if experiment.normalises_batches() => vec![share],
        Some(shards) => share.shards(shards as i64),
        None => Slice::split(share.len, settings.accumulate as i64),
    };
    parts.iter().map(|part| part.len).collect()
}
