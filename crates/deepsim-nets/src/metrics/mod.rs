//! Numbers by which reconstructions are judged. Nothing here keeps a graph.

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Columns of a block: sums of so many products keep fp32 rounding near 1e-6, and blocks are
/// added up in fp64.
const COLUMNS: i64 = 8192;

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
    let x = x.f_detach()?.f_to_kind(Kind::Float)?;
    let centred = x.f_sub(&x.f_mean_dim(0, true, Kind::Float)?)?;
    let mut gram = Tensor::f_zeros([n, n], (Kind::Double, x.device()))?;
    let length = centred.size()[1];
    let mut from = 0;
    while from < length {
        let block = centred.f_narrow(1, from, COLUMNS.min(length - from))?;
        gram = gram.f_add(
            &block
                .f_matmul(&block.f_transpose(0, 1)?)?
                .f_to_kind(Kind::Double)?,
        )?;
        from += COLUMNS;
    }
    let squares = gram.f_diagonal(0, 0, 1)?;
    let distances = squares
        .f_unsqueeze(1)?
        .f_add(&squares.f_unsqueeze(0)?)?
        .f_sub(&gram.f_mul_scalar(2.0)?)?
        .f_clamp_min(0.0)?
        .f_sqrt()?;
    let sum = distances.f_triu(1)?.f_sum(Kind::Double)?.double_value(&[]);
    let pairs = (n * (n - 1) / 2) as f64;
    Ok(sum / pairs)
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
        return Err(NetError::Spec(
            "the held-out samples are all the same: there is no distance to normalise by".into(),
        ));
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
