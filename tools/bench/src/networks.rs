//! The networks of a work.

use anyhow::{Context as _, Result, bail};
use deepsim_experiment::Experiment;
use deepsim_experiment::source::{NetSource, Source};
use deepsim_nets::Discriminator;
use deepsim_train::state::State;

/// The discriminator: every work has one.
///
/// # Errors
/// A state without.
pub fn discriminator(state: &State) -> Result<&Discriminator> {
    let discriminator = state.discriminator.as_ref();
    discriminator.context("the benchmark needs an adversarial term")
}

/// Encoder and comparator: the work is measured with networks of ours.
///
/// # Errors
/// An experiment with others.
pub fn networks(experiment: &Experiment) -> Result<(&NetSource, &NetSource)> {
    let comparators: Vec<_> = experiment.compared().map(|c| c.source.network()).collect();
    match (experiment.encoder.network(), comparators.as_slice()) {
        (Some(encoder), [Some(comparator)]) => Ok((encoder, comparator)),
        _ => bail!("the benchmark needs networks as encoder and as the only comparator"),
    }
}

/// A source that is a network of ours.
///
/// # Errors
/// Another source: what it computes is not known.
pub fn network(source: &Source) -> Result<&NetSource> {
    let network = source.network();
    network.context("operations are counted for networks of ours alone")
}
