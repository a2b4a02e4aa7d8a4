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

use deepsim_aten::{Bf16Code, Bf16Columns, bf16_code};
use rayon::prelude::*;
use tch::kind::Element;
use tch::{Kind, Tensor};

use super::code::{Bounds, Coded, Space};
use super::search::Pair;
use crate::error::Result;

/// Queries looked at together.
const LANES: usize = 16;
/// References that one task looks at: their products stay in the processor's cache.
const ROWS_PER_TASK: i64 = 64;
/// What fp32 evaluation may be off by, relative to |x|² + |y|²: about twelve roundings; 32 are
/// allowed for.
const EVALUATION: f64 = 1.0 / (1u32 << 19) as f64;
/// The same for fp64 evaluation of a product that was rounded to fp32.
const FINE_EVALUATION: f64 = 1.0 / (1u32 << 22) as f64;
/// Covers what may be lost below fp32's smallest numbers, in squared units.
const UNDERFLOW: f64 = 1e-30;
/// Rows longer than this (in units) could leave fp32's range; they are never dropped here.
const LONGEST: f64 = (1u64 << 60) as f64;

/// References in the form that pairs are judged in.
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
    (x * (1.0 + 4.0 * super::code::ROUNDING)) as f32
}

/// Queries in the form that pairs are judged in, sixteen at a time.
#[derive(Debug)]
pub(super) struct Queries {
    /// Codes `[width,m]`, m the number of queries rounded up to whole lanes.
    codes: Tensor,
    /// The same for the processor's matrix unit, whose products are not rounded to bf16.
    columns: Option<Bf16Columns>,
    /// One for each query.
    pub(super) bounds: Vec<Bounds>,
    lanes: Vec<Lanes>,
    summing_error: f64,
    output_error: f32,
    unit: f64,
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
        let lanes = n.div_ceil(LANES);
        let width = coded.codes.size().last().copied().unwrap_or(0);
        let kind = coded.codes.kind();
        let codes = Tensor::f_zeros(
            [(lanes * LANES) as i64, width],
            (kind, coded.codes.device()),
        )?;
        codes.f_narrow(0, 0, n as i64)?.f_copy_(&coded.codes)?;
        let mut lanes = vec![
            Lanes {
                scale: [0.0; LANES],
                w: [0.0; LANES],
                p: [0.0; LANES],
                r: [0.0; LANES],
                t: [f32::NEG_INFINITY; LANES],
            };
            lanes
        ];
        for (i, x) in coded.bounds.iter().enumerate() {
            lanes[i / LANES].scale[i % LANES] = x.scale as f32;
        }
        let unit_fits = kind == Kind::BFloat16 && width % 32 == 0 && bf16_code() == Bf16Code::Amx;
        let columns = unit_fits.then(|| Bf16Columns::of(&codes)).transpose()?;
        Ok(Queries {
            codes: codes.f_transpose(0, 1)?.f_contiguous()?,
            output_error: match columns {
                Some(_) => 0.0,
                None => space.output_error(),
            },
            columns,
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
        lanes.t[lane] = (t + t.abs() * 4.0 * super::code::ROUNDING) as f32;
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
        let (n, m) = (tile.len() as i64, (self.lanes.len() * LANES) as i64);
        let codes = &tile.coded.codes;
        let kind = match (codes.f_kind()?, &self.columns) {
            (Kind::Int8, _) => Kind::Int,
            (_, Some(_)) => Kind::Float,
            (other, None) => other,
        };
        // One buffer for all products: fresh pages cost more than the arithmetic on them.
        let room = match buffer.take() {
            Some(b) if b.size()[0] >= n && b.size()[1] == m && b.kind() == kind => b,
            _ => Tensor::f_zeros([n, m], (kind, codes.device()))?,
        };
        let out = room.f_narrow(0, 0, n)?;
        *buffer = Some(room);
        if let Some(columns) = &self.columns {
            columns.products(codes, &out)?;
            return self.sift::<f32>(&out, tile);
        }
        match kind {
            Kind::Int => {
                let _ = codes.f_internal_int_mm_out(&out, &self.codes)?;
                self.sift::<i32>(&out, tile)
            }
            Kind::BFloat16 => {
                let _ = codes.f_matmul_out(&out, &self.codes)?;
                self.sift::<f32>(&out.f_to_kind(Kind::Float)?, tile)
            }
            _ => {
                let _ = codes.f_matmul_out(&out, &self.codes)?;
                self.sift::<f32>(&out, tile)
            }
        }
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
                    sift_row(row, lanes, output_error, &rows[at], |query, dot| {
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
fn sift_row<T: Dot>(
    dots: &[T],
    lanes: &[Lanes],
    output_error: f32,
    y: &Reference,
    mut keep: impl FnMut(usize, f32),
) {
    for (block, (dots, x)) in dots.chunks_exact(LANES).zip(lanes).enumerate() {
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
            any |= kept(values[lane], x.t[lane]);
        }
        if any {
            for lane in (0..LANES).filter(|&lane| kept(values[lane], x.t[lane])) {
                keep(block * LANES + lane, dots[lane].value());
            }
        }
    }
}

/// What is not a number rules nothing out.
#[inline]
fn kept(value: f32, t: f32) -> bool {
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
