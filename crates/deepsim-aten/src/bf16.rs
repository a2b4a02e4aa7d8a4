//! Convolutions in bf16 by our own kernels: for the processor's matrix unit (AMX), or for AVX-512's
//! bf16 instruction.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_bf16_convolution(
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
        numbers: *const i64,
        slope: f64,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_bf16_wanted(
        x: *mut c_void,
        wanted: *mut c_int,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_bf16_code() -> c_int;
    fn deepsim_bf16_fast() -> c_int;
    fn deepsim_bf16_choose(code: c_int);
}

/// Which code computes [`bf16_convolution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bf16Code {
    /// There is none here.
    None,
    /// The processor's matrix unit.
    Amx,
    /// The same arithmetic in plain C++: slow, so that tests can run anywhere.
    Plain,
    /// AVX-512's bf16 instruction.
    Avx512,
}

impl Bf16Code {
    /// The codes for tests to run, the plain one first: those of processors run where `best`, the
    /// code of a process that chose none ([`bf16_code`]), says that this one has what they need.
    pub fn up_to(best: Bf16Code) -> Vec<Bf16Code> {
        match best {
            Bf16Code::None | Bf16Code::Plain => vec![Bf16Code::Plain],
            Bf16Code::Avx512 => vec![Bf16Code::Plain, Bf16Code::Avx512],
            Bf16Code::Amx => vec![Bf16Code::Plain, Bf16Code::Avx512, Bf16Code::Amx],
        }
    }
}

/// Which code computes [`bf16_convolution`] in this process: [`Bf16Code::Amx`] where compiler,
/// processor and system have it, else [`Bf16Code::Avx512`] where they have that, unless [`crate::CAPABILITY_VARIABLE`] or [`choose_bf16_code`] chose
/// another.
pub fn bf16_code() -> Bf16Code {
    // SAFETY: reads an atomic number; asks the processor what it can do.
    match unsafe { deepsim_bf16_code() } {
        1 => Bf16Code::Amx,
        2 => Bf16Code::Plain,
        3 => Bf16Code::Avx512,
        _ => Bf16Code::None,
    }
}

/// Whether [`bf16_code`] computes convolutions faster than fp32 does on this processor. AMX always
/// does; AVX-512's instruction only where the processor carries it out as often as an fp32 one.
pub fn bf16_is_fast() -> bool {
    // SAFETY: reads an atomic number; asks the processor who made it.
    unsafe { deepsim_bf16_fast() != 0 }
}

/// Chooses the code for this process, for tests and comparisons. [`Bf16Code::Amx`] or
/// [`Bf16Code::Avx512`] where there is none, or where [`crate::CAPABILITY_VARIABLE`] forbids it, makes
/// [`bf16_convolution`] fail.
pub fn choose_bf16_code(code: Bf16Code) {
    let number = match code {
        Bf16Code::None => 0,
        Bf16Code::Amx => 1,
        Bf16Code::Plain => 2,
        Bf16Code::Avx512 => 3,
    };
    // SAFETY: writes an atomic number.
    unsafe { deepsim_bf16_choose(number) }
}

/// Whether [`bf16_convolution`] should convolve `x`: on the CPU, inside a bf16 autocast region, by
/// code that is there.
///
/// # Errors
/// What libtorch refuses.
pub fn bf16_wanted(x: &Tensor) -> Result<bool, AtenError> {
    let mut wanted = 0;
    // SAFETY: a live `at::Tensor*` of the borrowed tensor; the shim catches exceptions.
    checked(|err, len| unsafe { deepsim_bf16_wanted(raw(x), &mut wanted, err, len) })?;
    Ok(wanted != 0)
}

/// Whether a convolution or its transpose is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Weight `[out,in/groups,k,k]`.
    Down {
        /// Groups of channels.
        groups: i64,
    },
    /// A transposed convolution; weight `[in,out,k,k]`.
    Up,
}

/// What comes out of [`bf16_convolution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// bf16, the whole map.
    Bf16,
    /// fp32, only the window `[top, top + height) × [left, left + width)`.
    Fp32Window {
        /// First row.
        top: i64,
        /// First column.
        left: i64,
        /// Rows.
        height: i64,
        /// Columns.
        width: i64,
    },
}

/// Geometry of a [`bf16_convolution`], and what follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bf16Convolution {
    /// Convolution or transposed convolution.
    pub direction: Direction,
    /// Stride, both ways.
    pub stride: i64,
    /// Padding on each side.
    pub padding: i64,
    /// v → max(v, 0) + slope · min(v, 0), 0 ≤ slope ≤ 1: 1 leaves v alone, 0 is a ReLU.
    pub slope: f64,
    /// Type and extent of the result.
    pub output: Output,
}

fn raw(t: &Tensor) -> *mut c_void {
    t.as_ptr().cast::<c_void>().cast_mut()
}

/// Convolution of `x` `[N,C,H,W]` (fp32 or bf16) with `weight` (fp32) and `bias`, and the
/// rectifier behind it: operands rounded to bf16, sums in fp32, the result rounded once. Stored
/// channels-last. Gradients of maps are bf16 (fp32 for an fp32 `x`), those of weights and bias fp32.
///
/// The rounded weights are kept for as long as the weight's version does not change: a frozen
/// network's are rounded once.
///
/// # Errors
/// No code for it in this process ([`bf16_code`]), tensors of other types or shapes that do not fit.
pub fn bf16_convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    with: Bf16Convolution,
) -> Result<Tensor, AtenError> {
    let (transposed, groups) = match with.direction {
        Direction::Down { groups } => (0, groups),
        Direction::Up => (1, 1),
    };
    let (fp32, top, left, height, width) = match with.output {
        Output::Bf16 => (0, 0, 0, 0, 0),
        Output::Fp32Window {
            top,
            left,
            height,
            width,
        } => (1, top, left, height, width),
    };
    let numbers = [
        transposed,
        with.stride,
        with.padding,
        groups,
        fp32,
        top,
        left,
        height,
        width,
    ];
    let bias = bias.map_or(std::ptr::null_mut(), raw);
    let mut out = std::ptr::null_mut();
    // SAFETY: live `at::Tensor*` of the borrowed tensors, nine numbers as the shim reads them; the
    // shim catches exceptions.
    checked(|err, len| unsafe {
        deepsim_bf16_convolution(
            raw(x),
            raw(weight),
            bias,
            numbers.as_ptr(),
            with.slope,
            &mut out,
            err,
            len,
        )
    })?;
    // SAFETY: a new `at::Tensor*` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn error(got: &Tensor, want: &Tensor) -> f64 {
        let difference = got.to_kind(Kind::Double) - want;
        (difference.norm() / (want.norm() + 1e-30)).double_value(&[])
    }

    /// Values that bf16 represents exactly, so that the only error is that of the kernels.
    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
            .to_kind(Kind::BFloat16)
            .to_kind(Kind::Float)
    }

    fn down(stride: i64, padding: i64, groups: i64, slope: f64) -> Bf16Convolution {
        Bf16Convolution {
            direction: Direction::Down { groups },
            stride,
            padding,
            slope,
            output: Output::Bf16,
        }
    }

    fn up(stride: i64, padding: i64, slope: f64) -> Bf16Convolution {
        Bf16Convolution {
            direction: Direction::Up,
            ..down(stride, padding, 1, slope)
        }
    }

    fn windowed(
        with: Bf16Convolution,
        top: i64,
        left: i64,
        height: i64,
        width: i64,
    ) -> Bf16Convolution {
        let output = Output::Fp32Window {
            top,
            left,
            height,
            width,
        };
        Bf16Convolution { output, ..with }
    }

    /// The reference: libtorch's convolution in fp64. It is rectified where `got` is rectified, because
    /// rounding may put a value near zero on either side of zero.
    fn direct(x: &Tensor, w: &Tensor, b: &Tensor, with: Bf16Convolution, got: &Tensor) -> Tensor {
        let (s, p) = ([with.stride; 2], [with.padding; 2]);
        let v = match with.direction {
            Direction::Down { groups } => x.conv2d(w, Some(b), s, p, [1, 1], groups),
            Direction::Up => x.conv_transpose2d(w, Some(b), s, p, [0, 0], 1, [1, 1]),
        };
        let v = match with.output {
            Output::Bf16 => v,
            Output::Fp32Window {
                top,
                left,
                height,
                width,
            } => v.narrow(2, top, height).narrow(3, left, width),
        };
        v * (got.detach().gt(0.0).to_kind(Kind::Double) * (1.0 - with.slope) + with.slope)
    }

    fn agrees(x: [i64; 4], w: [i64; 4], with: Bf16Convolution) {
        tch::manual_seed(7);
        let outputs = match with.direction {
            Direction::Down { .. } => w[0],
            Direction::Up => w[1],
        };
        let inputs = [random(&x), random(&w) * 0.125, random(&[outputs])];
        let single = inputs.each_ref().map(|t| t.copy().set_requires_grad(true));
        let double = inputs
            .each_ref()
            .map(|t| t.to_kind(Kind::Double).set_requires_grad(true));
        let got = bf16_convolution(&single[0], &single[1], Some(&single[2]), with).unwrap();
        let want = direct(&double[0], &double[1], &double[2], with, &got);
        assert_eq!(got.size(), want.size());
        // One rounding to bf16 at the end is 2^-9 at most.
        let values = match with.output {
            Output::Bf16 => 2e-3,
            Output::Fp32Window { .. } => 1e-6,
        };
        let off = error(&got, &want);
        assert!(off < values, "{x:?} {w:?} {with:?}: {off}");
        let pull = random(&want.size());
        let back = Tensor::run_backward(&[(got * &pull).sum(Kind::Float)], &single, false, false);
        let wanted = Tensor::run_backward(
            &[(want * pull.to_kind(Kind::Double)).sum(Kind::Double)],
            &double,
            false,
            false,
        );
        // A slope times a gradient is rounded to bf16; a chosen or dropped gradient is not.
        let gradients = if [0.0, 1.0].contains(&with.slope) {
            2e-6
        } else {
            2e-3
        };
        for (name, (got, want)) in ["x", "weight", "bias"].iter().zip(back.iter().zip(&wanted)) {
            let off = error(got, want);
            assert!(
                off < gradients,
                "gradient of {name}, {x:?} {w:?} {with:?}: {off}"
            );
        }
    }

    fn every_geometry() {
        agrees([2, 32, 9, 9], [48, 32, 3, 3], down(1, 1, 1, 0.0));
        agrees([2, 37, 8, 11], [21, 37, 3, 3], down(1, 0, 1, 0.3)); // nothing is a multiple
        agrees([3, 96, 7, 7], [64, 48, 5, 5], down(1, 2, 2, 0.0)); // groups of 48
        agrees([2, 64, 9, 10], [32, 64, 3, 3], down(2, 0, 1, 0.0));
        agrees([2, 64, 9, 10], [32, 64, 3, 3], down(2, 1, 1, 1.0));
        agrees([2, 24, 9, 9], [40, 24, 2, 2], down(3, 0, 1, 1.0)); // phases without taps
        agrees([2, 3, 35, 31], [32, 3, 11, 11], down(4, 0, 1, 0.0)); // images: merged phases
        agrees([2, 3, 35, 30], [20, 3, 11, 11], down(4, 2, 1, 0.0));
        agrees([2, 3, 23, 23], [32, 3, 7, 7], down(4, 0, 1, 0.0));
        agrees([2, 3, 9, 9], [16, 3, 3, 3], down(1, 1, 1, 0.0));
        agrees([2, 16, 1, 1], [16, 16, 1, 1], down(1, 0, 1, 1.0));
        // Merged phases whose last pixel ends at or near the end of the row of sums. No load may
        // read beyond it (`cargo xtask asan` checks that).
        for (channels, stride) in [(1, 8), (4, 4), (6, 3), (7, 3), (15, 2)] {
            let kernel = stride + 1;
            let x = [2, channels, 3 * stride + 1, 3 * stride + 2];
            agrees(x, [16, channels, kernel, kernel], down(stride, 1, 1, 0.0));
            agrees(
                [2, 16, 3, 3],
                [16, channels, kernel, kernel],
                up(stride, 1, 0.5),
            );
        }
        agrees([2, 32, 8, 8], [32, 48, 3, 3], up(1, 1, 0.3));
        agrees([5, 32, 4, 4], [32, 48, 4, 4], up(2, 1, 0.3));
        agrees([2, 30, 5, 7], [30, 70, 4, 4], up(2, 1, 1.0));
        agrees([2, 32, 6, 6], [32, 3, 4, 4], up(2, 1, 1.0)); // images come out
        agrees(
            [2, 32, 6, 6],
            [32, 3, 4, 4],
            windowed(up(2, 1, 1.0), 1, 2, 9, 8),
        );
        agrees(
            [2, 32, 6, 6],
            [32, 17, 4, 4],
            windowed(up(2, 1, 0.0), 3, 1, 8, 10),
        );
        agrees(
            [2, 32, 9, 9],
            [48, 32, 3, 3],
            windowed(down(1, 1, 1, 0.0), 1, 0, 5, 9),
        );
    }

    fn larger_than_the_caches() {
        agrees([40, 256, 6, 6], [512, 256, 3, 3], down(1, 1, 1, 0.0));
        agrees([9, 48, 40, 40], [48, 32, 4, 4], up(2, 1, 0.0));
    }

    fn packed_weights_follow_their_tensor() {
        let x = random(&[1, 16, 5, 5]);
        let w = random(&[16, 16, 3, 3]).set_requires_grad(true);
        let with = windowed(down(1, 1, 1, 1.0), 0, 0, 5, 5);
        let run = || bf16_convolution(&x, &w, None, with).unwrap();
        let first = run();
        assert_eq!(first, run());
        let zeros = || vec![Tensor::zeros([16, 16, 3, 3], (Kind::Float, Device::Cpu))];
        let step = [Tensor::ones([], (Kind::Float, Device::Cpu))];
        let adam = crate::AdamParameters {
            lr: 0.5,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        };
        let gradient = [w.ones_like()];
        let param = [w.shallow_clone()];
        crate::fused_adam(&param, &gradient, &zeros(), &zeros(), &step, adam).unwrap();
        let (second, none) = (run(), Tensor::zeros([16], (Kind::Double, Device::Cpu)));
        let rounded = w.detach().to_kind(Kind::BFloat16).to_kind(Kind::Double);
        let want = direct(&x.to_kind(Kind::Double), &rounded, &none, with, &second);
        assert!(error(&second, &want) < 1e-6);
        {
            let _guard = tch::no_grad_guard();
            w.shallow_clone().copy_(&w.zeros_like());
        }
        assert_eq!(run().abs().max().double_value(&[]), 0.0);
    }

    /// One test, because the chosen code is the process's.
    #[test]
    fn every_code_computes_the_direct_convolution() {
        let best = bf16_code();
        for code in Bf16Code::up_to(best) {
            println!("{code:?} of {best:?}");
            choose_bf16_code(code);
            every_geometry();
            packed_weights_follow_their_tensor();
            if code != Bf16Code::Plain {
                larger_than_the_caches();
            }
            crate::bf16_layers::tests::layers_agree_with_libtorch();
        }
        let x = random(&[1, 16, 5, 5]);
        let w = random(&[16, 16, 3, 3]);
        let bad = |x: &Tensor, w: &Tensor, with| {
            bf16_convolution(x, w, None, with).unwrap_err().to_string()
        };
        bad(&x, &random(&[16, 8, 3, 3]), down(1, 1, 1, 1.0));
        bad(&x, &random(&[16, 16, 3, 2]), down(1, 1, 1, 1.0));
        bad(&x, &random(&[16, 16, 7, 7]), down(1, 0, 1, 1.0));
        bad(&x.to_kind(Kind::Double), &w, down(1, 1, 1, 1.0));
        bad(&x, &w, down(0, 1, 1, 1.0));
        bad(&x, &w, windowed(down(1, 1, 1, 1.0), 1, 1, 5, 5));
        choose_bf16_code(Bf16Code::None);
        assert!(bad(&x, &w, down(1, 1, 1, 1.0)).contains("there is no bf16 code here"));
        choose_bf16_code(best);
    }
}
