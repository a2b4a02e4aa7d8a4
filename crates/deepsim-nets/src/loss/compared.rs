//! How the features of two images are compared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::{NetError, Result};
use crate::kinks::magnitude;
use crate::loss::{Reduction, squared_distance};
use crate::precision::{at_least_fp32, widened};
use crate::unit::unit_lengths;

/// How features are compared. Positions are those of a map; a vector has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureDistance {
    /// Squared differences (the paper's feature loss, Eq. 2).
    #[default]
    Squared,
    /// Absolute differences.
    Absolute,
    /// 1 − the cosine of the angle between the channels of two images, averaged over positions. A position at which both
    /// have no activation counts 0, one at which one image alone has none ½.
    Cosine,
    /// The squared difference of the channels after these are divided by their length, averaged over positions: LPIPS without
    /// its heads (Zhang et al. 2018). Twice [`FeatureDistance::Cosine`].
    Unit,
}

impl FeatureDistance {
    /// Whether this is the paper's.
    #[must_use]
    pub fn is_paper_s(&self) -> bool {
        *self == FeatureDistance::Squared
    }

    /// Its name in experiment files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FeatureDistance::Squared => "squared",
            FeatureDistance::Absolute => "absolute",
            FeatureDistance::Cosine => "cosine",
            FeatureDistance::Unit => "unit",
        }
    }
}

/// The distance of features `[N,C,…]` of generated images from those of real images, `target`; fp32 at least.
///
/// Squared: [`squared_distance`]. Absolute: Σ|a−b|, [`Reduction::Caffe`] per image, [`Reduction::Mean`] per element. The
/// others: [`over_images`].
///
/// # Errors
/// Features of different shapes, or without channels.
pub fn feature_distance(
    distance: FeatureDistance,
    features: &Tensor,
    target: &Tensor,
    reduction: Reduction,
) -> Result<Tensor> {
    let size = features.size();
    let alike = size == target.size() && size.len() >= 2;
    if !alike && !distance.is_paper_s() {
        return Err(NetError::InputShape {
            what: format!("the distance \"{}\"", distance.name()),
            expected: format!("two tensors [N,C,…] of one shape; the first has {size:?}"),
            got: target.size(),
        });
    }
    match distance {
        FeatureDistance::Squared => squared_distance(features, target, reduction),
        FeatureDistance::Absolute => absolute(features, target, reduction),
        FeatureDistance::Cosine => {
            // 1 − cos is half the squared difference of unit vectors: nothing cancels where both are nearly equal.
            let each = of_units(features, target)?.f_mul_scalar(0.5)?;
            over_images(&each, reduction)
        }
        FeatureDistance::Unit => over_images(&of_units(features, target)?, reduction),
    }
}

/// Distances `[N]` of images as one number: their mean, with [`Reduction::Paper`] their sum.
///
/// # Errors
/// What libtorch refuses.
pub fn over_images(each: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let kind = at_least_fp32(each);
    Ok(match reduction {
        Reduction::Caffe | Reduction::Mean => each.f_mean(kind)?,
        Reduction::Paper => each.f_sum(kind)?,
    })
}

fn absolute(a: &Tensor, b: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let each = magnitude(&widened(a)?.f_sub(&widened(b)?)?)?;
    let kind = at_least_fp32(&each);
    Ok(match reduction {
        Reduction::Caffe => each.f_sum(kind)?.f_div_scalar(a.size()[0] as f64)?,
        Reduction::Paper => each.f_sum(kind)?,
        Reduction::Mean => each.f_mean(kind)?,
    })
}

/// Squared differences of unit vectors, averaged over positions: `[N]`.
fn of_units(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (unit_lengths(&widened(a)?)?, unit_lengths(&widened(b)?)?);
    let kind = at_least_fp32(&a);
    let positions = a
        .f_sub(&b)?
        .f_square()?
        .f_sum_dim_intlist([1i64].as_slice(), false, kind)?;
    let positions = positions.f_reshape([a.size()[0], -1])?;
    Ok(positions.f_mean_dim([1i64].as_slice(), false, kind)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;
    use tch::{Device, Kind};

    const ALL: [FeatureDistance; 4] = [
        FeatureDistance::Squared,
        FeatureDistance::Absolute,
        FeatureDistance::Cosine,
        FeatureDistance::Unit,
    ];

    #[test]
    fn names_are_those_of_files() {
        for distance in ALL {
            let name = serde_json::to_value(distance).unwrap();
            assert_eq!(name, distance.name());
        }
    }

    #[test]
    fn reductions_differ_by_their_stated_factors() {
        let a = Tensor::ones([4, 3, 2, 2], (Kind::Float, Device::Cpu));
        let value = |distance, b: &Tensor, r| {
            let found = feature_distance(distance, &a, b, r).unwrap();
            found.double_value(&[])
        };
        let b = &a * 3.0; // absolute difference 2 at each of 48 elements
        for (reduction, expected) in [
            (Reduction::Paper, 96.0),
            (Reduction::Caffe, 24.0),
            (Reduction::Mean, 2.0),
        ] {
            let found = value(FeatureDistance::Absolute, &b, reduction);
            assert_eq!(found, expected);
            // The same direction.
            assert!(value(FeatureDistance::Cosine, &b, reduction) < 1e-6);
        }
        for (reduction, expected) in [
            (Reduction::Paper, 8.0),
            (Reduction::Caffe, 2.0),
            (Reduction::Mean, 2.0),
        ] {
            // The opposite one.
            let found = value(FeatureDistance::Cosine, &a.neg(), reduction);
            assert!((found - expected).abs() < 1e-4, "{found}");
            let found = value(FeatureDistance::Unit, &a.neg(), reduction);
            assert!((found - 2.0 * expected).abs() < 1e-4, "{found}");
        }
    }

    #[test]
    fn without_activations_of_one_image_the_cosine_counts_a_half() {
        let a = Tensor::zeros([2, 3, 4, 4], (Kind::Float, Device::Cpu));
        let value = |b: &Tensor| {
            let found = feature_distance(FeatureDistance::Cosine, &a, b, Reduction::Mean);
            found.unwrap().double_value(&[])
        };
        assert!((value(&a.ones_like()) - 0.5).abs() < 1e-4);
        assert_eq!(value(&a), 0.0);
    }

    #[test]
    fn gradients_are_finite_where_features_are_zero_and_vectors_are_taken() {
        for distance in ALL {
            let a = Tensor::zeros([2, 3, 4, 4], (Kind::Float, Device::Cpu));
            let a = a.set_requires_grad(true);
            let b = normal("b", &[2, 3, 4, 4], 1.0, 1).unwrap();
            let d = feature_distance(distance, &a, &b, Reduction::Mean).unwrap();
            d.backward();
            let finite = a.grad().isfinite().all().int64_value(&[]);
            assert_eq!(finite, 1, "{distance:?}");
            let (a, b) = (b.select(3, 0).select(2, 0), b.select(3, 1).select(2, 0));
            let d = feature_distance(distance, &a, &b, Reduction::Mean).unwrap();
            assert!(d.double_value(&[]) > 0.0, "{distance:?}");
        }
    }

    #[test]
    fn shapes_are_never_broadcast() {
        let a = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        let b = Tensor::ones([1, 3], (Kind::Float, Device::Cpu));
        for distance in ALL {
            assert!(feature_distance(distance, &a, &b, Reduction::Caffe).is_err());
        }
    }
}
