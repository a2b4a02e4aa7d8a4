//! Products of codes, and which pairs of rows they cannot rule out.
//!
//! With x = sₓqₓ + eₓ and y likewise, ⟨x,y⟩ is at most sₓs_y⟨qₓ,q_y⟩ + |eₓ||y| + |sₓqₓ||e_y|
//! (Cauchy–Schwarz), which bounds |x−y|² = |x|² + |y|² − 2⟨x,y⟩ from below; so does the triangle
//! inequality, |x−y| ≥ |sₓqₓ − s_yq_y| − |eₓ| − |e_y|, better for rows that lie close together.
//! Both have one form, with numbers that belong to a row alone. The pair is dropped if
//!
//! half(y) + w(x)·δ(y) − scale(y)·⟨qₓ,q_y⟩·scale(x) − p(x)·length(y) − r(x)·error(y) > t(x)
//!
//! where w, p, r, t are those of the inequality that rules out more. This runs in fp32 over every
//! pair; its roundings are counted into half and t.

use deepsim_aten::{BLOCK, Bf16Columns, Bf16Rows};
use rayon::prelude::*;
use tch::kind::Element;
use tch::{Kind, Tensor};

use super::bounds::{Bounds, ROUNDING};
use super::code::{Coded, Codes, Space};
use super::error::{Result, SearchError};
use super::pair::Pair;

/// Queries looked at together.
const LANES: usize = 16;
/// References that one task looks at: their products stay in the processor's cache.
const ROWS_PER_TASK: i64 = 64;
/// Blocks of references that one task multiplies: their products stay there, too.
const BLOCKS_PER_TASK: usize = 8;
/// What fp32 evaluation may be off by, relative to |x|² + |y|²: about twelve roundings; 32 are
/// allowed for.
const EVALUATION: f64 = 1.0 / (1u32 << 19) as f64;
/// The same for fp64 evaluation of a product that was rounded to fp32.
const FINE_EVALUATION: f64 = 1.0 / (1u32 << 22) as f64;
/// Covers what may be lost below fp32's smallest numbers, in squared units.
const UNDERFLOW: f64 = 1e-30;
/// Rows longer than this (in units) could leave fp32's range; they are never dropped here.
const LONGEST: f64 = (1u64 << 60) as f64;

/// References in the form that pairs are compared in.
#[derive(Debug)]
pub(super) struct Tile {
    /// Codes and bounds.
    pub(super) coded: Coded,
    /// Index of its first row in the block of references it belongs to.
    pub(super) first: usize,
    rows: Vec<Reference>,
    typical: Bounds,
}

#[derive(Clone, Copy, Debug)]
struct Reference {
    half: f32,
    delta: f32,
    scale: f32,
    length: f32,
    error: f32,
}

impl Tile {
    pub(super) fn new(coded: Coded, first: usize) -> Tile {
        let rows = coded.bounds.iter().map(Reference::new).collect();
        let n = coded.bounds.len().max(1) as f64;
        let mut typical = Bounds::default();
        for b in &coded.bounds {
            typical.length += b.length / n;
            typical.coded += b.coded / n;
            typical.error += b.error / n;
        }
        Tile {
            coded,
            first,
            rows,
            typical,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl Reference {
    fn new(y: &Bounds) -> Reference {
        let square = y.length * y.length;
        let half = if y.length > LONGEST {
            // Comparisons with it are false: never dropped.
            f64::NAN
        } else {
            square / 2.0 - EVALUATION * square
        };
        Reference {
            half: half as f32,
            delta: ((y.coded * y.coded - y.error * y.error - square) / 2.0) as f32,
            scale: y.scale as f32,
            length: up(y.length),
            error: up(y.error),
        }
    }
}

/// The next few fp32 numbers above a positive number.
fn up(x: f64) -> f32 {
    (x * (1.0 + 4.0 * ROUNDING)) as f32
}

/// Queries in the form that pairs are compared in, sixteen at a time.
#[derive(Debug)]
pub(super) struct Queries {
    codes: Operand,
    /// One for each query.
    pub(super) bounds: Vec<Bounds>,
    lanes: Vec<Lanes>,
    summing_error: f64,
    output_error: f32,
    unit: f64,
}

/// Codes of queries as what references are multiplied with.
#[derive(Debug)]
enum Operand {
    /// `[width,m]`, m the number of queries rounded up to whole lanes.
    Matrix(Tensor),
    /// For the processor's matrix unit.
    Unit(Bf16Columns),
}

#[derive(Clone, Debug)]
struct Lanes {
    scale: [f32; LANES],
    w: [f32; LANES],
    p: [f32; LANES],
    r: [f32; LANES],
    t: [f32; LANES],
}

/// A pair that was not ruled out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) query: u32,
    /// Row of the tile.
    pub(super) row: u32,
    pub(super) dot: f32,
}

impl Queries {
    pub(super) fn new(space: &Space, coded: Coded) -> Result<Queries> {
        let n = coded.bounds.len();
        let (codes, m) = match coded.codes {
            Codes::Unit(rows) => {
                let columns = rows.columns()?;
                let m = columns.len();
                (Operand::Unit(columns), m)
            }
            Codes::Matrix(rows) => {
                let m = n.div_ceil(LANES) * LANES;
                let width = rows.size().last().copied().unwrap_or(0);
                let filled = Tensor::f_zeros([m as i64, width], (rows.f_kind()?, rows.device()))?;
                filled.f_narrow(0, 0, n as i64)?.f_copy_(&rows)?;
                let codes = filled.f_transpose(0, 1)?.f_contiguous()?;
                (Operand::Matrix(codes), m)
            }
        };
        let mut lanes = vec![
            Lanes {
                scale: [0.0; LANES],
                w: [0.0; LANES],
                p: [0.0; LANES],
                r: [0.0; LANES],
                t: [f32::NEG_INFINITY; LANES],
            };
            m / LANES
        ];
        for (i, x) in coded.bounds.iter().enumerate() {
            lanes[i / LANES].scale[i % LANES] = x.scale as f32;
        }
        Ok(Queries {
            codes,
            output_error: space.output_error(),
            bounds: coded.bounds,
            lanes,
            summing_error: space.summing_error(),
            unit: space.unit(),
        })
    }

    /// Sets how far (squared) query `i` still looks in `tile`; `None`: it looks no more.
    pub(super) fn aim(&mut self, i: usize, reach: Option<f64>, tile: &Tile) {
        let x = self.bounds[i];
        let lanes = &mut self.lanes[i / LANES];
        let lane = i % LANES;
        let square = x.length * x.length;
        let product = self.summing_error * x.coded;
        let margin = EVALUATION * square + UNDERFLOW;
        let Some(reach) = reach else {
            lanes.t[lane] = f32::NEG_INFINITY;
            return;
        };
        if x.length > LONGEST {
            (lanes.scale[lane], lanes.t[lane]) = (0.0, f32::INFINITY);
            return;
        }
        let reach = reach / (self.unit * self.unit);
        let y = tile.typical;
        // Cauchy–Schwarz.
        let straight = (reach - square) / 2.0 + margin;
        let loss = x.error * y.length + x.coded * y.error;
        // Triangle inequality.
        let arm = reach.sqrt() + x.error;
        let around = (arm * arm - x.coded * x.coded) / 2.0 + margin;
        let gain = (y.coded * y.coded - y.error * y.error - y.length * y.length) / 2.0;
        let triangle = around + arm * y.error - gain < straight + loss;
        let (w, p, r, t) = if triangle {
            (1.0, product, arm + product, around)
        } else {
            (0.0, x.error + product, x.coded + product, straight)
        };
        lanes.w[lane] = w;
        lanes.p[lane] = up(p);
        lanes.r[lane] = up(r);
        lanes.t[lane] = (t + t.abs() * 4.0 * ROUNDING) as f32;
    }

    /// What a product says of a pair: the better of both inequalities.
    pub(super) fn pair(&self, hit: &Hit, tile: &Tile) -> Pair {
        let x = self.bounds[hit.query as usize];
        let y = tile.coded.bounds[hit.row as usize];
        let squares = x.length * x.length + y.length * y.length;
        let dot = f64::from(hit.dot + hit.dot.abs() * self.output_error);
        let product = dot * x.scale * y.scale
            + self.summing_error * x.coded * y.coded
            + FINE_EVALUATION * squares;
        let straight = squares - 2.0 * (product + x.error * y.length + x.coded * y.error);
        let apart = x.coded * x.coded + y.coded * y.coded - 2.0 * product;
        let around = (apart.max(0.0).sqrt() - x.error - y.error).max(0.0);
        Pair {
            least: straight.max(around * around),
            likely: (squares - 2.0 * product) as f32,
            row: tile.first as u32 + hit.row,
        }
    }

    /// All pairs of these queries and a tile that cannot be ruled out, by row of the tile.
    /// `buffer` is where products go, kept between calls.
    pub(super) fn hits(&self, tile: &Tile, buffer: &mut Option<Tensor>) -> Result<Vec<Vec<Hit>>> {
        let (codes, columns) = match (&tile.coded.codes, &self.codes) {
            (Codes::Matrix(codes), Operand::Matrix(columns)) => (codes, columns),
            (Codes::Unit(rows), Operand::Unit(columns)) => {
                return self.sift_unit(rows, columns, tile);
            }
            _ => {
                return Err(SearchError::Settings(
                    "queries and references were coded differently".to_owned(),
                ));
            }
        };
        let (n, m) = (tile.len() as i64, (self.lanes.len() * LANES) as i64);
        let kind = match codes.f_kind()? {
            Kind::Int8 => Kind::Int,
            other => other,
        };
        // One buffer for all products: fresh pages cost more than the arithmetic on them.
        let room = match buffer.take() {
            Some(b) if b.size()[0] >= n && b.size()[1] == m && b.kind() == kind => b,
            _ => Tensor::f_zeros([n, m], (kind, codes.device()))?,
        };
        let out = room.f_narrow(0, 0, n)?;
        *buffer = Some(room);
        match kind {
            Kind::Int => {
                let _ = codes.f_internal_int_mm_out(&out, columns)?;
                self.sift::<i32>(&out, tile)
            }
            Kind::BFloat16 => {
                let _ = codes.f_matmul_out(&out, columns)?;
                self.sift::<f32>(&out.f_to_kind(Kind::Float)?, tile)
            }
            _ => {
                let _ = codes.f_matmul_out(&out, columns)?;
                self.sift::<f32>(&out, tile)
            }
        }
    }

    /// The same by the matrix unit: products are looked at while they are in the cache.
    fn sift_unit(
        &self,
        rows: &Bf16Rows,
        columns: &Bf16Columns,
        tile: &Tile,
    ) -> Result<Vec<Vec<Hit>>> {
        let (lanes, count, references) = (&self.lanes[..], self.bounds.len(), &tile.rows[..]);
        let output_error = self.output_error;
        (0..rows.blocks().div_ceil(BLOCKS_PER_TASK))
            .into_par_iter()
            .map_init(Vec::new, |products: &mut Vec<f32>, task| {
                let from = task * BLOCKS_PER_TASK;
                let to = rows.blocks().min(from + BLOCKS_PER_TASK);
                columns.products(rows, from, to, products)?;
                let mut hits = Vec::new();
                let some = references.iter().enumerate().take(to * BLOCK);
                for (at, y) in some.skip(from * BLOCK) {
                    let dots = |block| columns.sixteen(products, at - from * BLOCK, block);
                    sift_row(dots, lanes, output_error, y, |query, dot| {
                        if query < count {
                            hits.push(Hit {
                                query: query as u32,
                                row: at as u32,
                                dot,
                            });
                        }
                    });
                }
                Ok(hits)
            })
            .collect()
    }

    fn sift<T: Dot>(&self, products: &Tensor, tile: &Tile) -> Result<Vec<Vec<Hit>>> {
        let m = self.lanes.len() * LANES;
        // What tasks share; tensors cannot be shared between threads.
        let (lanes, count, rows) = (&self.lanes[..], self.bounds.len(), &tile.rows[..]);
        let output_error = self.output_error;
        products
            .f_split(ROWS_PER_TASK, 0)?
            .into_par_iter()
            .enumerate()
            .map_init(Vec::new, |dots: &mut Vec<T>, (task, part)| {
                let n = part.size()[0] as usize;
                dots.resize(n * m, T::default());
                part.f_copy_data(dots, n * m)?;
                let first = task * ROWS_PER_TASK as usize;
                let mut hits = Vec::new();
                for (i, row) in dots.chunks_exact(m).enumerate() {
                    let at = first + i;
                    let dots = |block: usize| &row.as_chunks::<LANES>().0[block];
                    sift_row(dots, lanes, output_error, &rows[at], |query, dot| {
                        if query < count {
                            hits.push(Hit {
                                query: query as u32,
                                row: at as u32,
                                dot,
                            });
                        }
                    });
                }
                Ok(hits)
            })
            .collect()
    }
}

/// The pairs of one reference that cannot be ruled out.
#[inline]
fn sift_row<'a, T: Dot + 'a>(
    dots: impl Fn(usize) -> &'a [T; LANES],
    lanes: &[Lanes],
    output_error: f32,
    y: &Reference,
    mut keep: impl FnMut(usize, f32),
) {
    for (block, x) in lanes.iter().enumerate() {
        let dots = dots(block);
        let mut values = [0.0f32; LANES];
        let mut any = false;
        for lane in 0..LANES {
            let mut dot = dots[lane].value();
            if !T::EXACT {
                dot += dot.abs() * output_error;
            }
            values[lane] = y.half + x.w[lane] * y.delta
                - y.scale * dot * x.scale[lane]
                - x.p[lane] * y.length
                - x.r[lane] * y.error;
            any |= may_pass(values[lane], x.t[lane]);
        }
        if any {
            for lane in (0..LANES).filter(|&lane| may_pass(values[lane], x.t[lane])) {
                keep(block * LANES + lane, dots[lane].value());
            }
        }
    }
}

/// What is not a number rules nothing out.
#[inline]
fn may_pass(value: f32, t: f32) -> bool {
    value.partial_cmp(&t) != Some(std::cmp::Ordering::Greater)
}

/// A product of codes as libtorch returns it.
trait Dot: Element + Copy + Default + Send + Sync {
    /// Whether it is free of an error relative to itself.
    const EXACT: bool;
    fn value(self) -> f32;
}

impl Dot for i32 {
    const EXACT: bool = true;
    fn value(self) -> f32 {
        self as f32
    }
}

impl Dot for f32 {
    const EXACT: bool = false;
    fn value(self) -> f32 {
        self
    }
}
