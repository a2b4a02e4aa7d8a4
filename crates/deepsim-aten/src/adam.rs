//! libtorch's fused kernels of Adam and AdamW.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_fused_adam(
        params: *const *mut c_void,
        grads: *const *mut c_void,
        exp_avgs: *const *mut c_void,
        exp_avg_sqs: *const *mut c_void,
        steps: *const *mut c_void,
        n: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        decoupled: c_int,
        err: *mut c_char,
        err_len: usize,
    ) -> c_int;
}

/// Hyper-parameters of one Adam step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamParameters {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of the weights.
    pub weight_decay: f64,
    /// Whether the decay is apart from the gradient, as AdamW's: the weight first loses `lr · weight_decay` of itself.
    /// Otherwise it is L2 decay, added to the gradient.
    pub decoupled: bool,
}

/// One Adam step in place: `params`, the moments `m` and `v` change.
///
/// `steps` are scalar f32 tensors that the caller has already advanced by one: the kernel
/// divides by `1 - beta^step`, and a zero step gives NaN.
///
/// # Errors
/// Lists of different lengths, or whatever libtorch refuses (shapes, devices, types).
pub fn fused_adam(
    params: &[Tensor],
    grads: &[Tensor],
    m: &[Tensor],
    v: &[Tensor],
    steps: &[Tensor],
    with: AdamParameters,
) -> Result<(), AtenError> {
    for (what, len) in [
        ("grads", grads.len()),
        ("m", m.len()),
        ("v", v.len()),
        ("steps", steps.len()),
    ] {
        if len != params.len() {
            return Err(AtenError::Lengths {
                params: params.len(),
                what,
                len,
            });
        }
    }
    // The kernel walks raw memory. A gradient stored in another order than its weight would update
    // the wrong elements without an error, and backward passes do return channels-last gradients.
    let mut ordered = Vec::with_capacity(grads.len());
    for (p, g) in params.iter().zip(grads) {
        let same = p.size() != g.size() || p.stride() == g.stride();
        ordered.push(if same { g.shallow_clone() } else { like(p, g)? });
    }
    let grads = ordered.as_slice();
    let pointers = |list: &[Tensor]| -> Vec<*mut c_void> {
        list.iter()
            .map(|t| t.as_ptr().cast::<c_void>().cast_mut())
            .collect()
    };
    let (p, g, m, v, s) = (
        pointers(params),
        pointers(grads),
        pointers(m),
        pointers(v),
        pointers(steps),
    );
    // SAFETY: every pointer is a live `at::Tensor*` owned by the borrowed slices for the whole
    // call, all arrays have `n` entries (checked above), and the shim catches exceptions.
    checked(|err, len| unsafe {
        deepsim_fused_adam(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            s.as_ptr(),
            p.len(),
            with.lr,
            with.beta1,
            with.beta2,
            with.weight_decay,
            with.eps,
            c_int::from(with.decoupled),
            err,
            len,
        )
    })
}

fn like(p: &Tensor, g: &Tensor) -> Result<Tensor, AtenError> {
    let torch = |e: tch::TchError| AtenError::Torch(e.to_string());
    let _guard = tch::no_grad_guard();
    let mut out = p.f_empty_like().map_err(torch)?;
    out.f_copy_(g).map_err(torch)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn plain_step(
        p: &Tensor,
        g: &Tensor,
        m: &Tensor,
        v: &Tensor,
        t: i32,
        w: AdamParameters,
    ) -> [Tensor; 3] {
        let (p, g) = if w.decoupled {
            (p * (1.0 - w.lr * w.weight_decay), g.shallow_clone())
        } else {
            (p.shallow_clone(), g + p * w.weight_decay)
        };
        let m = m * w.beta1 + &g * (1.0 - w.beta1);
        let v = v * w.beta2 + &g * &g * (1.0 - w.beta2);
        let m_hat = &m / (1.0 - w.beta1.powi(t));
        let v_hat = &v / (1.0 - w.beta2.powi(t));
        [p - m_hat * w.lr / (v_hat.sqrt() + w.eps), m, v]
    }

    #[test]
    fn equals_the_textbook_formula_over_twenty_steps() {
        let adam = AdamParameters {
            lr: 2e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 4e-4,
            decoupled: false,
        };
        equals_the_textbook(adam);
        // Twenty steps take a thousandth of the weights: far more than rounding does.
        equals_the_textbook(AdamParameters {
            weight_decay: 0.5,
            decoupled: true,
            ..adam
        });
    }

    fn equals_the_textbook(w: AdamParameters) {
        tch::manual_seed(3);
        let options = (Kind::Float, tch::Device::Cpu);
        let params = [Tensor::randn([5, 7], options), Tensor::randn([11], options)];
        let zeros = || params.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
        let (m, v) = (zeros(), zeros());
        let steps: Vec<_> = params.iter().map(|_| Tensor::zeros([], options)).collect();
        let mut expected: Vec<[Tensor; 3]> = params
            .iter()
            .map(|p| [p.copy(), p.zeros_like(), p.zeros_like()])
            .collect();
        for t in 1..=20 {
            let grads: Vec<_> = params.iter().map(Tensor::randn_like).collect();
            for s in &steps {
                let _ = s.shallow_clone().g_add_scalar_(1.0);
            }
            fused_adam(&params, &grads, &m, &v, &steps, w).unwrap();
            for (e, g) in expected.iter_mut().zip(&grads) {
                *e = plain_step(&e[0], g, &e[1], &e[2], t, w);
            }
        }
        for (p, e) in params.iter().zip(&expected) {
            let error = (p - &e[0]).abs().max().double_value(&[]);
            assert!(error < 1e-6, "largest difference {error}");
        }
    }

    #[test]
    fn a_gradient_stored_in_another_order_updates_its_own_elements() {
        let w = AdamParameters {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        };
        let options = (Kind::Float, tch::Device::Cpu);
        let signs = Tensor::from_slice(&[1f32, -1.0, 1.0, 1.0, -1.0, 1.0]).view([2, 3]);
        let stored_by_columns = signs.transpose(0, 1).contiguous().transpose(0, 1);
        assert_ne!(signs.stride(), stored_by_columns.stride());
        let zeros = || [Tensor::zeros([2, 3], options)];
        let (params, m, v) = (zeros(), zeros(), zeros());
        let step = [Tensor::ones([], options)];
        fused_adam(&params, &[stored_by_columns], &m, &v, &step, w).unwrap();
        let error = (&params[0] + signs * 0.1).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{}", params[0]);
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let w = AdamParameters {
            lr: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        };
        let t = [Tensor::zeros([1], (Kind::Float, tch::Device::Cpu))];
        assert!(matches!(
            fused_adam(&t, &[], &t, &t, &t, w),
            Err(AtenError::Lengths { .. })
        ));
        let wrong = [Tensor::zeros([3], (Kind::Float, tch::Device::Cpu))];
        assert!(matches!(
            fused_adam(&t, &wrong, &t, &t, &wrong, w),
            Err(AtenError::Torch(_))
        ));
    }
}
