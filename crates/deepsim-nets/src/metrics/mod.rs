//! Metrics of reconstructions. Only [`Lpips`] and [`Dists`] keep a graph, if their images require gradients: they are
//! comparators, too.

mod classes;
mod distribution;
mod dists;
mod identification;
mod inception;
mod lpips;
mod neighbourhoods;
mod pairs;
mod probe;
mod similarity;

pub use crate::loss::ssim::WINDOW;
pub use classes::classify;
pub use distribution::{
    Moments, frechet_distance, frechet_of_moments, kernel_distance, kernel_distance_of_subsets,
};
pub use dists::Dists;
pub use identification::{bilinear_antialiased, correlations, grey, two_way_identification};
pub use inception::{Inception, Resizing, bicubic, bilinear, rows_of};
pub use lpips::Lpips;
pub use neighbourhoods::precision_recall;
pub use pairs::{mean_pair_distance, mean_pair_distance_in_blocks};
pub use probe::{Probe, ProbeCodes, linear_probe};
pub use similarity::{psnr, ssim};
use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Fails unless `a` and `b` are images `[N,3,H,W]` of one shape.
pub(crate) fn check_same_images(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    crate::images::check_images(what, a)?;
    if a.size() == b.size() {
        return Ok(());
    }
    Err(NetError::InputShape {
        what: what.to_owned(),
        expected: format!("two tensors of one shape; the first has {:?}", a.size()),
        got: b.size(),
    })
}

/// The first and the second half of each tensor's samples: of one pass over two batches.
fn halves(both: &[Tensor]) -> Result<[Vec<Tensor>; 2]> {
    let half = |second: i64| -> Result<Vec<Tensor>> {
        let part = |x: &Tensor| -> Result<Tensor> {
            let n = x.size()[0] / 2;
            Ok(x.f_narrow(0, second * n, n)?)
        };
        both.iter().map(part).collect()
    };
    Ok([half(0)?, half(1)?])
}

/// Fails unless `a` and `b` are `count` features each, of the same shapes.
fn check_alike(what: &str, a: &[Tensor], b: &[Tensor], count: usize) -> Result<()> {
    let sizes = |all: &[Tensor]| all.iter().map(Tensor::size).collect::<Vec<_>>();
    let (a, b) = (sizes(a), sizes(b));
    if a.len() == count && a == b {
        return Ok(());
    }
    Err(NetError::Spec(format!(
        "{what} compares {count} features of the same shapes, not {a:?} and {b:?}"
    )))
}

fn check_rows(what: &str, x: &Tensor) -> Result<i64> {
    match x.size().as_slice() {
        [n, _] if *n >= 2 => Ok(*n),
        other => Err(NetError::InputShape {
            what: what.to_owned(),
            expected: "at least two samples [N,length]".to_owned(),
            got: other.to_vec(),
        }),
    }
}

/// Euclidean distances `[N]` between samples of the same index, in fp64.
///
/// # Errors
/// Tensors of different shapes, or without samples.
pub fn sample_distances(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.size() != b.size() || a.dim() < 2 {
        return Err(NetError::InputShape {
            what: "the distances of samples".to_owned(),
            expected: format!("two tensors [N,...]; the first has {:?}", a.size()),
            got: b.size(),
        });
    }
    let _guard = tch::no_grad_guard();
    let d = a
        .f_to_kind(Kind::Float)?
        .f_sub(&b.f_to_kind(Kind::Float)?)?
        .f_flatten(1, -1)?;
    Ok(d.f_square()?
        .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?
        .f_sqrt()?)
}

/// Mean Euclidean distance between samples of the same index.
///
/// # Errors
/// Tensors of different shapes.
pub fn mean_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let distances = sample_distances(a, b)?;
    Ok(distances.f_mean(Kind::Double)?.f_double_value(&[])?)
}

/// The paper's normalised error in percent: the mean distance of `reconstructed` from `original`
/// (rows of the same index) over the mean distance of all pairs of different originals. 100 is the
/// error of a random other sample.
///
/// # Errors
/// Tensors of different shapes, fewer than two rows, or originals that are all the same.
pub fn normalised_error(original: &Tensor, reconstructed: &Tensor) -> Result<f64> {
    let unit = mean_pair_distance(original)?;
    if unit <= 0.0 {
        return Err(NetError::AllAlike);
    }
    Ok(100.0 * mean_distance(original, reconstructed)? / unit)
}

/// Sum of squared differences between neighbouring pixels (right and below) of images
/// `[N,3,H,W]`: high for sharp images, low for blur.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn gradient_energy(images: &Tensor) -> Result<f64> {
    crate::images::check_images("gradient energy", images)?;
    let _guard = tch::no_grad_guard();
    let x = images.f_to_kind(Kind::Float)?;
    let mut total = 0.0;
    for dim in [2, 3] {
        total += x
            .f_diff::<Tensor>(1, dim, None, None)?
            .f_square()?
            .f_sum(Kind::Double)?
            .double_value(&[]);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn random_pairing_scores_a_hundred() {
        let x = crate::layers::init::normal("x", &[200, 300], 1.0, 2).unwrap();
        let error = normalised_error(&x, &x.roll([1], [0])).unwrap();
        assert!((error - 100.0).abs() < 3.0, "{error}");
        assert_eq!(normalised_error(&x, &x).unwrap(), 0.0);
    }

    #[test]
    fn samples_that_are_all_the_same_are_refused() {
        let same = Tensor::ones([3, 4], (Kind::Float, Device::Cpu));
        assert!(normalised_error(&same, &same).is_err());
    }

    #[test]
    fn gradient_energy_counts_both_directions() {
        let mut x = Tensor::zeros([1, 3, 2, 2], (Kind::Float, Device::Cpu));
        let _ = x.get(0).get(1).get(0).get(1).fill_(3.0);
        assert_eq!(gradient_energy(&x).unwrap(), 18.0);
        x *= 0.0;
        assert_eq!(gradient_energy(&x).unwrap(), 0.0);
    }
}
