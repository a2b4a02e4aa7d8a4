//! Distances between two sets of images as distributions, in features of their own choice.
//!
//! They are "FID" and "KID" only in the features of FID's Inception, of tens of thousands of images. The Fréchet distance
//! is biased upwards where there are few images; compare only numbers from equally many. The kernel distance has no such
//! bias and may be negative.

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::layers::init::{derive_seed, seeded};

/// Rows of a block of the kernel's matrix.
const ROWS: i64 = 512;

/// Mean and covariance of rows that pass batch by batch; fp64. Its size does not grow beyond the covariance's.
#[derive(Debug, Default)]
pub struct Moments {
    n: i64,
    sums: Option<Sums>,
}

/// Sums of what rows differ by from the first batch's mean: little is lost where they are subtracted.
#[derive(Debug)]
struct Sums {
    shift: Tensor,
    first: Tensor,
    second: Second,
}

/// What covariances are made of.
#[derive(Debug)]
enum Second {
    /// The rows: as long as there are not more of them than values, they are smaller than the matrix, and no root of a
    /// singular matrix is needed.
    Rows(Vec<Tensor>),
    /// The sum of their outer products `[D,D]`.
    Matrix(Tensor),
}

/// A covariance.
enum Covariance {
    /// FᵀF, of fewer rows than values: `[N,D]`.
    Factor(Tensor),
    /// `[D,D]`.
    Matrix(Tensor),
}

impl Moments {
    /// Of rows `[N,D]`.
    ///
    /// # Errors
    /// As [`Moments::add`].
    pub fn of(rows: &Tensor) -> Result<Moments> {
        let mut moments = Moments::default();
        moments.add(rows)?;
        Ok(moments)
    }

    /// Adds rows `[N,D]`.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn add(&mut self, rows: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let length = self.length();
        let &[n, own] = rows.size().as_slice() else {
            return Err(not_rows(length, rows));
        };
        if n < 1 || length.is_some_and(|length| length != own) {
            return Err(not_rows(length, rows));
        }
        let rows = rows.f_to_kind(Kind::Double)?;
        let sums = match &mut self.sums {
            Some(sums) => sums,
            none => none.insert(Sums {
                shift: rows.f_mean_dim(0i64, false, Kind::Double)?,
                first: Tensor::f_zeros([own], (Kind::Double, rows.device()))?,
                second: Second::Rows(Vec::new()),
            }),
        };
        let rows = rows.f_sub(&sums.shift)?;
        let first = rows.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?;
        sums.first = sums.first.f_add(&first)?;
        self.n += n;
        let outer = |matrix: &mut Tensor, rows: &Tensor| -> Result<()> {
            let _ = matrix.f_addmm_(&rows.f_transpose(0, 1)?, rows)?;
            Ok(())
        };
        match &mut sums.second {
            Second::Matrix(matrix) => outer(matrix, &rows)?,
            Second::Rows(kept) if self.n <= own => kept.push(rows),
            Second::Rows(kept) => {
                let mut matrix = Tensor::f_zeros([own, own], (Kind::Double, rows.device()))?;
                for rows in kept.iter().chain([&rows]) {
                    outer(&mut matrix, rows)?;
                }
                sums.second = Second::Matrix(matrix);
            }
        }
        Ok(())
    }

    /// Rows so far.
    pub fn count(&self) -> i64 {
        self.n
    }

    /// Values of a row; none without rows.
    pub fn length(&self) -> Option<i64> {
        self.sums.as_ref()?.first.size().first().copied()
    }

    /// Whether the covariance has no inverse because there are not more rows than values.
    pub fn is_singular(&self) -> bool {
        self.length().is_none_or(|length| self.n <= length)
    }

    /// The mean `[D]` and the covariance with N−1 of at least two rows.
    fn finished(&self) -> Result<(Tensor, Covariance)> {
        let Some(Sums {
            shift,
            first,
            second,
        }) = self.sums.as_ref().filter(|_| self.n >= 2)
        else {
            let what = format!("a distribution of {} rows: it takes at least two", self.n);
            return Err(NetError::Spec(what));
        };
        let n = self.n as f64;
        let mean = first.f_div_scalar(n)?;
        let covariance = match second {
            Second::Rows(rows) => {
                let centred = Tensor::f_cat(rows, 0)?.f_sub(&mean)?;
                Covariance::Factor(centred.f_div_scalar((n - 1.0).sqrt())?)
            }
            Second::Matrix(second) => Covariance::Matrix(
                second
                    .f_sub(&first.f_outer(&mean)?)?
                    .f_div_scalar(n - 1.0)?,
            ),
        };
        Ok((mean.f_add(shift)?, covariance))
    }
}

fn not_rows(length: Option<i64>, got: &Tensor) -> NetError {
    let length = length.map_or("D".to_owned(), |length| length.to_string());
    NetError::InputShape {
        what: "a distribution of features".to_owned(),
        expected: format!("at least one row, [N,{length}]"),
        got: got.size(),
    }
}

/// Squared Fréchet distance of the Gaussians that fit two sets of rows of one length:
/// |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½), fp64, covariances with N−1. It is not clamped at 0. In the features of
/// [`super::Inception`] it is FID.
///
/// # Errors
/// Fewer than two rows, or rows of different lengths.
pub fn frechet_of_moments(a: &Moments, b: &Moments) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let ((ma, ca), (mb, cb)) = (a.finished()?, b.finished()?);
    if ma.size() != mb.size() {
        return Err(not_rows(a.length(), &mb));
    }
    let between = ma.f_sub(&mb)?.f_square()?.f_sum(Kind::Double)?;
    let spread = ca.trace()?.f_add(&cb.trace()?)?;
    Ok(between.f_add(&spread)?.f_double_value(&[])? - 2.0 * trace_of_root(&ca, &cb)?)
}

impl Covariance {
    fn trace(&self) -> Result<Tensor> {
        Ok(match self {
            Covariance::Factor(rows) => rows.f_square()?.f_sum(Kind::Double)?,
            Covariance::Matrix(matrix) => matrix.f_trace()?,
        })
    }
}

/// The trace of (ΣaΣb)^½. Where Σa = FᵀF, ΣaΣb has the eigenvalues of FΣbFᵀ, which is symmetric, and where also Σb = GᵀG the
/// squared singular values of FGᵀ.
fn trace_of_root(a: &Covariance, b: &Covariance) -> Result<f64> {
    let roots = match (a, b) {
        (Covariance::Factor(f), Covariance::Factor(g)) => {
            f.f_matmul(&g.f_transpose(0, 1)?)?.f_svd(true, false)?.1
        }
        (Covariance::Factor(f), Covariance::Matrix(m))
        | (Covariance::Matrix(m), Covariance::Factor(f)) => roots_between(f, m)?,
        (Covariance::Matrix(a), Covariance::Matrix(b)) => roots_between(&factor(a)?, b)?,
    };
    Ok(roots.f_sum(Kind::Double)?.f_double_value(&[])?)
}

/// Roots of the eigenvalues of FMFᵀ.
fn roots_between(f: &Tensor, m: &Tensor) -> Result<Tensor> {
    let inner = f.f_matmul(&m.f_matmul(&f.f_transpose(0, 1)?)?)?;
    let even = inner.f_add(&inner.f_transpose(0, 1)?)?.f_mul_scalar(0.5)?;
    // Where many eigenvalues are alike LAPACK may give up. The matrix has no negative ones.
    let values = match even.f_linalg_eigvalsh("L") {
        Ok(values) => values,
        Err(_) => even.f_svd(true, false)?.1,
    };
    Ok(values.f_clamp_min(0.0)?.f_sqrt()?)
}

/// F of a covariance FᵀF, without the directions that are nothing but rounding.
fn factor(covariance: &Tensor) -> Result<Tensor> {
    let (values, vectors) = match covariance.f_linalg_eigh("L") {
        Ok(found) => found,
        Err(_) => {
            let (vectors, values, _) = covariance.f_svd(true, true)?;
            (values.f_flip([0])?, vectors.f_flip([1])?)
        }
    };
    let length = values.size()[0];
    let largest = values.f_double_value(&[length - 1])?;
    let rounding = largest * length as f64 * f64::EPSILON;
    let above = values.f_gt(rounding.max(0.0))?;
    let kept = above.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    // Eigenvalues ascend.
    let roots = values.f_narrow(0, length - kept, kept)?.f_sqrt()?;
    let columns = vectors.f_narrow(1, length - kept, kept)?.f_mul(&roots)?;
    Ok(columns.f_transpose(0, 1)?)
}

/// [`frechet_of_moments`] of rows `a` `[N,D]` and `b` `[M,D]`.
///
/// # Errors
/// Fewer than two rows, or rows of different lengths.
pub fn frechet_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = rows(a, b)?;
    frechet_of_moments(&Moments::of(&a)?, &Moments::of(&b)?)
}

/// Squared maximum mean discrepancy of rows `a` `[N,D]` and `b` `[M,D]` under the kernel
/// (x·y/D + 1)³, by the unbiased estimator, fp64. About 0 for samples of one distribution.
///
/// # Errors
/// Fewer than two rows, or rows of different lengths.
pub fn kernel_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let (a, b) = rows(a, b)?;
    let d = a.size()[1] as f64;
    // Blocks of rows, so that memory grows with the rows and not with their pairs.
    let sum = |x: &Tensor, y: &Tensor| -> Result<f64> {
        let columns = y.f_transpose(0, 1)?;
        let mut sum = 0.0;
        let n = x.size()[0];
        let mut from = 0;
        while from < n {
            let k = x
                .f_narrow(0, from, ROWS.min(n - from))?
                .f_matmul(&columns)?
                .f_mul_scalar(1.0 / d)?
                .f_add_scalar(1.0)?
                .f_pow_tensor_scalar(3.0)?;
            sum += k.f_sum(Kind::Double)?.f_double_value(&[])?;
            from += ROWS;
        }
        Ok(sum)
    };
    let within = |x: &Tensor| -> Result<f64> {
        let n = x.size()[0] as f64;
        let own = x
            .f_square()?
            .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?
            .f_mul_scalar(1.0 / d)?
            .f_add_scalar(1.0)?
            .f_pow_tensor_scalar(3.0)?
            .f_sum(Kind::Double)?
            .f_double_value(&[])?;
        Ok((sum(x, x)? - own) / (n * (n - 1.0)))
    };
    let across = sum(&a, &b)? / (a.size()[0] as f64 * b.size()[0] as f64);
    Ok(within(&a)? + within(&b)? - 2.0 * across)
}

/// Mean and deviation of [`kernel_distance`] over random subsets of `size` rows of either side, drawn without replacement
/// and by `seed`: in the features of [`super::Inception`] and with 100 subsets of 1000 it is KID. Where no side has more
/// than `size` rows there is one subset.
///
/// # Errors
/// Fewer than two rows or than `size`, or rows of different lengths.
pub fn kernel_distance_of_subsets(
    a: &Tensor,
    b: &Tensor,
    subsets: u64,
    size: i64,
    seed: u64,
) -> Result<[f64; 2]> {
    let _guard = tch::no_grad_guard();
    let (a, b) = rows(a, b)?;
    let some = |x: &Tensor, side: &str, subset: u64| -> Result<Tensor> {
        let n = x.size()[0];
        let order = seeded(derive_seed(seed, side, subset), || {
            Tensor::f_randperm(n, (Kind::Int64, Device::Cpu))
        })?;
        let chosen = order.f_narrow(0, 0, size)?.f_to_device(x.device())?;
        Ok(x.f_index_select(0, &chosen)?)
    };
    let all = [&a, &b].iter().all(|x| x.size()[0] == size);
    let subsets = if all { 1 } else { subsets.max(1) };
    let (mut sum, mut squares) = (0.0, 0.0);
    for subset in 0..subsets {
        let found = kernel_distance(
            &some(&a, "first side of a subset", subset)?,
            &some(&b, "second side of a subset", subset)?,
        )?;
        sum += found;
        squares += found * found;
    }
    let count = subsets as f64;
    let mean = sum / count;
    Ok([mean, (squares / count - mean * mean).max(0.0).sqrt()])
}

/// Two sets of at least two rows of one length, in fp64.
pub(super) fn rows(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let fits = |x: &Tensor| x.dim() == 2 && x.size()[0] >= 2;
    if !fits(a) || !fits(b) || a.size()[1] != b.size()[1] {
        return Err(NetError::InputShape {
            what: "the distance of two distributions".to_owned(),
            expected: format!(
                "two sets of at least two rows of one length; the first is {:?}",
                a.size()
            ),
            got: b.size(),
        });
    }
    Ok((a.f_to_kind(Kind::Double)?, b.f_to_kind(Kind::Double)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;

    fn draw(name: &str, n: i64, d: i64) -> Tensor {
        normal(name, &[n, d], 1.0, 5).unwrap().to_kind(Kind::Double)
    }

    #[test]
    fn of_one_feature_it_is_the_formula_s() {
        let a = Tensor::from_slice(&[0.0f64, 2.0, 4.0]).view([3, 1]);
        let b = Tensor::from_slice(&[10.0f64, 10.0, 13.0, 7.0]).view([4, 1]);
        // Means 2 and 10, variances 4 and 6.
        let want = 64.0 + 4.0 + 6.0 - 2.0 * 24.0f64.sqrt();
        assert!((frechet_distance(&a, &b).unwrap() - want).abs() < 1e-9);
    }

    #[test]
    fn the_root_s_trace_is_that_of_eigenvalues() {
        let stretch = draw("s", 6, 6);
        // More rows than features, and fewer.
        for (n, m) in [(40, 50), (4, 50), (4, 3)] {
            let (a, b) = (draw("a", n, 6), draw("b", m, 6).matmul(&stretch) + 0.5);
            let cov = |x: &Tensor| {
                let c = x - x.mean_dim(0i64, true, Kind::Double);
                c.transpose(0, 1).matmul(&c) / (x.size()[0] as f64 - 1.0)
            };
            let (ca, cb) = (cov(&a), cov(&b));
            // Eigenvalues of a product of two such matrices are real and not negative.
            let real = Tensor::linalg_eigvals(&ca.matmul(&cb)).real();
            let root = real.clamp_min(0.0).sqrt().sum(Kind::Double);
            let between = (a.mean_dim(0i64, false, Kind::Double)
                - b.mean_dim(0i64, false, Kind::Double))
            .square()
            .sum(Kind::Double);
            let want = (between + ca.trace() + cb.trace() - root * 2.0).double_value(&[]);
            let got = frechet_distance(&a, &b).unwrap();
            assert!((got - want).abs() < 1e-5 * want, "{n}, {m}: {got} {want}");
        }
    }

    #[test]
    fn samples_of_one_distribution_are_near_and_others_are_far() {
        let (a, b) = (draw("a", 400, 5), draw("b", 300, 5));
        let far = draw("b", 300, 5) * 2.0 + 1.0;
        assert!(kernel_distance(&a, &b).unwrap().abs() < 0.05);
        assert!(kernel_distance(&a, &far).unwrap() > 1.0);
        assert!(frechet_distance(&a, &b).unwrap() < 0.2);
        assert!(frechet_distance(&a, &far).unwrap() > 5.0);
    }

    #[test]
    fn moments_are_the_same_batch_by_batch_and_far_from_zero() {
        let all = draw("a", 90, 4).matmul(&draw("s", 4, 4)) + 1e4;
        let mut parts = Moments::default();
        for (from, n) in [(0, 1), (1, 40), (41, 49)] {
            parts.add(&all.narrow(0, from, n)).unwrap();
        }
        assert_eq!((parts.count(), parts.is_singular()), (90, false));
        let (mean, covariance) = parts.finished().unwrap();
        let Covariance::Matrix(covariance) = covariance else {
            panic!("more rows than values make a matrix");
        };
        let far = |a: &Tensor, b: &Tensor| ((a - b).norm() / b.norm()).double_value(&[]);
        assert!(far(&mean, &all.mean_dim(0i64, false, Kind::Double)) < 1e-12);
        assert!(
            far(
                &covariance,
                &all.transpose(0, 1).cov(1, None::<Tensor>, None::<Tensor>)
            ) < 1e-9
        );
        let few = Moments::of(&all.narrow(0, 0, 4)).unwrap();
        assert!(few.is_singular());
        assert!(matches!(few.finished().unwrap().1, Covariance::Factor(_)));
        assert!(parts.add(&draw("b", 3, 5)).is_err());
        let one = Moments::of(&all.narrow(0, 0, 1)).unwrap();
        assert!(frechet_of_moments(&one, &parts).is_err());
    }

    #[test]
    fn subsets_vary_by_their_seed_alone_and_mean_what_the_whole_does() {
        let (a, b) = (draw("a", 300, 5), draw("b", 260, 5) * 1.5);
        let of = |seed| kernel_distance_of_subsets(&a, &b, 30, 100, seed).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let whole = kernel_distance(&a, &b).unwrap();
        let [mean, deviation] = of(1);
        assert!(
            deviation > 0.0 && (mean - whole).abs() < deviation,
            "{mean} {whole}"
        );
        let [one, none] = kernel_distance_of_subsets(&b, &b, 30, 260, 1).unwrap();
        assert!(none == 0.0 && (one - kernel_distance(&b, &b).unwrap()).abs() < 1e-9);
        assert!(kernel_distance_of_subsets(&a, &b, 30, 261, 1).is_err());
    }

    #[test]
    fn one_row_is_no_distribution() {
        let (a, b) = (draw("a", 1, 5), draw("b", 3, 5));
        assert!(kernel_distance(&a, &b).is_err());
        assert!(frechet_distance(&b, &draw("c", 3, 4)).is_err());
    }
}
