//! Which image, which window, mirrored or not: a pure function of (seed, epoch, position).
//!
//! Sample number `i = step · batch + slot` of a run is position `i mod len` of epoch
//! `i div len`; the incomplete batch at the end of an epoch is filled from the next one.
//! Nothing else enters: not the number of threads, not the step at which a run was resumed.
//!
//! * Every epoch is a permutation of the dataset: Fisher–Yates from the last element down,
//!   element `k` swapped with `⌊r·(k+1)/2⁶⁴⌋`, `r` the next 64 bits of ChaCha8 under the key
//!   `blake3::derive_key("deepsim-data v1 permutation", seed ‖ epoch)`.
//! * Every position has its own ChaCha8 under the key
//!   `blake3::derive_key("deepsim-data v1 augment", seed ‖ epoch ‖ position)`, of which four
//!   32-bit words are drawn, always in this order: scale, x, y, mirror. So switching the
//!   mirror off leaves the windows where they were.
//!
//! Integers enter the keys as 64-bit little-endian words. Both generators are specified by
//! this text rather than by a library's `shuffle`, whose results may change with its version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::square::Window;

fn generator(context: &str, words: &[u64]) -> ChaCha8Rng {
    let material: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    ChaCha8Rng::from_seed(blake3::derive_key(context, &material))
}

/// The order of the dataset's images in one epoch: position → index.
#[must_use]
pub fn permutation(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut random = generator("deepsim-data v1 permutation", &[seed, epoch]);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, other as usize);
    }
    order
}

/// Where sample number `step · batch + slot` of a run lies: (epoch, position).
#[must_use]
pub fn place(step: u64, batch: usize, slot: usize, len: usize) -> (u64, usize) {
    let sample = u128::from(step) * batch as u128 + slot as u128;
    let len = len.max(1) as u128;
    ((sample / len) as u64, (sample % len) as usize)
}

/// Chooses the images that stand for a sorted set of `of` images. If `n` is at least `of`, these are all
/// images. Otherwise they are `n` strictly increasing indices, spread evenly: the middle one of each n-th
/// part. (The first images of a sorted set are often all of one class, camera or person.)
#[must_use]
pub fn spread(n: usize, of: usize) -> Vec<usize> {
    let n = n.min(of);
    let (parts, of) = (2 * n as u128, of as u128);
    (0..n as u128)
        .map(|i| ((2 * i + 1) * of / parts.max(1)) as usize)
        .collect()
}

/// The four random words of one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    scale: u32,
    x: u32,
    y: u32,
    mirror: u32,
}

impl Draw {
    pub fn new(seed: u64, epoch: u64, position: usize) -> Self {
        let words = [seed, epoch, position as u64];
        let mut random = generator("deepsim-data v1 augment", &words);
        Self {
            scale: random.next_u32(),
            x: random.next_u32(),
            y: random.next_u32(),
            mirror: random.next_u32(),
        }
    }

    /// Half of all samples.
    pub fn mirrored(self) -> bool {
        self.mirror >> 31 == 1
    }

    /// Side of the window: round(u·stored), u uniform in [low, high] in steps of 2⁻²⁴.
    pub fn side(self, (low, high): (f32, f32), stored: u32) -> u32 {
        let unit = f64::from(self.scale >> 8) / f64::from((1 << 24) - 1);
        let scale = f64::from(low) + unit * (f64::from(high) - f64::from(low));
        scaled_side(scale, stored)
    }

    /// A window of this side, uniform over all places.
    pub fn window(self, side: u32, stored: u32) -> Window {
        let places = u64::from(stored.saturating_sub(side)) + 1;
        let at = |word: u32| ((u64::from(word) * places) >> 32) as u32;
        Window {
            x: at(self.x),
            y: at(self.y),
            width: side,
            height: side,
        }
    }
}

/// round(scale·stored), at least one pixel and at most all.
pub(crate) fn scaled_side(scale: f64, stored: u32) -> u32 {
    ((scale * f64::from(stored)).round() as u32).clamp(1, stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_indices_are_increasing_and_even() {
        for of in [0usize, 1, 2, 3, 7, 38, 100, 999, 50_000] {
            for n in [0usize, 1, 2, 3, 8, 37, 38, 100, 2000, 60_000] {
                let chosen = spread(n, of);
                assert_eq!(chosen.len(), n.min(of), "{n} of {of}");
                assert!(chosen.windows(2).all(|w| w[0] < w[1]), "{n} of {of}");
                assert!(chosen.iter().all(|&i| i < of), "{n} of {of}");
                // No gap is wider than another one by more than an index, and the ends are reached.
                let m = chosen.len().max(1);
                let gaps = chosen.windows(2).map(|w| w[1] - w[0]);
                assert!(
                    gaps.clone().max().unwrap_or(0) <= of.div_ceil(m),
                    "{n} of {of}"
                );
                assert!(gaps.min().unwrap_or(of) >= of / m, "{n} of {of}");
                let half = of.div_ceil(2 * m);
                assert!(chosen.first().is_none_or(|&i| i <= half), "{n} of {of}");
                assert!(
                    chosen.last().is_none_or(|&i| i + 1 + half >= of),
                    "{n} of {of}"
                );
            }
        }
        assert_eq!(spread(5, 5), [0, 1, 2, 3, 4]);
        assert_eq!(spread(2, 10), [2, 7]);
        // A thousand classes of fifty images each: one image of every class.
        let classes: Vec<usize> = spread(1000, 50_000).iter().map(|i| i / 50).collect();
        assert_eq!(classes, (0..1000).collect::<Vec<_>>());
    }
}
