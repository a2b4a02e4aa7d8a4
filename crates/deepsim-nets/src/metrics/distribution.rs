//! Distances between two sets of images as distributions, in the features of a real network.
//!
//! They are not "FID" or "KID": those names belong to Inception's features of tens of thousands of
//! images. The Fréchet distance is biased upwards where there are fewer images than features;
//! compare only numbers from equally many. The kernel distance has no such bias and may be negative.

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Rows of a block of the kernel's matrix.
const ROWS: i64 = 512;

/// Squared Fréchet distance of the Gaussians that fit rows `a` `[N,D]` and `b` `[M,D]`:
/// |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½), fp64, covariances with N−1.
///
/// The root's trace is the sum of the singular values of AᵀB, where Σa = AAᵀ and Σb = BBᵀ: no root
/// of a singular matrix is needed where there are fewer rows than features.
///
/// # Errors
/// Fewer than two rows, or rows of different lengths.
pub fn frechet_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let (a, b) = rows(a, b)?;
    let mean = |x: &Tensor| x.f_mean_dim(0i64, true, Kind::Double);
    let (ma, mb) = (mean(&a)?, mean(&b)?);
    let between = ma.f_sub(&mb)?.f_square()?.f_sum(Kind::Double)?;
    let factor = |x: &Tensor, mean: &Tensor| -> Result<Tensor> {
        let n = x.size()[0] as f64;
        Ok(x.f_sub(mean)?.f_mul_scalar(1.0 / (n - 1.0).sqrt())?)
    };
    // Rows of these are columns of A and B.
    let (fa, fb) = (factor(&a, &ma)?, factor(&b, &mb)?);
    let trace = |x: &Tensor| x.f_square()?.f_sum(Kind::Double);
    let shared = cross(&fa, &fb)?.f_svd(true, false)?.1;
    let spread = trace(&fa)?
        .f_add(&trace(&fb)?)?
        .f_sub(&shared.f_sum(Kind::Double)?.f_mul_scalar(2.0)?)?;
    Ok(between.f_add(&spread)?.f_double_value(&[])?)
}

/// The smallest matrix with the singular values of AᵀB. With many rows, the triangular QR factors
/// are enough.
fn cross(fa: &Tensor, fb: &Tensor) -> Result<Tensor> {
    let small = |x: &Tensor| -> Result<Tensor> {
        let size = x.size();
        if size[0] > size[1] {
            Ok(Tensor::f_linalg_qr(x, "r")?.1)
        } else {
            Ok(x.shallow_clone())
        }
    };
    Ok(small(fa)?.f_matmul(&small(fb)?.f_transpose(0, 1)?)?)
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

fn rows(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
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
    fn one_row_is_no_distribution() {
        let (a, b) = (draw("a", 1, 5), draw("b", 3, 5));
        assert!(kernel_distance(&a, &b).is_err());
        assert!(frechet_distance(&b, &draw("c", 3, 4)).is_err());
    }
}
