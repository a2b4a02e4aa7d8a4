//! A linear probe: how well classes can be read from codes by a straight line.

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Strengths of the penalty that are tried, relative to the mean square of a standardised row.
const PENALTIES: [f64; 9] = [1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0];

/// Classes (indices into what `classes` counts) that ridge regression on `codes` `[N,D]` with known
/// classes gives `others` `[M,D]`. Codes are standardised unit by unit; one output for each class is
/// fitted to ±1, and the penalty is the one with the least error when each row is left out in turn.
/// fp64.
///
/// # Errors
/// Fewer than three rows, another number of classes than rows, or codes of different lengths.
pub fn linear_probe(codes: &Tensor, classes: &[i64], others: &Tensor) -> Result<Vec<i64>> {
    let _guard = tch::no_grad_guard();
    let (size, length) = (codes.size(), others.size());
    let n = classes.len() as i64;
    if size.len() != 2 || length.len() != 2 || size[0] != n || n < 3 || size[1] != length[1] {
        return Err(NetError::InputShape {
            what: "the linear probe".to_owned(),
            expected: format!(
                "codes of one length, at least 3 of them with classes; {n} classes and {size:?}"
            ),
            got: length,
        });
    }
    let (x, z) = (
        codes.f_to_kind(Kind::Double)?,
        others.f_to_kind(Kind::Double)?,
    );
    let mean = x.f_mean_dim(0i64, true, Kind::Double)?;
    let centred = x.f_sub(&mean)?;
    let deviation = centred
        .f_square()?
        .f_mean_dim(0i64, true, Kind::Double)?
        .f_sqrt()?
        .f_clamp_min(1e-12)?;
    let scale = 1.0 / (size[1] as f64).sqrt();
    let x = centred.f_div(&deviation)?.f_mul_scalar(scale)?;
    let z = z.f_sub(&mean)?.f_div(&deviation)?.f_mul_scalar(scale)?;
    let count = classes.iter().copied().max().unwrap_or(0) + 1;
    let targets = Tensor::from_slice(classes)
        .f_to_device(x.device())?
        .f_one_hot(count)?
        .f_to_kind(Kind::Double)?
        .f_mul_scalar(2.0)?
        .f_sub_scalar(1.0)?;
    let offset = targets.f_mean_dim(0i64, true, Kind::Double)?;
    let y = targets.f_sub(&offset)?;
    let kernel = x.f_matmul(&x.f_transpose(0, 1)?)?;
    let eye = Tensor::f_eye(n, (Kind::Double, x.device()))?;
    let mut best: Option<(f64, Tensor)> = None;
    for penalty in PENALTIES {
        let inverse = kernel.f_add(&eye.f_mul_scalar(penalty)?)?.f_inverse()?;
        let weights = inverse.f_matmul(&y)?;
        // What the fit without a row misses it by, in closed form.
        let left_out = weights.f_div(&inverse.f_diagonal(0, 0, 1)?.f_unsqueeze(1)?)?;
        let error = left_out
            .f_square()?
            .f_sum(Kind::Double)?
            .f_double_value(&[])?;
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, weights));
        }
    }
    let Some((_, weights)) = best else {
        return Err(NetError::Spec("a probe without a finite error".to_owned()));
    };
    let found = z
        .f_matmul(&x.f_transpose(0, 1)?.f_matmul(&weights)?)?
        .f_add(&offset)?
        .f_argmax(1, false)?;
    Ok(Vec::<i64>::try_from(found.f_to_device(tch::Device::Cpu)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::normal;

    /// Three classes whose centres are `apart` deviations from each other, in 40 dimensions.
    fn draw(name: &str, n: i64, apart: f64) -> (Tensor, Vec<i64>) {
        let centres = normal("centres", &[3, 40], apart / 40f64.sqrt(), 3).unwrap();
        let classes: Vec<i64> = (0..n).map(|i| i % 3).collect();
        let noise = normal(name, &[n, 40], 1.0, 3).unwrap();
        let x = noise + centres.index_select(0, &Tensor::from_slice(&classes));
        (x * 50.0 + 7.0, classes)
    }

    fn share(apart: f64) -> f64 {
        let ((x, classes), (z, wanted)) = (draw("train", 30, apart), draw("test", 90, apart));
        let found = linear_probe(&x, &classes, &z).unwrap();
        let right = found.iter().zip(&wanted).filter(|(a, b)| a == b).count();
        right as f64 / 90.0
    }

    #[test]
    fn what_is_apart_is_told_apart_and_noise_is_not() {
        assert!(share(40.0) > 0.99, "{}", share(40.0));
        assert!(share(0.0) < 0.55, "{}", share(0.0));
    }

    #[test]
    fn dead_units_do_no_harm() {
        let (x, classes) = draw("train", 30, 40.0);
        let dead = Tensor::full([30, 2], 5.0, (Kind::Float, x.device()));
        let x = Tensor::cat(&[&x, &dead], 1);
        let found = linear_probe(&x, &classes, &x).unwrap();
        assert_eq!(found, classes);
    }

    #[test]
    fn too_few_and_misshapen_codes_are_refused() {
        let (x, classes) = draw("train", 30, 1.0);
        assert!(linear_probe(&x, &classes[..29], &x).is_err());
        assert!(linear_probe(&x, &classes, &x.narrow(1, 0, 39)).is_err());
    }
}
