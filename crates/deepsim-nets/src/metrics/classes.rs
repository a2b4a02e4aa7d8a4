//! What a classifier makes of images.

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// The `k` most likely classes of each row of `logits` `[N,classes]`, most likely first: indices
/// counted from 0, for networks trained on ILSVRC-2012 in the usual order (sorted WordNet ids).
///
/// # Errors
/// Logits of another shape, fewer than `k` classes, or values that are not numbers.
pub fn classify(logits: &Tensor, k: usize) -> Result<Vec<Vec<i64>>> {
    let classes = match *logits.size().as_slice() {
        [_, classes] if k >= 1 && i64::try_from(k).is_ok_and(|k| k <= classes) => classes,
        _ => {
            return Err(NetError::InputShape {
                what: format!("the choice of {k} classes"),
                expected: format!("logits [N,classes] of at least {} classes", k.max(1)),
                got: logits.size(),
            });
        }
    };
    let _guard = tch::no_grad_guard();
    let logits = logits.f_to_kind(Kind::Float)?;
    if logits.f_isnan()?.f_any()?.f_int64_value(&[])? != 0 {
        return Err(NetError::Spec(
            "logits that are not numbers name no class".into(),
        ));
    }
    let (_, indices) = logits.f_topk(i64::try_from(k).unwrap_or(classes), 1, true, true)?;
    let mut out = Vec::new();
    for row in 0..indices.size()[0] {
        out.push(Vec::<i64>::try_from(indices.f_get(row)?)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first() {
        let logits = Tensor::from_slice2(&[[0.1f32, 3.0, -1.0, 2.0], [9.0, 0.0, 1.0, 2.0]]);
        assert_eq!(classify(&logits, 2).unwrap(), [[1, 3], [0, 3]]);
        assert!(classify(&logits, 5).is_err());
        assert!(classify(&logits, 0).is_err());
        assert!(classify(&(&logits * f64::NAN), 1).is_err());
        assert!(classify(&logits.get(0), 1).is_err());
    }
}
