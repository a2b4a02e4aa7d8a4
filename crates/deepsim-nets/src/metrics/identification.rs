//! What brain decoding reports of reconstructions: correlations of pixels and of features, and two-way identification.
//!
//! Definitions as in the evaluation of MindEye2 (Scotti et al. 2024, arXiv 2403.11207).

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::images::check_images;

/// Values of a row that are in fp64 at a time: features of many images are large.
const COLUMNS: i64 = 1 << 14;
/// Red, green and blue of a grey picture, as scikit-image's `rgb2gray`.
const GREY: [f64; 3] = [0.2125, 0.7154, 0.0721];

/// RGB images `[N,3,H,W]` as squares of this side: bilinear, antialiased where they become smaller, as torchvision's
/// `Resize` does with tensors; fp32.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn bilinear_antialiased(rgb: &Tensor, side: i64) -> Result<Tensor> {
    check_images("resizing", rgb)?;
    let rgb = rgb.f_to_kind(Kind::Float)?;
    Ok(rgb.f_internal_upsample_bilinear2d_aa([side, side], false, None::<f64>, None::<f64>)?)
}

/// RGB images `[N,3,H,W]` as grey ones of three equal channels, in the same units; fp64.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn grey(rgb: &Tensor) -> Result<Tensor> {
    check_images("grey images", rgb)?;
    let weights = Tensor::f_from_slice(&GREY)?
        .f_to_device(rgb.device())?
        .f_view([1, 3, 1, 1])?;
    let grey = rgb
        .f_to_kind(Kind::Double)?
        .f_mul(&weights)?
        .f_sum_dim_intlist([1i64].as_slice(), true, Kind::Double)?;
    Ok(grey.f_expand([-1, 3, -1, -1], false)?.f_contiguous()?)
}

/// Pearson's correlation between the values of samples of the same index, `[N,…]` each; NaN where all values of one are
/// equal. In fp64.
///
/// # Errors
/// Tensors of different shapes, or without samples.
pub fn correlations(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    if a.size() != b.size() || a.dim() < 2 {
        return Err(NetError::InputShape {
            what: "the correlation of samples".to_owned(),
            expected: format!("two tensors [N,...]; the first has {:?}", a.size()),
            got: b.size(),
        });
    }
    let _guard = tch::no_grad_guard();
    let centred = |x: &Tensor| -> Result<Tensor> {
        let x = x.f_flatten(1, -1)?.f_to_kind(Kind::Double)?;
        Ok(x.f_sub(&x.f_mean_dim([1i64].as_slice(), true, Kind::Double)?)?)
    };
    let (a, b) = (centred(a)?, centred(b)?);
    let sum = |x: Tensor| x.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let norms = sum(a.f_square()?)?.f_mul(&sum(b.f_square()?)?)?.f_sqrt()?;
    let found = sum(a.f_mul(&b)?)?.f_div(&norms)?;
    Ok(Vec::<f64>::try_from(found.f_to_device(Device::Cpu)?)?)
}

/// Two-way identification of `made` `[N,D]` among `real` `[N,D]` (rows of the same index belong together): for each made
/// one the share of the other real ones that correlate less with it than its own does, and the mean of the shares. Equal
/// correlations count as failures. Chance is 0.5. NaN for fewer than two rows, or where all values of a row are equal.
///
/// # Errors
/// Rows of different shapes.
pub fn two_way_identification(real: &Tensor, made: &Tensor) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let n = real.size().first().copied().unwrap_or_default();
    let all = cross_correlations(real, made)?;
    let finite = all.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0;
    if n < 2 || !finite {
        return Ok(f64::NAN);
    }
    // Rows are real, columns are made; a column is compared with its place on the diagonal.
    let own = all.f_diagonal(0, 0, 1)?.f_unsqueeze(0)?;
    let less = all.f_lt_tensor(&own)?.f_sum(Kind::Int64)?;
    let less = less.f_int64_value(&[])? as f64;
    Ok(less / (n * (n - 1)) as f64)
}

/// Pearson's correlation of each row of `real` (rows of the result) with each of `made`, `[N,N]`, fp64.
fn cross_correlations(real: &Tensor, made: &Tensor) -> Result<Tensor> {
    let size = real.size();
    let (&[n, length], true) = (size.as_slice(), size == made.size()) else {
        return Err(NetError::InputShape {
            what: "two-way identification".to_owned(),
            expected: format!("two tensors [N,D]; the first has {:?}", real.size()),
            got: made.size(),
        });
    };
    let part = |x: &Tensor, from: i64| -> Result<Tensor> {
        let columns = COLUMNS.min(length - from);
        Ok(x.f_narrow(1, from, columns)?.f_to_kind(Kind::Double)?)
    };
    let sum = |x: &Tensor| x.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
    let zeros = |width: i64| Tensor::f_zeros([n, width], (Kind::Double, real.device()));
    let starts = || (0..length).step_by(COLUMNS as usize);
    let mut means = [zeros(1)?, zeros(1)?];
    for from in starts() {
        for (mean, x) in means.iter_mut().zip([real, made]) {
            *mean = mean.f_add(&sum(&part(x, from)?)?)?;
        }
    }
    for mean in &mut means {
        *mean = mean.f_div_scalar(length as f64)?;
    }
    let (mut products, mut squares) = (zeros(n)?, [zeros(1)?, zeros(1)?]);
    for from in starts() {
        let x = part(real, from)?.f_sub(&means[0])?;
        let y = part(made, from)?.f_sub(&means[1])?;
        products = products.f_add(&x.f_matmul(&y.f_transpose(0, 1)?)?)?;
        for (square, x) in squares.iter_mut().zip([x, y]) {
            *square = square.f_add(&sum(&x.f_square()?)?)?;
        }
    }
    let [real, made] = squares;
    let norms = real.f_sqrt()?.f_mul(&made.f_sqrt()?.f_transpose(0, 1)?)?;
    Ok(products.f_div(&norms)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[[f32; 3]]) -> Tensor {
        Tensor::from_slice(values.as_flattened()).view([-1, 3])
    }

    #[test]
    fn equal_rows_are_identified_and_ties_are_failures() {
        // Whole means: the arithmetic is exact.
        let real = rows(&[[1.0, 2.0, 6.0], [3.0, 1.0, 2.0], [0.0, 5.0, 1.0]]);
        assert_eq!(two_way_identification(&real, &real).unwrap(), 1.0);
        // All made alike: each correlates most with one real row, and no other beats its own twice.
        let alike = rows(&[[1.0, 2.0, 6.0]; 3]);
        assert_eq!(two_way_identification(&real, &alike).unwrap(), 0.5);
        // All real alike: every comparison is a tie.
        assert_eq!(two_way_identification(&alike, &real).unwrap(), 0.0);
        let flat = rows(&[[1.0; 3], [3.0, 1.0, 0.0], [0.0, 5.0, 1.0]]);
        assert!(two_way_identification(&real, &flat).unwrap().is_nan());
        let one = real.narrow(0, 0, 1);
        assert!(two_way_identification(&one, &one).unwrap().is_nan());
        assert!(two_way_identification(&real, &one).is_err());
    }

    #[test]
    fn correlations_know_no_scale_and_no_offset() {
        let a = rows(&[[1.0, 2.0, 4.0], [3.0, 1.0, 0.0]]);
        let found = correlations(&a, &(&a * -2.0 + 7.0)).unwrap();
        assert!(found.iter().all(|r| (r + 1.0).abs() < 1e-12), "{found:?}");
        assert!(correlations(&a, &a.narrow(1, 0, 2)).is_err());
        let flat = correlations(&a, &a.zeros_like()).unwrap();
        assert!(flat.iter().all(|r| r.is_nan()));
    }
}
