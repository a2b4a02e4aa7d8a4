//! A linear probe: how well a linear classifier reads classes from codes.

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Strengths of the penalty that are tried, relative to the mean square of a standardised row.
const PENALTIES: [f64; 9] = [1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0];

/// Codes that probes are fitted to. What does not depend on the classes is computed once: one decomposition serves every
/// strength of the penalty and every set of classes.
#[derive(Debug)]
pub struct ProbeCodes {
    mean: Tensor,
    deviation: Tensor,
    /// Standardised rows `[N,D]`.
    rows: Tensor,
    /// Eigenvectors `[N,R]` of their products, and the eigenvalues `[R]` that are not surely 0.
    vectors: Tensor,
    values: Tensor,
}

/// A linear probe: reads classes from codes.
#[derive(Debug)]
pub struct Probe<'a> {
    codes: &'a ProbeCodes,
    /// One direction for each class, `[D,classes]`.
    directions: Tensor,
    offset: Tensor,
}

impl ProbeCodes {
    /// Takes codes `[N,D]`, at least three.
    ///
    /// # Errors
    /// Codes of another shape, or fewer.
    pub fn new(codes: &Tensor) -> Result<ProbeCodes> {
        let _guard = tch::no_grad_guard();
        let [n, length] = *codes.size().as_slice() else {
            return Err(misshapen("codes [N,length]", codes));
        };
        if n < 3 {
            return Err(misshapen("at least 3 codes", codes));
        }
        let x = codes.f_to_kind(Kind::Double)?;
        let mean = x.f_mean_dim(0i64, true, Kind::Double)?;
        let centred = x.f_sub(&mean)?;
        // A unit is divided by the root of the length, too: products are means over units.
        let deviation = centred
            .f_square()?
            .f_mean_dim(0i64, true, Kind::Double)?
            .f_sqrt()?
            .f_clamp_min(1e-12)?
            .f_mul_scalar((length as f64).sqrt())?;
        let rows = centred.f_div(&deviation)?;
        let (vectors, values) = if length < n {
            // Fewer units than rows: the other eigenvalues are 0.
            let (vectors, values, _) = rows.f_svd(true, true)?;
            (vectors, values.f_square()?)
        } else {
            let kernel = rows.f_matmul(&rows.f_transpose(0, 1)?)?;
            let (values, vectors) = kernel.f_linalg_eigh("L")?;
            (vectors, values.f_clamp_min(0.0)?)
        };
        Ok(ProbeCodes {
            mean,
            deviation,
            rows,
            vectors,
            values,
        })
    }

    /// Fits ridge regression to the rows' classes (numbers from 0 on): one output for each class is fitted to ±1, and the
    /// penalty is the one with the least error when each row is left out in turn. fp64.
    ///
    /// # Errors
    /// Another number of classes than rows.
    pub fn fit(&self, classes: &[i64]) -> Result<Probe<'_>> {
        let _guard = tch::no_grad_guard();
        if self.rows.size()[0] != classes.len() as i64 {
            let expected = format!("one class for each code, not {}", classes.len());
            return Err(misshapen(&expected, &self.rows));
        }
        let count = classes.iter().copied().max().unwrap_or(0) + 1;
        let targets = Tensor::from_slice(classes)
            .f_to_device(self.rows.device())?
            .f_one_hot(count)?
            .f_to_kind(Kind::Double)?
            .f_mul_scalar(2.0)?
            .f_sub_scalar(1.0)?;
        let offset = targets.f_mean_dim(0i64, true, Kind::Double)?;
        let y = targets.f_sub(&offset)?;
        let (u, squares) = (&self.vectors, self.vectors.f_square()?);
        let inside = u.f_transpose(0, 1)?.f_matmul(&y)?;
        let mut best: Option<(f64, Tensor)> = None;
        for penalty in PENALTIES {
            // (K + pI)⁻¹ = (I − U diag(λ/(λ+p)) Uᵀ)/p: what lies outside the eigenvectors is only divided by p.
            let share = self.values.f_div(&self.values.f_add_scalar(penalty)?)?;
            let fitted = u.f_matmul(&inside.f_mul(&share.f_unsqueeze(1)?)?)?;
            let weights = y.f_sub(&fitted)?.f_mul_scalar(1.0 / penalty)?;
            let diagonal = squares
                .f_matmul(&share.f_unsqueeze(1)?)?
                .f_mul_scalar(-1.0)?
                .f_add_scalar(1.0)?
                .f_mul_scalar(1.0 / penalty)?;
            // For each row, the error of the fit without that row, in closed form.
            let error = weights
                .f_div(&diagonal)?
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
        Ok(Probe {
            codes: self,
            directions: self.rows.f_transpose(0, 1)?.f_matmul(&weights)?,
            offset,
        })
    }
}

impl Probe<'_> {
    /// The classes of codes `[M,D]`.
    ///
    /// # Errors
    /// Codes of another length.
    pub fn read(&self, codes: &Tensor) -> Result<Vec<i64>> {
        let _guard = tch::no_grad_guard();
        let length = self.codes.rows.size()[1];
        if codes.dim() != 2 || codes.size()[1] != length {
            return Err(misshapen(&format!("codes [M,{length}]"), codes));
        }
        let z = codes
            .f_to_kind(Kind::Double)?
            .f_sub(&self.codes.mean)?
            .f_div(&self.codes.deviation)?;
        let found = z
            .f_matmul(&self.directions)?
            .f_add(&self.offset)?
            .f_argmax(1, false)?;
        Ok(Vec::<i64>::try_from(found.f_to_device(tch::Device::Cpu)?)?)
    }
}

fn misshapen(expected: &str, got: &Tensor) -> NetError {
    NetError::InputShape {
        what: "the linear probe".to_owned(),
        expected: expected.to_owned(),
        got: got.size(),
    }
}

/// Classes that a [`Probe`] on `codes` `[N,D]` with known classes reads from `others` `[M,D]`.
///
/// # Errors
/// Those of [`ProbeCodes::new`], [`ProbeCodes::fit`] and [`Probe::read`].
pub fn linear_probe(codes: &Tensor, classes: &[i64], others: &Tensor) -> Result<Vec<i64>> {
    ProbeCodes::new(codes)?.fit(classes)?.read(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;

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

    /// The least error with each row left out, by one inversion for each penalty; and what is read then.
    fn plainly(codes: &Tensor, classes: &[i64], others: &Tensor) -> Vec<i64> {
        let n = classes.len() as i64;
        let x = codes.to_kind(Kind::Double);
        let (mean, length) = (x.mean_dim(0i64, true, Kind::Double), x.size()[1] as f64);
        let deviation = (&x - &mean)
            .square()
            .mean_dim(0i64, true, Kind::Double)
            .sqrt();
        let unit = |x: &Tensor| (x.to_kind(Kind::Double) - &mean) / &deviation / length.sqrt();
        let (x, z) = (unit(&x), unit(others));
        let targets = Tensor::from_slice(classes).one_hot(3).to_kind(Kind::Double) * 2.0 - 1.0;
        let offset = targets.mean_dim(0i64, true, Kind::Double);
        let y = targets - &offset;
        let eye = Tensor::eye(n, (Kind::Double, x.device()));
        let mut best = (f64::INFINITY, Vec::new());
        for penalty in PENALTIES {
            let inverse = (x.matmul(&x.transpose(0, 1)) + &eye * penalty).inverse();
            let weights = inverse.matmul(&y);
            let missed = &weights / inverse.diagonal(0, 0, 1).unsqueeze(1);
            let error = missed.square().sum(Kind::Double).double_value(&[]);
            if error < best.0 {
                let found = z.matmul(&x.transpose(0, 1).matmul(&weights)) + &offset;
                best = (error, Vec::try_from(found.argmax(1, false)).unwrap());
            }
        }
        best.1
    }

    #[test]
    fn one_decomposition_reads_what_an_inversion_for_each_penalty_reads() {
        // Fewer rows than units, and more.
        for (n, apart) in [(30, 2.0), (30, 5.0), (60, 2.0), (60, 5.0)] {
            let ((x, classes), (z, _)) = (draw("train", n, apart), draw("test", 90, apart));
            let want = plainly(&x, &classes, &z);
            let codes = ProbeCodes::new(&x).unwrap();
            assert_eq!(
                codes.fit(&classes).unwrap().read(&z).unwrap(),
                want,
                "{n}, {apart}"
            );
            // The same codes serve other classes.
            let others: Vec<i64> = classes.iter().map(|c| (c + 1) % 3).collect();
            let want = plainly(&x, &others, &z);
            assert_eq!(
                codes.fit(&others).unwrap().read(&z).unwrap(),
                want,
                "{n}, {apart}"
            );
        }
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
