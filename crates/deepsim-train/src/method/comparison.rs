//! The feature terms whose comparators are networks of their own.

use deepsim_experiment::Perception;
use deepsim_nets::loss::{TermKind, Terms};
use deepsim_nets::{NetError, Reduction};
use tch::Tensor;

use crate::error::Result;

/// Whether images are to be compared in networks of their own.
pub(super) fn in_networks(perception: &Perception, weights: &Terms<f64>) -> bool {
    weights.any(TermKind::Feature) && perception.compares()
}

/// Sets each feature term of `targets` whose weight is above 0. `found` are the features of generated images, `targets`
/// those of the real ones, as [`Perception::compare`] gives them.
///
/// # Errors
/// A target without features, or of another shape.
pub(super) fn feature_terms(
    terms: &mut Terms<Tensor>,
    perception: &Perception,
    found: &Terms<Vec<Tensor>>,
    targets: &Terms<Vec<Tensor>>,
    weights: &Terms<f64>,
    reduction: Reduction,
) -> Result<()> {
    for (term, target) in targets.iter().filter(|(term, _)| weights.counts(term)) {
        let found = found
            .get(term)
            .ok_or_else(|| NetError::Spec(format!("no features for the term `{}`", term.key())))?;
        let distance = perception.distance(term, found, target, reduction)?;
        terms.set(term.clone(), distance);
    }
    Ok(())
}
