//! The distance that decides, and the k smallest of them.

use super::error::{Result, SearchError};

/// Partial sums: enough independent ones to fill the registers.
const LANES: usize = 8;

/// Squared Euclidean distance of two rows of the same length, each difference, square and sum in
/// fp64 and in a fixed order: the same bits on every machine, thread and block size.
///
/// The order is part of the definition: eight partial sums over the columns `i mod 8`, added up
/// pairwise. Where the rows differ in length, the longer one's rest is ignored.
pub fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0f64; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(ys.remainder());
    for (a, b) in xs.zip(ys) {
        for lane in 0..LANES {
            let d = f64::from(a[lane]) - f64::from(b[lane]);
            sums[lane] += d * d;
        }
    }
    for (lane, (&a, &b)) in rest.enumerate() {
        let d = f64::from(a) - f64::from(b);
        sums[lane] += d * d;
    }
    pairwise(sums)
}

fn pairwise(s: [f64; LANES]) -> f64 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// A factor by which [`squared_distance`] may be off what real numbers would give, for rows of
/// any length that fits in memory (10⁶ columns: 10⁶ · 2⁻⁵³ ≈ 10⁻¹⁰).
pub(super) const SLACK: f64 = 1e-9;

/// The k nearest references found so far, nearest first; equal distances by lower index.
#[derive(Clone, Debug, Default)]
pub(super) struct Best {
    found: Vec<(f64, u64)>,
}

impl Best {
    /// Considers one reference.
    pub(super) fn offer(&mut self, k: usize, squared: f64, index: u64) {
        let at = self
            .found
            .partition_point(|&(d, i)| d < squared || (d == squared && i < index));
        // A pair that is measured again (by a wider search) is no further neighbour.
        if at < k && self.found.get(at) != Some(&(squared, index)) {
            self.found.truncate(k - 1);
            self.found.insert(at, (squared, index));
        }
    }

    /// No reference farther than this (squared) can be among the k nearest.
    pub(super) fn reach(&self, k: usize) -> f64 {
        match self.found.get(k.wrapping_sub(1)) {
            Some(&(squared, _)) => squared,
            None => f64::INFINITY,
        }
    }

    pub(super) fn found(&self) -> &[(f64, u64)] {
        &self.found
    }
}

/// Rows `[n,dim]` behind one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    data: &'a [f32],
    dim: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(what: &'static str, data: &'a [f32], dim: usize) -> Result<Rows<'a>> {
        if dim == 0 || !data.len().is_multiple_of(dim) {
            return Err(SearchError::Settings(format!(
                "{what}: {} values are no whole number of rows of {dim}",
                data.len()
            )));
        }
        Ok(Rows { data, dim })
    }

    pub(super) fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.dim..(i + 1) * self.dim]
    }

    /// The rows `from..to`.
    pub(super) fn part(&self, from: usize, to: usize) -> Rows<'a> {
        Rows {
            data: &self.data[from * self.dim..to * self.dim],
            dim: self.dim,
        }
    }

    pub(super) fn data(&self) -> &'a [f32] {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_counted() {
        let x: Vec<f32> = (0..13).map(|i| i as f32).collect();
        let y = vec![0.0f32; 13];
        assert_eq!(squared_distance(&x, &y), 650.0);
        assert_eq!(squared_distance(&x[..3], &y[..3]), 5.0);
        assert_eq!(squared_distance(&[], &[]), 0.0);
    }

    #[test]
    fn ties_keep_the_lower_index_whatever_comes_first() {
        for order in [[0u64, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut best = Best::default();
            for i in order {
                best.offer(2, if i == 3 { 0.5 } else { 1.0 }, i);
            }
            best.offer(2, 0.5, 3);
            assert_eq!(best.found(), [(0.5, 3), (1.0, 0)]);
            assert_eq!(best.reach(2), 1.0);
        }
        assert_eq!(Best::default().reach(1), f64::INFINITY);
    }
}
