//! Rows in few bits, and how far the few bits are from the row.
//!
//! A row x, centred and in the space's unit, becomes s·q + e: q is what is multiplied, s one
//! number, and the length of e is measured, not estimated. Everything here is stated so that it
//! holds for real numbers: roundings are counted into the length of e.

use deepsim_aten::{Bf16Code, Bf16Rows, RowMeasure, bf16_code};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::bounds::{Bounds, ROUNDING};
use super::error::{Result, SearchError};
use super::exact::Rows;
use super::machine::{self, Candidates};
use super::rotation::Rotation;
use super::round::{round_bf16, round_row};

/// Lanes of partial sums.
const LANES: usize = 16;
/// Columns after which partial sums in fp32 are carried over to fp64.
const CARRY: usize = 1024;
/// Rows from which centre and unit are taken.
const SAMPLE: usize = 2048;

/// How rows are coded.
#[derive(Clone, Debug)]
enum Code {
    /// Rotated, then rounded to ±`levels`.
    Int8 { rotation: Rotation, levels: f32 },
    /// Rounded to bf16, multiplied by libtorch.
    Bf16,
    /// Rounded to bf16 where the processor's matrix unit reads it.
    Unit,
    /// As they are.
    Fp32,
}

/// Centre, unit and code that queries and references share.
#[derive(Clone, Debug)]
pub(super) struct Space {
    dim: usize,
    centre: Vec<f32>,
    /// A power of two near the lengths of centred rows: keeps squares within fp32's range.
    unit: f64,
    code: Code,
}

/// Rows as they are multiplied.
#[derive(Debug)]
pub(super) struct Coded {
    pub(super) codes: Codes,
    /// One for each row.
    pub(super) bounds: Vec<Bounds>,
}

/// The codes of rows.
#[derive(Debug)]
pub(super) enum Codes {
    /// `[n,width]`: i8, bf16 or f32.
    Matrix(Tensor),
    /// bf16 for the matrix unit.
    Unit(Bf16Rows),
}

impl Space {
    /// A space centred on the mean of (a sample of) `rows`. A code that this machine cannot
    /// multiply with a known error is replaced by fp32.
    pub(super) fn around(rows: Rows<'_>, candidates: Candidates) -> Result<Space> {
        let step = rows.len().div_ceil(SAMPLE).max(1);
        let sample = || (0..rows.len()).step_by(step);
        let mut sums = vec![0.0f64; rows.dim()];
        for i in sample() {
            for (sum, &v) in sums.iter_mut().zip(rows.row(i)) {
                *sum += f64::from(v);
            }
        }
        // Any finite centre is right; bad rows are found, and named, when they are coded.
        let count = sample().count().max(1) as f64;
        let finite = |mean: f32| if mean.is_finite() { mean } else { 0.0 };
        let centre: Vec<f32> = sums
            .iter()
            .map(|&sum| finite((sum / count) as f32))
            .collect();
        let longest = sample()
            .map(|i| super::exact::squared_distance(rows.row(i), &centre))
            .fold(0.0, f64::max)
            .sqrt();
        Ok(Space {
            dim: rows.dim(),
            centre,
            unit: power_of_two(longest),
            code: Code::new(rows.dim(), candidates)?,
        })
    }

    /// The same centre and unit with fp32 codes.
    pub(super) fn in_fp32(&self) -> Space {
        Space {
            code: Code::Fp32,
            ..self.clone()
        }
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn unit(&self) -> f64 {
        self.unit
    }

    /// What candidates are looked for in.
    pub(super) fn candidates(&self) -> Candidates {
        match self.code {
            Code::Int8 { .. } => Candidates::Int8,
            Code::Bf16 | Code::Unit => Candidates::Bf16,
            Code::Fp32 => Candidates::Fp32,
        }
    }

    /// How far a product of codes may be off, relative to the lengths of the coded rows: the sum
    /// of `dim` fp32 products in whatever order; integer sums are exact.
    pub(super) fn summing_error(&self) -> f64 {
        let n = (self.dim + 2) as f64 * ROUNDING;
        match self.code {
            Code::Int8 { .. } => 0.0,
            _ if n < 0.5 => n / (1.0 - n),
            _ => f64::INFINITY,
        }
    }

    /// How far a product may be off relative to itself: libtorch returns bf16 from bf16, at most
    /// 1/255 off; the matrix unit's own sums are not rounded further.
    pub(super) fn output_error(&self) -> f32 {
        match self.code {
            Code::Bf16 => 1.0 / 250.0,
            _ => 0.0,
        }
    }

    /// Codes rows; `what` and `first`, the index of the first row, name a bad one.
    pub(super) fn code(&self, rows: Rows<'_>, what: &'static str, first: u64) -> Result<Coded> {
        let n = rows.len();
        let (codes, bounds) = match &self.code {
            Code::Unit => {
                let (codes, measures) = Bf16Rows::code(rows.data(), &self.centre)?;
                let bounds = measures.iter().map(|m| self.bounds_of(m)).collect();
                let coded = Coded {
                    codes: Codes::Unit(codes),
                    bounds,
                };
                return coded.checked(what, first);
            }
            Code::Int8 { rotation, levels } => {
                let width = rotation.width();
                let mut codes = vec![0i8; n * width];
                let bounds = self.each_row(rows, &mut codes, width, |centred, exponent, out| {
                    quantise(rotation, *levels, centred, exponent, out)
                });
                (Tensor::f_from_slice(&codes)?, bounds)
            }
            // Straight as bytes: a tensor in fp32 on the way would be three passes over memory.
            Code::Bf16 => {
                let mut codes = vec![[0u8; 2]; n * self.dim];
                let bounds = self.each_row(rows, &mut codes, self.dim, |centred, length, out| {
                    round_row(centred, length, out, round_bf16)
                });
                let size = [n as i64, self.dim as i64];
                let codes = Tensor::f_from_data_size(codes.as_flattened(), &size, Kind::BFloat16);
                (codes?, bounds)
            }
            Code::Fp32 => {
                let mut codes = vec![0.0f32; n * self.dim];
                let bounds = self.each_row(rows, &mut codes, self.dim, |centred, length, out| {
                    round_row(centred, length, out, |x| (x, x))
                });
                (Tensor::f_from_slice(&codes)?, bounds)
            }
        };
        let codes = codes.f_view([n as i64, self.width() as i64])?;
        let codes = Codes::Matrix(codes);
        Coded { codes, bounds }.checked(what, first)
    }

    /// A row's numbers from what was measured while it was coded.
    fn bounds_of(&self, m: &RowMeasure) -> Bounds {
        if !m.squares.is_finite() {
            return Bounds {
                length: f64::NAN,
                ..Bounds::default()
            };
        }
        let factor = m.unit / self.unit;
        let length = m.squares.sqrt() / m.unit;
        Bounds {
            scale: factor,
            length: length * factor,
            coded: m.coded.sqrt() * factor,
            // The first term covers what its sum may be off by, the second the rounding to fp32.
            error: (m.residual.sqrt() * (1.0 + 1.0 / 1024.0) + 4.0 * ROUNDING * length) * factor,
        }
    }

    fn width(&self) -> usize {
        match &self.code {
            Code::Int8 { rotation, .. } => rotation.width(),
            _ => self.dim,
        }
    }

    /// Centres every row in fp64, brings it near 1 by a power of two, and codes it.
    fn each_row<T: Send>(
        &self,
        rows: Rows<'_>,
        codes: &mut [T],
        width: usize,
        code: impl Fn(&mut [f32], f64, &mut [T]) -> Bounds + Sync,
    ) -> Vec<Bounds> {
        codes
            .par_chunks_exact_mut(width)
            .enumerate()
            .map_init(
                || vec![0.0f32; width],
                |centred, (i, out)| {
                    let (largest, squares) = measure(rows.row(i), &self.centre);
                    if !squares.is_finite() {
                        return Bounds {
                            length: f64::NAN,
                            ..Bounds::default()
                        };
                    }
                    let exponent = power_of_two(largest);
                    let inverse = exponent.recip();
                    let pairs = rows.row(i).iter().zip(&self.centre);
                    for (to, (&x, &c)) in centred.iter_mut().zip(pairs) {
                        *to = ((f64::from(x) - f64::from(c)) * inverse) as f32;
                    }
                    centred[self.dim..].fill(0.0);
                    let b = code(centred, squares.sqrt() / exponent, out);
                    let factor = exponent / self.unit;
                    Bounds {
                        scale: b.scale * factor,
                        length: b.length * factor,
                        coded: b.coded * factor,
                        error: b.error * factor,
                    }
                },
            )
            .collect()
    }
}

impl Coded {
    fn checked(self, what: &'static str, first: u64) -> Result<Coded> {
        match self.bounds.iter().position(|b| !b.length.is_finite()) {
            Some(row) => Err(SearchError::NotFinite {
                what,
                row: first + row as u64,
            }),
            None => Ok(self),
        }
    }
}

impl Code {
    fn new(dim: usize, candidates: Candidates) -> Result<Code> {
        Ok(match candidates.resolve() {
            Candidates::Int8 => {
                let rotation = Rotation::new(dim);
                // Sums of `width` products must fit into 32 bits.
                let fits = (f64::from(i32::MAX) / rotation.width() as f64).sqrt();
                match fits.floor().min(f64::from(machine::int8_levels()?)) {
                    levels if levels >= 1.0 => Code::Int8 {
                        rotation,
                        levels: levels as f32,
                    },
                    _ => Code::Fp32,
                }
            }
            Candidates::Bf16 if matches!(bf16_code(), Bf16Code::Amx | Bf16Code::Avx512) => {
                Code::Unit
            }
            Candidates::Bf16 if machine::bf16_sums_in_fp32()? => Code::Bf16,
            _ => Code::Fp32,
        })
    }
}

/// The power of two at or below a positive number; 1 for 0 and for what is not finite.
fn power_of_two(x: f64) -> f64 {
    if x > 0.0 && x.is_finite() {
        x.log2().floor().exp2()
    } else {
        1.0
    }
}

/// Largest magnitude and sum of squares of a centred row: not finite if any value is not (the
/// square of a finite f32 is far within fp64's range).
fn measure(x: &[f32], centre: &[f32]) -> (f64, f64) {
    let (mut largest, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
    let (xs, cs) = (x.chunks_exact(LANES), centre.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(cs.remainder());
    for (a, b) in xs.zip(cs) {
        for lane in 0..LANES {
            let d = f64::from(a[lane]) - f64::from(b[lane]);
            squares[lane] += d * d;
            largest[lane] = if d.abs() > largest[lane] {
                d.abs()
            } else {
                largest[lane]
            };
        }
    }
    for (lane, (&a, &b)) in rest.enumerate() {
        let d = f64::from(a) - f64::from(b);
        squares[lane] += d * d;
        largest[lane] = largest[lane].max(d.abs());
    }
    (
        largest.iter().fold(0.0, |a: f64, &b| a.max(b)),
        squares.iter().sum(),
    )
}

/// 8 bits: rotates `centred` in place, of length `length`, and rounds it.
fn quantise(
    rotation: &Rotation,
    levels: f32,
    centred: &mut [f32],
    length: f64,
    out: &mut [i8],
) -> Bounds {
    /// Adding and taking away 1.5 · 2²³ rounds to the nearest integer, which is then in the low
    /// bits: two instructions that every processor has for many values at once.
    const ROUNDER: f32 = 12_582_912.0;
    for (x, &sign) in centred.iter_mut().zip(rotation.signs()) {
        *x *= sign;
    }
    rotation.butterflies(centred);
    let mut lanes = [0.0f32; LANES];
    let chunks = centred.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            let v = chunk[lane].abs();
            lanes[lane] = if v > lanes[lane] { v } else { lanes[lane] };
        }
    }
    let largest = lanes
        .iter()
        .chain(rest)
        .fold(0.0, |a: f32, b| a.max(b.abs()));
    // A rotation by n stages multiplies lengths by √2ⁿ.
    let shrink = (-f64::from(rotation.stages()) / 2.0).exp2();
    let slack = (f64::from(rotation.stages()) + 16.0) * ROUNDING * length;
    if largest == 0.0 {
        out.fill(0);
        return Bounds {
            scale: 0.0,
            length,
            coded: 0.0,
            error: length + slack,
        };
    }
    let (step, inverse) = (largest / levels, levels / largest);
    let (mut residual, mut square) = (0.0f64, 0.0f64);
    for (xs, qs) in centred.chunks(CARRY).zip(out.chunks_mut(CARRY)) {
        let (mut r2, mut q2) = ([0.0f32; LANES], [0.0f32; LANES]);
        for (xs, qs) in xs.chunks(LANES).zip(qs.chunks_mut(LANES)) {
            if let (Ok(xs), Ok(qs)) = (
                <&[f32; LANES]>::try_from(xs),
                <&mut [i8; LANES]>::try_from(&mut *qs),
            ) {
                for lane in 0..LANES {
                    let shifted = xs[lane] * inverse + ROUNDER;
                    qs[lane] = shifted.to_bits() as i8;
                    let q = shifted - ROUNDER;
                    let r = xs[lane] - step * q;
                    r2[lane] += r * r;
                    q2[lane] += q * q;
                }
                continue;
            }
            for (lane, (&x, out)) in xs.iter().zip(qs).enumerate() {
                let shifted = x * inverse + ROUNDER;
                *out = shifted.to_bits() as i8;
                let q = shifted - ROUNDER;
                let r = x - step * q;
                r2[lane] += r * r;
                q2[lane] += q * q;
            }
        }
        residual += r2.iter().copied().map(f64::from).sum::<f64>();
        square += q2.iter().copied().map(f64::from).sum::<f64>();
    }
    let scale = f64::from(step) * shrink;
    Bounds {
        scale,
        length,
        coded: square.sqrt() * scale,
        // 64 squares per lane are added in fp32: at most 66 roundings, far below 2⁻¹⁰.
        error: residual.sqrt() * shrink * (1.0 + 1.0 / 1024.0) + slack,
    }
}
