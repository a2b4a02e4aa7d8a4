//! The layers between bf16 convolutions: pooling, normalisation, fully connected.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_bf16_max_pool(
        x: *mut c_void,
        ceil: c_int,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_bf16_lrn(
        x: *mut c_void,
        alpha: f64,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_bf16_linear(
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
        slope: f64,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

fn raw(t: &Tensor) -> *mut c_void {
    t.as_ptr().cast::<c_void>().cast_mut()
}

/// What a shim call leaves in its `out` argument.
fn made(
    call: impl FnOnce(*mut *mut c_void, *mut c_char, usize) -> c_int,
) -> Result<Tensor, AtenError> {
    let mut out = std::ptr::null_mut();
    checked(|err, len| call(&mut out, err, len))?;
    // SAFETY: the call succeeded: a new `at::Tensor*` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Whether a last window that the map's edge cuts off counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWindow {
    /// It does, as in Caffe.
    Counts,
    /// It does not, as in torchvision.
    Dropped,
}

/// Maximum over windows of 3×3 at a stride of 2 of `x` `[N,C,H,W]` in bf16. Of equal values the
/// first takes the gradient, as in PyTorch; gradients of overlapping windows are summed in fp32.
///
/// # Errors
/// No code for it in this process ([`crate::bf16_code`]), another type, or a map below 3×3.
pub fn bf16_max_pool(x: &Tensor, last: LastWindow) -> Result<Tensor, AtenError> {
    let ceil = c_int::from(last == LastWindow::Counts);
    // SAFETY: a live `at::Tensor*` of the borrowed tensor; the shim catches exceptions.
    made(|out, err, len| unsafe { deepsim_bf16_max_pool(raw(x), ceil, out, err, len) })
}

/// x · (1 + α/5 · Σ x²)^-0.75 over windows of five channels of `x` `[N,C,H,W]` in bf16; everything
/// between reading and writing is fp32.
///
/// # Errors
/// No code for it in this process ([`crate::bf16_code`]), or another type.
pub fn bf16_lrn(x: &Tensor, alpha: f64) -> Result<Tensor, AtenError> {
    // SAFETY: a live `at::Tensor*` of the borrowed tensor; the shim catches exceptions.
    made(|out, err, len| unsafe { deepsim_bf16_lrn(raw(x), alpha, out, err, len) })
}

/// `x` `[N,in]` · `weight`ᵀ + `bias`, then max(v, 0) + `slope` · min(v, 0), for fp32 weights
/// `[out,in]`: operands rounded to bf16, sums in fp32, a bf16 result. No rounded copy of weights
/// that learn is ever stored. Gradients of weight and bias are fp32.
///
/// # Errors
/// No code for it in this process ([`crate::bf16_code`]), other types, or shapes that do not fit.
pub fn bf16_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    slope: f64,
) -> Result<Tensor, AtenError> {
    let bias = bias.map_or(std::ptr::null_mut(), raw);
    // SAFETY: live `at::Tensor*` of the borrowed tensors, or null for no bias; the shim catches
    // exceptions.
    made(|out, err, len| unsafe {
        deepsim_bf16_linear(raw(x), raw(weight), bias, slope, out, err, len)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn error(got: &Tensor, want: &Tensor) -> f64 {
        let difference = got.to_kind(Kind::Double) - want;
        (difference.norm() / (want.norm() + 1e-30)).double_value(&[])
    }

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16)
    }

    /// Value and gradients of `ours` on bf16 leaves against `twin` on the same values in fp64.
    fn agrees(
        what: &str,
        inputs: &[Tensor],
        bound: f64,
        ours: impl Fn(&[Tensor]) -> Tensor,
        twin: impl Fn(&[Tensor]) -> Tensor,
    ) {
        let leaves: Vec<Tensor> = inputs
            .iter()
            .map(|t| t.copy().set_requires_grad(true))
            .collect();
        let double: Vec<Tensor> = inputs
            .iter()
            .map(|t| t.to_kind(Kind::Double).set_requires_grad(true))
            .collect();
        let (got, want) = (ours(&leaves), twin(&double));
        assert_eq!(got.size(), want.size(), "{what}");
        assert!(error(&got, &want) < bound, "{what}: {}", error(&got, &want));
        let pull = random(&want.size());
        let back = Tensor::run_backward(&[(got * &pull).sum(Kind::Float)], &leaves, false, false);
        let wanted = Tensor::run_backward(
            &[(want * pull.to_kind(Kind::Double)).sum(Kind::Double)],
            &double,
            false,
            false,
        );
        for (i, (got, want)) in back.iter().zip(&wanted).enumerate() {
            let off = error(got, want);
            assert!(off < bound, "{what}, gradient {i}: {off}");
        }
    }

    /// Called by the one test that chooses codes.
    pub(crate) fn layers_agree_with_libtorch() {
        tch::manual_seed(5);
        for (size, last, ceil) in [
            ([2, 37, 9, 12], LastWindow::Counts, true),
            ([2, 96, 8, 8], LastWindow::Counts, true),
            ([1, 20, 8, 7], LastWindow::Dropped, false),
        ] {
            // Rectified maps have many equal zeros.
            agrees(
                "max pooling",
                &[random(&size).relu()],
                3e-3,
                |t| bf16_max_pool(&t[0], last).unwrap(),
                |t| t[0].max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], ceil),
            );
        }
        for channels in [3, 16, 37, 96] {
            agrees(
                "local response normalisation",
                &[random(&[2, channels, 5, 6]) * 100.0],
                3e-3,
                |t| bf16_lrn(&t[0], 1e-4).unwrap(),
                |t| {
                    let sum = t[0]
                        .square()
                        .unsqueeze(1)
                        .constant_pad_nd([0, 0, 0, 0, 2, 2])
                        .avg_pool3d([5, 1, 1], [1, 1, 1], [0, 0, 0], false, true, None)
                        .squeeze_dim(1);
                    &t[0] / (sum * 1e-4 + 1.0).pow_tensor_scalar(0.75)
                },
            );
        }
        for (batch, inputs, outputs, slope) in [
            (64, 96, 64, 0.3),
            (5, 37, 21, 1.0),
            (70, 130, 50, 0.0),
            (1, 33, 16, 0.3),
        ] {
            let x = random(&[batch, inputs]);
            let w = random(&[outputs, inputs]).to_kind(Kind::Float);
            let b = random(&[outputs]).to_kind(Kind::Float);
            agrees(
                &format!("linear {batch} {inputs} {outputs}"),
                &[x.shallow_clone(), w.shallow_clone(), b],
                3e-3,
                |t| bf16_linear(&t[0], &t[1], Some(&t[2]), slope).unwrap(),
                |t| {
                    let v = t[0].linear(&t[1], Some(&t[2]));
                    v.relu() - (-v).relu() * slope
                },
            );
            // Weights that do not learn are stored rounded.
            let frozen = bf16_linear(&x, &w, None, slope).unwrap();
            let learning = w.copy().set_requires_grad(true);
            assert_eq!(frozen, bf16_linear(&x, &learning, None, slope).unwrap());
        }
        crate::rows::tests::products_agree_with_libtorch();
        let x = random(&[1, 4, 8, 8]);
        assert!(bf16_max_pool(&x.narrow(2, 0, 2), LastWindow::Counts).is_err());
        assert!(bf16_lrn(&x.to_kind(Kind::Float), 1e-4).is_err());
        assert!(bf16_linear(&x, &random(&[3, 3]), None, 1.0).is_err());
    }
}
