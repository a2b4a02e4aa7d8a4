//! Precision and recall of two sets of images in the neighbourhoods of their features (Kynkäänniemi et al. 2019,
//! "Improved Precision and Recall Metric for Assessing Generative Models").

use tch::{Kind, Tensor};

use super::distribution::rows;
use crate::error::{NetError, Result};

/// Rows and columns of a block of distances.
const BLOCK: [i64; 2] = [1024, 4096];

/// Precision and recall: the share of rows of `made` `[M,D]` that lie in a neighbourhood of `real` `[N,D]`, and the share
/// of rows of `real` in one of `made`. The neighbourhood of a row reaches to its `k`-th nearest other row of its own
/// set, which belongs to it (≤). fp64; distances are computed block by block.
///
/// # Errors
/// Rows of different lengths, or not more than `k` of either.
pub fn precision_recall(real: &Tensor, made: &Tensor, k: i64) -> Result<[f64; 2]> {
    let _guard = tch::no_grad_guard();
    let (real, made) = rows(real, made)?;
    for x in [&real, &made] {
        if k < 1 || x.size()[0] <= k {
            return Err(NetError::InputShape {
                what: format!("precision and recall with {k} neighbours"),
                expected: format!("more than {k} rows"),
                got: x.size(),
            });
        }
    }
    Ok([
        share_within(&made, &real, k)?,
        share_within(&real, &made, k)?,
    ])
}

/// The share of rows of `x` within the neighbourhoods of `of`.
fn share_within(x: &Tensor, of: &Tensor, k: i64) -> Result<f64> {
    let reach = reaches(of, k)?;
    let n = x.size()[0];
    let mut within = 0;
    for (from, own) in blocks(n, BLOCK[0]) {
        let part = x.f_narrow(0, from, own)?;
        let mut near = Tensor::f_zeros([own], (Kind::Bool, x.device()))?;
        for (start, others) in blocks(of.size()[0], BLOCK[1]) {
            let far = squared(&part, &of.f_narrow(0, start, others)?)?;
            let inside = far.f_le_tensor(&reach.f_narrow(0, start, others)?)?;
            near = near.f_logical_or(&inside.f_any_dim(1, false)?)?;
        }
        within += near.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    }
    Ok(within as f64 / n as f64)
}

/// Squared distance of each row from its `k`-th nearest other row.
fn reaches(x: &Tensor, k: i64) -> Result<Tensor> {
    let n = x.size()[0];
    let mut all = Vec::new();
    for (from, own) in blocks(n, BLOCK[0]) {
        let part = x.f_narrow(0, from, own)?;
        let mut nearest: Option<Tensor> = None;
        for (start, others) in blocks(n, BLOCK[1]) {
            let far = squared(&part, &x.f_narrow(0, start, others)?)?;
            let far = match nearest {
                Some(so_far) => Tensor::f_cat(&[so_far, far], 1)?,
                None => far,
            };
            // A row is the nearest to itself.
            let kept = (k + 1).min(far.size()[1]);
            nearest = Some(far.f_topk(kept, 1, false, true)?.0);
        }
        if let Some(nearest) = nearest {
            all.push(nearest.f_select(1, k)?);
        }
    }
    Ok(Tensor::f_cat(&all, 0)?)
}

/// Squared distances `[N,M]` of rows.
fn squared(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let length = |x: &Tensor| {
        x.f_square()?
            .f_sum_dim_intlist([1i64].as_slice(), true, Kind::Double)
    };
    let products = x.f_matmul(&y.f_transpose(0, 1)?)?.f_mul_scalar(2.0)?;
    let sums = length(x)?.f_add(&length(y)?.f_transpose(0, 1)?)?;
    Ok(sums.f_sub(&products)?.f_clamp_min(0.0)?)
}

/// Where blocks of `n` rows begin, and how many rows each has.
fn blocks(n: i64, most: i64) -> impl Iterator<Item = (i64, i64)> {
    let count = (n + most - 1) / most;
    (0..count).map(move |block| (block * most, most.min(n - block * most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;

    #[test]
    fn of_a_line_they_are_counted_by_hand() {
        let line = |values: &[f64]| Tensor::from_slice(values).view([-1, 1]);
        // Reaches with one neighbour: 1, 1, 8 and 2, 2, 41.
        let real = line(&[0.0, 1.0, 9.0]);
        let made = line(&[2.0, 4.0, 45.0]);
        let [precision, recall] = precision_recall(&real, &made, 1).unwrap();
        // 2 lies at the reach of 1 and belongs to it, 4 lies in that of 9; 45 lies in none.
        assert_eq!(precision, 2.0 / 3.0);
        // 0 lies in that of 2, 1 too, 9 in that of 45.
        assert_eq!(recall, 1.0);
        assert!(precision_recall(&real, &made, 3).is_err());
        assert!(precision_recall(&real, &made, 0).is_err());
    }

    #[test]
    fn a_set_covers_itself_and_blocks_change_nothing() {
        let draw = |name, n, deviation| {
            let x = normal(name, &[n, 3], deviation, 1).unwrap();
            x.to_kind(Kind::Double)
        };
        let a = draw("a", 1030, 1.0);
        assert_eq!(precision_recall(&a, &a, 3).unwrap(), [1.0, 1.0]);
        // One row at a time against everything.
        let b = draw("b", 40, 2.0);
        let naive = |x: &Tensor, of: &Tensor| {
            let far = |p: &Tensor, q: &Tensor| {
                (p.unsqueeze(1) - q.unsqueeze(0)).square().sum_dim_intlist(
                    [2i64].as_slice(),
                    false,
                    Kind::Double,
                )
            };
            let reach = far(of, of).topk(4, 1, false, true).0.select(1, 3);
            let inside = far(x, of).le_tensor(&reach).any_dim(1, false);
            inside.sum(Kind::Int64).int64_value(&[]) as f64 / x.size()[0] as f64
        };
        let found = precision_recall(&a, &b, 3).unwrap();
        assert_eq!(found, [naive(&b, &a), naive(&a, &b)]);
        assert!(found[0] > 0.0 && found[0] < 1.0);
    }
}
