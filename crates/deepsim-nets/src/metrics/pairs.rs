//! The mean distance over all pairs of samples: the N by which the paper divides errors.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::check_rows;
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
/// Near pairs are not measured directly if their total error cannot exceed this.
const HARMLESS: f64 = 1e-5;

/// Mean Euclidean distance over all pairs of different rows of `x` `[N,length]`, of any kind of
/// numbers: the N by which the paper divides errors (caption of Table 2).
///
/// One matrix product per block of columns instead of N²/2 subtractions. The mean row is
/// subtracted first (distances do not change), so that |a|²+|b|²−2ab does not cancel.
///
/// # Errors
/// Fewer than two rows.
pub fn mean_pair_distance(x: &Tensor) -> Result<f64> {
    let n = check_rows("the mean distance", x)?;
    let _guard = tch::no_grad_guard();
    Ok(within(&x.f_detach()?)? / (n * (n - 1) / 2) as f64)
}

/// [`mean_pair_distance`] of rows that need not be in memory together. `rows` returns the rows of a range, the same
/// ones each time. At most `room` bytes of rows are held at once. If all `n` rows fit, they are requested once.
/// Otherwise two blocks are held at a time, and each pair of blocks is visited once, so that each row is requested
/// about as often as there are blocks.
///
/// # Errors
/// Fewer than two rows, and what `rows` refuses.
pub fn mean_pair_distance_in_blocks<E: From<NetError>>(
    n: usize,
    room: usize,
    mut rows: impl FnMut(Range<usize>) -> std::result::Result<Tensor, E>,
) -> std::result::Result<f64, E> {
    let _guard = tch::no_grad_guard();
    let first = rows(0..n.min(1))?;
    let bytes = first.numel() * first.kind().elt_size_in_bytes();
    drop(first);
    if n < 2 || n.saturating_mul(bytes) <= room {
        return Ok(mean_pair_distance(&rows(0..n)?)?);
    }
    let size = (room / 2 / bytes.max(1)).clamp(1, n);
    let mut sum = 0.0;
    for from in (0..n).step_by(size) {
        let to = n.min(from + size);
        let left = rows(from..to)?;
        if to - from > 1 {
            sum += within(&left)?;
        }
        for other in (to..n).step_by(size) {
            let right = rows(other..n.min(other + size))?;
            sum += between(&left, &right)?;
        }
    }
    Ok(sum / (n * (n - 1) / 2) as f64)
}

/// Sum of the distances of all pairs of rows.
fn within(x: &Tensor) -> Result<f64> {
    let n = x.size()[0];
    let gram = Tensor::f_zeros([n, n], (Kind::Double, x.device()))?;
    each_block(x, x, |block, _| {
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
        Ok(())
    })?;
    let squares = gram.f_diagonal(0, 0, 1)?;
    let sums = squares.f_unsqueeze(1)?.f_add(&squares.f_unsqueeze(0)?)?;
    let distances = distances(gram, &sums)?.f_triu(1)?;
    let sum = distances.f_sum(Kind::Double)?.f_double_value(&[])?;
    let near = near(&distances, &sums)?.f_triu(1)?;
    Ok(sum + correction((x, x), &near, &distances, &sums, sum)?)
}

/// Sum of the distances of each row of one set to each of another.
fn between(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (n, m) = (a.size()[0], b.size()[0]);
    let options = (Kind::Double, a.device());
    let gram = Tensor::f_zeros([n, m], options)?;
    let squares = [
        Tensor::f_zeros([n], options)?,
        Tensor::f_zeros([m], options)?,
    ];
    each_block(a, b, |left, right| {
        let mut products = gram.shallow_clone();
        let _ = products.f_add_(&left.f_matmul(&right.f_transpose(0, 1)?)?)?;
        for (of, block) in squares.iter().zip([left, right]) {
            let lengths =
                block
                    .f_square()?
                    .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
            let mut of = of.shallow_clone();
            let _ = of.f_add_(&lengths)?;
        }
        Ok(())
    })?;
    let sums = squares[0]
        .f_unsqueeze(1)?
        .f_add(&squares[1].f_unsqueeze(0)?)?;
    let distances = distances(gram, &sums)?;
    let sum = distances.f_sum(Kind::Double)?.f_double_value(&[])?;
    let near = near(&distances, &sums)?;
    Ok(sum + correction((a, b), &near, &distances, &sums, sum)?)
}

/// Gives blocks of columns of two sets of rows, in single precision, less the mean row of the first set.
fn each_block(
    a: &Tensor,
    b: &Tensor,
    mut work: impl FnMut(&Tensor, &Tensor) -> Result<()>,
) -> Result<()> {
    let length = a.size()[1];
    let same = a.data_ptr() == b.data_ptr() && a.size() == b.size();
    let mut from = 0;
    while from < length {
        let columns = COLUMNS.min(length - from);
        let part = |x: &Tensor| x.f_narrow(1, from, columns)?.f_to_kind(Kind::Float);
        let left = part(a)?;
        let mean = left.f_mean_dim(0, true, Kind::Float)?;
        // The mean is subtracted twice. With a large offset, rounding makes the first mean inexact,
        // and the offset that remains is small enough for the second. A mean in fp64 costs far
        // more.
        let mut left = left.f_sub(&mean)?;
        let rest = left.f_mean_dim(0, true, Kind::Float)?;
        let _ = left.f_sub_(&rest)?;
        if same {
            work(&left, &left)?
        } else {
            work(&left, &part(b)?.f_sub(&mean)?.f_sub(&rest)?)?
        }
        from += COLUMNS;
    }
    Ok(())
}

/// √(sums − 2·gram), in the place of the products.
fn distances(mut gram: Tensor, sums: &Tensor) -> Result<Tensor> {
    let _ = gram.f_mul_scalar_(-2.0)?;
    let _ = gram.f_add_(sums)?;
    let _ = gram.f_clamp_min_(0.0)?;
    let _ = gram.f_sqrt_()?;
    Ok(gram)
}

/// Which pairs lie so near that their products cancel.
fn near(distances: &Tensor, sums: &Tensor) -> Result<Tensor> {
    let limit = sums.f_mul_scalar(NEAR)?;
    Ok(distances.f_square()?.f_less_tensor(&limit)?)
}

/// The correction of the sum of `distances` for pairs that are close together while all other rows
/// are far away (duplicates, or a few outliers among many samples).
fn correction(
    (a, b): (&Tensor, &Tensor),
    near: &Tensor,
    distances: &Tensor,
    sums: &Tensor,
    sum: f64,
) -> Result<f64> {
    let near = near.f_nonzero()?;
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
    if worst.f_sum(Kind::Double)?.f_double_value(&[])? <= HARMLESS * sum {
        return Ok(0.0);
    }
    let mut exact = 0.0;
    for pair in 0..count {
        let row = |of: &Tensor, side: i64| -> Result<Tensor> {
            let i = near.f_get(pair)?.f_get(side)?.f_int64_value(&[])?;
            Ok(of.f_get(i)?.f_to_kind(Kind::Double)?)
        };
        let apart = row(a, 0)?.f_sub(&row(b, 1)?)?.f_square()?;
        exact += apart.f_sum(Kind::Double)?.f_sqrt()?.f_double_value(&[])?;
    }
    Ok(exact - found.f_sum(Kind::Double)?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;

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

    /// In blocks of so many rows, and the most rows that were held at once.
    fn in_blocks(x: &Tensor, rows: usize) -> (f64, i64) {
        let bytes = x.size()[1] as usize * x.kind().elt_size_in_bytes();
        let mut most = 0;
        let n = x.size()[0] as usize;
        let found = mean_pair_distance_in_blocks::<NetError>(n, 2 * rows * bytes, |range| {
            let part = x.narrow(0, range.start as i64, range.len() as i64);
            most = most.max(part.size()[0]);
            Ok(part)
        });
        (found.unwrap(), most)
    }

    #[test]
    fn blocks_equal_the_double_loop() {
        let x = normal("x", &[9, 20_000], 50.0, 1).unwrap() + 400.0;
        let want = plain_pair_distance(&x);
        let got = mean_pair_distance(&x).unwrap();
        assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
        for rows in [1, 2, 4] {
            let (got, most) = in_blocks(&x, rows);
            assert!((got / want - 1.0).abs() < 1e-6, "{rows}: {got} {want}");
            assert_eq!(most, rows as i64, "no more than two blocks are in memory");
        }
        assert_eq!(in_blocks(&x, 5).1, 9, "all fit");
    }

    #[test]
    fn bytes_have_the_distances_of_their_values() {
        let x = (normal("x", &[12, 3000], 60.0, 4).unwrap() + 128.0).clamp(0.0, 255.0);
        let bytes = x.to_kind(Kind::Uint8);
        let want = plain_pair_distance(&bytes);
        let got = mean_pair_distance(&bytes).unwrap();
        assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
        let (got, _) = in_blocks(&bytes, 5);
        assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
    }

    /// The promise is 10⁻⁴ of differences in fp64, whatever the samples have in common; this holds
    /// to a tenth of it, which products alone miss where nearly all pairs are close.
    fn assert_near(what: &str, x: &Tensor) {
        let want = plain_pair_distance(x);
        let got = mean_pair_distance(x).unwrap();
        assert!((got / want - 1.0).abs() < 1e-5, "{what}: {got} {want}");
        let (got, _) = in_blocks(x, 17);
        assert!(
            (got / want - 1.0).abs() < 1e-5,
            "{what}, in blocks: {got} {want}"
        );
    }

    #[test]
    fn offsets_outliers_and_duplicates_do_not_spoil_the_mean() {
        let x = normal("x", &[40, 9_000], 1.0, 1).unwrap();
        for offset in [0.0, 1e3, 1e5, 1e7] {
            assert_near(&format!("offset {offset}"), &(&x + offset));
        }
        // An offset that differs from column to column, far larger than what differs in rows.
        let columns = normal("columns", &[1, 9_000], 1e5, 2).unwrap();
        assert_near("columns", &(&x + columns));
        // One sample far from all others: centred on the mean, those look all the same.
        for far in [1e2, 1e4, 1e5] {
            let outlier = Tensor::cat(&[&x, &(x.narrow(0, 0, 1) + far)], 0);
            assert_near(&format!("outlier {far}"), &outlier);
            let first = Tensor::cat(&[&(x.narrow(0, 0, 1) + far), &x], 0);
            assert_near(&format!("outlier {far} first"), &first);
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
        assert_near("300 rows", &normal("y", &[300, 50], 1.0, 3).unwrap());
    }

    #[test]
    fn single_samples_are_refused() {
        let one = Tensor::ones([1, 4], (Kind::Float, tch::Device::Cpu));
        assert!(mean_pair_distance(&one).is_err());
        let rows = |range: Range<usize>| Ok(one.narrow(0, 0, range.len() as i64));
        assert!(mean_pair_distance_in_blocks::<NetError>(1, 0, rows).is_err());
    }
}
