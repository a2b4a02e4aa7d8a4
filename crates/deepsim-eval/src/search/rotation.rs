//! A rotation that spreads every column over many: signs, then Hadamard butterflies.
//!
//! 8 bits must cover a row's largest value; where a few columns are a hundred times larger than
//! the rest (features after a ReLU), the rest would be lost. Rotated values are sums of many
//! columns with random signs, all about equally large, and a rotation changes no distance.

/// The longest butterfly: spreads a column over this many.
const MOST_STAGES: u32 = 8;
/// Runs of neighbours shorter than this would not fill a register.
const SHORTEST_RUN: usize = 32;

/// Shortest rows that are multiplied.
const SHORTEST_ROW: usize = 16;

/// x ↦ H·S·x (times √2 per stage): S flips signs, H is a Hadamard transform over columns that
/// lie `width / 2^stages` apart, so that every transform takes its columns from the whole row.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    signs: Vec<f32>,
    width: usize,
    stages: u32,
}

impl Rotation {
    /// For rows of `dim` columns; the same signs every time.
    pub(super) fn new(dim: usize) -> Rotation {
        // As many stages as leave runs long enough; a few columns of zeros are allowed for.
        let padded = |stages: u32| dim.next_multiple_of(1 << stages);
        let stages = (0..=MOST_STAGES)
            .rev()
            .find(|&s| padded(s) >> s >= SHORTEST_RUN && padded(s) - dim <= dim / 25)
            .unwrap_or(0);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let signs = (0..dim).map(|_| {
            // xorshift64: any fixed sequence without a pattern will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state >> 63 == 0 { 1.0 } else { -1.0 }
        });
        Rotation {
            signs: signs.collect(),
            // Short rows are filled up: libtorch's 8-bit product is wrong for rows of one.
            width: padded(stages).max(SHORTEST_ROW),
            stages,
        }
    }

    /// Columns after the rotation: `dim`, or a few more.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Signs of the columns before the butterflies.
    pub(super) fn signs(&self) -> &[f32] {
        &self.signs
    }

    /// log₂ of the factor by which squared lengths grow.
    pub(super) fn stages(&self) -> u32 {
        self.stages
    }

    /// The butterflies, in place on `width` values. Every stage is a rotation times √2 whose sums
    /// are each rounded once, so that the error's length is at most (stages + 1)·2⁻²⁴ of the
    /// result's.
    pub(super) fn butterflies(&self, x: &mut [f32]) {
        let mut half = self.width;
        let mut left = self.stages;
        // Two stages at a time halve the traffic.
        while left >= 2 {
            half /= 4;
            for group in x.chunks_exact_mut(half * 4) {
                let (ab, cd) = group.split_at_mut(half * 2);
                let (a, b) = ab.split_at_mut(half);
                let (c, d) = cd.split_at_mut(half);
                for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                    let (s, t, u, v) = (*a + *c, *b + *d, *a - *c, *b - *d);
                    (*a, *b, *c, *d) = (s + t, s - t, u + v, u - v);
                }
            }
            left -= 2;
        }
        if left == 1 {
            half /= 2;
            for group in x.chunks_exact_mut(half * 2) {
                let (a, b) = group.split_at_mut(half);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_grow_by_two_per_stage_and_one_column_is_spread() {
        for dim in [1, 3, 31, 64, 100, 2304, 4096, 6400, 9216, 1000] {
            let rotation = Rotation::new(dim);
            assert!(
                rotation.width() >= dim && rotation.width() <= SHORTEST_ROW.max(dim + dim / 25)
            );
            let mut x = vec![0.0f32; rotation.width()];
            x[dim / 2] = 1.0;
            rotation.butterflies(&mut x);
            let grown = f64::from(1u32 << rotation.stages());
            let length: f64 = x.iter().map(|v| f64::from(v * v)).sum();
            assert_eq!(length, grown, "{dim}");
            assert!(x.iter().all(|v| v.abs() <= 1.0));
        }
        assert_eq!(Rotation::new(9216).stages(), 8);
        assert_eq!(Rotation::new(1).stages(), 0);
    }
}
