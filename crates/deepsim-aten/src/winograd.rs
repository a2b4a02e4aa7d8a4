//! Convolutions by Winograd's algorithm.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_winograd(
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
        form: c_int,
        padding: i64,
        groups: i64,
        slope: f64,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_winograd_pays(
        x: *mut c_void,
        weight: *mut c_void,
        form: c_int,
        padding: i64,
        groups: i64,
        direct: f64,
        pays: *mut c_int,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

/// Convolutions that Winograd's algorithm is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Stride 1, kernel 2×2, 3×3 or 5×5, weight `[out,in/groups,k,k]`.
    Convolution {
        /// Zeros on each side.
        padding: i64,
        /// Groups of channels.
        groups: i64,
    },
    /// Transposed, 3×3, stride 1, padding 1; weight `[in,out,3,3]`: keeps the size.
    Keep,
    /// Transposed, 4×4, stride 2, padding 1; weight `[in,out,4,4]`: doubles the size.
    Double,
}

impl Form {
    fn numbers(self) -> (c_int, i64, i64) {
        match self {
            Form::Convolution { padding, groups } => (0, padding, groups),
            Form::Keep => (1, 1, 1),
            Form::Double => (2, 1, 1),
        }
    }
}

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(true) };
}

/// Allows or forbids Winograd's algorithm in this thread; allowed at first. Forbidden,
/// [`winograd_pays`] says no to everything.
pub fn allow_winograd(on: bool) {
    ALLOWED.set(on);
}

/// Runs `body` in this thread without Winograd's algorithm: what it computes in fp32 or fp64 outside autocast can be
/// differentiated twice.
pub fn without_winograd<T>(body: impl FnOnce() -> T) -> T {
    /// What was allowed before is again, also when `body` panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            ALLOWED.set(self.0);
        }
    }
    let _before = Before(ALLOWED.replace(false));
    body()
}

fn raw(t: &Tensor) -> *mut c_void {
    t.as_ptr().cast::<c_void>().cast_mut()
}

/// Whether [`winograd`] is expected to beat libtorch's convolution of `x` `[N,C,H,W]` here: on
/// the CPU, in fp32 outside autocast, with enough work for each transformed value. Weights that do not learn are
/// transformed once. `direct` is how much longer another direct convolution takes, whose place this one is to take.
///
/// # Errors
/// What libtorch refuses.
pub fn winograd_pays(
    x: &Tensor,
    weight: &Tensor,
    form: Form,
    direct: f64,
) -> Result<bool, AtenError> {
    if !ALLOWED.get() {
        return Ok(false);
    }
    let (form, padding, groups) = form.numbers();
    let mut pays = 0;
    // SAFETY: live `at::Tensor*` of the borrowed tensors; the shim catches exceptions.
    checked(|err, len| unsafe {
        deepsim_winograd_pays(
            raw(x),
            raw(weight),
            form,
            padding,
            groups,
            direct,
            &mut pays,
            err,
            len,
        )
    })?;
    Ok(pays != 0)
}

/// v = convolution of `x` `[N,C,H,W]` + `bias`, then max(v, 0) + `slope` · min(v, 0): slope 1
/// leaves v alone, slope 0 is a ReLU. The result is stored channels-last.
///
/// The same sums as a direct convolution in another order (F. Winograd's minimal filtering,
/// Lavin & Gray 2015), with 1.8 to 4 times fewer multiplications: 4×4 outputs at once for 2×2
/// and 3×3 kernels, 2×2 for 5×5, at the points 0, ±1, ½, −2, ∞. Rounding is about four times
/// that of the direct sum (2e-6 relative). Gradients for `x`, `weight` and `bias`, once
/// differentiable.
///
/// # Errors
/// Tensors that there is no code for (not fp32 on the CPU, another kernel) or shapes that do
/// not fit.
pub fn winograd(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    form: Form,
    slope: f64,
) -> Result<Tensor, AtenError> {
    let (form, padding, groups) = form.numbers();
    let bias = bias.map_or(std::ptr::null_mut(), raw);
    let mut out = std::ptr::null_mut();
    // SAFETY: live `at::Tensor*` of the borrowed tensors, or null for no bias; the shim catches
    // exceptions and writes `out` only when it succeeds.
    checked(|err, len| unsafe {
        deepsim_winograd(
            raw(x),
            raw(weight),
            bias,
            form,
            padding,
            groups,
            slope,
            &mut out,
            err,
            len,
        )
    })?;
    // SAFETY: a new `at::Tensor` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// The reference: libtorch's convolution in fp64. It is rectified where `got` is rectified, because
    /// rounding may put a value near zero on either side of zero.
    fn direct(x: &Tensor, w: &Tensor, b: &Tensor, form: Form, slope: f64, got: &Tensor) -> Tensor {
        let v = match form {
            Form::Convolution { padding, groups } => {
                x.conv2d(w, Some(b), [1, 1], [padding, padding], [1, 1], groups)
            }
            Form::Keep => x.conv_transpose2d(w, Some(b), [1, 1], [1, 1], [0, 0], 1, [1, 1]),
            Form::Double => x.conv_transpose2d(w, Some(b), [2, 2], [1, 1], [0, 0], 1, [1, 1]),
        };
        v * (got.detach().gt(0.0).to_kind(Kind::Double) * (1.0 - slope) + slope)
    }

    fn error(got: &Tensor, want: &Tensor) -> f64 {
        let difference = got.to_kind(Kind::Double) - want;
        (difference.norm() / want.norm()).double_value(&[])
    }

    fn agrees(x: [i64; 4], w: [i64; 4], form: Form, slope: f64) {
        tch::manual_seed(7);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let outputs = if matches!(form, Form::Convolution { .. }) {
            w[0]
        } else {
            w[1]
        };
        let inputs = [random(&x), random(&w) * 0.1, random(&[outputs])];
        let single = inputs.each_ref().map(|t| t.copy().set_requires_grad(true));
        let double = inputs
            .each_ref()
            .map(|t| t.to_kind(Kind::Double).set_requires_grad(true));
        let got = winograd(&single[0], &single[1], Some(&single[2]), form, slope).unwrap();
        let want = direct(&double[0], &double[1], &double[2], form, slope, &got);
        assert_eq!(got.size(), want.size());
        assert!(
            error(&got, &want) < 5e-6,
            "{x:?} {w:?} {}",
            error(&got, &want)
        );
        let pull = random(&want.size());
        let back = Tensor::run_backward(&[(got * &pull).sum(Kind::Float)], &single, false, false);
        let wanted = Tensor::run_backward(
            &[(want * pull.to_kind(Kind::Double)).sum(Kind::Double)],
            &double,
            false,
            false,
        );
        for (name, (got, want)) in ["x", "weight", "bias"].iter().zip(back.iter().zip(&wanted)) {
            let error = error(got, want);
            assert!(error < 1e-5, "gradient of {name}, {x:?} {w:?}: {error}");
        }
    }

    fn plain(padding: i64, groups: i64) -> Form {
        Form::Convolution { padding, groups }
    }

    #[test]
    fn values_and_gradients_are_those_of_the_direct_convolution() {
        agrees([2, 32, 13, 13], [48, 16, 3, 3], plain(1, 2), 0.0);
        agrees([2, 48, 13, 14], [24, 48, 2, 2], plain(0, 1), 0.3);
        agrees([2, 20, 9, 11], [37, 20, 3, 3], plain(0, 1), 1.0); // lanes and tiles left over
        agrees([2, 16, 6, 6], [16, 16, 3, 3], plain(1, 1), 0.3); // tiles of 3
        agrees([2, 48, 27, 27], [32, 24, 5, 5], plain(2, 2), 0.3);
        agrees([3, 32, 20, 17], [64, 32, 5, 5], plain(0, 1), 0.0);
        agrees([2, 32, 8, 8], [32, 48, 3, 3], Form::Keep, 0.3);
        agrees([2, 32, 8, 8], [32, 48, 4, 4], Form::Double, 0.3);
        agrees([1, 30, 5, 7], [30, 7, 4, 4], Form::Double, 1.0);
        agrees([70, 64, 4, 4], [64, 16, 4, 4], Form::Double, 0.3); // several chunks
    }

    #[test]
    fn it_is_forbidden_while_a_body_runs_and_allowed_again() {
        let x = Tensor::zeros([8, 64, 32, 32], (Kind::Float, Device::Cpu));
        let w = Tensor::zeros([64, 64, 3, 3], (Kind::Float, Device::Cpu));
        let pays = || winograd_pays(&x, &w, plain(1, 1), 1.0).unwrap();
        let before = pays();
        assert!(!without_winograd(pays));
        let panic = std::panic::catch_unwind(|| without_winograd(|| panic!("ill")));
        assert!(panic.is_err());
        assert_eq!(pays(), before);
        allow_winograd(false);
        without_winograd(|| ());
        let after = pays();
        allow_winograd(true);
        assert!(!after);
    }

    #[test]
    fn only_what_is_asked_for_is_differentiated() {
        let x = Tensor::randn([2, 16, 8, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let w = Tensor::randn([16, 16, 3, 3], (Kind::Float, Device::Cpu));
        let y = winograd(&x, &w, None, plain(1, 1), 0.0).unwrap();
        let grads = Tensor::run_backward(&[y.sum(Kind::Float)], &[&x], false, false);
        assert_eq!(grads[0].size(), x.size());
    }

    #[test]
    fn what_there_is_no_code_for_is_refused() {
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let x = zeros(&[1, 16, 8, 8], Kind::Float);
        let w = zeros(&[16, 16, 3, 3], Kind::Float);
        let refused = |x: &Tensor, w: &Tensor, b: Option<&Tensor>, form| {
            winograd(x, w, b, form, 1.0).unwrap_err().to_string()
        };
        refused(&x.to_kind(Kind::Double), &w, None, plain(1, 1));
        refused(&x, &zeros(&[16, 16, 7, 7], Kind::Float), None, plain(1, 1));
        refused(&x, &zeros(&[16, 8, 3, 3], Kind::Float), None, plain(1, 1));
        refused(&x, &w, Some(&zeros(&[3], Kind::Float)), plain(1, 1));
        refused(&x, &w, None, plain(-1, 1));
        refused(&x, &w, None, plain(1, 0));
        refused(&zeros(&[1, 16, 2, 2], Kind::Float), &w, None, plain(0, 1));
        refused(&x, &w, None, Form::Double);
    }
}
