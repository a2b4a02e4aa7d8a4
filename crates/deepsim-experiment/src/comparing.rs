//! What images are compared in for one term of the loss, loaded, and how.

use deepsim_nets::discriminator::DiscriminatorTap;
use deepsim_nets::loss::{feature_distance, over_images};
use deepsim_nets::{FeatureDistance, FeatureNet, NetError, Reduction, Tap};
use tch::Tensor;

use crate::error::Result;
use crate::source::Features;
use crate::source::network::one;
use crate::source::taps::in_a_row;

/// What images are compared in.
#[derive(Debug)]
pub(crate) enum Comparator {
    /// Taps of the network at this place among those that were loaded, with the weights of their distances.
    Taps(usize, Vec<(Tap, f64)>),
    Frozen(Box<dyn Features>),
    Discriminator(DiscriminatorTap),
}

/// A comparator, and how it compares.
#[derive(Debug)]
pub(crate) struct Comparing {
    pub(crate) comparator: Comparator,
    pub(crate) distance: FeatureDistance,
}

impl Comparing {
    /// The distance of generated images from real ones, of what is compared of both. With several taps the sum of theirs
    /// by their weights.
    ///
    /// # Errors
    /// Features of other taps or shapes.
    pub(crate) fn distance(
        &self,
        found: &[Tensor],
        target: &[Tensor],
        reduction: Reduction,
    ) -> Result<Tensor> {
        if let Comparator::Frozen(net) = &self.comparator
            && let Some(each) = net.own_distance(found, target)?
        {
            return Ok(over_images(&each, reduction)?);
        }
        let weights: Vec<f64> = match &self.comparator {
            Comparator::Taps(_, taps) => taps.iter().map(|(_, weight)| *weight).collect(),
            Comparator::Frozen(_) | Comparator::Discriminator(_) => vec![1.0],
        };
        let (all, counts) = (weights.len(), [found.len(), target.len()]);
        let mut sum: Option<Tensor> = None;
        for ((x, y), weight) in found.iter().zip(target).zip(weights) {
            let mut apart = feature_distance(self.distance, x, y, reduction)?;
            // One tap is as it always was, to the last bit.
            if weight != 1.0 {
                apart = apart.f_mul_scalar(weight)?;
            }
            sum = Some(match sum {
                None => apart,
                Some(sum) => sum.f_add(&apart)?,
            });
        }
        match sum {
            Some(sum) if counts == [all; 2] => Ok(sum),
            _ => {
                let reason = format!("a comparator of {all} taps got features of {counts:?}");
                Err(NetError::Spec(reason).into())
            }
        }
    }

    /// Features of images, those of several taps in a row; none of the discriminator that trains along. `networks` are
    /// those that were loaded.
    ///
    /// # Errors
    /// Images of an illegal size.
    pub(crate) fn features(
        &self,
        networks: &[FeatureNet],
        caffe: &Tensor,
    ) -> Result<Option<Tensor>> {
        Ok(match &self.comparator {
            Comparator::Taps(place, taps) => match taps.as_slice() {
                [(tap, _)] => Some(one(&networks[*place], *tap, caffe)?),
                several => {
                    let taps: Vec<Tap> = several.iter().map(|(tap, _)| *tap).collect();
                    Some(in_a_row(&networks[*place].features(caffe, &taps)?)?)
                }
            },
            Comparator::Frozen(net) => Some(net.features(caffe)?),
            Comparator::Discriminator(_) => None,
        })
    }
}
