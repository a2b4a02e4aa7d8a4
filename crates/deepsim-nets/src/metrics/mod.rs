//! Numbers by which reconstructions are judged. Nothing here keeps a graph but [`Lpips`], when its
//! pictures ask for gradients.

mod classes;
mod distribution;
mod lpips;
mod probe;
mod similarity;

pub use crate::structural::WINDOW;
pub use classes::classify;
pub use distribution::{frechet_distance, kernel_distance};
pub use lpips::Lpips;
pub use probe::linear_probe;
pub use similarity::{psnr, ssim};
use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Columns of a block: sums of so few products keep fp32 rounding near 1e-6, and blocks are
/// added up in fp64.
const COLUMNS: i64 = 4096;
/// Rows of a block: products are needed above the diagonal only.
const ROWS: i64 = 256;
/// Pairs nearer than this part of |a|² + |b|² (both centred) are measured directly: the products
/// cancel there, and fp32's rounding would show.
const NEAR: f64 = 1.0 / 16.0;
/// What rounding adds to |a−b|², relative to |a|² + |b|².
const ROUNDING: f64 = 4e-6;
/// Near pairs are left as they are where all of them together cannot be off by more than this.
const HARMLESS: f64 = 1e-5;

/// Fails unless `a` and `b` are pictures `[N,3,H,W]` of one shape.
pub(crate) fn check_same_pictures(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    crate::pictures::check_pictures(what, a)?;
    if a.size() == b.size() {
        return Ok(());
    }
    Err(NetError::InputShape {
        what: what.to_owned(),
        expected: format!("two tensors of one shape; the first has {:?}", a.size()),
        got: b.size(),
    })
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

/// Mean Euclidean distance over all pairs of different rows of `x` `[N,length]`: the N by which
/// the paper divides errors (caption of Table 2).
///
/// One matrix product per block of columns instead of N²/2 subtractions. The mean row is
/// subtracted first (distances do not change), so that |a|²+|b|²−2ab does not cancel.
///
/// # Errors
/// Fewer than two rows.
pub fn mean_pair_distance(x: &Tensor) -> Result<f64> {
    let n = check_rows("the mean distance", x)?;
    let _guard = tch::no_grad_guard();
    let x = x.f_detach()?;
    let gram = gram(&x, n)?;
    let squares = gram.f_diagonal(0, 0, 1)?;
    let sums = squares.f_unsqueeze(1)?.f_add(&squares.f_unsqueeze(0)?)?;
    let distances = sums
        .f_sub(&gram.f_mul_scalar(2.0)?)?
        .f_clamp_min(0.0)?
        .f_sqrt()?
        .f_triu(1)?;
    let sum = distances.f_sum(Kind::Double)?.double_value(&[]);
    let pairs = (n * (n - 1) / 2) as f64;
    Ok((sum + correction(&x, &distances, &sums, sum)?) / pairs)
}

/// Products of all pairs of centred rows, on and above the diagonal, in fp64.
fn gram(x: &Tensor, n: i64) -> Result<Tensor> {
    let gram = Tensor::f_zeros([n, n], (Kind::Double, x.device()))?;
    let length = x.size()[1];
    let mut from = 0;
    while from < length {
        let block = x.f_narrow(1, from, COLUMNS.min(length - from))?;
        let block = block.f_to_kind(Kind::Float)?;
        // Twice: where an offset is large, the first mean is off by its rounding, and what that
        // leaves in common is small enough for the second. A mean in fp64 costs far more.
        let mut block = block.f_sub(&block.f_mean_dim(0, true, Kind::Float)?)?;
        let left = block.f_mean_dim(0, true, Kind::Float)?;
        let _ = block.f_sub_(&left)?;
        let mut row = 0;
        while row < n {
            let rows = ROWS.min(n - row);
            let rest = block.f_narrow(0, row, n - row)?;
            let products = rest
                .f_narrow(0, 0, rows)?
                .f_matmul(&rest.f_transpose(0, 1)?)?;
            let mut sums = gram.f_narrow(0, row, rows)?.f_narrow(1, row, n - row)?;
            let _ = sums.f_add_(&products)?;
            row += rows;
        }
        from += COLUMNS;
    }
    Ok(gram)
}

/// What must be added to the sum of `distances` because of pairs that lie close together where
/// everything else lies far away (duplicates, or a few outliers among many samples).
fn correction(x: &Tensor, distances: &Tensor, sums: &Tensor, sum: f64) -> Result<f64> {
    let near = distances
        .f_square()?
        .f_less_tensor(&sums.f_mul_scalar(NEAR)?)?
        .f_triu(1)?
        .f_nonzero()?;
    let count = near.size()[0];
    if count == 0 {
        return Ok(0.0);
    }
    let index = [Some(near.f_select(1, 0)?), Some(near.f_select(1, 1)?)];
    let found = distances.f_index(&index)?;
    // |a−b| is off by at most e/(2|a−b|), and by no more than √e, where |a−b|² is off by e.
    let off = sums.f_index(&index)?.f_mul_scalar(ROUNDING)?;
    let worst = off
        .f_div(&found.f_mul_scalar(2.0)?)?
        .f_minimum(&off.f_sqrt()?)?;
    if worst.f_sum(Kind::Double)?.double_value(&[]) <= HARMLESS * sum {
        return Ok(0.0);
    }
    let mut exact = 0.0;
    for pair in 0..count {
        let row = |side: i64| -> Result<Tensor> {
            let i = near.f_get(pair)?.f_get(side)?.f_int64_value(&[])?;
            Ok(x.f_get(i)?.f_to_kind(Kind::Double)?)
        };
        let apart = row(0)?.f_sub(&row(1)?)?.f_square()?;
        exact += apart.f_sum(Kind::Double)?.f_sqrt()?.double_value(&[]);
    }
    Ok(exact - found.f_sum(Kind::Double)?.double_value(&[]))
}

/// Mean Euclidean distance between rows of the same index.
///
/// # Errors
/// Tensors of different shapes.
pub fn mean_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    if a.size() != b.size() || a.dim() != 2 {
        return Err(NetError::InputShape {
            what: "the mean distance of pairs".to_owned(),
            expected: format!("two tensors [N,length]; the first has {:?}", a.size()),
            got: b.size(),
        });
    }
    let _guard = tch::no_grad_guard();
    let d = a
        .f_to_kind(Kind::Float)?
        .f_sub(&b.f_to_kind(Kind::Float)?)?;
    let norms = d
        .f_square()?
        .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?
        .f_sqrt()?;
    Ok(norms.f_mean(Kind::Double)?.double_value(&[]))
}

/// The paper's normalised error in percent: the mean distance of `reconstructed` from `original`
/// (rows of the same index) over the mean distance of all pairs of different originals. 100 is
/// what a random other sample would score.
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

/// Sum of squared differences between neighbouring pixels (right and below) of pictures
/// `[N,3,H,W]`: high for sharp pictures, low for blur.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn gradient_energy(pictures: &Tensor) -> Result<f64> {
    crate::pictures::check_pictures("gradient energy", pictures)?;
    let _guard = tch::no_grad_guard();
    let x = pictures.f_to_kind(Kind::Float)?;
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

    fn plain_pair_distance(x: &Tensor) -> f64 {
        let (n, mut sum, mut pairs) = (x.size()[0], 0.0, 0.0);
        for i in 0..n {
            for j in i + 1..n {
                let d = x.get(i).to_kind(Kind::Double) - x.get(j).to_kind(Kind::Double);
                sum += d.square().sum(Kind::Double).sqrt().double_value(&[]);
                pairs += 1.0;
            }
        }
        sum / pairs
    }

    #[test]
    fn blocks_equal_the_double_loop() {
        let x = crate::init::normal("x", &[9, 20_000], 50.0, 1).unwrap() + 400.0;
        let (got, want) = (mean_pair_distance(&x).unwrap(), plain_pair_distance(&x));
        assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
    }

    /// The promise is 10⁻⁴ of differences in fp64, whatever the samples have in common; this holds
    /// to a tenth of it, which products alone miss where nearly all pairs are close.
    fn assert_near(what: &str, x: &Tensor) {
        let (got, want) = (mean_pair_distance(x).unwrap(), plain_pair_distance(x));
        assert!((got / want - 1.0).abs() < 1e-5, "{what}: {got} {want}");
    }

    #[test]
    fn offsets_outliers_and_duplicates_do_not_spoil_the_mean() {
        let x = crate::init::normal("x", &[40, 9_000], 1.0, 1).unwrap();
        for offset in [0.0, 1e3, 1e5, 1e7] {
            assert_near(&format!("offset {offset}"), &(&x + offset));
        }
        // An offset that differs from column to column, far larger than what differs in rows.
        let columns = crate::init::normal("columns", &[1, 9_000], 1e5, 2).unwrap();
        assert_near("columns", &(&x + columns));
        // One sample far from all others: centred on the mean, those look all the same.
        for far in [1e2, 1e4, 1e5] {
            let outlier = Tensor::cat(&[&x, &(x.narrow(0, 0, 1) + far)], 0);
            assert_near(&format!("outlier {far}"), &outlier);
        }
        let shifted = x.narrow(0, 1, 1).square();
        let tight = Tensor::cat(&[&(&x * 1e-7), &shifted], 0);
        assert_near("all but one the same", &tight);
        // Most samples the same, or nearly.
        let same = x.narrow(0, 0, 1).repeat([37, 1]);
        let few = Tensor::cat(&[&same, &x.narrow(0, 1, 3)], 0);
        assert_near("duplicates", &few);
        let close = Tensor::cat(
            &[&(same + x.narrow(0, 3, 37) * 1e-3), &x.narrow(0, 1, 2)],
            0,
        );
        assert_near("near duplicates", &close);
        // More rows than a block holds.
        assert_near(
            "300 rows",
            &crate::init::normal("y", &[300, 50], 1.0, 3).unwrap(),
        );
    }

    #[test]
    fn random_pairing_scores_a_hundred() {
        let x = crate::init::normal("x", &[200, 300], 1.0, 2).unwrap();
        let error = normalised_error(&x, &x.roll([1], [0])).unwrap();
        assert!((error - 100.0).abs() < 3.0, "{error}");
        assert_eq!(normalised_error(&x, &x).unwrap(), 0.0);
    }

    #[test]
    fn sameness_and_single_samples_are_refused() {
        let same = Tensor::ones([3, 4], (Kind::Float, Device::Cpu));
        assert!(normalised_error(&same, &same).is_err());
        assert!(mean_pair_distance(&same.narrow(0, 0, 1)).is_err());
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
