//! Rows coded in bf16 where the matrix unit reads them, and their products.

use std::ffi::c_int;

use rayon::prelude::*;

use crate::AtenError;

/// Rows that are coded and multiplied together.
pub const BLOCK: usize = 32;
/// Values of a row that are multiplied and added at once.
const STEP: usize = 32;
/// Products of a block of rows and a block of columns.
const SUMS: usize = BLOCK * BLOCK;
/// Rows and columns of a matrix unit's result.
const TILE: usize = 16;

unsafe extern "C" {
    fn deepsim_rows_code(
        rows: *const f32,
        n: i64,
        dim: i64,
        centre: *const f64,
        to: *mut u16,
        measures: *mut RowMeasure,
    ) -> c_int;
    fn deepsim_rows_columns(rows: *const u16, blocks: i64, steps: i64, to: *mut u16) -> c_int;
    fn deepsim_rows_products(
        rows: *const u16,
        blocks: i64,
        steps: i64,
        columns: *const u16,
        column_blocks: i64,
        out: *mut f32,
    ) -> c_int;
}

/// A cache line of 32 codes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Line([u16; STEP]);

/// Measures of a row x. The coded values are (x − c) / `unit`, rounded to fp32, where c is the
/// centre.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowMeasure {
    /// The power of two at or below the largest magnitude of x − c; 1 for 0.
    pub unit: f64,
    /// |x − c|² in fp64. Not finite where a value of x is not; the code is zeros then.
    pub squares: f64,
    /// Squared length of what the code leaves out of (x − c) / `unit`, within 2⁻¹² of itself.
    pub residual: f64,
    /// Squared length of the code, in fp64.
    pub coded: f64,
}

/// Rows `[n,dim]` in bf16, in the order in which the matrix unit reads left operands.
#[derive(Debug)]
pub struct Bf16Rows {
    lines: Vec<Line>,
    rows: usize,
    steps: usize,
}

/// The same for right operands.
#[derive(Debug)]
pub struct Bf16Columns {
    lines: Vec<Line>,
    steps: usize,
}

impl Bf16Rows {
    /// Subtracts `centre` from each row and codes the result, on rayon's threads. A row has
    /// `centre.len()` values; an incomplete last row is left out.
    ///
    /// # Errors
    /// No code for it in this process ([`crate::bf16_code`]).
    pub fn code(rows: &[f32], centre: &[f32]) -> Result<(Bf16Rows, Vec<RowMeasure>), AtenError> {
        let dim = centre.len().max(1);
        let (n, steps) = (rows.len() / dim, dim.div_ceil(STEP));
        let mut wide = vec![0.0f64; steps * STEP];
        for (to, &c) in wide.iter_mut().zip(centre) {
            *to = f64::from(c);
        }
        let mut measures = vec![RowMeasure::default(); n];
        let size = n.div_ceil(BLOCK) * BLOCK * steps;
        // Not zeroed: that would be one more pass over memory.
        let mut lines: Vec<Line> = Vec::with_capacity(size);
        let none = lines.spare_capacity_mut()[..size]
            .par_chunks_exact_mut(BLOCK * steps)
            .zip(rows[..n * dim].par_chunks(BLOCK * dim))
            .zip(measures.par_chunks_mut(BLOCK))
            .map(|((to, rows), measures)| {
                // SAFETY: `to` has room for a block, aligned to lines; `rows` holds as many rows of
                // `dim` values as `measures` has places, at most a block; `wide` holds whole steps.
                unsafe {
                    deepsim_rows_code(
                        rows.as_ptr(),
                        measures.len() as i64,
                        dim as i64,
                        wide.as_ptr(),
                        to.as_mut_ptr().cast(),
                        measures.as_mut_ptr(),
                    )
                }
            })
            .max();
        if none == Some(1) {
            return Err(AtenError::NoCode("coded rows"));
        }
        // SAFETY: every block was written as a whole.
        unsafe { lines.set_len(size) };
        let coded = Bf16Rows {
            lines,
            rows: n,
            steps,
        };
        Ok((coded, measures))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Number of blocks of [`BLOCK`] rows, the last one filled up with zeros.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// The rows as columns that others are multiplied with.
    ///
    /// # Errors
    /// No code for it in this process.
    pub fn columns(&self) -> Result<Bf16Columns, AtenError> {
        let mut lines = vec![Line([0; STEP]); self.lines.len()];
        let (blocks, steps) = (self.blocks() as i64, self.steps as i64);
        // SAFETY: both hold `blocks` blocks of `steps` steps.
        let none = unsafe {
            let to = lines.as_mut_ptr().cast();
            deepsim_rows_columns(self.lines.as_ptr().cast(), blocks, steps, to)
        };
        if none != 0 {
            return Err(AtenError::NoCode("columns"));
        }
        Ok(Bf16Columns {
            lines,
            steps: self.steps,
        })
    }
}

impl Bf16Columns {
    /// Number of columns, filled up to whole blocks.
    pub fn len(&self) -> usize {
        self.lines.len() / self.steps.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Writes the products of blocks `from..to` of `rows` with all columns to `out`, which is
    /// resized. Sums are fp32 and are not rounded further. The work is done in this thread.
    /// [`Bf16Columns::sixteen`] reads the products.
    ///
    /// # Errors
    /// Blocks that do not exist, rows of another length, or no code for it in this process.
    pub fn products(
        &self,
        rows: &Bf16Rows,
        from: usize,
        to: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), AtenError> {
        if from > to || to > rows.blocks() || rows.steps != self.steps {
            return Err(AtenError::NoCode("these blocks of rows"));
        }
        let column_blocks = self.len() / BLOCK;
        out.resize((to - from) * column_blocks * SUMS, 0.0);
        if out.is_empty() {
            return Ok(());
        }
        let left = &rows.lines[from * BLOCK * self.steps..];
        // SAFETY: `left` holds `to - from` blocks and the columns `column_blocks`, of `steps` steps
        // each; `out` was made as long as their products.
        let none = unsafe {
            deepsim_rows_products(
                left.as_ptr().cast(),
                (to - from) as i64,
                self.steps as i64,
                self.lines.as_ptr().cast(),
                column_blocks as i64,
                out.as_mut_ptr(),
            )
        };
        match none {
            0 => Ok(()),
            _ => Err(AtenError::NoCode("products of rows")),
        }
    }

    /// Reads from the output of [`Bf16Columns::products`] the products of its row number `row` with
    /// columns `16 * lanes` to `16 * lanes + 15`.
    #[inline]
    pub fn sixteen<'a>(&self, out: &'a [f32], row: usize, lanes: usize) -> &'a [f32; 16] {
        let block = row / BLOCK * (self.lines.len() / self.steps / BLOCK) + lanes / 2;
        let tile = row % BLOCK / TILE * 2 + lanes % 2;
        &out.as_chunks().0[block * SUMS / TILE + tile * TILE + row % TILE]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// Codes and products against libtorch's. Called by the one test that chooses codes.
    pub(crate) fn products_agree_with_libtorch() {
        for (n, m, k) in [(32, 32, 64), (71, 48, 97), (5, 1, 1), (64, 1040, 512)] {
            let vector = |t: &Tensor| Vec::<f32>::try_from(t.contiguous().view([-1])).unwrap();
            let random = |n| Tensor::randn([n, k], (Kind::Float, Device::Cpu));
            let (x, y, centre) = (random(n), random(m) * 1e3, random(1));
            let (rows, measures) = Bf16Rows::code(&vector(&x), &vector(&centre)).unwrap();
            let (others, scales) = Bf16Rows::code(&vector(&y), &vector(&centre)).unwrap();
            let double = |t: &Tensor| t.to_kind(Kind::Double);
            let twin = |t: &Tensor, measures: &[RowMeasure]| {
                let centred = double(t) - double(&centre);
                let units: Vec<f64> = measures.iter().map(|m| m.unit).collect();
                let scaled = centred.copy() / Tensor::from_slice(&units).unsqueeze(1);
                let scaled = scaled.to_kind(Kind::Float);
                let code = double(&scaled.to_kind(Kind::BFloat16));
                (centred, double(&scaled), code)
            };
            let (centred, scaled, code) = twin(&x, &measures);
            let squares = |t: &Tensor, i: usize| {
                let row = t.get(i as i64);
                row.square().sum(Kind::Double).double_value(&[])
            };
            for (i, got) in measures.iter().enumerate() {
                let near = |got: f64, want: f64, off: f64| {
                    assert!(
                        (got - want).abs() <= off * want,
                        "{n} {m} {k}: {got} {want}"
                    );
                };
                let largest = centred.get(i as i64).abs().max().double_value(&[]);
                assert!(got.unit <= largest && largest < 2.0 * got.unit);
                near(got.squares, squares(&centred, i), 1e-12);
                near(got.coded, squares(&code, i), 1e-12);
                near(got.residual, squares(&(&scaled - &code), i), 1.0 / 4096.0);
            }
            let want = code.matmul(&twin(&y, &scales).2.transpose(0, 1));
            let columns = others.columns().unwrap();
            let mut out = Vec::new();
            // In two parts: the second begins in the middle.
            for (from, to) in [(0, rows.blocks() / 2), (rows.blocks() / 2, rows.blocks())] {
                columns.products(&rows, from, to, &mut out).unwrap();
                for row in from * BLOCK..(to * BLOCK).min(n as usize) {
                    for column in 0..m as usize {
                        let sixteen = columns.sixteen(&out, row - from * BLOCK, column / TILE);
                        let got = f64::from(sixteen[column % TILE]);
                        let want = want.double_value(&[row as i64, column as i64]);
                        let off = 1e-6 * (k as f64 * 4.0);
                        assert!((got - want).abs() <= off, "{row} {column}: {got} {want}");
                    }
                }
            }
            assert!(
                columns
                    .products(&rows, 0, rows.blocks() + 1, &mut out)
                    .is_err()
            );
        }
        let (rows, measures) = Bf16Rows::code(&[1.0, f32::NAN, 1.0, 2.0], &[0.0; 2]).unwrap();
        assert_eq!((rows.len(), measures[0].squares.is_finite()), (2, false));
        assert_eq!(measures[1].squares, 5.0);
    }
}
