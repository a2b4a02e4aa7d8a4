//! The networks of a work.

use anyhow::{Result, bail};
use deepsim_experiment::Experiment;
use deepsim_experiment::source::NetSource;

/// Encoder and comparator: the work is measured with networks of ours.
///
/// # Errors
/// An experiment with others.
pub fn networks(experiment: &Experiment) -> Result<(&NetSource, &NetSource)> {
    match (
        experiment.encoder.network(),
        experiment.comparator.network(),
    ) {
        (Some(encoder), Some(comparator)) => Ok((encoder, comparator)),
        _ => bail!("the benchmark needs networks as encoder and comparator"),
    }
}
