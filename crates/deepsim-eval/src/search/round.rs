//! bf16 and fp32 as codes: a row, value by value.

use super::bounds::{Bounds, ROUNDING};

/// Partial sums: a register takes half as many in fp64 as in fp32.
const LANES: usize = 8;

/// bf16 or fp32: the row itself, each value `rounded` to what is stored and to the number that is.
pub(super) fn round_row<T>(
    centred: &[f32],
    length: f64,
    out: &mut [T],
    rounded: impl Fn(f32) -> (T, f32),
) -> Bounds {
    // Independent sums: one alone would wait for each of its additions.
    let (mut residual, mut coded) = ([0.0f64; LANES], [0.0f64; LANES]);
    let (xs, rest) = centred.as_chunks::<LANES>();
    let (outs, rest_out) = out.as_chunks_mut::<LANES>();
    let mut add = |lane: usize, x: f32, out: &mut T| {
        let (stored, value) = rounded(x);
        *out = stored;
        // The difference of a number and its rounding to fewer bits is exact.
        let (r, q) = (f64::from(x - value), f64::from(value));
        residual[lane] += r * r;
        coded[lane] += q * q;
    };
    for (xs, outs) in xs.iter().zip(outs) {
        for lane in 0..LANES {
            add(lane, xs[lane], &mut outs[lane]);
        }
    }
    for (lane, (&x, out)) in rest.iter().zip(rest_out).enumerate() {
        add(lane, x, out);
    }
    let residual = residual.iter().sum::<f64>().sqrt();
    Bounds {
        scale: 1.0,
        length,
        coded: coded.iter().sum::<f64>().sqrt(),
        error: residual * (1.0 + ROUNDING) + 4.0 * ROUNDING * length,
    }
}

/// To the nearest bf16, ties to even. Values are at most 2: no carry reaches infinity.
#[inline]
pub(super) fn round_bf16(x: f32) -> ([u8; 2], f32) {
    let bits = x.to_bits();
    let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    (
        ((rounded >> 16) as u16).to_ne_bytes(),
        f32::from_bits(rounded),
    )
}
